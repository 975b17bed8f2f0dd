"""For tests of event streams: an ASGI app driven in process, and a server on a real socket that plays a script.

`open_stream` is the client of any ASGI app (HTTP spec 2.3 or 2.4), for endless streams too: the `Parser` that clients use reads
what the app sends, and the test gets MessageEvents while the app is still running. `FakeServer` is the server of a client: it
answers consecutive connections from a script, byte for byte, ends each as scripted, and records the requests. It speaks as
little of HTTP/1.1 as a client needs (RFC 9112), one request a connection. Neither needs a test framework: an AssertionError
says what went wrong and shows the bytes sent so far.
"""

import asyncio
import json as jsonlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Literal, Self
from urllib.parse import unquote

from sse.asgi import ASGIApp, Message
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser


class OpenedStream:
    """One request to an ASGI app and what the app has sent so far; made by `open_stream`.

    status, headers: the answer's (names in lower case, the last of several with one name); 0 and empty before it. raw: the
    bytes of the body. complete: the app sent its last body message. Iterate for the events; the iteration ends with the
    body, or with the app.
    """

    def __init__(self, app: ASGIApp, scope: Message, body: bytes, timeout: float) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.raw = b""
        self.complete = False
        self._timeout = timeout
        self._silent_when_gone = scope["asgi"]["spec_version"] < "2.4"
        self._requests: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
        self._gone, self._reading, self._arrived = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._reading.set()
        self._parser, self._events = Parser(), list[MessageEvent]()
        self._task = asyncio.ensure_future(app(scope, self._receive, self._send))
        self._task.add_done_callback(lambda _: self._arrived.set())

    async def next(self, timeout: float | None = None) -> MessageEvent:
        """The next event. AssertionError if none comes within `timeout` seconds, or none can come any more."""
        await self.until(lambda: bool(self._events), "event", timeout)
        return self._events.pop(0)

    async def __aiter__(self) -> AsyncIterator[MessageEvent]:
        while True:
            await self.until(lambda: bool(self._events) or self.complete or self._task.done(), "event or end")
            if not self._events:
                return
            yield self._events.pop(0)

    async def until(self, holds: Callable[[], bool], what: str, timeout: float | None = None) -> None:
        """Wait for what the app sends to make `holds` true. AssertionError if it doesn't in time, or can't any more."""
        seconds = self._timeout if timeout is None else timeout
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not holds() and not self._task.done():
                    self._arrived.clear()
                    await self._arrived.wait()
        if not holds():
            raise AssertionError(f"no {what} within {seconds:g} s; {self._so_far()}")

    def disconnect(self) -> None:
        """The client goes away: `receive` says so, and `send` returns silently (2.3) or raises OSError (2.4)."""
        self._gone.set()
        self._reading.set()

    def stop_reading(self) -> None:
        """From now on `send` waits, as for a client whose window is full; `go_on_reading` or `disconnect` end that."""
        self._reading.clear()

    def go_on_reading(self) -> None:
        self._reading.set()

    async def end(self) -> None:
        """Disconnect and wait for the app: AssertionError if it doesn't end in time; what it raised is raised here."""
        self.disconnect()
        await asyncio.wait({self._task}, timeout=self._timeout)
        if self._task.cancel():
            raise AssertionError(f"the app went on for {self._timeout:g} s after the disconnect; {self._so_far()}")
        with suppress(_ClientGone, asyncio.CancelledError):
            self._task.result()

    def _so_far(self) -> str:
        app = "the app has ended" if self._task.done() else "the app is running"
        return f"{app}; sent so far: status {self.status}, {len(self.raw)} bytes, the last {self.raw[-200:]!r}"

    async def _receive(self) -> Message:
        if self._requests:
            return self._requests.pop()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._reading.wait()
        if self._gone.is_set():
            if self._silent_when_gone:
                return
            raise _ClientGone("the client has disconnected")
        expected = "http.response.body" if self.status else "http.response.start"
        if message["type"] != expected or self.complete:
            raise AssertionError(f"{message['type']} out of turn; {self._so_far()}")
        if not self.status:
            self.status = message["status"]
            self.headers = {name.decode().lower(): value.decode() for name, value in message.get("headers", ())}
        else:
            self.raw += message.get("body", b"")
            self._events += self._parser.feed(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        self._arrived.set()


class _ClientGone(OSError):
    """What `send` raises after a disconnect (HTTP spec 2.4): an app may let it through."""


@asynccontextmanager
async def open_stream(
    app: ASGIApp,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    json: Any = None,
    state: Mapping[str, Any] | None = None,
    spec_version: Literal["2.3", "2.4"] = "2.3",
    wait: bool = True,
    timeout: float = 5.0,
) -> AsyncIterator[OpenedStream]:
    """Send one request to `app` and yield its stream as soon as the answer has started (at once with `wait=False`).

    path: with its query, percent-encoded. json: the body as a value. state: the scope's, as the app's lifespan left it.
    timeout: seconds for each thing waited for. Leaving the block disconnects and waits for the app; what the app raised is
    raised here. AssertionError when something doesn't come.
    """
    content = body if json is None else jsonlib.dumps(json).encode()
    fields = {"host": "testserver"} | ({"content-length": str(len(content))} if content else {})
    fields |= {} if json is None else {"content-type": "application/json"}
    fields |= {name.lower(): value for name, value in (headers or {}).items()}
    raw_path, _, query = path.partition("?")
    scope: Message = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": spec_version},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
        "client": ("127.0.0.1", 50000),
        "server": ("testserver", 80),
        "state": dict(state or {}),
    }
    stream = OpenedStream(app, scope, content, timeout)
    try:
        if wait:
            await stream.until(lambda: stream.status > 0, "answer")
        yield stream
    finally:
        await stream.end()


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """One request as it arrived. headers: names in lower case. left: set when the client has left a `hang`."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    left: asyncio.Event = field(default_factory=asyncio.Event, compare=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one connection is answered.

    body: bytes, or pieces written one after the other; an Event among them is waited for. status: None answers nothing
    at all. headers: added to `Content-Type: text/event-stream`, which they may replace. then: `end` completes the
    body, `cut` closes without completing it, `reset` sends RST, `hang` sends nothing more until the client leaves.
    """

    body: bytes | Sequence[bytes | asyncio.Event] = b""
    status: int | None = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    then: Literal["end", "cut", "reset", "hang"] = "end"


class FakeServer:
    """`async with FakeServer(answer, …) as server:` listens at `server.url`; `server.requests` is what came, in order.

    Instead of an Answer the script may have a function from the request to one. After its end every request is answered
    204, which ends an EventSource.
    """

    def __init__(self, *script: Answer | Callable[[ReceivedRequest], Answer]) -> None:
        self.requests: list[ReceivedRequest] = []
        self.url = ""
        self._script = script
        self._connections: list[asyncio.Future[None]] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = "http://{}:{}/".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.append(asyncio.ensure_future(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read(reader)
            number = len(self.requests)
            self.requests.append(request)
            scripted = self._script[number] if number < len(self._script) else Answer(status=204)
            answer = scripted if isinstance(scripted, Answer) else scripted(request)
            with suppress(ConnectionError):  # a client may leave whenever it likes
                await _write(writer, answer)
                if answer.then == "hang":
                    await reader.read()
                    request.left.set()
            if answer.then == "reset":  # SO_LINGER of no seconds: closing sends RST
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except asyncio.IncompleteReadError:
            pass  # connected and left without a request
        finally:
            writer.close()


async def _read(reader: asyncio.StreamReader) -> ReceivedRequest:
    first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return ReceivedRequest(method, path, headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def _write(writer: asyncio.StreamWriter, answer: Answer) -> None:
    if answer.status is None:
        return
    headers = {"Content-Type": "text/event-stream", "Connection": "close"} | dict(answer.headers)
    if answer.status != 204:  # RFC 9112 6.1: no Transfer-Encoding in a 204
        headers["Transfer-Encoding"] = "chunked"
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    for piece in [answer.body] if isinstance(answer.body, bytes) else answer.body:
        if isinstance(piece, asyncio.Event):
            await piece.wait()
        elif piece:
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
    if answer.then == "end" and answer.status != 204:
        writer.write(b"0\r\n\r\n")
    await writer.drain()

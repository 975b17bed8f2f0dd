"""For tests of event streams: drive an ASGI app in process, and a scriptable server on a real socket.

`open_stream` plays the server to any ASGI app (HTTP spec 2.3 or 2.4), endless streams included: what the app sends goes
through the same `Parser` that clients use, and comes out as MessageEvents while the app is still running. `lifespan`
runs an app's start-up and shutdown around it. `FakeServer` (`sse/fakeserver.py`) plays the server to a client: it
answers consecutive connections from a script and records what was asked. None of them needs a test framework.
"""

import asyncio
import json as jsonlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Literal
from urllib.parse import unquote

from sse.fakeserver import Answer, FakeServer, ReceivedRequest
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser

__all__ = ["Answer", "FakeServer", "OpenedStream", "ReceivedRequest", "lifespan", "open_stream"]

Message = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]


class _ClientGone(OSError):
    """What `send` raises after a disconnect (HTTP spec 2.4): an app may let it through."""


class OpenedStream:
    """One request to an ASGI app and what the app has sent so far; made by `open_stream`.

    raw: the bytes of the body. complete: the app sent its last body message. left_unread: how many messages the app
    sent after the client had disconnected. Iterate for the events; the iteration ends with the body, or with the app.
    """

    def __init__(self, app: App, scope: Message, body: bytes, timeout: float) -> None:
        self.raw = b""
        self.complete = False
        self.left_unread = 0
        self._start: Message | None = None
        self._timeout = timeout
        self._raises_when_gone = scope["asgi"]["spec_version"] >= "2.4"
        self._request: Message | None = {"type": "http.request", "body": body, "more_body": False}
        self._gone = asyncio.Event()
        self._reading = asyncio.Event()
        self._reading.set()
        self._arrived = asyncio.Event()
        self._parser = Parser()
        self._events: list[MessageEvent] = []
        self._task = asyncio.ensure_future(app(scope, self._receive, self._send))
        self._task.add_done_callback(lambda _: self._arrived.set())

    @property
    def status(self) -> int:
        """The answer's status. AssertionError before there is one."""
        return int(self._started()["status"])

    @property
    def headers(self) -> dict[str, str]:
        """The answer's headers, names in lower case; the last of several with one name."""
        return {name.decode().lower(): value.decode() for name, value in self._started().get("headers", ())}

    async def next(self, timeout: float | None = None) -> MessageEvent:
        """The next event. AssertionError that shows what was sent if none comes in time, or none can come any more."""
        await self._until(lambda: bool(self._events), "event", timeout)
        return self._events.pop(0)

    async def __aiter__(self) -> AsyncIterator[MessageEvent]:
        while True:
            await self._until(lambda: bool(self._events) or self.complete or self._task.done(), "event or end", None)
            if not self._events:
                return
            yield self._events.pop(0)

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
        try:
            await asyncio.wait({self._task}, timeout=self._timeout)
        finally:
            ended = self._task.done()
            self._task.cancel()
        if not ended:
            raise AssertionError(f"the app went on for {self._timeout:g} s after the disconnect; {self._so_far()}")
        failure = None if self._task.cancelled() else self._task.exception()
        if failure is not None and not isinstance(failure, _ClientGone):
            raise failure

    async def _until(self, holds: Callable[[], bool], what: str, timeout: float | None) -> None:
        seconds = self._timeout if timeout is None else timeout
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not holds() and not self._task.done():
                    self._arrived.clear()
                    await self._arrived.wait()
        if not holds():
            raise AssertionError(f"no {what} within {seconds:g} s; {self._so_far()}")

    def _started(self) -> Message:
        if self._start is None:
            raise AssertionError(f"no answer yet; {self._so_far()}")
        return self._start

    def _so_far(self) -> str:
        status = f"status {self._start['status']}" if self._start else "no status"
        app = "the app has ended" if self._task.done() else "the app is running"
        return f"{app}; sent so far: {status}, {len(self.raw)} bytes, the last {self.raw[-200:]!r}"

    async def _receive(self) -> Message:
        request, self._request = self._request, None
        if request is not None:
            return request
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        await self._reading.wait()
        if self._gone.is_set():
            self.left_unread += 1
            if self._raises_when_gone:
                raise _ClientGone("the client has disconnected")
            return
        expected = "http.response.start" if self._start is None else "http.response.body"
        if message["type"] != expected or self.complete:
            raise AssertionError(f"{message['type']} out of turn; {self._so_far()}")
        if self._start is None:
            self._start = message
        else:
            self.raw += message.get("body", b"")
            self._events += self._parser.feed(message.get("body", b""))
            self.complete = not message.get("more_body", False)
        self._arrived.set()


@asynccontextmanager
async def open_stream(
    app: App,
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

    path: with its query, percent-encoded. json: the body as a value. state: what `lifespan` yielded. timeout: seconds
    for each thing waited for. Leaving the block disconnects and waits for the app; what the app raised is raised here.
    AssertionError when something doesn't come.
    """
    content = jsonlib.dumps(json).encode() if json is not None else body
    fields = {"host": "testserver", "content-length": str(len(content))} if content else {"host": "testserver"}
    if json is not None:
        fields["content-type"] = "application/json"
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
            await stream._until(lambda: stream._start is not None, "answer", None)
        yield stream
    finally:
        await stream.end()


@asynccontextmanager
async def lifespan(app: App, *, timeout: float = 5.0) -> AsyncIterator[dict[str, Any]]:
    """Run the app's start-up, yield the state it left, and run its shutdown at the end (ASGI lifespan 2.0).

    RuntimeError with what the app said if it fails; TimeoutError if either takes longer than `timeout` seconds.
    """
    state: dict[str, Any] = {}
    asked: asyncio.Queue[Message] = asyncio.Queue()
    said: asyncio.Queue[Message] = asyncio.Queue()

    async def run() -> None:
        scope = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": state}
        await app(scope, asked.get, said.put)

    async def ask(what: str) -> None:
        asked.put_nowait({"type": f"lifespan.{what}"})
        async with asyncio.timeout(timeout):
            answer = await said.get()
        if answer["type"] != f"lifespan.{what}.complete":
            raise RuntimeError(f"{what} failed: {answer.get('message', '')}")

    def ended(task: asyncio.Future[None]) -> None:
        said.put_nowait({"type": "ended", "message": "" if task.cancelled() else repr(task.exception())})

    task = asyncio.ensure_future(run())
    task.add_done_callback(ended)
    try:
        await ask("startup")
        yield state
        await ask("shutdown")
    finally:
        task.cancel()

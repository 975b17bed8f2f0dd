"""A scriptable event stream server on a real loopback socket, for tests of clients.

In: a script, one `Answer` for each consecutive connection, or a function that makes one from what was asked. Out: bytes
exactly as scripted, and a connection that ends as scripted. HTTP/1.1 with chunked bodies, one request a connection
(RFC 9112); as little of it as a client needs.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Literal, Self


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

    After the script's end every request is answered 204, which ends an EventSource.
    """

    def __init__(self, *script: Answer | Callable[[ReceivedRequest], Answer]) -> None:
        self.requests: list[ReceivedRequest] = []
        self.url = ""
        self._script = script
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = await _read_request(reader)
            number = len(self.requests)
            self.requests.append(request)
            scripted = self._script[number] if number < len(self._script) else Answer(status=204)
            answer = scripted if isinstance(scripted, Answer) else scripted(request)
            with suppress(ConnectionError):  # a client may leave whenever it likes
                await _write_answer(writer, answer)
                if answer.then == "hang":
                    await reader.read()
                    request.left.set()
            if answer.then == "reset":  # SO_LINGER of no seconds: closing sends RST
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        except asyncio.IncompleteReadError:
            pass  # connected and left without a request
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return ReceivedRequest(method, path, headers, body)


async def _write_answer(writer: asyncio.StreamWriter, answer: Answer) -> None:
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

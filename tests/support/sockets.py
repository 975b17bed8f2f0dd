"""HTTP/1.1 over a socket, by hand: a client that reads as far as a test wants, and leaves in every way there is.

    async with Client(port) as client:
        answer = await client.get("/stream?count=3")
        first = await answer.read()

Limit: bodies with a Content-Length or chunks, one request at a time; what a test needs of RFC 9112, and not more.
"""

import asyncio
import json
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from sse.wire.event import MessageEvent
from sse.wire.parser import Parser

TIMEOUT = 10.0
"""Seconds that any one read may take."""


class Cut(Exception):
    """The connection ended before the body did."""


class Client:
    """One connection to 127.0.0.1. receive_buffer: bytes the kernel may hold for us, set before connecting."""

    def __init__(self, port: int, *, receive_buffer: int | None = None) -> None:
        self.port = port
        self.socket = socket.socket()
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.setblocking(False)
        self._buffer = b""

    async def __aenter__(self) -> Self:
        try:
            async with asyncio.timeout(TIMEOUT):
                await asyncio.get_running_loop().sock_connect(self.socket, ("127.0.0.1", self.port))
        except OSError:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(TIMEOUT):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def request(self, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> "Answer":
        """Send a request and read the head of its answer."""
        await self.send(encode_request(self.port, method, path, headers, body))
        return await self.answer(method)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> "Answer":
        return await self.request("GET", path, headers)

    async def answer(self, method: str = "GET") -> "Answer":
        head = await self.until(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        return Answer(self, int(first.split(" ")[1]), headers, method)

    async def receive(self, size: int = 65536) -> bytes:
        """Some bytes; none when the server has closed. ConnectionResetError if it reset."""
        if self._buffer:
            data, self._buffer = self._buffer[:size], self._buffer[size:]
            return data
        async with asyncio.timeout(TIMEOUT):
            return await asyncio.get_running_loop().sock_recv(self.socket, size)

    async def until(self, end: bytes) -> bytes:
        """Everything up to and including `end`."""
        while (found := self._buffer.find(end)) < 0:
            async with asyncio.timeout(TIMEOUT):
                data = await asyncio.get_running_loop().sock_recv(self.socket, 65536)
            if not data:
                raise Cut(self._buffer)
            self._buffer += data
        stop = found + len(end)
        data, self._buffer = self._buffer[:stop], self._buffer[stop:]
        return data

    async def closed(self) -> None:
        """Wait until the server has closed or reset; whatever it still sends is thrown away."""
        try:
            while await self.receive():
                pass
        except ConnectionResetError:
            pass

    def half_close(self) -> None:
        """Say that nothing more will be sent, and go on reading."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with RST: SO_LINGER of no seconds."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


@dataclass(slots=True)
class Answer:
    """An answer whose body is read bit by bit. done: its end was read, as HTTP marks it."""

    client: Client
    status: int
    headers: Mapping[str, str]
    method: str = "GET"
    done: bool = False
    parser: Parser = field(default_factory=Parser)
    _events: list[MessageEvent] = field(default_factory=list)

    async def read(self) -> bytes:
        """The next piece of the body, none at its end. Cut if the connection ended before that."""
        if self.done or self.method == "HEAD" or self.status == 204:
            self.done = True
        elif self.headers.get("transfer-encoding") == "chunked":
            size = int((await self.client.until(b"\r\n")).partition(b";")[0], 16)
            piece = await self._exactly(size)
            await self._exactly(2)
            self.done = size == 0
            return piece
        else:
            self.done = True
            return await self._exactly(int(self.headers["content-length"]))
        return b""

    async def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = await self.client.receive(size - len(data))
            if not piece:
                raise Cut(data)
            data += piece
        return data

    async def whole(self) -> bytes:
        """The rest of the body."""
        body = b""
        while not self.done:
            body += await self.read()
        return body

    async def json(self) -> Any:
        return json.loads(await self.whole())

    async def event(self) -> MessageEvent:
        """The next event. Cut if the body ends before it."""
        while not self._events:
            piece = await self.read()
            if self.done:
                raise Cut("the body ended")
            self._events = self.parser.feed(piece)
        return self._events.pop(0)

    async def events(self) -> list[MessageEvent]:
        """All events from here to the end of the body."""
        events, self._events = self._events, []
        while not self.done:
            events += self.parser.feed(await self.read())
        return events


def encode_request(port: int, method: str, path: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    fields = {"Host": f"127.0.0.1:{port}", **({"Content-Length": str(len(body))} if body else {}), **(headers or {})}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def fetch(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b""
) -> tuple[int, bytes]:
    """One request on a connection of its own: the status and the whole body."""
    async with Client(port) as client:
        answer = await client.request(method, path, headers, body)
        return answer.status, await answer.whole()


async def get_json(port: int, path: str, headers: Mapping[str, str] | None = None) -> Any:
    """A JSON document, on a connection of its own."""
    status, body = await fetch(port, path, headers=headers)
    assert status == 200, body
    return json.loads(body)


def read_and_reset(port: int, path: str, headers: Mapping[str, str], size: int) -> bytes:
    """The first `size` bytes of a chunked body, then RST. Blocking, and several times as fast as a Client."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.sendall(encode_request(port, "GET", path, headers))
        received, body = b"", b""
        while len(body) < size:
            received += connection.recv(65536)
            body = b"".join(_chunks(received.partition(b"\r\n\r\n")[2]))
        return body[:size]


def _chunks(data: bytes) -> Iterator[bytes]:
    """The contents of a chunked body (RFC 9112, 7.1), as far as it is there."""
    while data:
        line, found, data = data.partition(b"\r\n")
        if not found:
            return
        size = int(line, 16)
        yield data[:size]
        data = data[size + 2 :]


def resident(pid: int) -> int:
    """Bytes of memory that a process occupies."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def complaints(log: Sequence[str]) -> list[str]:
    """The lines of a server's log that are not information, whether it is written for people or as JSON."""
    return [line for line in log if not re.match(r'INFO|DEBUG|.*"level":"(info|debug)"', line)]

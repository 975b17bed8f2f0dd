"""An HTTP proxy on a real socket. It passes on what comes, in both directions, and the end of a connection as it is.

async with proxy() as url:      # for HTTP_PROXY
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast


class Half(asyncio.Protocol):
    """One side of a connection through the proxy."""

    def __init__(self, other: "Half | None" = None) -> None:
        self.other = other
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self.other is not None
        self.other.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.other is not None:
            self.other.transport.abort() if exc else self.other.transport.close()


class Client(Half):
    """The client's side: its first line says where the other one is (RFC 9112, 3.2.2)."""

    def __init__(self) -> None:
        super().__init__()
        self._before = bytearray()
        self._connecting: asyncio.Task[None] | None = None

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            self.other.transport.write(data)
            return
        self._before += data
        if self._connecting is None and b"\r\n" in self._before:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    async def _connect(self) -> None:
        target = re.match(rb"[A-Z]+ http://([^/: ]+):(\d+)", self._before)
        assert target is not None, bytes(self._before[:100])
        try:
            _, self.other = await asyncio.get_running_loop().create_connection(
                lambda: Half(self), target[1].decode(), int(target[2])
            )
        except OSError:
            self.transport.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
            return
        if self.transport.is_closing():
            self.other.transport.abort()
        else:
            self.other.transport.write(bytes(self._before))


@dataclass
class Proxy:
    """connections: from clients, all that have come."""

    url: str = ""
    connections: list[Client] = field(default_factory=list)


@asynccontextmanager
async def proxy() -> AsyncIterator[Proxy]:
    it = Proxy()

    def client() -> Client:
        it.connections.append(Client())
        return it.connections[-1]

    server = await asyncio.get_running_loop().create_server(client, "127.0.0.1", 0)
    it.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield it
    finally:
        server.close()
        for one in it.connections:
            one.transport.abort()

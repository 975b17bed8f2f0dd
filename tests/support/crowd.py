"""Thousands of watchers in one process: each a connection that keeps only how its answer began and how it ended."""

import asyncio
from typing import Self

from tests.support.sockets import encode_request

END = b"0\r\n\r\n"


class Watcher(asyncio.Protocol):
    """One GET of an event stream. received: bytes; tail: the last of them. began, ended: done then."""

    def __init__(self, port: int, path: str, headers: dict[str, str] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.received = 0
        self.tail = b""
        self.status = b""
        self.began: asyncio.Future[None] = loop.create_future()
        self.ended: asyncio.Future[None] = loop.create_future()
        self.path = path
        self._port = port
        self._request = encode_request(port, "GET", path, headers)

    async def open(self) -> Self:
        """Connect, and wait for the first bytes."""
        await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._port)
        async with asyncio.timeout(30):
            await self.began
        return self

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.status:
            self.status = data[9:12]
        self.received += len(data)
        self.tail = (self.tail + data)[-200:]
        if not self.began.done():
            self.began.set_result(None)
        if self.complete and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        for future in (self.began, self.ended):
            if not future.done():
                future.set_result(None)

    @property
    def complete(self) -> bool:
        """Whether the answer came to its end, as HTTP marks it."""
        return self.tail.endswith(END)

    def leave(self) -> None:
        self.transport.abort()

"""A proxy that cuts: what a flaky network does to an event stream, as often as a test wants."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def cutting(port: int, after: int) -> AsyncIterator[str]:
    """The URL of a proxy before 127.0.0.1:`port`, one request a connection, that resets it after `after` bytes of a body."""
    connections: set[asyncio.Task[None]] = set()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer, request = await asyncio.open_connection("127.0.0.1", port)
        try:
            request.write(await reader.read(65536))  # a request of a test arrives whole
            writer.write(await answer.readuntil(b"\r\n\r\n"))
            left = after
            while left and (chunk := await answer.read(left)):
                writer.write(chunk)
                left -= len(chunk)
        finally:
            writer.close()
            request.close()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.ensure_future(forward(reader, writer))
        connections.add(connection)
        connection.add_done_callback(connections.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

"""A real Redis on a port of its own, that a test may stop, freeze, kill and start again; and an address in front of several.

async with redis_server(tmp_path) as server: ...      server.url for SIDESTREAM_STORE
async with address(server) as front: ...              front.url; front.to = another
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from redis.asyncio import Redis as Client

from tests.support.nginx import free_ports
from tests.support.require import require


@dataclass(slots=True)
class RedisServer:
    """options: those of `redis-server`, without their dashes."""

    directory: Path
    port: int
    options: dict[str, str] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        client = Client.from_url(self.url)
        try:
            yield client
        finally:
            await client.aclose()

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        options = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.directory), "save": "", **self.options}
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        null = asyncio.subprocess.DEVNULL
        self.process = await asyncio.create_subprocess_exec(require("redis-server"), *arguments, stdout=null, stderr=null)
        async with asyncio.timeout(10), self.client() as client:
            while True:
                try:
                    await client.ping()
                    return
                except OSError:
                    pass
                except Exception as error:  # redis-py's own, while it starts and loads what it had kept
                    if "connect" not in str(error).lower() and "loading" not in str(error).lower():
                        raise
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """As kill -9 does."""
        assert self.process is not None
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    def freeze(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)


@dataclass(slots=True)
class Address:
    """What leads to one Redis of several. to: which new connections get. delay: seconds that bytes take, either way.

    forgotten: how many connections, the first ones, carry nothing any more, and aren't closed either.
    """

    port: int
    to: RedisServer
    delay: float = 0.0
    forgotten: int = 0
    carried: int = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until either side closes it."""
        try:
            there, here = await asyncio.open_connection("127.0.0.1", self.to.port)
        except OSError:
            writer.close()
            return
        number, self.carried = self.carried, self.carried + 1
        pumps = [asyncio.create_task(self._pump(number, *pair)) for pair in ((reader, here), (there, writer))]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            for each in (here, writer):
                each.close()

    def forget(self) -> None:
        """Forget all connections, as a firewall does that is started again."""
        self.forgotten = self.carried

    async def _pump(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if number < self.forgotten:
                    continue
                if self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def address(to: RedisServer) -> AsyncIterator[Address]:
    """An address that leads to this one, for now."""
    front = Address(free_ports(1)[0], to)
    connections: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(task := asyncio.ensure_future(front.carry(reader, writer)))
        task.add_done_callback(connections.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", front.port)
    try:
        yield front
    finally:
        server.close()
        for task in [*connections]:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@asynccontextmanager
async def redis_server(directory: Path, **options: str) -> AsyncIterator[RedisServer]:
    """Start one, and end it at the end. options: with underscores for dashes."""
    named = {name.replace("_", "-"): value for name, value in options.items()}
    server = RedisServer(directory, free_ports(1)[0], named)
    await server.start()
    try:
        yield server
    finally:
        if server.process is not None and server.process.returncode is None:
            server.thaw()
            await server.kill()

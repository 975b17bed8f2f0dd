"""A real Redis on a port of its own, that a test may stop, freeze, kill and start again.

async with redis_server(tmp_path) as server: ...      server.url for SIDESTREAM_STORE
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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

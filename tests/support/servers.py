"""Real servers for tests: the sidecar as its own process, and any ASGI app under uvicorn in this one.

async with sidecar(SIDESTREAM_LINGER="0") as server: ...     `python app.py` on a free port
async with serving(app) as port: ...                         uvicorn here
"""

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

ROOT = Path(__file__).parents[2]
START = 20.0
"""Seconds that a process may take to serve."""


@dataclass(slots=True)
class Server:
    """A process that serves. stderr: its lines so far."""

    process: asyncio.subprocess.Process
    port: int
    stderr: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self.process.pid

    async def says(self, words: str, *, times: int = 1, timeout: float = 30.0) -> None:
        """Wait for so many lines of its log that have these words."""
        async with asyncio.timeout(timeout):
            while sum(words in line for line in self.stderr) < times:
                await asyncio.sleep(0.01)

    async def stop(self, *, timeout: float = 30.0) -> int:
        """SIGTERM, and wait; its exit status."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(timeout):
            return await self.process.wait()


@asynccontextmanager
async def sidecar(*, command: Sequence[str] = (sys.executable, "app.py"), **env: str) -> AsyncIterator[Server]:
    """Start `python app.py`, wait until it says where it serves, and stop it at the end. env: beside this process's own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SIDESTREAM_", "OPENAI_"))}
    environ |= {"SIDESTREAM_PORT": "0", "SIDESTREAM_DRAIN": "0", **env}
    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, env=environ, stderr=asyncio.subprocess.PIPE)
    server = Server(process, 0)
    serving = asyncio.get_running_loop().create_future()
    reading = asyncio.create_task(_read(server, serving))
    try:
        async with asyncio.timeout(START):
            server.port = await serving
        yield server
    finally:
        try:
            await server.stop()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise AssertionError(f"the server did not stop: {server.stderr[-8:]}") from None
        finally:
            await reading


async def _read(server: Server, serving: "asyncio.Future[int]") -> None:
    assert server.process.stderr is not None
    async for raw in server.process.stderr:
        line = raw.decode(errors="replace").rstrip()
        server.stderr.append(line)
        if not serving.done() and (match := re.search(r"http://[0-9.]+:(\d+)", line)):
            serving.set_result(int(match[1]))
    if not serving.done():
        serving.set_exception(AssertionError(f"the server ended instead of serving: {server.stderr}"))


@asynccontextmanager
async def serving(app: Any, *, log_level: str = "error") -> AsyncIterator[int]:
    """Serve an ASGI app on a free port of 127.0.0.1, in this process and loop; the port.

    uvicorn's parts do it, not its `serve`, which takes the process's signals over, looks ten times a second whether it should
    end, and waits another tenth of a second then.
    """
    config = uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_level=log_level)
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    await server.on_tick(0)  # the Date of its answers
    state = server.server_state
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        for listening in server.servers:
            listening.close()
        for connection in list(state.connections):
            assert connection.transport is not None
            connection.transport.abort()
        while state.tasks:  # their clients are gone, which they notice
            await asyncio.wait(tuple(state.tasks))

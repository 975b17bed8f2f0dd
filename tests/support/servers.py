"""Real servers for tests: the sidecar as its own process, and any ASGI app under uvicorn in this one.

async with sidecar(SIDESTREAM_LINGER="0") as server: ...     `python app.py` on a free port
async with serving(app) as port: ...                         uvicorn in a task
"""

import asyncio
import os
import re
import signal
import socket
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
            raise AssertionError(f"the server did not stop: {server.stderr}") from None
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
async def serving(app: Any, **config: Any) -> AsyncIterator[int]:
    """Serve an ASGI app on a real socket of this process; the port."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", **config))
    task = asyncio.create_task(server._serve([sock]))  # serve() would take the process's signals
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        sock.close()

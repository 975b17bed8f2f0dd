"""A real Chromium without a window, on one page of ours that tells us what it sees.

async with page() as server, server.opened(tmp_path, script):
    seen = await server.told()      what the script handed to tell()

The page's server is an application in other ways too: `/auth` says 204 to everything.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.asgi import read_body
from tests.support.require import require
from tests.support.servers import serving

HEAD = """<!doctype html><meta charset="utf-8"><script type="module">
const tell = (value) => fetch("/told", {method: "POST", body: JSON.stringify(value)});
"""
FLAGS = (
    "--headless",
    "--no-sandbox",  # the tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Nothing is asked of other hosts
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--ignore-certificate-errors",  # they are self-signed
)


@dataclass(slots=True)
class Page:
    """port: of 127.0.0.1, where the page comes from: its origin."""

    port: int = 0
    _told: "asyncio.Queue[Any]" = field(default_factory=asyncio.Queue)
    _script: str = ""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def told(self) -> Any:
        async with asyncio.timeout(30):
            return await self._told.get()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        status, body = 204, b""
        if scope["path"] == "/":
            status, body = 200, f"{HEAD}{self._script}</script>".encode()
        elif scope["path"] == "/told":
            self._told.put_nowait(json.loads(await read_body(receive)))
        headers = [(b"content-type", b"text/html")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    @asynccontextmanager
    async def opened(self, profile: Path, script: str, *flags: str) -> AsyncIterator[None]:
        """A browser that runs the script on the page."""
        self._script = script
        null = asyncio.subprocess.DEVNULL
        command = (require("chromium"), *FLAGS, *flags, f"--user-data-dir={profile}", self.origin)
        process = await asyncio.create_subprocess_exec(*command, stdout=null, stderr=null)
        try:
            yield
        finally:
            if process.returncode is None:
                process.terminate()
            await process.wait()


@asynccontextmanager
async def page() -> AsyncIterator[Page]:
    """The page's server, without a browser yet."""
    require("chromium")
    server = Page()
    async with serving(server) as server.port:
        yield server

"""A page of examples/, bundled, behind the shipped nginx with the application's check, the sidecar, and a scripted upstream.

async with frontend(tmp_path, folder, "use-chat/page.jsx", scripts) as site, tabs() as context:
    page = await site.open(context)
"""

import asyncio
import mimetypes
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from playwright.async_api import BrowserContext, Page, async_playwright

from tests.support.chromium import FLAGS
from tests.support.nginx import CONFIGURATION, Nginx, free_ports, nginx, work_switched_on
from tests.support.npm import bundled
from tests.support.require import require
from tests.support.servers import ROOT, Server, serving, sidecar
from tests.support.upstream import Script, Upstream, serve

TOKEN = "change-me"
"""The one in nginx.conf."""


class Application:
    """The application: its pages under /app/, and its check, which lets in whoever has the cookie `user`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        cookies = dict(pair.split("=", 1) for name, value in scope["headers"] if name == b"cookie" for pair in [value.decode()])
        status, headers, body = 404, [], b""
        if scope["path"] == "/auth":
            status = 204 if "user" in cookies else 401
            headers = [(b"x-user", cookies.get("user", "").encode())]
        elif (file := self._folder / scope["path"].removeprefix("/app/")).is_file():
            status, body = 200, file.read_bytes()
            headers = [(b"content-type", (mimetypes.guess_type(file.name)[0] or "text/plain").encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


class Wire:
    """A TCP relay in front of a port, which can be cut: what is open breaks, and nothing is accepted until it is mended."""

    def __init__(self) -> None:
        [self.port] = free_ports(1)
        self._to = 0
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.StreamWriter] = set()

    async def mend(self, to: int = 0) -> None:
        """to: the port behind it; as before unless given."""
        self._to = to or self._to
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._to)
        self._open |= {writer, back}
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        finally:
            self._open -= {writer, back}
            writer.close()
            back.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.transport.abort()


@dataclass(slots=True)
class Site:
    """All of it. url: of the page, as the browser sees it."""

    server: Server
    upstream: Upstream
    proxy: Nginx
    wire: Wire
    url: str

    async def open(self, context: BrowserContext, query: str = "") -> Page:
        page = await context.new_page()
        await page.goto(self.url + query)
        return page


@asynccontextmanager
async def frontend(directory: Path, packages: Path, entry: str, *scripts: Script, **settings: str) -> AsyncIterator[Site]:
    """directory: a temporary one. packages: what `npm.installed` has returned. entry: the page's module, in examples/."""
    built, configuration = directory / "built", work_switched_on(CONFIGURATION.read_text())
    await bundled(packages, ROOT / "examples" / entry, built / "page.js")
    (built / "index.html").write_bytes((ROOT / "examples" / entry).with_name("index.html").read_bytes())
    (directory / "nginx").mkdir()
    wire = Wire()
    origin = f"https://127.0.0.1:{wire.port}"
    environment = {
        "SIDESTREAM_TOKEN": TOKEN,
        "SIDESTREAM_ORIGINS": origin,  # nginx passes Host on without the port
        "SIDESTREAM_MODEL": "test",
        "OPENAI_API_KEY": "k",
    }
    async with (
        serve(*scripts) as upstream,
        serving(Application(built)) as application,
        sidecar(OPENAI_BASE_URL=upstream.url, **environment, **settings) as server,
        nginx(directory / "nginx", sidecar=server.port, application=application, configuration=configuration) as proxy,
    ):
        await wire.mend(proxy.https)
        try:
            yield Site(server, upstream, proxy, wire, f"{origin}/app/index.html")
        finally:
            await wire.cut()


@asynccontextmanager
async def tabs(user: str = "ann") -> AsyncIterator[BrowserContext]:
    """A browser whose tabs share cookies and storage."""
    path = require("chromium")
    async with async_playwright() as playwright:
        flags = [flag for flag in FLAGS if flag != "--headless"]
        chromium = await playwright.chromium.launch(executable_path=path, args=flags)
        try:
            context = await chromium.new_context(ignore_https_errors=True)
            await context.add_cookies([{"name": "user", "value": user, "url": "https://127.0.0.1"}])
            yield context
        finally:
            await chromium.close()

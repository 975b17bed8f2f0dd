"""The application example: its backend, its page in a real browser, the sidecar, and an upstream that says when it is left."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.chat import KEY
from tests.support.chromium import FLAGS
from tests.support.require import require
from tests.support.servers import ROOT, Server, sidecar
from tests.support.sockets import get_json
from tests.support.upstream import DONE, HANG, Step, Upstream, chunk, finish, reply, serve

pytestmark = pytest.mark.e2e

SHOWS = """new Promise((resolve) => {
  const shown = () => document.querySelector("#answer").textContent + "|" + document.querySelector("#state").textContent
  const look = () => shown() === %s && resolve(shown())
  new MutationObserver(look).observe(document.body, {subtree: true, childList: true, characterData: true})
  look()
})"""


@dataclass
class Browser:
    """A Chromium with one page, over the DevTools protocol: JSON objects, each ended by a NUL, on two pipes."""

    reader: asyncio.StreamReader
    writer: int
    session: str = ""
    _number: int = 0

    async def call(self, method: str, **params: Any) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writer, json.dumps(message).encode() + b"\0")
        async with asyncio.timeout(30):
            while True:
                answer = json.loads((await self.reader.readuntil(b"\0"))[:-1])
                if answer.get("id") == self._number:
                    assert "error" not in answer, answer
                    return answer["result"]

    async def run(self, script: str) -> Any:
        """The value of an expression on the page, awaited if it is a promise."""
        answer = await self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def shows(self, answer: str, state: str) -> None:
        """Wait until the page shows this answer, in this state."""
        await self.run(SHOWS % json.dumps(f"{answer}|{state}"))


@asynccontextmanager
async def browsing(profile: Path, url: str) -> AsyncIterator[Browser]:
    chromium = require("chromium")
    (commands, to_browser), (from_browser, answers) = os.pipe(), os.pipe()
    process = await asyncio.create_subprocess_exec(
        *(require("bash"), "-c", f'exec "$0" "$@" 3<&{commands} 4>&{answers}', chromium, *FLAGS),
        *("--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"),
        pass_fds=(commands, answers),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(commands)
    os.close(answers)
    reader = asyncio.StreamReader(limit=1 << 24)
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(from_browser, "rb"))
    try:
        browser = Browser(reader, to_browser)
        target = (await browser.call("Target.createTarget", url="about:blank"))["targetId"]
        browser.session = (await browser.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        await browser.call("Page.enable")
        await browser.call("Page.navigate", url=url)
        await browser.run("new Promise((done) => document.readyState === 'complete' ? done() : addEventListener('load', done))")
        yield browser
    finally:
        process.terminate()
        await process.wait()
        transport.close()
        os.close(to_browser)


@dataclass
class Example:
    url: str
    sidecar: Server
    upstream: Upstream

    async def reason(self) -> str:
        """Why the newest stream ended."""
        streams = await get_json(self.sidecar.port, "/streams")
        return str(streams["streams"][0]["reason"])


@asynccontextmanager
async def example(*steps: Step) -> AsyncIterator[Example]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    origin = f"http://127.0.0.1:{port}"
    async with serve(reply(*steps)) as upstream:
        env = {"OPENAI_BASE_URL": upstream.url, "OPENAI_API_KEY": KEY, "SIDESTREAM_MODEL": "test", "SIDESTREAM_ORIGINS": origin}
        async with sidecar(**env) as server:
            backend = await asyncio.create_subprocess_exec(
                *(sys.executable, "examples/backend.py"),
                cwd=ROOT,
                env={**os.environ, "SIDECAR": server.url, "PORT": str(port)},
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
            )
            try:
                assert backend.stdout is not None
                assert (await backend.stdout.readline()).decode().strip() == origin
                yield Example(origin, server, upstream)
            finally:
                backend.terminate()
                await backend.wait()


ASK = "document.querySelector('form').requestSubmit()"


async def test_the_page_asks_and_shows_the_answer(tmp_path: Path) -> None:
    async with example(chunk("Grüße, "), chunk("世界"), finish(), DONE) as app, browsing(tmp_path, app.url) as browser:
        await browser.shows("", "idle")
        await browser.run(ASK)
        await browser.shows("Grüße, 世界", "done")
        assert [request.body["messages"][-1]["content"] for request in app.upstream.requests] == ["Tell me about event streams"]
        await browser.run(ASK)
        await browser.shows("Grüße, 世界", "done")
        assert len(app.upstream.requests) == 2


async def test_the_stop_button_stops_the_upstream(tmp_path: Path) -> None:
    async with example(chunk("Hel"), HANG) as app, browsing(tmp_path, app.url) as browser:
        await browser.run(ASK)
        await browser.shows("Hel", "open")
        await browser.run("document.querySelector('#stop').click()")
        await browser.shows("Hel", "stopped")
        await app.upstream.wait_for(running=0)
        assert await app.reason() == "deleted"


async def test_a_page_that_is_left_stops_the_upstream(tmp_path: Path) -> None:
    async with example(chunk("Hel"), HANG) as app, browsing(tmp_path, app.url) as browser:
        await browser.run(ASK)
        await browser.shows("Hel", "open")
        await browser.call("Page.navigate", url="about:blank")
        await app.upstream.wait_for(running=0)
        assert await app.reason() == "deleted"


async def test_the_page_says_that_the_answer_failed(tmp_path: Path) -> None:
    async with example(chunk("Hel")) as app, browsing(tmp_path, app.url) as browser:
        await browser.run(ASK)
        await browser.shows("Hel", "failed: the upstream's answer ended before it was complete")

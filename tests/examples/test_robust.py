"""examples/robust.js: one connection for all tabs, in a real Chromium. Its `fetch` is tested by the chats that use it."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.frontend import Application, tabs
from tests.support.servers import ROOT, Server, serving, sidecar
from tests.support.sockets import fetch

pytestmark = pytest.mark.e2e

SHARE = """async (url) => {
  window.heard = []
  const { shared } = await import("/app/robust.js")
  shared(url, ({ type, data, id }) => heard.push(type + " " + data), ["message", "end"])
}"""


async def publish(server: Server, path: str, data: str) -> None:
    headers = {"Content-Type": "application/json"}
    status, _ = await fetch(
        server.port, f"{path}/events", method="POST", headers=headers, body=json.dumps({"data": data}).encode()
    )
    assert status == 200


async def watchers(server: Server, path: str, count: int) -> None:
    """Wait until so many connections watch: the sidecar tells it nowhere but in the stream's state."""
    async with asyncio.timeout(15):
        while True:
            _, body = await fetch(server.port, path, headers={"Accept": "application/json"})
            if len(json.loads(body)["watchers"]) == count:
                return
            await asyncio.sleep(0.02)


async def hears(page: Any, *events: str) -> None:
    await page.wait_for_function("(events) => JSON.stringify(heard) === JSON.stringify(events)", arg=[*events], timeout=15_000)


async def test_all_tabs_hear_over_one_connection_and_the_next_one_takes_over(tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<!doctype html><title>.</title>")
    (tmp_path / "robust.js").write_text((ROOT / "examples" / "robust.js").read_text())
    async with (
        serving(Application(tmp_path)) as port,
        sidecar(SIDESTREAM_ORIGINS=f"http://127.0.0.1:{port}") as server,
        tabs() as context,
    ):
        _, body = await fetch(server.port, "/streams", method="POST")
        path = json.loads(body)["url"]
        pages = [await context.new_page() for _ in range(3)]
        for page in pages:
            await page.goto(f"http://127.0.0.1:{port}/app/index.html")
            await page.evaluate(SHARE, server.url + path)
            await watchers(server, path, 1)
        await publish(server, path, "one")
        for page in pages:
            await hears(page, "message one")
        await pages[0].close()
        await watchers(server, path, 1)
        await publish(server, path, "two")
        for page in pages[1:]:
            await hears(page, "message one", "message two")
        await fetch(server.port, f"{path}/close", method="POST")
        for page in pages[1:]:
            await hears(page, "message one", "message two", "end {}")

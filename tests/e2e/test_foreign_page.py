"""What a page elsewhere gets a real browser to ask, by plain HTTP, of a sidecar that needs no token: it starts no work."""

import asyncio
import json
from pathlib import Path

import pytest

from tests.support.chromium import page
from tests.support.servers import Server, sidecar

pytestmark = pytest.mark.e2e

NAME = "sidecar.test"
"""No name of this machine, so that the browser says no Sec-Fetch-Site to it."""

ASKING = """
const image = (url, policy) => { const it = new Image(); it.referrerPolicy = policy; it.src = url; };
const frame = (url, policy) => {
    const it = document.createElement("iframe"); it.referrerPolicy = policy; it.src = url; document.body.append(it);
};
const bare = (url, policy) => fetch(url, {mode: "no-cors", referrerPolicy: policy, headers: {accept: "text/event-stream"}});
const url = "http://%(name)s:%(port)d/stream?count=3&interval=0&ask=";
for (const ask of [image, frame, bare])
    for (const policy of ["", "no-referrer"])
        ask(url + ask.name + policy, policy);
new EventSource(url);
"""


def asked(server: Server) -> list[int]:
    """The statuses of all requests for a stream so far."""
    lines = [json.loads(line) for line in server.stderr if line.startswith("{")]
    return [line["status"] for line in lines if line["message"] == "GET /stream"]


async def test_a_page_elsewhere_starts_no_work(tmp_path: Path) -> None:
    async with sidecar(SIDESTREAM_TOKEN="off") as server, page() as elsewhere:
        script = ASKING % {"name": NAME, "port": server.port}
        async with elsewhere.opened(tmp_path, script, f"--host-resolver-rules=MAP {NAME} 127.0.0.1"), asyncio.timeout(30):
            while len(asked(server)) < 7:
                await asyncio.sleep(0.05)
        assert asked(server) == [403] * 7

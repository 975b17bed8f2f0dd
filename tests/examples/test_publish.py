"""The example in Node: an application publishes its progress, and a client whose connection is cut sees all of it."""

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from sse.client import EventSource
from sse.wire.event import MessageEvent
from tests.support.cutting import cutting
from tests.support.require import require
from tests.support.servers import ROOT, sidecar
from tests.support.sockets import fetch

pytestmark = pytest.mark.e2e

EXAMPLE = ROOT / "examples" / "publish.mjs"


@asynccontextmanager
async def application(url: str, steps: int, interval: int) -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """The running example, and the path of the stream that it opened."""
    env = {**os.environ, "SIDECAR": url, "STEPS": str(steps), "INTERVAL": str(interval)}
    process = await asyncio.create_subprocess_exec(require("node"), str(EXAMPLE), env=env, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        async with asyncio.timeout(10):
            printed = (await process.stdout.readline()).decode().strip()
        assert printed.startswith(url)
        yield process, printed.removeprefix(url)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ended(process: asyncio.subprocess.Process) -> tuple[str, int]:
    """What it said last, and its exit status."""
    assert process.stdout is not None
    async with asyncio.timeout(10):
        said = (await process.stdout.read()).decode().strip()
        return said, await process.wait()


async def test_a_client_resumes_the_application_s_progress() -> None:
    steps, opened = 40, 0

    async def no_pause(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    def count(state: object, why: str) -> None:
        nonlocal opened
        opened += why == "open"

    async with sidecar() as server, application(server.url, steps, 10) as (process, path), cutting(server.port, 500) as proxy:
        options = {"sleep": no_pause, "headers": {"Connection": "close"}}
        async with asyncio.timeout(20), EventSource(proxy + path, on_change=count, **options) as source:  # type: ignore[arg-type]
            events: list[MessageEvent] = [event async for event in source]
        assert await ended(process) == ("closed", 0)
    assert [(event.type, json.loads(event.data)) for event in events[:-1]] == [
        ("progress", {"step": step, "of": steps}) for step in range(1, steps + 1)
    ]
    assert [event.last_event_id.rpartition(".")[2] for event in events] == [*map(str, range(1, steps + 1)), "end"]
    assert (events[-1].type, opened > 3) == ("end", True)


async def test_the_application_stops_when_its_stream_is_deleted() -> None:
    async with sidecar() as server, application(server.url, 1000, 10) as (process, path):
        assert (await fetch(server.port, path, method="DELETE"))[0] == 204
        assert await ended(process) == ("stopped", 0)


def test_it_is_short() -> None:
    lines = [line for line in EXAMPLE.read_text().splitlines() if not re.match(r"\s*(//|$)", line)]
    assert len(lines) <= 20

"""Thousands of watchers on hundreds of streams while clients come and go, and SIGTERM in the middle of it.

SIDESTREAM_LOAD_SECONDS says for how long, 10 unless set.
"""

import asyncio
import os
import random
import re
import resource
import signal
import time

import pytest

from tests.support.app import NUMBERS
from tests.support.crowd import Watcher
from tests.support.require import missing
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, fetch, get_json

pytestmark = pytest.mark.e2e

STREAMS = 200
WATCHERS = 5000
SECONDS = float(os.environ.get("SIDESTREAM_LOAD_SECONDS", "10"))
DRAIN = 3.0
FLUSH = 2.0
"""Seconds that the server gives watchers to take the end."""


async def open_streams(process: Server) -> list[str]:
    """Start streams of one event a second; their URLs."""
    urls = []
    for number in range(STREAMS):
        path = f"/numbers?count=100000&interval=1&linger=3600&run={number}"
        async with Client(process.port) as client:
            answer = await client.request("GET", path, {"Accept": "application/json"})
            urls.append((await answer.json())["url"])
    return urls


async def arrive(process: Server, urls: list[str], count: int) -> list[Watcher]:
    """New watchers, spread over all streams, a hundred at a time."""
    watchers: list[Watcher] = []
    while len(watchers) < count:
        batch = [Watcher(process.port, urls[(len(watchers) + number) % len(urls)]) for number in range(min(100, count))]
        watchers += await asyncio.gather(*(watcher.open() for watcher in batch))
    return watchers


async def come_and_go(process: Server, urls: list[str], watchers: list[Watcher], until: float) -> int:
    """Some leave without a word, as many arrive; how many did."""
    rng = random.Random(7)
    gone = 0
    while time.monotonic() < until:
        places = rng.sample(range(len(watchers)), 20)
        for place in places:
            watchers[place].leave()
        for place, newcomer in zip(places, await arrive(process, urls, len(places)), strict=True):
            watchers[place] = newcomer
        gone += len(places)
        await asyncio.sleep(0.2)
    return gone


async def test_a_crowd_is_served_and_sent_home_in_time() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < WATCHERS + STREAMS + 1000:
        missing(f"only {hard} files may be open")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    async with sidecar(command=NUMBERS, SIDESTREAM_DRAIN=str(DRAIN)) as process:
        urls = await open_streams(process)
        watchers = await arrive(process, urls, WATCHERS)
        before = [(watcher, watcher.received) for watcher in watchers]
        begin = time.monotonic()
        gone = await come_and_go(process, urls, watchers, begin + SECONDS)
        assert gone >= 20
        there = set(watchers)
        assert [watcher.path for watcher, received in before if watcher in there and watcher.received == received] == []
        metrics = (await fetch(process.port, "/metrics"))[1].decode()
        listed = (await get_json(process.port, "/streams?limit=10000"))["streams"]
        assert [document["state"] for document in listed] == ["running"] * STREAMS
        told = re.search(r"^sidestream_watchers (\d+)", metrics, re.MULTILINE)
        assert told is not None
        assert abs(int(told[1]) - WATCHERS) <= 100  # those that left a moment ago

        begin = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DRAIN + FLUSH + 15):
            assert await process.process.wait() == 0
            took = time.monotonic() - begin
            await asyncio.gather(*(watcher.ended for watcher in watchers))
    assert took < DRAIN + FLUSH + 1
    assert {watcher.status for watcher in watchers} == {b"200"}
    cut = [watcher.tail for watcher in watchers if not watcher.complete or b"shutting_down" not in watcher.tail]
    assert cut == []

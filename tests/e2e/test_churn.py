"""A thousand connections that come and go at random while fifty streams run: nothing is left over, and none is harmed."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import pytest

from app import Sidestream
from sidecar.settings import Settings
from tests.support.app import NUMBERS, Extended, Runs, serving
from tests.support.servers import sidecar
from tests.support.sockets import Client, complaints, descriptors, encode_request, fetch, get_json

pytestmark = pytest.mark.e2e

STREAMS = 50
VISITS = 1000
AT_ONCE = 40
INTERVAL = 0.02
LEAVE = ("close", "reset", "half_close", "pipeline")


@dataclass
class Visitor:
    """Does a thousand odd things, the same ones for the same seed."""

    port: int
    urls: list[str]
    random: random.Random
    opened: int = 0

    async def visit(self) -> None:
        async with Client(self.port) as client:
            await self.random.choice([self.watch, self.watch, self.resume, self.open, self.ask, self.knock])(client)

    async def watch(self, client: Client) -> None:
        """Any stream, from the beginning or the end, for a while."""
        await self.leave(client, self.random.choice(self.urls) + self.random.choice(["", "?from=now"]), {})

    async def resume(self, client: Client) -> None:
        """From somewhere: right, ahead, of another stream, of none."""
        url = self.random.choice(self.urls)
        stream_id = self.random.choice([url, url, self.random.choice(self.urls), "/streams/unknown"]).rpartition("/")[2]
        number = self.random.choice(["0", str(self.random.randrange(200)), "end", "x"])
        await self.leave(client, url, {"Last-Event-ID": f"{stream_id}.{number}"})

    async def open(self, client: Client) -> None:
        """A stream of its own, which nobody wants once the visitor has gone."""
        self.opened += 1
        await self.leave(client, f"/numbers?count=1000000&interval=0.01&linger=0&run=visit-{self.opened}", {})

    async def ask(self, client: Client) -> None:
        paths = ["/streams", "/healthz", "/", "/nothing", "/stream?count=x", self.random.choice(self.urls)]
        await (await client.get(self.random.choice(paths), {"Accept": "application/json"})).whole()

    async def knock(self, client: Client) -> None:
        """Leave before, or in the middle of, the request."""
        request = encode_request(self.port, "GET", self.random.choice(self.urls))
        await client.send(request[: self.random.randrange(len(request))])
        client.reset()

    async def leave(self, client: Client, path: str, headers: dict[str, str]) -> None:
        answer = await client.get(path, headers)
        for _ in range(self.random.randrange(4)):
            if answer.done:
                return
            await answer.read()
        how = self.random.choice(LEAVE)
        if answer.done:
            return
        if how == "pipeline":
            await client.send(encode_request(self.port, "GET", "/healthz"))
            await client.closed()
        else:
            getattr(client, how)()


async def follow(port: int, url: str) -> list[str]:
    """Everything that one stream says, as the ids' numbers."""
    async with Client(port) as client:
        events = await (await client.get(url)).events()
    return [event.last_event_id.rpartition(".")[2] for event in events]


async def churn(port: int, seed: int) -> Visitor:
    """Fifty streams that run, each with a watcher that misses nothing, for as long as the visits last."""
    path = f"/numbers?count=1000000&interval={INTERVAL}"
    urls = []
    for number in range(STREAMS):
        async with Client(port) as client:
            answer = await client.get(f"{path}&run=steady-{number}", {"Accept": "application/json"})
            urls.append((await answer.json())["url"])
    steady = [asyncio.create_task(follow(port, url)) for url in urls]
    visitor = Visitor(port, urls, random.Random(seed))
    turns = asyncio.Semaphore(AT_ONCE)

    async def visit() -> None:
        async with turns:
            await visitor.visit()

    async with asyncio.TaskGroup() as visits:
        for _ in range(VISITS):
            visits.create_task(visit())
    assert not any(task.done() for task in steady)
    for url in urls:
        await fetch(port, url, method="DELETE")
    for numbers in await asyncio.gather(*steady):
        assert numbers == [*map(str, range(len(numbers) - 1)), "end"]
        assert len(numbers) > 10
    return visitor


async def until(holds: Callable[[], Any]) -> None:
    """Ask again and again, at most five seconds."""
    deadline = monotonic() + 5
    while not await holds():
        assert monotonic() < deadline, "it did not come to hold"


async def test_a_real_process_is_left_as_it_was() -> None:
    async with sidecar(command=NUMBERS, SIDESTREAM_KEEP="0") as process:
        before = descriptors(process.pid)
        visitor = await churn(process.port, 1)
        runs = await get_json(process.port, f"/numbers/runs?closed={STREAMS + visitor.opened}")
        assert runs["opened"] == len(runs["closed"]) == STREAMS + visitor.opened

        async def nothing_is_kept() -> bool:
            return bool((await get_json(process.port, "/streams"))["streams"] == [])

        async def nothing_is_open() -> bool:
            await get_json(process.port, "/healthz")
            return descriptors(process.pid) <= before + 1  # this connection's own

        await until(nothing_is_kept)
        await until(nothing_is_open)
        assert complaints(process.stderr) == []


@pytest.fixture
async def here() -> AsyncIterator[tuple[Sidestream, Runs, int]]:
    """The same server in this process, where its tasks can be counted."""
    runs = Runs()
    settings = Settings(keep=0, drain=0)
    sidestream = Extended(settings, *runs.routes())
    async with serving(sidestream, settings) as (_, port):
        await get_json(port, "/healthz")
        yield sidestream, runs, port


async def test_no_task_watcher_or_log_is_left_over(here: tuple[Sidestream, Runs, int]) -> None:
    sidestream, runs, port = here
    before = asyncio.all_tasks()
    visitor = await churn(port, 2)
    over = asyncio.all_tasks() - before
    if over:
        _, over = await asyncio.wait(over, timeout=5)
    assert over == set()
    store = sidestream.service.store
    assert (store.streams, store.running, store.budget.used) == ({}, {}, 0)
    assert (store.busy, store.watchers) == (0, 0)
    assert runs.opened == len(runs.closed) == STREAMS + visitor.opened

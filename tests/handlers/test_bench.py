"""GET /bench: how many, how large, and when."""

import json
from itertools import pairwise

import pytest

from app import Sidestream
from handlers import bench
from sidecar.settings import Settings
from tests.support.app import EVENT_STREAM, ask
from tests.support.clock import now

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def sidestream() -> Sidestream:
    return Sidestream(Settings())


async def test_it_sends_as_many_events_as_asked_numbered_and_stamped(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/bench?events=50", headers=EVENT_STREAM)
    opening, *messages, done = answer.events
    payloads = [json.loads(message.data) for message in messages]
    assert (opening.type, done.data) == ("connected", "[DONE]")
    assert [payload["n"] for payload in payloads] == list(range(50))
    assert all(earlier["t"] <= later["t"] for earlier, later in pairwise(payloads))


@pytest.mark.parametrize("size", [100, 190, 1000, 100_000])
async def test_an_event_has_about_the_size_asked_for(sidestream: Sidestream, size: int) -> None:
    answer = await ask(sidestream, f"/bench?events=1&size={size}")
    (event,) = [block for block in answer.body.split(b"\n\n") if b'"n":0' in block]
    assert len(event) + 2 == pytest.approx(size, abs=20)


async def test_a_small_size_is_an_event_without_padding(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/bench?events=1&size=0")
    assert json.loads(answer.events[1].data)["pad"] == ""


async def test_bursts_keep_to_their_schedule() -> None:
    begin, seen = now(), []
    async for chunk in bench.chunks(7, 0, 2.0, 3):
        seen.append((chunk["n"], now() - begin))
    assert seen == [(0, 0), (1, 0), (2, 0), (3, 2), (4, 2), (5, 2), (6, 4)]


@pytest.mark.parametrize(
    "query", ["events=-1", "events=x", "size=1048577", "interval=-1", "interval=nan", "burst=0", "burst=1000001"]
)
async def test_what_cannot_be_read_is_named(sidestream: Sidestream, query: str) -> None:
    answer = await ask(sidestream, f"/bench?{query}")
    assert (answer.status, answer.json["parameter"]) == (400, query.partition("=")[0])


async def test_it_is_not_kept(sidestream: Sidestream) -> None:
    await ask(sidestream, "/bench?events=10")
    store = sidestream.service.store
    assert (store.streams, store.running, store.budget.used) == ({}, {}, 0)
    assert (store.busy, store.watchers) == (0, 0)


async def test_an_event_source_that_comes_back_after_the_end_is_told_to_stop(sidestream: Sidestream) -> None:
    assert (await ask(sidestream, "/bench", headers=EVENT_STREAM | {"last-event-id": "end"})).status == 204

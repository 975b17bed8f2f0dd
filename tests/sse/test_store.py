"""The store: limits, claims, memory, the drain."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from sse.errors import Full, KeyReused
from sse.formats import Format
from sse.log import GATHER
from sse.store import Store, StoreLimits
from sse.stream import Opening
from sse.stream import State, Stream, Trigger
from tests.support.clock import idle, now
from tests.support.streams import Follower, for_ever, open_in

pytestmark = pytest.mark.virtual_time


def opening(**changes: Any) -> Opening:
    return replace(Opening(None, Format(), linger=None), **changes)


def filled(store: Store, events: int, size: int = 1000, **changes: Any) -> Stream:
    """A stream without a source, with so many events of exactly `size` bytes."""
    stream = open_in(store, None, opening(**changes))
    for _ in range(events):
        stream.log.append(b"x" * size)
    return stream


async def endless() -> AsyncIterator[int]:
    yield 1
    await for_ever()


# -- opening and finding


async def test_an_open_stream_can_be_found_until_it_expires() -> None:
    store = Store()
    asked = opening(keep=30, metadata={"a": 1}, result=lambda: "so far")

    stream = open_in(store, None, asked)

    assert store.streams.get(stream.id) is stream
    assert store.opening(stream.id) is asked
    assert (stream.keep, stream.linger, stream.metadata) == (30, None, {"a": 1})
    assert stream.result is not None
    assert stream.result() == "so far"
    assert list(store.running) == [stream.id]
    stream.end(Trigger.DELETED)
    assert (list(store.running), store.streams.get(stream.id)) == ([], stream)
    await asyncio.sleep(31)
    assert store.streams.get(stream.id) is None
    assert store.budget.used == 0


async def test_streams_are_listed_oldest_first() -> None:
    store = Store()

    opened = [open_in(store, None, opening()).id for _ in range(3)]

    assert list(store.streams) == opened


async def test_an_unlisted_stream_runs_and_counts_and_cannot_be_found() -> None:
    store = Store(StoreLimits(streams=1))
    stream = open_in(store, None, opening(listed=False, ids="", start=7))
    stream.emit("x")

    assert store.streams.get(stream.id) is None
    assert store.streams == {}
    assert stream.log.last == 8
    assert store.budget.used == stream.log.size > 0
    with pytest.raises(Full):
        store.admit()

    stream.end(Trigger.SHUTTING_DOWN)
    store.admit()
    await asyncio.sleep(opening().keep)
    assert store.budget.used == 0


async def test_the_end_of_a_stream_is_told_once() -> None:
    ended: list[tuple[Stream, int]] = []
    store = Store(on_end=lambda stream: ended.append((stream, len(store.running))))
    stream = open_in(store, None, opening())

    stream.end(Trigger.DELETED)
    stream.end(Trigger.SHUTTING_DOWN)

    assert ended == [(stream, 0)]


async def test_forgetting_twice_does_nothing() -> None:
    store = Store()
    stream = filled(store, 2)
    stream.end(Trigger.DELETED)

    store.forget(stream)
    store.forget(stream)

    assert (store.streams, store.budget.used) == ({}, 0)


async def test_the_limits_reach_every_log() -> None:
    store = Store(StoreLimits(log=Limits(events=3, bytes=5000)))

    assert filled(store, 9).log.first == 7
    assert filled(store, 9, size=2500).log.first == 8


# -- limits


def fill_streams(store: Store) -> None:
    open_in(store, None, opening())
    open_in(store, None, opening())


def fill_memory(store: Store) -> None:
    filled(store, 1, size=20_001)


def drain(store: Store) -> None:
    store.draining = True


@pytest.mark.parametrize(("fill", "what"), [(fill_streams, "streams"), (fill_memory, "memory"), (drain, "shutting down")])
async def test_a_full_store_says_what_it_is_full_of(fill: Callable[[Store], None], what: str) -> None:
    store = Store(StoreLimits(streams=2, memory=20_000))
    store.admit()
    fill(store)
    before = dict(store.streams)
    started: list[bool] = []

    async def source() -> AsyncIterator[int]:
        started.append(True)
        yield 1

    with pytest.raises(Full) as full:
        open_in(store, source(), opening())
    await idle()

    assert full.value.what == what
    assert full.value.retry_after > 0
    assert store.streams == before
    assert started == []


async def test_streams_that_have_ended_do_not_count_as_running() -> None:
    store = Store(StoreLimits(streams=2))
    fill_streams(store)

    next(iter(store.running.values())).end(Trigger.DELETED)

    store.admit()


async def test_exactly_the_memory_allowed_is_not_too_much() -> None:
    store = Store(StoreLimits(memory=20_000))

    filled(store, 1, size=20_000)

    store.admit()


# -- claims

CLAIM = Claim("caller", "POST", "/chat", "key", "digest")


async def test_a_claim_finds_the_stream_that_it_opened() -> None:
    store = Store()
    assert store.claimed(CLAIM) is None

    stream = open_in(store, None, opening(claim=CLAIM))

    assert store.claimed(CLAIM) is stream
    stream.end(Trigger.SOURCE_ENDED)
    assert store.claimed(CLAIM) is stream, "the answer is not run again while it can be read"


@pytest.mark.parametrize("field", ["caller", "method", "route", "key"])
async def test_the_same_key_is_another_claim_for_another(field: str) -> None:
    store = Store()
    open_in(store, None, opening(claim=CLAIM))
    changes: dict[str, Any] = {field: "other", "digest": "other"}

    assert store.claimed(replace(CLAIM, **changes)) is None


async def test_the_same_key_with_another_body_is_a_mistake() -> None:
    store = Store()
    open_in(store, None, opening(claim=CLAIM))

    with pytest.raises(KeyReused):
        store.claimed(replace(CLAIM, digest="other"))


async def test_a_claim_expires_with_its_stream() -> None:
    store = Store()
    stream = open_in(store, None, opening(claim=CLAIM, keep=30))
    stream.end(Trigger.SOURCE_ENDED)

    await asyncio.sleep(31)

    assert store.claimed(CLAIM) is None
    assert store.claimed(replace(CLAIM, digest="other")) is None
    assert not store._claims
    assert not store._openings
    again = open_in(store, None, opening(claim=CLAIM))
    assert store.claimed(CLAIM) is again


# -- memory


def ended(stream: Stream) -> Stream:
    stream.end(Trigger.SOURCE_ENDED)
    return stream


def watched(stream: Stream, position: int) -> Follower:
    follower = Follower(position)
    stream.attach(follower)
    return follower


async def test_streams_that_ended_unwatched_go_first_and_the_oldest_of_them() -> None:
    store = Store(StoreLimits(memory=80_000))
    running = filled(store, 20)
    oldest, second, third = (ended(filled(store, 19)) for _ in range(3))
    watched(oldest, 20)  # nothing but a watcher keeps it
    assert store.budget.used < 80_000

    running.log.append(b"x" * 3000)

    assert list(store.streams) == [running.id, oldest.id, third.id]
    assert (running.log.first, oldest.log.first) == (1, 1)
    assert store.streams.get(second.id) is None


async def test_then_go_events_that_every_watcher_has_taken_from_the_largest_log_first() -> None:
    store = Store(StoreLimits(memory=80_000))
    small, large = filled(store, 30), filled(store, 40)
    unwatched = filled(store, 9)
    watched(small, 29)
    watched(large, 35)
    laggard = watched(large, 20)

    unwatched.log.append(b"x" * 2000)

    assert large.log.first == 21
    assert small.log.first == 1, "it was enough"
    assert unwatched.log.first == 1
    assert store.budget.used == 61_000
    assert len(large.log.take(laggard)) <= GATHER
    assert large.log.gaps == 0


async def test_then_go_events_that_only_laggards_want_and_all_but_the_newest_where_nobody_watches() -> None:
    store = Store(StoreLimits(memory=80_000))
    large, unwatched = filled(store, 50), filled(store, 30)
    watched(large, 45)
    laggard = watched(large, 2)

    unwatched.log.append(b"x")

    assert large.log.first == 46
    assert unwatched.log.first == 1, "it was enough"
    assert large.log.take(laggard).startswith(b"id: %b.45\nevent: gap" % large.id.encode())

    largest = filled(store, 45)
    assert largest.log.first == largest.log.last == 45
    assert (unwatched.log.first, unwatched.log.last) == (1, 31)
    assert store.budget.used == 5_000 + 30_001 + 1_000


async def test_room_is_made_down_to_seven_eighths() -> None:
    store = Store(StoreLimits(memory=80_000))
    for _ in range(19):
        ended(filled(store, 4, size=999))

    open_in(store, None, opening()).log.append(b"x" * 5000)

    assert 60_000 < store.budget.used <= 70_000


async def test_where_no_room_can_be_made_nothing_new_is_opened_until_there_is() -> None:
    store = Store(StoreLimits(memory=80_000))
    stream = filled(store, 1, size=100_000)
    with pytest.raises(Full, match="memory"):
        store.admit()

    stream.end(Trigger.DELETED)

    store.admit()


async def test_a_stream_may_be_forgotten_in_the_moment_of_its_own_end() -> None:
    """Its terminal event is the one too many, and nobody watches."""
    ends: list[Stream] = []
    store = Store(StoreLimits(memory=20_000), on_end=ends.append)
    stream = filled(store, 1, size=20_000, claim=CLAIM)

    stream.end(Trigger.DELETED)

    assert store.streams.get(stream.id) is None
    assert store.claimed(CLAIM) is None
    assert (ends, store.running, store.budget.used) == ([stream], {}, 0)
    await asyncio.sleep(1000)
    assert store.budget.used == 0


# -- the drain


async def test_a_drain_ends_as_soon_as_nothing_runs() -> None:
    store = Store()
    first, second = (open_in(store, None, opening()) for _ in range(2))
    loop = asyncio.get_running_loop()
    loop.call_later(3, first.end, Trigger.SOURCE_ENDED)
    loop.call_later(5, second.end, Trigger.DELETED)

    await store.drain(20)

    assert now() == 5
    assert (first.reason, second.reason) == ("source_ended", "deleted")
    assert store.draining


async def test_a_drain_ends_what_still_runs_after_its_time() -> None:
    store = Store()
    stream = open_in(store, endless(), opening())

    await store.drain(20)

    assert now() == 20
    assert (stream.state, stream.reason) == (State.CANCELLED, "shutting_down")
    assert store.running == {}
    await stream.closed()


async def test_with_no_time_a_drain_ends_all_at_once() -> None:
    store = Store()
    streams = [open_in(store, None, opening()) for _ in range(3)]

    await store.drain(0)

    assert now() == 0
    assert {stream.reason for stream in streams} == {"shutting_down"}


async def work_for(store: Store, seconds: float) -> None:
    with store.working():
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("ends", [3, 8], ids=["the stream first", "the request first"])
async def test_a_drain_waits_for_requests_that_are_being_worked_on_too(ends: float) -> None:
    store = Store()
    stream = open_in(store, None, opening())
    asyncio.get_running_loop().call_later(ends, stream.end, Trigger.SOURCE_ENDED)
    request = asyncio.create_task(work_for(store, 5))
    await idle()

    await store.drain(20)

    assert now() == max(ends, 5)
    assert request.done()


async def test_a_drain_waits_for_a_request_where_no_stream_runs_but_not_for_ever() -> None:
    store = Store()
    request = asyncio.create_task(work_for(store, 100))
    await idle()

    await store.drain(20)

    assert (now(), request.done()) == (20, False)
    request.cancel()
    await asyncio.wait([request])
    assert store.requests == 0


async def test_a_drain_where_nothing_runs_waits_for_nothing() -> None:
    store = Store()
    ended(open_in(store, None, opening()))

    await store.drain(20)

    assert now() == 0


async def test_after_a_drain_that_was_in_time_an_end_is_an_end_as_any_other() -> None:
    store = Store()
    unlisted = open_in(store, None, opening(listed=False))
    asyncio.get_running_loop().call_later(1, unlisted.end, Trigger.DELETED)
    await store.drain(20)

    await store.drain(20)

    assert now() == 1


# -- watchers


async def test_watchers_are_counted_for_as_long_as_they_watch() -> None:
    store = Store()
    with store.watching():
        with store.watching():
            assert store.watchers.taken == 2
        assert store.watchers.taken == 1
    assert store.watchers.taken == 0


async def test_a_watcher_that_fails_is_counted_no_longer() -> None:
    store = Store()

    with pytest.raises(KeyError), store.watching():
        raise KeyError

    assert store.watchers.taken == 0


@pytest.mark.parametrize(("cleaning", "returned"), [(0.5, 20.5), (60, 21)])
async def test_a_drain_waits_a_moment_for_the_sources_that_it_ends(cleaning: float, returned: float) -> None:
    closed = []

    async def untidy() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(100)
            yield 1
        finally:
            await asyncio.sleep(cleaning)
            closed.append(now())

    store = Store()
    stream = open_in(store, untidy(), opening())
    await store.drain(20)
    assert now() == returned
    assert closed == ([20.5] if cleaning == 0.5 else [])
    await stream.closed()

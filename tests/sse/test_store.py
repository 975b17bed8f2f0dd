"""The store: places, keys, memory, the drain; and what it asks of its backend."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from sse.budget import EVENT
from sse.errors import Full
from sse.formats import Format, Written
from sse.store import Backend, Holder, Limits, Store
from sse.stream import STREAM, Opening, State, Stream, Trigger
from tests.support.backends import There
from tests.support.clock import idle, now
from tests.support.streams import Follower, for_ever, open_in

pytestmark = pytest.mark.virtual_time


def opened(store: Store, source: AsyncIterator[Any] | None = None, **options: Any) -> Stream:
    """A stream that runs until it is told to end."""
    return open_in(store, source, **{"linger": None, **options})


def filled(store: Store, events: int, size: int = 1000, **options: Any) -> Stream:
    """A stream without a source, with so many events of exactly `size` bytes."""
    stream = opened(store, **options)
    for _ in range(events):
        stream.log.append(b"x" * size)
    return stream


async def endless() -> AsyncIterator[int]:
    yield 1
    await for_ever()


def admit(store: Store) -> None:
    """Take a place and give it back. Raises Full."""
    with store.reserve():
        pass


# -- opening and finding


async def test_an_open_stream_can_be_found_until_it_expires() -> None:
    store = Store()
    asked = Opening(None, Format(), linger=None, keep=30, metadata={"a": 1}, result=lambda: "so far")

    with store.reserve():
        stream = store.open(asked)

    assert await store.find(stream.id) is stream
    assert (stream.id, stream.opening) == (asked.id, asked)
    assert list(store.running) == [stream.id]
    stream.end(Trigger.DELETED)
    assert (list(store.running), await store.find(stream.id)) == ([], stream)
    assert not stream.discarded
    await asyncio.sleep(31)
    assert await store.find(stream.id) is None
    assert store.budget.used == 0
    assert stream.discarded


async def test_streams_are_listed_oldest_first() -> None:
    store = Store()

    ids = [opened(store).id for _ in range(3)]

    assert list(store.streams) == ids


async def test_an_unlisted_stream_runs_and_counts_and_cannot_be_found() -> None:
    store = Store(Limits(streams=1))
    stream = opened(store, listed=False, ids="", start=7)
    stream.emit("x")

    assert await store.find(stream.id) is None
    assert store.streams == {}
    assert stream.log.last == 8
    assert store.budget.used == stream.log.size + EVENT + STREAM
    with pytest.raises(Full):
        admit(store)

    stream.end(Trigger.SHUTTING_DOWN)
    admit(store)
    await asyncio.sleep(stream.opening.keep)
    assert store.budget.used == 0


async def test_the_end_of_a_stream_is_told_once() -> None:
    ended: list[tuple[Stream, int]] = []
    store = Store(on_end=lambda stream: ended.append((stream, len(store.running))))
    stream = opened(store)

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
    store = Store(Limits(events=3, bytes=5000))

    assert filled(store, 9).log.first == 7
    assert filled(store, 9, size=2500).log.first == 8


# -- places


async def test_a_stream_has_its_place_until_it_ends() -> None:
    store = Store()
    stream = opened(store)
    assert store.busy == 1

    stream.end(Trigger.DELETED)

    assert store.busy == 0


async def test_a_place_that_no_stream_got_is_given_back() -> None:
    store = Store(Limits(streams=1))

    with store.reserve(), pytest.raises(Full, match="streams"):
        admit(store)
    with pytest.raises(KeyError), store.reserve():
        raise KeyError

    assert store.busy == 0


async def test_a_place_is_given_back_once_when_its_stream_has_ended_within_the_block() -> None:
    store = Store()

    with store.reserve():
        store.open(Opening(None, Format())).end(Trigger.DELETED)
    with pytest.raises(KeyError), store.reserve():
        store.open(Opening(None, Format()))
        raise KeyError

    assert store.busy == len(store.running) == 1


async def test_so_many_places_there_are_however_long_those_wait_who_took_them() -> None:
    store = Store(Limits(streams=2))
    admitted: list[Stream] = []

    async def open_slowly() -> None:
        with store.reserve():
            await asyncio.sleep(1)
            admitted.append(store.open(Opening(None, Format(), linger=None)))

    results = await asyncio.gather(*[open_slowly() for _ in range(20)], return_exceptions=True)

    assert [type(result) for result in results] == [type(None)] * 2 + [Full] * 18
    assert len(admitted) == store.busy == 2


def test_so_many_may_watch() -> None:
    store = Store(Limits(watchers=2))
    seats = [store.seat(), store.seat()]
    with pytest.raises(Full) as full:
        store.seat()
    assert (full.value.what, store.watchers) == ("watchers", 2)
    seats.pop()
    seats.append(store.seat())
    assert store.watchers == 2


def fill_streams(store: Store) -> None:
    opened(store)
    opened(store)


def fill_memory(store: Store) -> None:
    opened(store).kept.add(100_000)


def drain(store: Store) -> None:
    store.draining = True


@pytest.mark.parametrize(("fill", "what"), [(fill_streams, "streams"), (fill_memory, "memory"), (drain, "shutting down")])
async def test_a_full_store_says_what_it_is_full_of(fill: Callable[[Store], None], what: str) -> None:
    store = Store(Limits(streams=2, memory=100_000))
    admit(store)
    fill(store)
    before = dict(store.streams)
    started: list[bool] = []

    async def source() -> AsyncIterator[int]:
        started.append(True)
        yield 1

    with pytest.raises(Full) as full:
        opened(store, source())
    await idle()

    assert full.value.what == what
    assert full.value.headers == {"retry-after": "5"}
    assert store.streams == before
    assert started == []


async def test_streams_that_have_ended_do_not_count_as_running() -> None:
    store = Store(Limits(streams=2))
    fill_streams(store)

    next(iter(store.running.values())).end(Trigger.DELETED)

    admit(store)


async def test_exactly_the_memory_allowed_is_not_too_much() -> None:
    store = Store(Limits(memory=20_000))

    filled(store, 1, size=20_000)

    admit(store)


# -- keys

HOLDER = Holder("s", "digest")


async def test_the_first_who_claims_a_key_has_it_until_it_is_released() -> None:
    memory = Backend()

    assert await memory.claim("key", HOLDER) is HOLDER
    assert await memory.claim("key", Holder("t", "other")) is HOLDER
    assert await memory.claim("another", Holder("t", "other")) == Holder("t", "other")

    memory.forget("t", "key")
    memory.forget("s", "unknown")
    assert await memory.holder("key") == await memory.claim("key", Holder("t", "other")) == HOLDER
    memory.forget(HOLDER.stream_id, "key")
    assert await memory.holder("key") is None
    assert await memory.claim("key", Holder("t", "other")) == Holder("t", "other")


async def test_a_key_can_be_taken_away_from_the_stream_that_is_named() -> None:
    memory = Backend()
    await memory.claim("key", HOLDER)
    assert await memory.claim("key", Holder("t", ""), "another") is HOLDER
    assert await memory.claim("key", Holder("t", ""), HOLDER.stream_id) == Holder("t", "")
    assert await memory.claim("key", Holder("u", ""), HOLDER.stream_id) == Holder("t", "")


async def test_a_key_is_its_streams_for_as_long_as_that_is_held() -> None:
    store = Store()
    await store.backend.claim("key", HOLDER)
    stream = opened(store, id=HOLDER.stream_id, claim="key", keep=30)
    other = opened(store)

    stream.end(Trigger.SOURCE_ENDED)
    other.end(Trigger.SOURCE_ENDED)
    store.forget(other)
    assert await store.backend.claim("key", Holder("t", "")) is HOLDER, "the answer is not run again while it can be read"
    await asyncio.sleep(31)

    assert await store.backend.claim("key", Holder("t", "")) == Holder("t", "")


# -- the backend


class Other(Backend):
    """A fake of another process, which runs one stream."""

    def __init__(self, runs: Stream) -> None:
        super().__init__()
        self.runs = runs
        self.asked: list[str] = []
        self.begun: list[Stream] = []

    async def find(self, stream_id: str) -> Stream | None:
        self.asked.append(stream_id)
        return self.runs if stream_id == self.runs.id else None

    def begin(self, stream: Stream) -> None:
        self.begun.append(stream)

    async def ask(self, stream: Stream, what: str, args: Sequence[Any]) -> Any:
        self.asked.append(what)


async def elsewhere() -> Other:
    return Other(There(Opening(None, Format(), linger=None)))


async def test_a_stream_that_this_process_does_not_hold_is_asked_for_elsewhere() -> None:
    other = await elsewhere()
    store = Store(backend=other)
    mine = opened(store)

    assert await store.find(mine.id) is mine
    assert other.asked == [], "this one is here"
    assert await store.find(other.runs.id) is other.runs
    assert await store.find("nobody") is None
    assert other.asked == [other.runs.id, "nobody"]


async def test_the_backend_is_told_of_every_stream_that_can_be_found_before_it_says_anything() -> None:
    other = await elsewhere()
    store = Store(backend=other)

    listed, _ = opened(store, endless()), opened(store, endless(), listed=False)

    assert other.begun == [listed]
    assert listed.log.last == 0


async def test_a_stream_is_ended_by_the_process_that_runs_it() -> None:
    other = await elsewhere()
    store = Store(backend=other)
    mine = opened(store)

    await store.end(mine, Trigger.DELETED)
    await store.end(other.runs, Trigger.DELETED)

    assert (mine.reason, other.runs.state) == ("deleted", State.RUNNING)
    assert other.asked == ["end"]


async def test_an_ended_stream_stays_as_it_ended() -> None:
    store = Store()
    stream = opened(store)
    stream.end(Trigger.SOURCE_ENDED)

    await store.end(stream, Trigger.DELETED)

    assert (stream.state, stream.reason) == (State.DONE, "source_ended")


# -- memory


def ended(stream: Stream) -> Stream:
    stream.end(Trigger.SOURCE_ENDED)
    return stream


def watched(stream: Stream, position: int) -> Follower:
    follower = Follower(position)
    stream.attach(follower)
    return follower


MEMORY = 8_000_000
LARGE = 100_000
"""Bytes of an event: what it and its stream are charged besides doesn't count beside them."""


async def test_streams_that_ended_unwatched_go_first_and_the_oldest_of_them() -> None:
    store = Store(Limits(memory=MEMORY))
    running = filled(store, 20, LARGE)
    oldest, second, third = (ended(filled(store, 19, LARGE)) for _ in range(3))
    watched(oldest, 20)  # nothing but a watcher keeps it
    assert store.budget.used < MEMORY

    running.log.append(b"x" * 3 * LARGE)

    assert list(store.streams) == [running.id, oldest.id, third.id]
    assert (running.log.first, oldest.log.first) == (1, 1)
    assert await store.find(second.id) is None
    assert store.forgotten == 1


async def test_then_go_events_that_every_watcher_has_taken_from_the_largest_log_first() -> None:
    store = Store(Limits(memory=MEMORY))
    small, large = filled(store, 30, LARGE), filled(store, 40, LARGE)
    unwatched = filled(store, 9, LARGE)
    watched(small, 29)
    watched(large, 35)
    laggard = watched(large, 20)

    unwatched.log.append(b"x" * 2 * LARGE)

    assert large.log.first == 21
    assert small.log.first == 1, "it was enough"
    assert unwatched.log.first == 1
    assert b"".join(large.log.take(laggard) for _ in range(7)) == b"x" * LARGE
    assert large.log.gaps == 0


async def test_then_go_events_that_only_laggards_want_and_all_but_the_newest_where_nobody_watches() -> None:
    store = Store(Limits(memory=MEMORY))
    large, unwatched = filled(store, 50, LARGE), filled(store, 29, LARGE)
    watched(large, 45)
    laggard = watched(large, 2)

    unwatched.log.append(b"x" * 2 * LARGE)

    assert large.log.first == 46
    assert unwatched.log.first == 1, "it was enough"
    assert large.log.take(laggard).startswith(b"id: %b.45\nevent: gap" % large.id.encode())

    largest = filled(store, 45, LARGE)
    assert largest.log.first == 44, "the others went when the 44th came"
    assert (unwatched.log.first, unwatched.log.last) == (1, 30)


async def test_then_go_events_that_nobody_has_taken() -> None:
    store = Store(Limits(memory=MEMORY))
    stream = opened(store)
    follower = watched(stream, 0)

    for _ in range(80):
        stream.log.append(b"x" * LARGE)
    assert stream.log.first == 80, "all but the newest"

    stream.kept.add(MEMORY)
    for _ in range(3):
        stream.log.append(b"x" * LARGE)
    assert (stream.log.first, stream.log.last) == (84, 83), "the newest too"
    assert stream.log.take(follower).startswith(b"id: %b.83\nevent: gap" % stream.id.encode())


async def test_room_is_made_down_to_seven_eighths() -> None:
    store = Store(Limits(memory=MEMORY))
    for _ in range(19):
        ended(filled(store, 4, LARGE))

    opened(store).log.append(b"x" * 5 * LARGE)

    assert 6_500_000 < store.budget.used <= 7_000_000


async def test_where_no_room_can_be_made_nothing_new_is_opened_until_there_is() -> None:
    store = Store(Limits(memory=MEMORY))
    stream = opened(store)
    stream.kept.add(MEMORY)
    with pytest.raises(Full, match="memory"):
        admit(store)

    stream.end(Trigger.DELETED)

    admit(store)


async def test_what_streams_keep_leaves_an_eighth_for_events() -> None:
    """Streams that have ended go for it; of one that runs it can't be had."""
    store = Store(Limits(memory=MEMORY))
    old, running = ended(opened(store)), opened(store)
    old.kept.claim(3_000_000)
    running.kept.claim(3_000_000)
    running.log.append(b"x" * LARGE)

    running.kept.claim(3_000_000)
    assert list(store.streams) == [running.id]
    with pytest.raises(Full, match="memory"):
        running.kept.claim(1_000_000)
    assert running.log.first == 1, "there was room for events"


async def test_room_that_can_not_be_made_is_not_looked_for_at_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor at every request that is refused: 1,000 streams, and nothing of theirs to let go, took 3.4 ms each time."""
    store = Store(Limits(memory=MEMORY))
    looked: list[int] = []
    relieve = store.budget.relieve

    def look(size: int) -> None:
        looked.append(size)
        relieve(size)

    monkeypatch.setattr(store.budget, "relieve", look)
    streams = [opened(store) for _ in range(100)]
    streams[0].kept.add(MEMORY)
    for number in range(10_000):
        streams[number % 100].log.append(b"x" * 1000)
        with pytest.raises(Full):
            streams[1].kept.claim(100)

    assert len(looked) <= 10_000 * 1100 // (MEMORY // 64) + 2


async def test_a_stream_may_be_forgotten_in_the_moment_of_its_own_end() -> None:
    """Its terminal event is the one too many, and nobody watches."""
    ends: list[Stream] = []
    store = Store(Limits(memory=MEMORY), on_end=ends.append)
    await store.backend.claim("key", HOLDER)
    stream = filled(store, 1, size=MEMORY - STREAM - EVENT, id=HOLDER.stream_id, claim="key")

    stream.end(Trigger.DELETED)

    assert await store.find(stream.id) is None
    assert await store.backend.claim("key", Holder("t", "")) == Holder("t", "")
    assert (ends, store.running, store.budget.used) == ([stream], {}, 0)
    await asyncio.sleep(1000)
    assert store.budget.used == 0


class Farewell(Format):
    """Its end is two events."""

    def cancelled(self, reason: str) -> Written:
        return [b"data: bye\n\n", b"data: [DONE]\n\n"]


async def test_an_end_of_several_events_is_counted_once_where_memory_is_full() -> None:
    store = Store(Limits(memory=MEMORY))
    stream, other = opened(store, format=Farewell()), opened(store)
    other.kept.add(MEMORY)

    stream.end(Trigger.DELETED)

    with pytest.raises(Full):
        admit(store)
    assert await store.find(stream.id) is None
    assert store.budget.used == MEMORY + STREAM
    await asyncio.sleep(1000)
    assert store.budget.used == MEMORY + STREAM


# -- the drain


async def test_a_drain_ends_as_soon_as_nothing_runs() -> None:
    store = Store()
    first, second = opened(store), opened(store)
    loop = asyncio.get_running_loop()
    loop.call_later(3, first.end, Trigger.SOURCE_ENDED)
    loop.call_later(5, second.end, Trigger.DELETED)

    await store.drain(20)

    assert now() == 5
    assert (first.reason, second.reason) == ("source_ended", "deleted")
    assert store.draining


async def test_a_drain_ends_what_still_runs_after_its_time() -> None:
    store = Store()
    stream = opened(store, endless())

    await store.drain(20)

    assert now() == 20
    assert (stream.state, stream.reason) == (State.CANCELLED, "shutting_down")
    assert store.running == {}
    await stream.closed()


async def test_with_no_time_a_drain_ends_all_at_once() -> None:
    store = Store()
    streams = [opened(store) for _ in range(3)]

    await store.drain(0)

    assert now() == 0
    assert {stream.reason for stream in streams} == {"shutting_down"}


async def work_for(store: Store, seconds: float) -> None:
    """A request that works towards an answer in one piece."""
    with store.reserve():
        await asyncio.sleep(seconds)


@pytest.mark.parametrize("ends", [3, 8], ids=["the stream first", "the request first"])
async def test_a_drain_waits_for_requests_that_are_being_worked_on_too(ends: float) -> None:
    store = Store()
    stream = opened(store)
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
    assert store.busy == 0


async def test_a_drain_where_nothing_runs_waits_for_nothing() -> None:
    store = Store()
    ended(opened(store))

    await store.drain(20)

    assert now() == 0


async def test_after_a_drain_that_was_in_time_an_end_is_an_end_as_any_other() -> None:
    store = Store()
    unlisted = opened(store, listed=False)
    asyncio.get_running_loop().call_later(1, unlisted.end, Trigger.DELETED)
    await store.drain(20)

    await store.drain(20)

    assert now() == 1


@pytest.mark.parametrize(("cleaning", "returned"), [(0.5, 20.5), (60, 21)])
async def test_a_drain_waits_a_moment_for_the_sources_that_it_ends_and_reports_those_that_are_late(
    cleaning: float, returned: float, caplog: pytest.LogCaptureFixture
) -> None:
    closed = []

    async def untidy() -> AsyncIterator[int]:
        try:
            await asyncio.sleep(100)
            yield 1
        finally:
            await asyncio.sleep(cleaning)
            closed.append(now())

    store = Store()
    stream = opened(store, untidy())
    await store.drain(20)
    assert now() == returned
    assert closed == ([20.5] if cleaning == 0.5 else [])
    assert ["is still cleaning up" in record.message for record in caplog.records] == ([] if closed else [True])
    await stream.closed()

"""The event log: numbers, bounds, body messages, gaps, and who waits for whom."""

import asyncio
import tracemalloc
from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from sse.budget import EVENT, Budget
from sse.errors import Full
from sse.log import AHEAD, GATHER, EventLog
from tests.support.clock import counted_turns, idle
from tests.support.streams import Follower, all_ready

pytestmark = pytest.mark.virtual_time


def gap(first: int, last: int) -> bytes:
    return b"gap %d-%d" % (first, last)


def log_of(*sizes: int, budget: Budget | None = None, **bounds: int) -> EventLog:
    """A log of events with these sizes; each is filled with the last digit of its number. bounds: of a budget of its own."""
    log = EventLog(gap, budget or Budget(events=bounds.get("events", 65536), bytes=bounds.get("bytes", 16 << 20)))
    for size in sizes:
        log.append(event(log.last + 1, size))
    return log


def event(number: int, size: int) -> bytes:
    return b"%d" % (number % 10) * size


def attached(log: EventLog, position: int = 0) -> Follower:
    follower = Follower(position)
    log.attach(follower)
    return follower


# -- numbers and bounds


@pytest.mark.parametrize("start", [0, 41])
def test_events_are_numbered_from_the_one_after_the_start(start: int) -> None:
    log = EventLog(gap, start=start)

    assert (log.first, log.last, log.size) == (start + 1, start, 0)
    assert [log.append(b"a"), log.append(b"bc")] == [start + 1, start + 2]
    assert (log.first, log.last, log.size) == (start + 1, start + 2, 3)


@pytest.mark.parametrize(
    ("max_events", "max_bytes", "sizes", "first", "size"),
    [
        pytest.param(3, 100, [1, 1, 1], 1, 3, id="as many events as allowed"),
        pytest.param(3, 100, [1, 1, 1, 1], 2, 3, id="one event more"),
        pytest.param(10, 100, [50, 50], 1, 100, id="as many bytes as allowed"),
        pytest.param(10, 100, [50, 50, 1], 2, 51, id="one byte more"),
        pytest.param(10, 100, [30, 30, 30, 90], 4, 90, id="a large one drives several out"),
        pytest.param(10, 100, [30, 30, 40, 30], 2, 100, id="no more than needed goes"),
        pytest.param(10, 100, [1, 101], 2, 101, id="the newest stays, however large"),
        pytest.param(1, 100, [1, 2, 3], 3, 3, id="one event"),
        pytest.param(2, 100, [60, 60, 1, 1], 3, 2, id="both bounds in turn"),
        pytest.param(128, 1000, [1] * 129, 4, 126, id="of many events a few more"),
    ],
)
def test_the_oldest_go_when_a_bound_is_passed(max_events: int, max_bytes: int, sizes: list[int], first: int, size: int) -> None:
    log = log_of(*sizes, events=max_events, bytes=max_bytes)

    assert (log.first, log.last, log.size) == (first, len(sizes), size)


def test_a_long_run_needs_no_more_memory_than_a_short_one() -> None:
    """Nothing is left of an event that was dropped, not even an entry in a list."""
    log = log_of(*[100] * 1000, events=100)
    tracemalloc.start()
    try:
        for _ in range(20_000):
            log.append(event(log.last + 1, 100))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert log.last - log.first + 1 <= 100
    assert held < 30_000, "of the 2.6 MB that were appended"


# -- body messages


@pytest.mark.parametrize(
    ("sizes", "messages"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([10, 20, 30], [60], id="all of a few"),
        pytest.param([GATHER // 2, GATHER // 2, 1], [GATHER, 1], id="exactly as much as fits"),
        pytest.param([GATHER // 2, GATHER // 2 + 1], [GATHER // 2, GATHER // 2 + 1], id="a byte more than fits"),
        pytest.param([10, GATHER + 1, 10], [10, GATHER, 1, 10], id="a larger one in slices"),
        pytest.param([2 * GATHER, 10], [GATHER, GATHER, 10], id="slices that are full"),
        pytest.param([GATHER, GATHER], [GATHER, GATHER], id="each as large as a message"),
    ],
)
def test_what_is_ready_is_gathered(sizes: list[int], messages: list[int]) -> None:
    log = log_of(*sizes)
    follower = attached(log)

    bodies = all_ready(log, follower)

    assert [len(body) for body in bodies] == messages
    assert b"".join(bodies) == b"".join(event(number, size) for number, size in enumerate(sizes, 1))
    assert follower.position == len(sizes)


def test_a_single_event_goes_out_without_being_copied() -> None:
    log = EventLog(gap)
    body = b"x" * 1000
    log.append(body)

    assert log.take(attached(log)) is body


def test_gathering_begins_behind_what_was_taken_and_what_was_dropped() -> None:
    log = log_of(*[GATHER // 4] * 9)
    follower = attached(log, 2)
    log.drop(2)

    assert log.take(follower) == b"".join(event(number, GATHER // 4) for number in (3, 4, 5, 6))
    assert log.take(follower) == b"".join(event(number, GATHER // 4) for number in (7, 8, 9))


def test_a_watcher_that_found_nothing_is_woken_once_and_the_others_are_not() -> None:
    log = EventLog(gap)
    waiting, busy = attached(log), attached(log)
    assert log.take(waiting) == b""

    log.append(b"a")
    log.append(b"b")

    assert (waiting.woken, busy.woken) == (1, 0)
    assert log.take(waiting) == b"ab"


def test_a_watcher_that_left_is_not_woken() -> None:
    log = EventLog(gap)
    follower = attached(log)
    log.take(follower)

    log.detach(follower)
    log.append(b"a")

    assert follower.woken == 0
    assert log.watchers == {}


def test_detaching_twice_does_nothing() -> None:
    log = log_of(1)
    follower = attached(log)

    log.detach(follower)
    log.detach(follower)

    assert log.watchers == {}


# -- gaps


def test_a_laggard_is_told_its_gap_once_and_goes_on_with_the_oldest_held() -> None:
    log = log_of(*[1] * 3, events=5)
    follower = attached(log)
    assert log.take(follower) == b"123"
    for number in range(4, 13):
        log.append(event(number, 1))

    assert all_ready(log, follower) == [b"gap 4-7", b"89012"]
    assert log.gaps == 1
    log.append(event(13, 1))
    assert all_ready(log, follower) == [b"3"]


def test_a_gap_of_one_event_has_the_same_first_and_last() -> None:
    log = log_of(1, 1, 1, events=2)

    assert log.take(attached(log, 0)) == b"gap 1-1"


def test_falling_behind_again_is_another_gap() -> None:
    log = log_of(*[1] * 4, events=2)
    follower = attached(log)
    assert log.take(follower) == b"gap 1-2"
    for number in (5, 6, 7):
        log.append(event(number, 1))

    assert all_ready(log, follower) == [b"gap 3-5", b"67"]
    assert log.gaps == 2


def test_a_watcher_at_the_oldest_event_is_told_no_gap() -> None:
    log = log_of(*[1] * 9, events=3)

    assert all_ready(log, attached(log, log.first - 1)) == [b"789"]
    assert log.gaps == 0


def test_a_laggard_is_told_a_gap_up_to_the_end_where_everything_was_forgotten() -> None:
    log = log_of(1, 1, 1)
    follower = attached(log, 1)

    log.clear()

    assert all_ready(log, follower) == [b"gap 2-3"]
    log.append(b"x")
    assert (follower.woken, all_ready(log, follower)) == (1, [b"x"])


# -- the pace


def fill(log: EventLog) -> int:
    """Append until the log is full; how many it took."""
    count = 0
    while not log.full:
        log.append(b"." * 1024)
        count += 1
    return count


def lead(log: EventLog, leader: Follower, times: int) -> None:
    """Let the leader take everything so many times, and fill the log again."""
    for _ in range(times):
        fill(log)
        log.take(leader)
    fill(log)


def test_a_producer_may_be_ahead_of_its_first_watcher_by_so_many_bytes() -> None:
    log = EventLog(gap)
    follower = attached(log)

    assert fill(log) == AHEAD // 1024
    log.take(follower)
    assert fill(log) == AHEAD // 1024
    assert AHEAD < GATHER  # so that one message holds all of it


async def test_the_producer_waits_for_the_leader_alone() -> None:
    log = EventLog(gap)
    leader, laggard = attached(log), attached(log)
    lead(log, leader, 2)
    producer = asyncio.create_task(log.room())
    await idle()

    assert len(log.take(laggard)) == GATHER
    await idle()
    assert log.waiting
    assert not producer.done()

    log.take(leader)
    await producer
    assert not log.waiting
    assert not log.full


async def test_a_laggard_never_holds_the_producer() -> None:
    log = EventLog(gap, Budget(events=50))
    leader, laggard = attached(log), attached(log)
    for _ in range(200):
        await log.room()
        log.append(b"." * 1024)
        log.take(leader)

    assert log.take(laggard) == b"gap 1-150"


async def test_without_watchers_the_producer_goes_on_after_letting_the_loop_breathe() -> None:
    log = EventLog(gap)
    async with counted_turns() as turns:
        for _ in range(3):
            before = turns.made
            fill(log)
            await log.room()
            assert turns.made > before


async def test_when_the_leader_leaves_the_next_one_sets_the_pace() -> None:
    log = EventLog(gap)
    leader, second = attached(log), attached(log)
    lead(log, leader, 2)
    producer = asyncio.create_task(log.room())
    await idle()

    log.detach(leader)
    log.take(second)
    await idle()
    assert log.waiting, "the second has taken no more than the leader had"

    log.take(second)
    await producer


async def test_a_watcher_that_comes_while_nobody_watched_holds_the_producer() -> None:
    log = EventLog(gap)
    fill(log)
    producer = asyncio.create_task(log.room())
    newcomer = Follower(0)
    asyncio.get_running_loop().call_soon(log.attach, newcomer)
    await idle()

    assert log.waiting
    log.take(newcomer)
    await producer


async def test_a_leader_whose_events_were_dropped_does_not_hold_the_producer_for_ever() -> None:
    log = EventLog(gap, Budget(bytes=AHEAD))
    leader = attached(log)
    for _ in range(5):
        log.append(b"." * AHEAD)
    producer = asyncio.create_task(log.room())
    await idle()

    bodies = all_ready(log, leader)
    await producer

    assert bodies == [b"gap 1-4", b"." * AHEAD]


async def test_a_cancelled_producer_leaves_nothing_behind() -> None:
    log = EventLog(gap)
    leader = attached(log)
    fill(log)
    cancelled, other = (asyncio.create_task(log.room()) for _ in range(2))
    await idle()

    cancelled.cancel()
    with suppress(asyncio.CancelledError):
        await cancelled
    assert log.waiting

    log.take(leader)
    await other
    assert not log.waiting


async def test_a_producer_cancelled_after_it_was_woken_is_cancelled_all_the_same() -> None:
    log = EventLog(gap)
    leader = attached(log)
    fill(log)
    producer = asyncio.create_task(log.room())
    await idle()

    log.take(leader)
    producer.cancel()
    log.detach(leader)  # wakes again what is woken already

    with pytest.raises(asyncio.CancelledError):
        await producer
    assert not log.waiting


async def test_the_terminal_event_never_waits_and_ends_the_wait_of_others() -> None:
    log = EventLog(gap)
    leader = attached(log)
    fill(log)
    log.take(leader)
    fill(log)

    log.close(b"end")

    assert log.closed
    assert log.full
    await log.room()
    assert all_ready(log, leader)[-1].endswith(b"end")


# -- forgetting


def test_what_every_watcher_has_taken_can_be_dropped() -> None:
    log = log_of(*[10] * 9)
    attached(log, 6)
    slowest = attached(log, 4)

    log.drop_taken()

    assert (log.first, log.size) == (5, 50)
    assert all_ready(log, slowest) == [b"".join(event(number, 10) for number in range(5, 10))]


def test_where_nobody_watches_nothing_counts_as_taken() -> None:
    log = log_of(*[10] * 9)

    log.drop_taken()

    assert (log.first, log.size) == (1, 90)


def test_what_the_leader_has_taken_can_be_dropped_and_the_others_are_told() -> None:
    log = log_of(*[10] * 9)
    leader, laggard = attached(log, 6), attached(log, 4)

    log.drop_led()

    assert (log.first, log.size) == (7, 30)
    assert all_ready(log, laggard)[0] == b"gap 5-6"
    assert all_ready(log, leader) == [b"".join(event(number, 10) for number in (7, 8, 9))]


def test_where_nobody_watches_everything_but_the_newest_is_led() -> None:
    log = log_of(*[10] * 9)

    log.drop_led()

    assert (log.first, log.last, log.size) == (9, 9, 10)


def test_everything_can_go_but_the_terminal_event() -> None:
    budget = Budget()
    log = log_of(*[10] * 9, budget=budget)
    follower = attached(log, 3)
    log.drop_old()
    assert (log.first, log.last) == (9, 9)
    log.drop_all()
    assert (log.first, log.last, budget.used) == (10, 9, 0)
    log.close(b"end")
    log.drop_all()

    assert all_ready(log, follower) == [gap(4, 9), b"end"]
    assert budget.used == len(b"end") + EVENT


@pytest.mark.parametrize("upto", [-1, 0, 3], ids=["before all", "nothing", "gone already"])
def test_dropping_what_is_not_held_does_nothing(upto: int) -> None:
    log = log_of(*[10] * 9)
    log.drop(3)

    log.drop(upto)

    assert (log.first, log.size) == (4, 60)


def test_without_replay_an_event_is_forgotten_when_its_one_watcher_has_taken_it() -> None:
    budget = Budget()
    log = EventLog(gap, budget=budget, replay=False)
    follower = attached(log)
    for number in range(1, 6):
        log.append(event(number, GATHER // 2))
    assert budget.used == 5 * (GATHER // 2 + EVENT)

    assert log.take(follower) == event(1, GATHER // 2) + event(2, GATHER // 2)
    assert all_ready(log, follower) == [event(3, GATHER // 2) + event(4, GATHER // 2), event(5, GATHER // 2)]

    assert (log.first, log.last, log.size, budget.used) == (6, 5, 0, 0)
    log.close(b"end")
    assert all_ready(log, follower) == [b"end"]
    assert budget.used == 0


# -- the budget


def test_logs_share_a_budget_and_give_back_what_they_forget() -> None:
    budget = Budget(events=2)
    one, other = log_of(10, 10, budget=budget), log_of(5, 5, 5, budget=budget)
    assert budget.used == 30 + 4 * EVENT

    one.drop(1)
    assert budget.used == 20 + 3 * EVENT
    other.clear()
    assert budget.used == 10 + EVENT
    one.clear()
    one.clear()
    assert budget.used == 0


def test_room_may_be_made_in_the_very_log_that_asked_for_it() -> None:
    log: EventLog

    def relieve(size: int) -> None:
        log.drop_led()

    budget = Budget(20 + 2 * EVENT, relieve)
    log = EventLog(gap, budget=budget)
    follower = attached(log)
    for number in (1, 2):
        log.append(event(number, 10))
    log.take(follower)

    log.append(event(3, 10))

    assert (log.first, budget.used) == (3, 10 + EVENT)
    assert all_ready(log, follower) == [event(3, 10)]


# -- large events


def test_who_has_taken_a_part_of_an_event_that_is_dropped_can_take_nothing_more() -> None:
    """What came next would be read as the rest of it."""
    log = log_of(10, 3 * GATHER, 10)
    follower = attached(log)
    assert all(log.take(follower) for _ in range(2))
    assert (follower.position, follower.offset) == (1, GATHER)

    log.drop(2)

    with pytest.raises(Full):
        log.take(follower)
    assert log.gaps == 0


def test_an_event_can_be_taken_whole() -> None:
    log = log_of(3 * GATHER, 10)
    follower = attached(log)

    assert log.take(follower, whole=True) == event(1, 3 * GATHER)
    assert (follower.position, follower.offset) == (1, 0)


def test_without_replay_a_large_event_is_forgotten_when_its_last_slice_is_taken() -> None:
    log = EventLog(gap, replay=False)
    follower = attached(log)
    log.append(event(1, GATHER + 1))

    assert len(log.take(follower)) == GATHER
    assert log.size == GATHER + 1
    assert len(log.take(follower)) == 1
    assert log.size == 0


# -- against a naive model


class Tracked(bytes):
    """An event that says how many bytes of its log's events there still are."""

    alive: Counter[str]

    def __new__(cls, event: bytes, alive: Counter[str]) -> "Tracked":
        self = super().__new__(cls, event)
        self.alive = alive
        alive["bytes"] += len(event)
        return self

    def __del__(self) -> None:
        self.alive["bytes"] -= len(self)


class Model(RuleBasedStateMachine):
    """The log beside a plain list of all events ever, of which the last ones are held."""

    MAX_EVENTS = 12
    MAX_BYTES = 60_000

    def __init__(self) -> None:
        super().__init__()
        self.budget = Budget(events=self.MAX_EVENTS, bytes=self.MAX_BYTES)
        self.log = EventLog(gap, self.budget)
        self.events: list[bytes] = []
        self.alive: Counter[str] = Counter()
        self.first = 1
        self.followers: list[Follower] = []
        self.idle: set[Follower] = set()

    def held(self) -> list[bytes]:
        return self.events[self.first - 1 :]

    def forget(self, upto: int) -> None:
        self.first = max(self.first, min(upto, len(self.events) - self.log.closed) + 1)

    @precondition(lambda self: not self.log.closed)
    @rule(size=st.sampled_from([1, 700, 5000, 9000, 12_288, 20_000, 70_000]), last=st.integers(0, 30))
    def append(self, size: int, last: int) -> None:
        body = event(len(self.events) + 1, size)
        before = {follower: follower.woken for follower in self.followers}
        self.events.append(body)
        if last == 30:
            self.log.close(Tracked(body, self.alive))
        else:
            assert self.log.append(Tracked(body, self.alive)) == len(self.events)
        while len(self.held()) > self.MAX_EVENTS or (sum(map(len, self.held())) > self.MAX_BYTES and len(self.held()) > 1):
            self.first += 1
        for follower, woken in before.items():
            assert follower.woken - woken == (follower in self.idle)
        self.idle.clear()

    @rule(back=st.integers(0, 20))
    def attach(self, back: int) -> None:
        self.followers.append(attached(self.log, max(0, len(self.events) - back)))

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def detach(self, data: st.DataObject) -> None:
        self.detach_one(data.draw(st.sampled_from(self.followers)))

    def detach_one(self, follower: Follower) -> None:
        self.followers.remove(follower)
        self.idle.discard(follower)
        self.log.detach(follower)

    @precondition(lambda self: self.followers)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        follower = data.draw(st.sampled_from(self.followers))
        position, offset = follower.position, follower.offset
        if offset and position + 1 < self.first:
            with pytest.raises(Full):
                self.log.take(follower)
            self.detach_one(follower)
            return
        body = self.log.take(follower)
        if body and follower.position == position:  # not the last slice of a large event
            assert len(body) == GATHER
            assert self.events[position][offset:].startswith(body)
            assert follower.offset == offset + GATHER < len(self.events[position])
        elif offset:
            assert self.events[position][offset:] == body
            assert (follower.position, follower.offset) == (position + 1, 0)
        elif position == len(self.events):
            assert body == b""
            self.idle.add(follower)
        elif position + 1 < self.first:
            assert body == gap(position + 1, self.first - 1)
            assert follower.position == self.first - 1
        else:
            taken = self.events[position : follower.position]
            assert body == b"".join(taken)
            assert len(body) <= GATHER
            following = self.events[follower.position : follower.position + 1]
            assert not following or len(body) + len(following[0]) > GATHER, "more would have fitted"

    @rule(upto=st.integers(0, 60))
    def drop(self, upto: int) -> None:
        self.log.drop(upto)
        self.forget(upto)

    @rule()
    def drop_taken(self) -> None:
        self.log.drop_taken()
        self.forget(min((follower.position for follower in self.followers), default=0))

    @rule()
    def drop_led(self) -> None:
        self.log.drop_led()
        self.forget(max((follower.position for follower in self.followers), default=len(self.events) - 1))

    @rule()
    def clear(self) -> None:
        self.log.clear()
        self.first = len(self.events) + 1

    @invariant()
    def counts_are_exact(self) -> None:
        assert (self.log.first, self.log.last) == (self.first, len(self.events))
        assert self.log.size == sum(map(len, self.held()))
        assert self.budget.used == self.log.size + EVENT * len(self.held())
        assert self.alive["bytes"] == self.log.size, "what is dropped is let go of"
        assert set(self.log.watchers) == set(self.followers)

    @invariant()
    def a_full_log_has_something_for_the_leader(self) -> None:
        if not self.followers:
            return
        leader = max(follower.position for follower in self.followers)
        ahead = sum(map(len, self.events[leader:]))
        if self.log.full:
            assert ahead >= AHEAD
        elif leader + 1 >= self.first:
            assert ahead < AHEAD


Model.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestAgainstTheModel = Model.TestCase


@pytest.mark.parametrize(
    ("number", "limit", "size", "taken"),
    [(0, 9, 99, 4), (0, 2, 99, 2), (0, 9, 30, 2), (0, 9, 29, 1), (0, 9, 1, 1), (2, 9, 30, 1), (2, 9, 70, 2), (4, 9, 99, 0)],
)
def test_a_replica_gets_so_many_events_or_so_many_bytes_and_one_event_at_least(
    number: int, limit: int, size: int, taken: int
) -> None:
    log = log_of(10, 20, 30, 39)
    before, events = log.after(number, limit, size)
    assert (before, len(events)) == (number, taken)


def test_a_replica_that_lags_gets_the_oldest_events_that_are_held() -> None:
    log = log_of(10, 20, 30, 40)
    log.drop(2)
    assert log.after(0, 9, 30) == (2, [event(3, 30)])

"""Equal waits over one timer of the event loop: each ends when its own time is up."""

import asyncio
from collections.abc import Callable

import pytest

from sse.timers import Timers
from tests.support.clock import now

pytestmark = pytest.mark.virtual_time


class Waiting:
    """ended: when its time was up. then: what it does at that moment."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.ended: list[float] = []
        self.then = then

    def time_is_up(self) -> None:
        self.ended.append(now())
        self.then()


async def test_each_wait_ends_when_its_own_time_is_up() -> None:
    timers, waiting = Timers(), [Waiting() for _ in range(4)]
    for seconds, begins in ((10.0, waiting[0]), (10.0, waiting[1]), (2.5, waiting[2]), (10.0, waiting[3])):
        timers[seconds].begin(begins)
        await asyncio.sleep(1)
    await asyncio.sleep(100)

    assert [each.ended for each in waiting] == [[10], [11], [4.5], [13]]


async def test_a_wait_that_was_ended_is_not_over() -> None:
    timers, one, other = Timers(), Waiting(), Waiting()
    timers[5].begin(one)
    timers[5].begin(other)
    timers[5].end(one)
    timers[5].end(one)
    await asyncio.sleep(10)

    assert (one.ended, other.ended) == ([], [5])


async def test_a_wait_that_begins_anew_takes_its_whole_time_from_then_on() -> None:
    timers, one, other = Timers(), Waiting(), Waiting()
    timers[5].begin(one)
    await asyncio.sleep(3)
    timers[5].begin(other)
    await asyncio.sleep(1)
    timers[5].begin(one)
    await asyncio.sleep(10)

    assert (one.ended, other.ended) == ([9], [8])


async def test_one_whose_time_is_up_may_wait_again() -> None:
    timers = Timers()
    one = Waiting(lambda: timers[2].begin(one))
    timers[2].begin(one)
    await asyncio.sleep(7)

    assert one.ended == [2, 4, 6]


async def test_one_whose_time_is_up_may_end_the_wait_of_another_or_begin_it_anew() -> None:
    timers = Timers()
    ended, anew = Waiting(), Waiting()

    def then() -> None:
        timers[2].end(ended)
        timers[2].begin(anew)

    timers[2].begin(Waiting(then))
    timers[2].begin(ended)
    timers[2].begin(anew)
    await asyncio.sleep(10)

    assert (ended.ended, anew.ended) == ([], [4])


async def test_one_may_wait_for_two_lengths_at_once() -> None:
    timers, one = Timers(), Waiting()
    timers[2].begin(one)
    timers[3].begin(one)
    await asyncio.sleep(10)

    assert one.ended == [2, 3]


async def test_no_time_at_all_is_up_in_the_next_turn() -> None:
    timers, one = Timers(), Waiting()
    timers[0].begin(one)
    assert one.ended == []
    await asyncio.sleep(0.001)

    assert one.ended == [0]


async def test_a_thousand_waits_need_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    call_later, made = loop.call_later, []

    def counted(delay: float, callback: Callable[..., object], *args: object) -> asyncio.TimerHandle:
        made.append(delay)
        return call_later(delay, callback, *args)

    monkeypatch.setattr(loop, "call_later", counted)
    timers, waiting = Timers(), [Waiting() for _ in range(1000)]
    for each in waiting:
        timers[1].begin(each)
    assert made == [1]
    await asyncio.sleep(2)

    assert {tuple(each.ended) for each in waiting} == {(1,)}


async def test_lengths_that_nobody_waits_for_are_forgotten_with_their_timers() -> None:
    timers, one, other = Timers(), Waiting(), Waiting()
    timers[5].begin(one)
    for length in range(1000, 11000):
        timers[length].begin(other)
        timers[length].end(other)
    assert len(timers) < 100
    assert timers[5] is timers[5]
    await asyncio.sleep(20000)

    assert (one.ended, other.ended) == ([5], [])


async def test_waits_that_were_forgotten_serve_whoever_kept_them() -> None:
    timers, one = Timers(), Waiting()
    kept = timers[5]
    for length in range(1000, 1100):
        timers[length].idle  # noqa: B018  # looking one up makes it
    kept.begin(one)
    await asyncio.sleep(10)

    assert one.ended == [5]

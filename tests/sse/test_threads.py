"""Threads on one side, the loop on the other: what crosses, what waits, and every way a run can end."""

import asyncio
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import aclosing
from contextvars import ContextVar
from itertools import product
from typing import Any, TypeVar

import pytest

from sse.errors import Full
from sse.threads import TRANSITIONS, Bridge, Cancelled, OnProgress, Progress, Result, Run, State

T = TypeVar("T")
LONG = 10.0  # seconds after which a wait in these tests has failed


class Work:
    """A function for a run, stopped at a gate: `begun` is set in the thread, then it waits for `go`."""

    def __init__(self, then: Callable[[OnProgress], Any] = lambda on_progress: None) -> None:
        self.then = then
        self.begun = threading.Event()
        self.go = threading.Event()
        self.thread: threading.Thread | None = None
        self.left_by: BaseException | None = None

    def __call__(self, on_progress: OnProgress) -> Any:
        self.thread = threading.current_thread()
        self.begun.set()
        assert self.go.wait(LONG)
        try:
            return self.then(on_progress)
        except BaseException as error:
            self.left_by = error
            raise

    def release(self) -> None:
        """Open the gate and wait for the thread's end."""
        self.go.set()
        assert self.begun.wait(LONG)
        assert self.thread is not None
        self.thread.join(LONG)
        assert not self.thread.is_alive()


def steps(count: int) -> Callable[[OnProgress], int]:
    """Work that makes so many calls and returns their number."""

    def work(on_progress: OnProgress) -> int:
        for number in range(count):
            on_progress("count", {"progress": number})
        return count

    return work


def numbered(count: int) -> list[Progress | Result[int]]:
    """What comes out of `steps(count)`."""
    return [*(("count", {"progress": number}) for number in range(count)), Result(count)]


async def read(run: Run[T]) -> list[Progress | Result[T]]:
    """All that is left of a run."""
    return [item async for item in run]


def waits_for_space(run: Run[Any], monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Set when the thread of this run, stopped at its gate, comes to wait for space."""
    waits, wait = threading.Event(), run._changed.wait

    def observed() -> bool:
        waits.set()  # the lock is held: whoever takes it next does so when the thread waits
        return wait()

    monkeypatch.setattr(run._changed, "wait", observed)
    return waits


@pytest.fixture
def bridge() -> Bridge:
    return Bridge(threads=1, queue=1)


# What crosses.


async def test_progress_comes_in_order_and_then_the_result(bridge: Bridge) -> None:
    assert await read(bridge.run(steps(3))) == numbered(3)


async def test_a_run_that_ended_stays_ended(bridge: Bridge) -> None:
    run = bridge.run(steps(1))
    await read(run)
    assert await read(run) == []


async def test_parameters_and_context_reach_the_function(bridge: Bridge) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("of the caller")

    def work(on_progress: OnProgress, size: int) -> tuple[int, str]:
        return size, variable.get()

    assert await read(bridge.run(work, {"size": 10})) == [Result((10, "of the caller"))]


async def test_details_may_be_used_again_by_the_work(bridge: Bridge) -> None:
    def work(on_progress: OnProgress) -> None:
        details = {"progress": 0}
        for number in range(3):
            details["progress"] = number
            on_progress("count", details)

    assert [item[1] for item in await read(bridge.run(work)) if not isinstance(item, Result)] == [
        {"progress": 0},
        {"progress": 1},
        {"progress": 2},
    ]


async def test_a_returned_exception_is_a_result_and_not_raised(bridge: Bridge) -> None:
    error = ValueError("returned")
    assert await read(bridge.run(lambda on_progress: error)) == [Result(error)]


@pytest.mark.parametrize("buffer", [1, 7, 1024])
async def test_eight_threads_at_once_lose_nothing_and_keep_their_order(buffer: int) -> None:
    bridge = Bridge(threads=8, queue=0)
    together = threading.Barrier(8)

    def work(on_progress: OnProgress) -> int:
        together.wait(LONG)
        return steps(2000)(on_progress)

    everything = await asyncio.gather(*(read(bridge.run(work, buffer=buffer)) for _ in range(8)))
    assert everything == [numbered(2000)] * 8


async def test_items_that_come_while_the_loop_is_busy_wake_it_once(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    wake_ups: list[Any] = []
    call_soon_threadsafe = loop.call_soon_threadsafe

    def counted(*args: Any) -> asyncio.Handle:
        wake_ups.append(args)
        return call_soon_threadsafe(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    work = Work(steps(100))
    reader = asyncio.create_task(read(bridge.run(work)))
    await asyncio.sleep(0)  # its first step: it waits
    work.release()
    assert await reader == numbered(100)
    assert len(wake_ups) == 1


# Errors.


async def test_an_exception_comes_out_after_the_progress_before_it(bridge: Bridge) -> None:
    def work(on_progress: OnProgress) -> None:
        on_progress("first", {})
        raise ValueError("of the work")

    run = bridge.run(work)
    assert await anext(run) == ("first", {})
    with pytest.raises(ValueError, match="of the work"):
        await anext(run)
    assert await read(run) == []


@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        GeneratorExit(),
        StopIteration(),
        StopAsyncIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_would_mean_something_else_at_the_reader_comes_as_runtime_error(
    bridge: Bridge, error: BaseException
) -> None:
    def work(on_progress: OnProgress) -> None:
        raise error

    with pytest.raises(RuntimeError) as raised:
        await read(bridge.run(work))
    assert raised.value.__cause__ is error


async def test_a_parameter_that_the_function_does_not_take_comes_out_as_its_type_error(bridge: Bridge) -> None:
    with pytest.raises(TypeError, match="colour"):
        await read(bridge.run(steps(1), {"colour": "red"}))


async def test_a_thread_that_cannot_start_takes_no_place(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            bridge.run(steps(1))
    assert bridge.busy == 0
    assert await read(bridge.run(steps(1))) == numbered(1)


# A full buffer.


async def test_a_full_buffer_makes_the_thread_wait_until_it_is_read(bridge: Bridge, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    def then(on_progress: OnProgress) -> int:
        for number in range(5):
            on_progress("count", {"progress": number})
            made.append(number)
        return 5

    work = Work(then)
    run = bridge.run(work, buffer=2)
    waits = waits_for_space(run, monkeypatch)
    work.go.set()
    assert waits.wait(LONG)
    assert made == [0, 1]
    assert await read(run) == numbered(5)


async def test_latest_pushes_out_the_oldest_instead_of_waiting(bridge: Bridge) -> None:
    work = Work(steps(10))
    run = bridge.run(work, buffer=3, latest=True)
    work.release()  # without a reader
    assert await read(run) == numbered(10)[-4:]


# Cancelling, in every state.


async def test_cancelled_while_it_computes_it_stops_at_its_next_step(bridge: Bridge) -> None:
    cleaned_up = threading.Event()

    def then(on_progress: OnProgress) -> None:
        try:
            try:
                on_progress("next", {})
            except Exception as error:  # must not catch Cancelled
                raise AssertionError("swallowed") from error
        finally:
            cleaned_up.set()

    work = Work(then)
    run = bridge.run(work)
    assert work.begun.wait(LONG)
    await run.aclose()
    assert (bridge.busy, bridge.abandoned, run.state) == (1, 1, State.LET_GO)
    work.release()
    assert isinstance(work.left_by, Cancelled)
    assert cleaned_up.is_set()
    assert (bridge.busy, bridge.abandoned, run.state) == (0, 0, State.ENDED)
    assert await read(run) == []


async def test_cancelled_while_it_waits_on_a_full_buffer_it_stops_there(
    bridge: Bridge, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = Work(steps(2))
    run = bridge.run(work, buffer=1)
    waits = waits_for_space(run, monkeypatch)
    work.go.set()
    assert waits.wait(LONG)
    await run.aclose()
    work.release()
    assert isinstance(work.left_by, Cancelled)
    assert await read(run) == []


async def test_cancelled_in_the_queue_it_never_runs_and_leaves_its_place(bridge: Bridge) -> None:
    first, second, third = Work(), Work(), Work(steps(1))
    running = bridge.run(first)
    queued = bridge.run(second)
    assert (queued.state, bridge.queued) == (State.QUEUED, 1)
    await queued.aclose()
    assert (queued.state, bridge.queued) == (State.ENDED, 0)
    last = bridge.run(third)
    third.go.set()
    first.go.set()
    assert await read(running) == [Result(None)]
    assert await read(last) == numbered(1)
    assert not second.begun.is_set()


async def test_cancelled_in_the_queue_and_reached_by_the_thread_it_is_passed_by(bridge: Bridge) -> None:
    first, second = Work(), Work()
    bridge.run(first)
    queued = bridge.run(second)
    await queued.aclose()
    first.release()
    assert not second.begun.is_set()
    assert (bridge.busy, bridge.queued) == (0, 0)


@pytest.mark.parametrize("then", [steps(1), lambda on_progress: 1 / 0], ids=["a result", "an error"])
async def test_cancelled_just_after_its_end_the_unread_end_is_dropped(
    bridge: Bridge, then: Callable[[OnProgress], Any]
) -> None:
    work = Work(then)
    run = bridge.run(work)
    work.release()
    assert run.state is State.ENDED
    await run.aclose()
    assert await read(run) == []
    assert bridge.abandoned == 0


async def test_cancelling_twice_changes_nothing(bridge: Bridge) -> None:
    work = Work(steps(1))
    run = bridge.run(work)
    await run.aclose()
    await run.aclose()
    assert bridge.abandoned == 1
    work.release()
    assert bridge.abandoned == 0


async def test_an_error_of_work_that_was_let_go_is_nobodys(bridge: Bridge) -> None:
    work = Work(lambda on_progress: 1 / 0)
    run = bridge.run(work)
    await run.aclose()
    work.release()
    assert isinstance(work.left_by, ZeroDivisionError)
    assert await read(run) == []


async def test_progress_reported_after_the_end_is_refused(bridge: Bridge) -> None:
    kept: list[OnProgress] = []
    await read(bridge.run(lambda on_progress: kept.append(on_progress)))
    with pytest.raises(Cancelled):
        kept[0]("late", {})


async def test_closing_ends_a_reader_that_waits_in_another_task(bridge: Bridge) -> None:
    work = Work()
    run = bridge.run(work)
    reader = asyncio.create_task(read(run))
    await asyncio.sleep(0)  # its first step: it waits
    await run.aclose()
    assert await reader == []
    assert run.state is State.LET_GO  # the work is still at its gate
    work.release()


async def test_a_reader_that_is_cancelled_loses_no_item(bridge: Bridge) -> None:
    work = Work(steps(2))
    run = bridge.run(work)
    reader = asyncio.create_task(read(run))
    await asyncio.sleep(0)  # its first step: it waits
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    work.release()
    assert await read(run) == numbered(2)


async def test_runs_cancelled_at_any_moment_leave_no_thread_behind() -> None:
    bridge = Bridge(threads=4, queue=100)
    threads: set[threading.Thread] = set()
    dice = random.Random(5)

    def work(on_progress: OnProgress) -> None:
        threads.add(threading.current_thread())
        steps(50)(on_progress)

    async def some(count: int, buffer: int) -> None:
        async with aclosing(bridge.run(work, buffer=buffer)) as run:
            for _ in range(count):
                await anext(run)

    await asyncio.gather(*(some(dice.randrange(52), dice.randrange(1, 60)) for _ in range(100)))
    for thread in threads:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in threads)
    assert (bridge.busy, bridge.queued, bridge.abandoned) == (0, 0, 0)


# Places.


async def test_over_its_limit_it_says_full_at_once(bridge: Bridge) -> None:
    works = [Work(), Work()]
    runs = [bridge.run(work) for work in works]
    with pytest.raises(Full):
        bridge.run(steps(1))
    for work in works:
        work.go.set()
    for run in runs:
        assert await read(run) == [Result(None)]


async def test_work_that_never_reports_keeps_its_place_until_it_ends() -> None:
    bridge = Bridge(threads=1, queue=0)
    work = Work()
    run = bridge.run(work)
    await run.aclose()
    with pytest.raises(Full):
        bridge.run(steps(1))
    work.release()
    assert await read(bridge.run(steps(1))) == numbered(1)


async def test_whoever_reads_the_end_finds_the_place_free() -> None:
    bridge = Bridge(threads=1, queue=0)
    for _ in range(200):
        assert await read(bridge.run(steps(1))) == numbered(1)


async def test_what_waits_runs_in_the_order_it_came() -> None:
    bridge = Bridge(threads=1, queue=3)
    order: list[int] = []

    def work(on_progress: OnProgress, number: int) -> None:
        order.append(number)

    first = Work()
    runs: list[Run[None]] = [bridge.run(first), *(bridge.run(work, {"number": number}) for number in range(3))]
    first.go.set()
    for run in runs:
        await read(run)
    assert order == [0, 1, 2]


# Loops and processes that end first.


def closed_loop(bridge: Bridge, work: Work, *, waiting: bool) -> Run[Any]:
    """A run that is under way when its loop closes, with a reader waiting for it or not."""

    async def start() -> Run[Any]:
        run = bridge.run(work)
        if waiting:
            reader = asyncio.create_task(read(run))
            await asyncio.sleep(0)  # its first step: it waits
            reader.cancel()
        return run

    with asyncio.Runner() as runner:
        return runner.run(start())


@pytest.mark.parametrize("waiting", [True, False], ids=["with a reader", "without"])
def test_work_that_ends_after_its_loop_ends_quietly(bridge: Bridge, waiting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    unhandled: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    work = Work()
    run = closed_loop(bridge, work, waiting=waiting)
    work.release()
    assert (run.state, bridge.busy, unhandled) == (State.ENDED, 0, [])


def test_progress_that_finds_its_loop_closed_lets_the_run_go(bridge: Bridge) -> None:
    work = Work(steps(2))
    closed_loop(bridge, work, waiting=True)
    work.release()
    assert isinstance(work.left_by, Cancelled)
    assert bridge.busy == 0


@pytest.mark.parametrize("work", ["time.sleep(60)", "while True: pass"], ids=["asleep", "computing"])
def test_a_busy_thread_does_not_hold_the_exit(work: str) -> None:
    program = f"""
import asyncio, threading, time
from sse.threads import Bridge
begun = threading.Event()
def work(on_progress):
    begun.set()
    {work}
async def main():
    run = Bridge(threads=1, queue=0).run(work)
    begun.wait()
    await run.aclose()
asyncio.run(main())
print("leaving", flush=True)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "leaving\n"
            left = time.monotonic()
            assert process.wait(LONG) == 0
            assert time.monotonic() - left < 2
        finally:
            process.kill()


# The table.


def test_every_state_can_be_cancelled_and_an_ended_run_stays_ended() -> None:
    rows: Mapping[tuple[State, str], State] = TRANSITIONS
    missing = {(State.RUNNING, "begin"), (State.LET_GO, "begin"), (State.QUEUED, "end")}  # can't happen
    assert set(rows) == set(product(State, ("begin", "end", "cancel"))) - missing
    assert {rows[state, step] for state, step in rows if state is State.ENDED} == {State.ENDED}

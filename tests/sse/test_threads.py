"""Functions on one side, a reader on the other: what crosses, what is superseded, and every way a run can end."""

import asyncio
import gc
import random
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import aclosing, suppress
from contextvars import ContextVar
from functools import partial
from typing import Any

import pytest

from sse import threads as module
from sse.errors import Full, SourceFailed
from sse.threads import Cancelled, OnProgress, Progress, Result, Run, Threads

LONG = 10.0  # seconds after which a wait in these tests has failed

Then = Callable[[OnProgress], Any]


class Work:
    """A function for a run, stopped at a gate: `begun` is set in the thread, then it waits for `go`."""

    def __init__(self, then: Then = lambda on_progress: None) -> None:
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


def blocking(work: Then) -> Callable[..., Any]:
    """The work as a function for a thread."""
    return lambda on_progress: work(on_progress)


def asynchronous(work: Then) -> Callable[..., Any]:
    """The work as an async function."""

    async def function(on_progress: OnProgress) -> Any:
        await asyncio.sleep(0)
        return work(on_progress)

    return function


BOTH = pytest.mark.parametrize("make", [blocking, asynchronous])
Make = Callable[[Then], Callable[..., Any]]


def steps(count: int) -> Callable[[OnProgress], int]:
    """Work that makes so many calls and returns their number."""

    def work(on_progress: OnProgress) -> int:
        for number in range(count):
            on_progress("count", {"progress": number})
        return count

    return work


def numbered(count: int) -> list[Progress | Result]:
    """What comes out of `steps(count)`."""
    return [*(("count", {"progress": number}) for number in range(count)), Result(count)]


async def read(run: Run) -> list[Progress | Result]:
    """All that is left of a run."""
    return [item async for item in run]


@pytest.fixture
async def threads() -> Threads:
    return Threads(threads=1, queue=1)


IDLE = {"running": 0, "queued": 0, "abandoned": 0}


# What crosses.


@BOTH
async def test_progress_comes_in_order_and_then_the_result(make: Make, threads: Threads) -> None:
    assert await read(threads.run(make(steps(3)))) == numbered(3)


@BOTH
async def test_a_run_that_ended_stays_ended(make: Make, threads: Threads) -> None:
    run = threads.run(make(steps(1)))
    await read(run)
    assert await read(run) == []


async def test_parameters_and_context_reach_the_function(threads: Threads) -> None:
    variable: ContextVar[str] = ContextVar("variable")
    variable.set("of the caller")

    def work(size: int) -> tuple[int, str]:
        return size, variable.get()

    async def async_work(size: int) -> tuple[int, str]:
        return work(size)

    for function in (work, async_work):
        assert await read(threads.run(function, {"size": 10})) == [Result((10, "of the caller"))]


@BOTH
async def test_details_may_be_used_again_by_the_work(make: Make, threads: Threads) -> None:
    def work(on_progress: OnProgress) -> None:
        details = {"progress": 0}
        for number in range(3):
            details["progress"] = number
            on_progress("count", details)

    assert await read(threads.run(make(work))) == [*numbered(3)[:-1], Result(None)]


@BOTH
async def test_the_result_alone_is_returned_and_the_run_closed(make: Make, threads: Threads) -> None:
    run = threads.run(make(steps(3)))
    assert await run.result() == 3
    assert await read(run) == []


async def test_what_was_closed_has_no_result(threads: Threads) -> None:
    run = threads.run(steps(1))
    await run.aclose()
    with pytest.raises(RuntimeError, match="closed"):
        await run.result()


@BOTH
async def test_a_returned_exception_is_a_result_and_not_raised(make: Make, threads: Threads) -> None:
    error = ValueError("returned")
    assert await read(threads.run(make(lambda on_progress: error))) == [Result(error)]


@BOTH
async def test_progress_faster_than_its_reader_supersedes_the_oldest_and_never_the_result(make: Make) -> None:
    work = Work(steps(10))
    threads = Threads(1, 0, buffer=3)
    if make is blocking:
        run = threads.run(work)
        work.release()  # without a reader
    else:
        run = threads.run(make(steps(10)))
    assert await read(run) == numbered(10)[-4:]


@BOTH
async def test_a_failure_is_never_superseded(make: Make) -> None:
    def then(on_progress: OnProgress) -> None:
        steps(10)(on_progress)
        raise ValueError("of the work")

    run = Threads(1, 0, buffer=3).run(make(then))
    seen = []
    with pytest.raises(ValueError, match="of the work"):
        async for item in run:
            seen.append(item)
    assert seen[-1] == ("count", {"progress": 9})


async def test_eight_threads_at_once_lose_nothing_that_their_buffers_hold() -> None:
    threads = Threads(threads=8, queue=0, buffer=2000)
    together = threading.Barrier(8)

    def work(on_progress: OnProgress) -> int:
        together.wait(LONG)
        return steps(2000)(on_progress)

    assert await asyncio.gather(*(read(threads.run(work)) for _ in range(8))) == [numbered(2000)] * 8


async def test_items_that_come_while_the_loop_is_busy_wake_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    wake_ups: list[Any] = []
    call_soon_threadsafe = loop.call_soon_threadsafe

    def counted(*args: Any) -> asyncio.Handle:
        wake_ups.append(args)
        return call_soon_threadsafe(*args)

    monkeypatch.setattr(loop, "call_soon_threadsafe", counted)
    work = Work(steps(100))
    reader = asyncio.create_task(read(Threads(1, 0, buffer=100).run(work)))
    await asyncio.sleep(0)  # its first step: it waits
    work.release()
    assert await reader == numbered(100)
    assert len(wake_ups) == 1


async def test_progress_from_a_thread_that_an_async_function_waits_for_arrives(threads: Threads) -> None:
    async def work(on_progress: OnProgress) -> int:
        return await asyncio.to_thread(steps(3), on_progress)

    assert await read(threads.run(work)) == numbered(3)


# What a function raises, and what it returns instead of a result.


class Unspeakable(Exception):
    """Raises as soon as somebody wants to know what it says."""

    def __str__(self) -> str:
        raise SystemExit("from __str__")

    __repr__ = __str__


class Base(BaseException):
    """Neither an Exception nor known to asyncio."""


@BOTH
async def test_an_exception_comes_out_after_the_progress_before_it(make: Make, threads: Threads) -> None:
    error = Unspeakable()

    def work(on_progress: OnProgress) -> None:
        on_progress("first", {})
        raise error

    run = threads.run(make(work))
    assert await anext(run) == ("first", {})
    with pytest.raises(Unspeakable) as raised:
        await anext(run)
    assert raised.value is error
    assert await read(run) == []


@BOTH
@pytest.mark.parametrize(
    "error",
    [
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        GeneratorExit(),
        StopIteration(),
        StopAsyncIteration(),
        Base(Unspeakable()),
        Cancelled(),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_what_would_mean_something_else_at_the_reader_comes_as_runtime_error(
    make: Make, threads: Threads, error: BaseException
) -> None:
    def work(on_progress: OnProgress) -> None:
        raise error

    with pytest.raises(RuntimeError) as raised:
        await read(threads.run(make(work)))
    causes = [cause for cause in (raised.value.__cause__, getattr(raised.value.__cause__, "__cause__", None)) if cause]
    assert error in causes  # Python itself makes a RuntimeError of a StopIteration that leaves a coroutine
    assert type(error).__name__ in str(raised.value) or isinstance(error, StopIteration)
    assert await threads.run(make(steps(1))).result() == 1  # its place is free, and the loop runs


async def numbers() -> AsyncIterator[int]:
    yield 1


async def coroutine() -> int:
    return 1


@BOTH
@pytest.mark.parametrize(
    "value",
    [lambda: (number for number in range(3)), numbers, coroutine, lambda: iter([1]), lambda: map(str, [1])],
    ids=["generator", "async generator", "coroutine", "iterator", "map"],
)
async def test_what_is_no_value_yet_is_a_failure_and_no_result(make: Make, threads: Threads, value: Callable[[], Any]) -> None:
    with pytest.raises(TypeError, match=r"returned a \w+ instead of a result"):
        await threads.run(make(lambda on_progress: value())).result()


@BOTH
@pytest.mark.parametrize("value", [[1], (1,), {"a": 1}, {1}, "text", b"bytes", range(3), None, object], ids=str)
async def test_what_can_be_read_again_and_again_is_a_result(make: Make, threads: Threads, value: Any) -> None:
    assert await threads.run(make(lambda on_progress: value)).result() is value


async def test_a_generator_that_fails_while_it_is_closed_is_a_failure(threads: Threads) -> None:
    def values() -> Iterator[int]:
        try:
            yield 1
        finally:
            raise SystemExit(3)

    def work() -> Iterator[int]:
        begun = values()
        next(begun)
        return begun

    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        await threads.run(work).result()


@BOTH
async def test_details_that_are_no_mapping_fail_the_work_where_it_reports(make: Make, threads: Threads) -> None:
    def work(on_progress: OnProgress) -> None:
        on_progress("step", 7)  # type: ignore[arg-type]

    with pytest.raises(TypeError):
        await threads.run(make(work)).result()


async def test_a_parameter_that_the_function_does_not_take_comes_out_as_its_type_error(threads: Threads) -> None:
    for function in (steps(1), asynchronous(steps(1))):
        with pytest.raises(TypeError, match="colour"):
            await read(threads.run(function, {"colour": "red"}))


async def test_a_thread_that_cannot_start_takes_no_place(threads: Threads, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="can't start"):
            threads.run(steps(1))
    assert threads.counts() == IDLE
    assert await read(threads.run(steps(1))) == numbered(1)


# Closing a run whose work is in a thread, at every moment.


async def test_closed_while_it_computes_it_stops_at_its_next_step(threads: Threads) -> None:
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
    run = threads.run(work)
    assert work.begun.wait(LONG)
    await run.aclose()
    assert threads.counts() == IDLE | {"abandoned": 1}
    work.release()
    assert isinstance(work.left_by, Cancelled)
    assert cleaned_up.is_set()
    assert threads.counts() == IDLE
    assert await read(run) == []


async def test_closed_in_the_queue_it_never_runs_and_leaves_its_place(threads: Threads) -> None:
    first, second, third = Work(), Work(), Work(steps(1))
    running = threads.run(first)
    queued = threads.run(second)
    assert (queued.started, threads.counts()) == (None, {"running": 1, "queued": 1, "abandoned": 0})
    await queued.aclose()
    assert threads.counts() == IDLE | {"running": 1}
    last = threads.run(third)
    third.go.set()
    first.go.set()
    assert await read(running) == [Result(None)]
    assert await read(last) == numbered(1)
    assert (queued.started, second.begun.is_set()) == (None, False)


async def test_closed_in_the_queue_and_reached_by_the_thread_it_is_passed_by(threads: Threads) -> None:
    first, second = Work(), Work()
    threads.run(first)
    queued = threads.run(second)
    await queued.aclose()
    first.release()
    assert (queued.started, second.begun.is_set(), threads.counts()) == (None, False, IDLE)


@pytest.mark.parametrize("then", [steps(1), lambda on_progress: 1 / 0], ids=["a result", "an error"])
async def test_closed_just_after_its_end_the_unread_end_is_dropped(threads: Threads, then: Then) -> None:
    work = Work(then)
    run = threads.run(work)
    work.release()
    await run.aclose()
    assert await read(run) == []
    assert threads.counts() == IDLE


async def test_closing_twice_changes_nothing(threads: Threads) -> None:
    work = Work(steps(1))
    run = threads.run(work)
    await run.aclose()
    await run.aclose()
    assert threads.counts() == IDLE | {"abandoned": 1}
    work.release()
    assert threads.counts() == IDLE


async def test_an_error_of_work_that_was_let_go_reaches_nobody(threads: Threads) -> None:
    work = Work(lambda on_progress: 1 / 0)
    run = threads.run(work)
    await run.aclose()
    work.release()
    assert isinstance(work.left_by, ZeroDivisionError)
    assert await read(run) == []


@BOTH
async def test_progress_reported_after_the_end_is_refused(make: Make, threads: Threads) -> None:
    kept: list[OnProgress] = []
    await read(threads.run(make(kept.append)))
    with pytest.raises(Cancelled):
        kept[0]("late", {})


async def test_closing_ends_a_reader_that_waits_in_another_task(threads: Threads) -> None:
    work = Work()
    run = threads.run(work)
    reader = asyncio.create_task(read(run))
    await asyncio.sleep(0)  # its first step: it waits
    await run.aclose()
    assert await reader == []
    assert threads.counts() == IDLE | {"abandoned": 1}  # the work is still at its gate
    work.release()


async def test_a_reader_that_is_cancelled_loses_no_item(threads: Threads) -> None:
    work = Work(steps(2))
    run = threads.run(work)
    reader = asyncio.create_task(read(run))
    await asyncio.sleep(0)  # its first step: it waits
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    work.release()
    assert await read(run) == numbered(2)


async def test_runs_closed_at_any_moment_leave_no_thread_behind() -> None:
    threads = Threads(threads=4, queue=100)
    used: set[threading.Thread] = set()
    dice = random.Random(5)

    def work(on_progress: OnProgress) -> None:
        used.add(threading.current_thread())
        steps(50)(on_progress)

    async def some(count: int) -> None:
        async with aclosing(threads.run(work)) as run:
            for _ in range(count):
                await anext(run)

    await asyncio.gather(*(some(dice.randrange(52)) for _ in range(100)))
    for thread in used:
        thread.join(LONG)
    assert not any(thread.is_alive() for thread in used)
    assert threads.counts() == IDLE


# Closing a run whose work is in the loop.


class Stubborn:
    """An async function that is cancelled as often as one likes, and ends when `go` is set."""

    def __init__(self) -> None:
        self.begun, self.go, self.left = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.reported: BaseException | None = None

    async def work(self, on_progress: OnProgress) -> None:
        while not self.go.is_set():
            self.begun.set()
            with suppress(asyncio.CancelledError):
                await self.go.wait()
        try:
            on_progress("still here", {})
        except BaseException as error:
            self.reported = error
        self.left.set()


async def test_an_async_function_is_cancelled_and_has_cleaned_up_when_its_run_is_closed(threads: Threads) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            left.set()

    run = threads.run(work)
    await begun.wait()
    await run.aclose()
    assert left.is_set()


async def test_an_async_function_that_has_not_begun_is_never_called(threads: Threads) -> None:
    called = asyncio.Event()

    async def work() -> None:
        called.set()

    run = threads.run(work)
    await run.aclose()
    assert (run.started, called.is_set()) == (None, False)


async def test_an_async_function_that_goes_on_after_its_cancellation_is_let_go_with_a_log_line(
    threads: Threads, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.05)
    stubborn = Stubborn()
    run = threads.run(stubborn.work)
    await stubborn.begun.wait()
    async with asyncio.timeout(LONG):
        await run.aclose()
    assert [record.getMessage() for record in caplog.records] == [
        "the function work goes on although it was cancelled; it is let go"
    ]
    stubborn.go.set()
    await stubborn.left.wait()
    assert isinstance(stubborn.reported, Cancelled)


async def test_whoever_closes_and_is_cancelled_waits_no_longer(threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    stubborn = Stubborn()
    run = threads.run(stubborn.work)
    await stubborn.begun.wait()
    closing = asyncio.create_task(run.aclose())
    await asyncio.sleep(0)  # its first step: it waits
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert len(caplog.records) == 1
    stubborn.go.set()
    await stubborn.left.wait()


async def test_its_clean_up_is_cancelled_only_once(threads: Threads) -> None:
    begun, cancelled, go = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
            await go.wait()

    run = threads.run(work)
    await begun.wait()
    closing = asyncio.create_task(run.aclose())
    await cancelled.wait()
    await run.aclose()
    assert not closing.done()
    go.set()
    await closing


async def test_no_more_async_functions_run_at_once_than_may_and_one_that_was_let_go_keeps_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "GRACE", 0.05)
    threads = Threads(1, 0, tasks=1)
    stubborn = Stubborn()
    first = threads.run(stubborn.work)
    await stubborn.begun.wait()
    await first.aclose()
    second = threads.run(asynchronous(steps(1)))
    await asyncio.sleep(0.01)
    assert second.started is None
    stubborn.go.set()
    assert await read(second) == numbered(1)


# Time.


async def test_work_that_takes_longer_than_it_may_fails_and_is_stopped(threads: Threads) -> None:
    cancelled = asyncio.Event()

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    gate = Work(steps(1))
    for function in (gate, waits):
        with pytest.raises(SourceFailed, match=r"the function took longer than 0\.05 s") as raised:
            await threads.run(function, timeout=0.05).result()
        assert raised.value.code == "timed_out"
    assert cancelled.is_set()
    assert threads.counts() == IDLE | {"abandoned": 1}
    gate.release()
    assert isinstance(gate.left_by, Cancelled)


async def test_work_that_ends_in_time_is_not_touched(threads: Threads) -> None:
    for make in (blocking, asynchronous):
        run = threads.run(make(steps(1)), timeout=LONG)
        assert await read(run) == numbered(1)


async def test_the_time_in_the_queue_counts_and_what_has_none_left_is_never_called(threads: Threads) -> None:
    first, second = Work(), Work()
    running = threads.run(first)
    with pytest.raises(SourceFailed):
        await threads.run(second, timeout=0.05).result()
    first.release()
    assert await read(running) == [Result(None)]
    assert not second.begun.is_set()


# Places.


async def test_over_its_limit_it_says_full_at_once(threads: Threads) -> None:
    works = [Work(), Work()]
    runs = [threads.run(work) for work in works]
    with pytest.raises(Full):
        threads.run(steps(1))
    assert await read(threads.run(asynchronous(steps(1)))) == numbered(1)  # needs no thread
    for work in works:
        work.go.set()
    for run in runs:
        assert await read(run) == [Result(None)]


async def test_work_that_never_reports_keeps_its_place_until_it_ends() -> None:
    threads = Threads(threads=1, queue=0)
    work = Work()
    run = threads.run(work)
    await run.aclose()
    with pytest.raises(Full):
        threads.run(steps(1))
    work.release()
    assert await read(threads.run(steps(1))) == numbered(1)


async def test_whoever_reads_the_end_finds_the_place_free() -> None:
    threads = Threads(threads=1, queue=0)
    for _ in range(200):
        assert await read(threads.run(steps(1))) == numbered(1)


async def test_what_waits_runs_in_the_order_it_came() -> None:
    threads = Threads(threads=1, queue=3)
    order: list[int] = []

    def work(number: int) -> None:
        order.append(number)

    first = Work()
    runs = [threads.run(first), *(threads.run(work, {"number": number}) for number in range(3))]
    first.go.set()
    for run in runs:
        await read(run)
    assert order == [0, 1, 2]


class Value:
    """Something that can be watched as it is let go."""


def returned(value: Value, on_progress: OnProgress) -> Value:
    return value


def raised(value: Value, on_progress: OnProgress) -> None:
    raise LookupError(value)


@BOTH
@pytest.mark.parametrize("work", [returned, raised])
async def test_what_has_ended_is_freed_without_a_garbage_collection(
    make: Make, threads: Threads, work: Callable[[Value, OnProgress], Any]
) -> None:
    gc.collect()
    gc.disable()
    try:
        value = Value()
        watched, run = weakref.ref(value), threads.run(make(partial(work, value)))
        del value
        with suppress(LookupError):
            assert isinstance(await run.result(), Value)
        for thread in threading.enumerate():
            if thread.name == "sse.threads":
                await asyncio.to_thread(thread.join, LONG)
        await asyncio.sleep(0)  # the task's last step
        held = weakref.ref(run)
        del run
        assert (watched(), held()) == (None, None)
    finally:
        gc.enable()


async def test_whoever_gives_on_progress_as_a_parameter_gets_the_runs_own(threads: Threads) -> None:
    assert await read(threads.run(steps(1), {"on_progress": None})) == numbered(1)


# Loops and processes that end first.


def closed_loop(work: Work, *, waiting: bool) -> Threads:
    """The threads of a run that is under way when its loop closes, with a reader waiting for it or not."""

    async def start() -> Threads:
        threads = Threads(threads=1, queue=1)
        run = threads.run(work)
        if waiting:
            reader = asyncio.create_task(read(run))
            await asyncio.sleep(0)  # its first step: it waits
            reader.cancel()
        return threads

    with asyncio.Runner() as runner:
        return runner.run(start())


@pytest.mark.parametrize("waiting", [True, False], ids=["with a reader", "without"])
def test_work_that_ends_after_its_loop_ends_quietly(waiting: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    unhandled: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", unhandled.append)
    work = Work()
    threads = closed_loop(work, waiting=waiting)
    work.release()
    assert (threads.counts(), unhandled) == (IDLE, [])


def test_progress_that_finds_its_loop_closed_stops_the_work() -> None:
    work = Work(steps(2))
    threads = closed_loop(work, waiting=True)
    work.release()
    assert isinstance(work.left_by, Cancelled)
    assert threads.counts() == IDLE


BUSY: Mapping[str, str] = {
    "asleep in a thread": "def work(on_progress): time.sleep(60)",
    "computing in a thread": "def work(on_progress):\n    while True: pass",
    "swallowing its cancellation": """
async def work(on_progress):
    while True:
        try: await asyncio.sleep(60)
        except asyncio.CancelledError: pass
""",
}


@pytest.mark.parametrize("closes", [True, False], ids=["closed", "closed by the end of the loop"])
@pytest.mark.parametrize("work", BUSY.values(), ids=BUSY.keys())
def test_work_that_does_not_stop_does_not_hold_the_exit(work: str, closes: bool) -> None:
    program = f"""
import asyncio, threading, time
from sse import threads
threads.GRACE = 0.1
{work}
async def read(run):
    try:
        async for _ in run: pass
    finally: await run.aclose()
async def main():
    run = threads.Threads(threads=1, queue=0).run(work)
    while run.started is None: await asyncio.sleep(0.001)
    reader = asyncio.create_task(read(run))
    await asyncio.sleep(0)
    if {closes}: await run.aclose()
    print("leaving", flush=True)
asyncio.run(main())
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

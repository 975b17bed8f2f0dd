"""Running a function beside the event loop. In: a function and its parameters. Out: its progress, then its result.

    threads = Threads(threads=4, queue=64)
    async with aclosing(threads.run(function, {"size": 10})) as run:  # function(size=10), on_progress=... if it takes that
        async for item in run:                                        # (step, details), ..., then Result(value)

An async function runs in the event loop, any other in a daemon thread. Progress gathers in a deque. The
thread wakes the loop only if the reader waits, and once for all progress until the reader runs. When the deque is full, new
progress replaces the oldest; results and failures are never lost. A function can't end the process, the loop or its reader's
task: an exception such as SystemExit, and a value that is no result, reach the reader as an ordinary exception.

Closing a run frees its reader, whatever the work does. An async function is cancelled, and has `GRACE` seconds to clean up.
A thread can't be stopped from outside: the next call of `on_progress` raises `Cancelled` in it, and work that never calls it
keeps its thread and its place until it ends. Neither holds up the end of the process. An executor would join its threads;
these are daemons. asyncio.run would wait for the tasks; these are not registered with it.

Limit: threads in pure Python share the interpreter lock with the loop and make every stream late, by up to the switch
interval (`sys.setswitchinterval`, 5 ms) for each such thread, each time the loop needs the lock. Code that releases it
(hashlib on large blocks, files, sockets) doesn't.
Limit: an async function that blocks holds the whole loop. `asyncio.all_tasks()` doesn't list the tasks of runs.
"""

import asyncio
import inspect
import logging
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from sse.errors import Full, SourceFailed, describe

logger = logging.getLogger("sse")

OnProgress: TypeAlias = Callable[[str, Mapping[str, Any]], None]  # called by the work, with a step and its details
Progress: TypeAlias = tuple[str, dict[str, Any]]  # one such call; making a NamedTuple would take longer than all else here

GRACE = 5.0
"""Seconds that an async function may take to clean up after its cancellation. Longer is not waited."""


@dataclass(frozen=True, slots=True)
class Result:
    """What the function returned: the last item of a run."""

    value: Any


class Cancelled(BaseException):
    """Raised by `on_progress` in the work, to stop it: its run is over.

    Like asyncio's CancelledError it is no Exception, so that `except Exception` in the work can't swallow it; `finally` runs.
    """


class Threads:
    """At most `threads` runs in a thread each, and `queue` more that wait for one. A thread ends when nothing waits.

    tasks: async functions that run at once; more wait. buffer: how many reports of a run may wait to be read; further ones
    replace the oldest.
    """

    def __init__(self, threads: int, queue: int, *, tasks: int = sys.maxsize, buffer: int = 64) -> None:
        self._threads = threads
        self._queue = queue
        self._tasks = asyncio.Semaphore(tasks)
        self._buffer = buffer
        self._lock = threading.Lock()
        self._waiting: deque[tuple[Run, Callable[[], Any]]] = deque()
        self._working: set[Run] = set()  # those that have a thread

    def counts(self) -> dict[str, int]:
        """Runs with a thread, runs that wait for one, and runs that were closed but still have a thread."""
        with self._lock:
            queued, abandoned = sum(not run.over for run, _ in self._waiting), sum(run.over for run in self._working)
            return {"running": len(self._working) - abandoned, "queued": queued, "abandoned": abandoned}

    def run(self, function: Callable[..., Any], params: Mapping[str, Any] | None = None, timeout: float | None = None) -> "Run":
        """Call `function(**params)` in a copy of this context: in the loop, or in a thread as soon as one is free.

        `on_progress` is added where the function has a parameter of that name. timeout: seconds from now until the run raises
        SourceFailed. Raises Full when every thread is busy and the queue is full. The caller has to call the run's `aclose()`.
        """
        run = Run(self._buffer)
        reports = {"on_progress": run.report} if "on_progress" in inspect.signature(function).parameters else {}
        work = partial(function, **{**(params or {}), **reports})
        if inspect.iscoroutinefunction(function):
            run.begin(work, self._tasks, getattr(function, "__name__", "an async function"))
        else:
            self._place(run, partial(copy_context().run, work))
        if timeout is not None:
            run.expire_in(timeout)
        return run

    def _place(self, run: "Run", work: Callable[[], Any]) -> None:
        with self._lock:
            if len(self._waiting) >= self._queue:
                self._waiting = deque(entry for entry in self._waiting if not entry[0].over)
            if len(self._working) < self._threads:
                threading.Thread(target=self._thread, args=(run, work), name="sse.threads", daemon=True).start()
                self._working.add(run)
            elif len(self._waiting) < self._queue:
                self._waiting.append((run, work))
            else:
                raise Full("every thread is busy and their queue is full")

    def _thread(self, *entry: Any) -> None:
        """A thread: performs one run, then those that wait. It keeps no reference to a run that has ended."""
        while entry:
            entry = self._serve(*entry)

    def _serve(self, run: "Run", work: Callable[[], Any]) -> tuple[Any, ...]:
        outcome = None if run.over else run.perform(work)
        with self._lock:  # before the end is reported, so that its reader finds the place free
            self._working.discard(run)
            following = self._waiting.popleft() if self._waiting else ()
            self._working.update(following[:1])
        run.end(outcome)
        del outcome  # the traceback of an error holds this frame
        return following


class Run:
    """One call of a function, made by `Threads.run`: an async iterator, for one reader, of Progress and then a Result.

    What the function raised is raised here, after its progress. started: seconds since 1970, None before the call.
    """

    def __init__(self, buffer: int) -> None:
        self.started: float | None = None
        self._progress: deque[Progress] = deque(maxlen=buffer)
        self._outcome: Result | Exception | None = None
        self._open = True  # False once it is closed or read to its end
        self._idle = False  # the reader waits or is about to, and has to be woken
        self._news = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- the reader's side

    def __aiter__(self) -> "Run":
        return self

    async def __anext__(self) -> Progress | Result:
        while self._open:
            if self._progress:
                return self._progress.popleft()
            outcome = self._outcome
            if outcome is None:
                self._news.clear()
                self._idle = True
                # The work appends and then reads `_idle`; this sets `_idle` and then looks again. So no wake-up is missed.
                if not self._progress and self._outcome is None:
                    await self._news.wait()
            elif not self._progress:  # all progress was appended before the end
                self._close()
                if isinstance(outcome, Result):
                    return outcome
                try:
                    raise outcome
                finally:
                    del outcome  # its traceback holds this frame as well
        raise StopAsyncIteration

    async def result(self) -> Any:
        """Wait for what the function returned, and close the run; progress is dropped. Raises what the function raised."""
        async with aclosing(self):
            async for item in self:
                if isinstance(item, Result):
                    return item.value
        raise RuntimeError("the run was closed")

    async def aclose(self) -> None:
        """Stop the work, unless it has ended, and drop what wasn't read. Waits for an async function, up to `GRACE`."""
        self._close()
        self._news.set()
        task, self._task = self._task, None
        if task is None or not task.cancel():  # it has ended
            return
        try:
            await asyncio.wait((task,), timeout=GRACE)
        finally:
            if not task.done():
                logger.warning("the function %s goes on although it was cancelled; it is let go", task.get_name())

    def _close(self) -> None:
        self._open = False
        self._progress.clear()
        self._outcome = None
        if self._timer is not None:
            self._timer.cancel()

    def expire_in(self, seconds: float) -> None:
        """End as failed after so many seconds, unless the function ends before."""
        failure = SourceFailed(f"the function took longer than {seconds:g} s", "timed_out")
        self._timer = self._loop.call_later(seconds, self.end, failure)

    # -- the work's side; in a thread, if it has one

    @property
    def over(self) -> bool:
        """Whether the run has ended, has run out of time, or was closed."""
        return not self._open or self._outcome is not None

    def report(self, step: str, details: Mapping[str, Any]) -> None:
        """`on_progress`. Details are copied: the work may go on using its dict. Raises Cancelled if the run is over."""
        if self._outcome is not None or not self._open:
            raise Cancelled
        self._progress.append((step, {**details}))
        if self._idle:
            self._wake()

    def end(self, outcome: Result | Exception | None) -> None:
        """End the run with this outcome. Does nothing if the run is over: the outcome of closed work is dropped."""
        if not self.over:
            self._outcome = outcome
            if self._idle:
                self._wake()

    def _wake(self) -> None:
        self._idle = False  # before the wake-up, after which the reader may wait again at once
        try:
            self._loop.call_soon_threadsafe(self._news.set)
        except RuntimeError:  # the loop is closed: nobody is left to read
            self._open = False

    def perform(self, work: Callable[[], Any]) -> Result | Exception:
        """Call a function that blocks, and return its outcome."""
        self.started = time.time()
        try:
            return _result(work())
        except BaseException as error:
            return _failure(error)

    def begin(self, work: Callable[[], Awaitable[Any]], places: asyncio.Semaphore, name: str) -> None:
        """Call an async function as soon as a place is free, in a task that doesn't hold up the end of asyncio.run."""
        self._task = asyncio.Task(self._perform(work, places), loop=self._loop, name=name)
        asyncio._unregister_task(self._task)  # documented: "Extending asyncio"

    async def _perform(self, work: Callable[[], Awaitable[Any]], places: asyncio.Semaphore) -> None:
        try:
            async with places:
                self.started = time.time()
                self.end(_result(await work()))
        except BaseException as error:
            self.end(_failure(error))


def _result(value: Any) -> Result:
    """Raises TypeError for an awaitable or an iterator, which is no value yet."""
    if isinstance(value, Iterator | AsyncIterator | Awaitable):
        if inspect.isgenerator(value) or inspect.iscoroutine(value):
            value.close()  # avoids the warning of a coroutine that was never awaited
        raise TypeError(f"the function returned a {type(value).__name__} instead of a result")
    return Result(value)


def _failure(error: BaseException) -> Exception:
    """The error, or an ordinary exception in its place where it would act on the reader: SystemExit would end the loop,
    CancelledError the reader's task, StopAsyncIteration the reader's iteration."""
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    failure = RuntimeError(f"the function raised {describe(error)}")
    failure.__cause__ = error
    return failure

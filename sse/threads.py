"""Blocking work becomes an async iterator: in goes a function that blocks, out come its progress and then its result.

    bridge = Bridge(threads=4, queue=64)
    async with aclosing(bridge.run(function, {"size": 10})) as run:  # in a thread: function(on_progress=..., size=10)
        async for item in run:                                       # (step, details), ..., then Result(value)

One thread writes, the event loop reads. Items gather in a deque; the thread wakes the loop only when the reader waits,
once for all that comes until the reader runs. A full buffer makes the thread wait. The end never waits.

    QUEUED ──begin──► RUNNING ──end──► ENDED
       │                 └──cancel──► LET_GO ──end──► ENDED
       └──cancel──► ENDED                                         (`TRANSITIONS` has every row)

Nothing can stop a thread from outside. So cancelling lets its run go: the reader is free at once, and the next call of
`on_progress` raises `Cancelled` in the thread. Work that never calls it keeps its thread and gives its place back when
it ends. The threads are daemons of the bridge's own: an executor joins its threads at exit, however long they take.

Limit: threads in pure Python share the interpreter lock with the loop and make every stream late, by up to the switch
interval (`sys.setswitchinterval`, 5 ms) for each such thread, each time the loop needs the lock. Code that releases it
(hashlib on large blocks, files, sockets) doesn't.
"""

import asyncio
import enum
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextvars import copy_context
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from sse.errors import Full

T = TypeVar("T")

OnProgress: TypeAlias = Callable[[str, Mapping[str, Any]], None]  # the work calls it with a step and its details
Progress: TypeAlias = tuple[str, dict[str, Any]]  # one such call; a NamedTuple takes longer to make than the rest of it


@dataclass(frozen=True, slots=True)
class Result(Generic[T]):
    """What the function returned: the last item of a run."""

    value: T


class Cancelled(BaseException):
    """Raised by `on_progress` in the thread: stop working, nobody reads any more.

    No Exception, as asyncio's CancelledError is none: `except Exception` in the work can't swallow it; `finally` runs.
    """


State = enum.Enum("State", "QUEUED RUNNING LET_GO ENDED")
QUEUED, RUNNING, LET_GO, ENDED = State

TRANSITIONS = {
    (QUEUED, "begin"): RUNNING,
    (QUEUED, "cancel"): ENDED,
    (RUNNING, "cancel"): LET_GO,
    (RUNNING, "end"): ENDED,
    (LET_GO, "cancel"): LET_GO,
    (LET_GO, "end"): ENDED,
    (ENDED, "begin"): ENDED,  # cancelled in the queue: when its turn comes it isn't called,
    (ENDED, "end"): ENDED,  # only passed by
    (ENDED, "cancel"): ENDED,
}


class Bridge:
    """At most `threads` runs at a time, a thread each, and `queue` more that wait; a thread ends when nothing waits."""

    def __init__(self, threads: int, queue: int) -> None:
        self._threads = threads
        self._queue = queue
        self._lock = threading.Lock()
        self._waiting: deque[Run[Any]] = deque()
        self._working: set[Run[Any]] = set()  # a thread each

    @property
    def queued(self) -> int:
        """Runs that wait for a thread."""
        with self._lock:
            return sum(run.state is QUEUED for run in self._waiting)

    @property
    def busy(self) -> int:
        """Threads at work, on abandoned runs too."""
        return len(self._working)

    @property
    def abandoned(self) -> int:
        """Runs that were let go and whose thread is still at work."""
        with self._lock:
            return sum(run.state is LET_GO for run in self._working)

    def run(
        self, function: Callable[..., T], params: Mapping[str, Any] | None = None, *, buffer: int = 1024, latest: bool = False
    ) -> "Run[T]":
        """Call `function(on_progress=..., **params)` in a thread and in a copy of this context, as soon as one is free.

        buffer: unread items, at least 1, that make the thread wait; latest: that push out the oldest of them instead.
        Raises Full at once when every thread is busy and the queue is full. The caller owes the run an `aclose()`.
        """
        run = Run(partial(copy_context().run, function, **(params or {})), buffer, latest)
        with self._lock:
            self._waiting = deque(other for other in self._waiting if other.state is QUEUED)  # not the cancelled ones
            if len(self._working) < self._threads:
                threading.Thread(target=self._work, args=(run,), name="sse.threads", daemon=True).start()
                self._working.add(run)
            elif len(self._waiting) < self._queue:
                self._waiting.append(run)
            else:
                raise Full("every thread is busy and their queue is full")
        return run

    def _work(self, run: "Run[Any] | None") -> None:
        """The thread: one run, then those that wait."""
        while run is not None:
            outcome = run._call()
            following = self._next(run)  # before the end is told: whoever learns of it finds the place free
            run._finish(outcome)
            run = following

    def _next(self, done: "Run[Any]") -> "Run[Any] | None":
        with self._lock:
            self._working.remove(done)
            if not self._waiting:
                return None
            self._working.add(following := self._waiting.popleft())
            return following


class Run(Generic[T]):
    """One call of a function, made by `Bridge.run`: an async iterator, for one reader, of Progress and then a Result.

    What the function raised is raised here, after its progress.
    """

    def __init__(self, function: Callable[..., T], buffer: int, latest: bool) -> None:
        self.state = QUEUED
        self._function = function
        self._limit = sys.maxsize if latest else buffer
        self._buffer: deque[Progress] = deque(maxlen=buffer if latest else None)
        self._outcome: Result[T] | Exception | None = None
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None  # left by a reader that found nothing
        self._changed = threading.Condition(threading.Lock())  # held to change the state or the waiter

    def __aiter__(self) -> "Run[T]":
        return self

    async def __anext__(self) -> Progress | Result[T]:
        try:
            return self._buffer.popleft()
        except IndexError:
            return await self._arrival()

    async def aclose(self) -> None:
        """Cancel, unless it has ended, and drop what wasn't read. Never waits for the thread."""
        self._cancel()

    async def _arrival(self) -> Progress | Result[T]:
        while True:
            over = self.state in (LET_GO, ENDED)  # asked before the buffer: all progress is there before the end is
            if self._buffer:
                return self._buffer.popleft()
            if over:
                outcome, self._outcome = self._outcome, None
                if outcome is None:
                    raise StopAsyncIteration
                if isinstance(outcome, Exception):
                    raise outcome
                return outcome
            with self._changed:
                self._changed.notify_all()
                self._waiter = waiter = self._loop.create_future()
            # The thread appends, then looks for a waiter; here it's the other way round: one of them sees the other.
            if not self._buffer and self.state in (QUEUED, RUNNING):
                await waiter

    def _cancel(self) -> None:
        with self._changed:
            self.state = TRANSITIONS[self.state, "cancel"]
            self._changed.notify_all()
            self._buffer.clear()
            self._outcome = None
        self._wake()

    def _wake(self) -> None:
        """Let the reader look again, if it waits. From any thread."""
        with self._changed:
            waiter, self._waiter = self._waiter, None
        try:
            if waiter is not None:
                self._loop.call_soon_threadsafe(_resolve, waiter)
        except RuntimeError:
            if not self._loop.is_closed():
                raise
            self._cancel()  # nobody is left to read

    # What follows runs in the thread.

    def _call(self) -> Result[T] | Exception | None:
        """The function's outcome; None if the run was cancelled before."""
        with self._changed:
            self.state = TRANSITIONS[self.state, "begin"]
        if self.state is ENDED:
            return None
        try:
            return Result(self._function(on_progress=self._on_progress))
        except BaseException as error:
            if isinstance(error, Exception) and not isinstance(error, StopAsyncIteration):
                return error
            # At the reader SystemExit would end the loop, CancelledError the task, StopAsyncIteration the run in silence.
            stand_in = RuntimeError(f"the work raised {error!r}")
            stand_in.__cause__ = error
            return stand_in

    def _finish(self, outcome: Result[T] | Exception | None) -> None:
        """The end. How work ends that was let go concerns nobody."""
        with self._changed:
            if self.state is RUNNING:
                self._outcome = outcome
            self.state = TRANSITIONS[self.state, "end"]
        self._wake()

    def _on_progress(self, step: str, details: Mapping[str, Any]) -> None:
        """Details are copied: the work may go on using its dict. No lock where there is space: append is atomic."""
        if self.state is not RUNNING or len(self._buffer) >= self._limit:
            self._wait_for_space()
        self._buffer.append((step, {**details}))
        if self._waiter is not None:
            self._wake()

    def _wait_for_space(self) -> None:
        with self._changed:
            while self.state is RUNNING and len(self._buffer) >= self._limit:
                self._changed.wait()
            if self.state is not RUNNING:
                raise Cancelled


def _resolve(waiter: "asyncio.Future[None]") -> None:
    if not waiter.done():  # its reader may have been cancelled meanwhile
        waiter.set_result(None)

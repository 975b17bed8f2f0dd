"""A stream: one source, one event log, one end. Watchers come and go; the work goes on without them for `linger` seconds.

In:  an `Opening`: a source, or none where events are emitted from outside, and for how long. Out: the events of its log.

The stream's task owns the run: it alone iterates the source, and closes it in `finally`. Whatever happens, exactly one terminal
event is written, at the moment the stream ends; no watcher waits for a source that is slow to clean up afterwards.
Limit: a source that never finishes its clean-up is reported only by the drain (`store`).

    RUNNING ─► DONE        the source ended
            ─► CANCELLED   somebody asked · nobody watched for as long as the linger · the server shuts down
            ─► FAILED      the source raised, or its publisher vanished
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Final

from sse.budget import Budget, Charge
from sse.crowd import Crowd
from sse.errors import Full, SourceFailed, describe
from sse.formats import Format, Written, events_of, internal
from sse.ids import new_id
from sse.log import GATHER, EventLog, Watcher
from sse.timers import Timers
from sse.wire.ascii import to_ascii
from sse.wire.document import weight
from sse.wire.payload import dumps

logger = logging.getLogger("sse")

STREAM = 8192
"""Bytes that a stream takes, with its source and format, beside what else it is charged."""

MAX_EVENT = 8 << 20
"""Bytes of one encoded event; a larger one is an `item_error`. A model sends an image of 4 MB as one event of 5.4 MB."""


class State(StrEnum):
    RUNNING = "running"
    DONE = "done"
    CANCELLED = "cancelled"
    FAILED = "failed"


class Trigger(StrEnum):
    """What ends a stream; the value is the reason that clients are told."""

    SOURCE_ENDED = "source_ended"
    SOURCE_FAILED = "source_failed"
    DELETED = "deleted"
    REPLACED = "replaced"  # by another one in its conversation
    ABANDONED = "abandoned"  # nobody watched for as long as the linger
    SHUTTING_DOWN = "shutting_down"


ENDS: Final = {
    Trigger.SOURCE_ENDED: State.DONE,
    Trigger.SOURCE_FAILED: State.FAILED,
    Trigger.DELETED: State.CANCELLED,
    Trigger.REPLACED: State.CANCELLED,
    Trigger.ABANDONED: State.CANCELLED,
    Trigger.SHUTTING_DOWN: State.CANCELLED,
}
"""What each trigger makes of a running stream. A stream that has ended stays as it is."""


@dataclass(slots=True)  # not frozen: to make one takes 1 µs instead of 3
class Opening:
    """How a stream is opened. It is never changed.

    source: an async iterator, closed with `aclose` if it has that; None where events are emitted from outside.
    linger: seconds the work goes on while nobody watches, from the opening on; None: for ever.
    keep: seconds an ended stream can be read; longer while somebody watches it.
    metadata: any JSON, shown beside the stream. result: what the stream has come to so far, at any time. charge, kept: the
    memory of what opened it, which is needed until it ends; and of its result, which is needed until it is forgotten.
    identity: what opened it, with its query and body; only the same may resume it there. claim: the key that it holds, if any;
    digest: of the request that has taken it. ids: what stands before an event's number in its id; `<stream id>.` unless given.
    start: the number of the event before the first one. listed: whether it can be found again, and its events are kept for
    that. request_id: of the request that opened it. key: permits cancelling the stream and publishing to it. ascii: whether
    events are transliterated, if the format permits that. kind: the feature that has opened it. asked: answers the questions of
    that feature (`Store.ask`).
    """

    source: AsyncIterator[Any] | None
    format: Format
    linger: float | None = 30.0
    keep: float = 300.0
    metadata: Any = None
    result: Callable[[], Any] | None = None
    charge: Charge | None = None
    kept: Charge | None = None
    identity: str = ""
    claim: str = ""
    digest: str = ""
    id: str = field(default_factory=new_id)
    ids: str | None = None
    start: int = 0
    listed: bool = True
    request_id: str = ""
    key: str = field(default_factory=new_id)
    ascii: bool = False
    kind: str = ""
    asked: Callable[..., Awaitable[Any]] | None = None

    async def close(self) -> None:
        """Close the source."""
        if aclose := getattr(self.source, "aclose", None):
            await aclose()

    @property
    def said(self) -> Callable[[bytes], bytes]:
        """Makes of an event as the format writes it the event that is sent: the same (`bytes`), or transliterated."""
        return to_ascii if self.ascii and self.format.transliterated else bytes


def _gap(format: Format, numbered: bytes, said: Callable[[bytes], bytes], first: int, last: int) -> bytes:
    """The event for a gap, as it is sent. It refers to no stream, so that no cycle has to be collected."""
    event = said(format.gap(first, last))
    return numbered % (last, event) if numbered else event


class Stream:
    """One answer and its life. Built inside a running event loop, it runs at once.

    on_end: called once, with the stream. on_idle: called when nobody has watched for the linger, to end it or to let it `wait`
    on; and once more when it has ended and its keep is over. discarded: its events are gone, and it can't be followed any more.
    elsewhere: whether another process runs it. kept: what it is charged beside its log. gap: (first, last lost) -> the event
    that says so, as it is sent. Raises ModuleNotFoundError if events are to be transliterated without the extra `ascii`.
    """

    elsewhere = False

    # 2 KiB less for each stream: a class whose instances have more than 30 attributes shares no keys between their dicts.
    __slots__ = ("__weakref__", "_crowd", "_id", "_iterating", "_large", "_loop", "_numbered", "_on_end", "_on_idle",
                 "_said", "_task", "_waits", "created", "discarded", "ended", "failure", "format", "gap", "id", "kept",
                 "key", "last_event", "log", "opening", "reason", "resumes", "state", "timers")  # fmt: skip

    def __init__(
        self,
        opening: Opening,
        budget: Budget | None = None,
        timers: Timers | None = None,
        *,
        on_end: Callable[["Stream"], None] = lambda _: None,
        on_idle: Callable[["Stream"], None] = lambda stream: stream.abandon(),
    ) -> None:
        self.opening = opening
        self.id = opening.id
        self.key = opening.key
        self.format = format = opening.format
        self.state = State.RUNNING
        self.reason: str | None = None
        self.failure: SourceFailed | None = None
        self.resumes = 0
        self.created = time.time()
        self.ended: float | None = None
        self.last_event: float | None = None
        self.discarded = False
        ids = f"{self.id}." if opening.ids is None else opening.ids
        self._id = b"id: %b" % ids.encode() if format.ids else b""  # what an id line begins with
        self._numbered = self._id + b"%d\n%b" if format.ids else b""
        self._said = said = opening.said
        said(b"")  # raises now what it would raise for each event
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._on_idle = on_idle
        self.timers = Timers() if timers is None else timers
        self._crowd: Crowd | None = None
        self._waits: float | None = None  # how long, for the end of its linger or its keep
        self._iterating = False
        self._large: tuple[bytes, ...] = ()

        self.gap = partial(_gap, format, self._numbered, said)  # 160 bytes less than a closure
        self.log = EventLog(self.gap, budget, start=opening.start, replay=opening.listed)
        self.kept = opening.kept or Charge(self.log.budget)
        self.kept.add(STREAM if opening.metadata is None else STREAM + weight(dumps(opening.metadata)))
        source = opening.source
        self._task = asyncio.Task(self._run(source), loop=self._loop, name="stream") if source is not None else None
        self._set_timer(opening.linger)

    @property
    def newest(self) -> int:
        """The number of the newest event: the highest that a client can have."""
        return self.log.last - self.log.closed

    # -- the run

    async def _run(self, source: AsyncIterator[Any]) -> None:
        log = self.log
        try:
            if self.state is State.RUNNING:
                self._iterating = True
                async for item in source:
                    if self.ended is not None:
                        break  # the source has swallowed its cancellation
                    self.emit(item)
                    if log.written >= log.free:
                        await log.room()
            self.end(Trigger.SOURCE_ENDED)
        except SourceFailed as failure:
            self.end(Trigger.SOURCE_FAILED, failure)
            failure.__traceback__ = None  # the source may keep the failure; its traceback would keep the source
        except Full as full:
            self.end(Trigger.SOURCE_FAILED, SourceFailed(f"no room: {full.what}", "full", retryable=True))
        except BaseException as error:
            task = asyncio.current_task()
            # Cancelled by `end` or from outside, nothing is raised: the task would keep the error with its traceback. Otherwise
            # the source awaited something that was cancelled. SystemExit and KeyboardInterrupt too: raised by a source they are
            # its failure, and must not end the event loop.
            if not isinstance(error, asyncio.CancelledError) or task is None or not task.cancelling():
                logger.exception("the source of stream %.8s… failed", self.id)
                self.end(Trigger.SOURCE_FAILED, internal())
            error.__traceback__ = None
        finally:
            self.end(Trigger.SHUTTING_DOWN)  # cancelled, but not by `end`; otherwise it has ended already
            try:
                await self.opening.close()
            except Exception:
                logger.exception("the source of stream %.8s… failed to close", self.id)

    def emit(self, item: Any) -> None:
        """Write what the source yielded. Raises RuntimeError after the end."""
        if self.ended is not None:  # takes a quarter of the time of looking at `state`
            raise RuntimeError("nothing follows the terminal event")
        try:
            written = self.format.item(item)
        except Exception as error:  # one bad item must not end the stream
            logger.warning("an item of stream %.8s… could not be written", self.id, exc_info=error)
            written = self.format.item_error(describe(error))
        if not isinstance(written, bytes):
            for event in filter(None, written):
                self._append(event)
        elif written:
            self._append(written)

    def _append(self, event: bytes) -> None:
        if self._said is not bytes:
            event = self._said(event)
        if len(event) > MAX_EVENT:
            event = self._said(self.format.item_error(f"an event of {len(event)} bytes is over the limit of {MAX_EVENT}"))
        self.last_event = self._loop.time()
        log = self.log
        log.append(self._numbered % (log.last + 1, event) if self._numbered else event)

    def end(self, trigger: Trigger, failure: SourceFailed | None = None) -> bool:
        """Write the terminal event and stop the source, unless the stream has ended before. Returns whether this ended it."""
        if self.state is not State.RUNNING:
            return False
        self.state, self.reason = ENDS[trigger], trigger.value
        self.ended = time.time()
        if failure is not None:  # a copy: the failure's traceback keeps the functions that failed
            self.failure = SourceFailed(failure.message, failure.code, retryable=failure.retryable)
        self._set_timer(self.opening.keep)  # before a watcher hears of the end, and leaves
        *before, terminal = self._terminal(failure)
        for event in before:
            self._append(event)
        terminal = self._said(terminal)
        self.log.close(b"%bend\n%b" % (self._id, terminal) if self._id else terminal)
        task = self._task
        # A task cancelled before its first step would close nothing; that step sees the state.
        if task is not None and self._iterating and task is not asyncio.current_task(self._loop):
            task.cancel()
        if self.opening.charge is not None:
            self.opening.charge.clear()
        self._on_end(self)
        return True

    def _terminal(self, failure: SourceFailed | None) -> list[bytes]:
        """The events of the end, the terminal one last."""
        try:
            written: Written
            if self.state is State.DONE:
                written = self.format.done()
            elif failure is not None:
                written = self.format.failed(failure)
            else:
                written = self.format.cancelled(self.reason or "")
            events = events_of(written)
            if all(events) and events:
                return events
            logger.error("the format %s has written no terminal event", self.format.name)
        except Exception:  # without a terminal event its watchers would wait for ever
            logger.exception("the end of stream %.8s… could not be written", self.id)
        return events_of(Format().failed(internal()))

    async def closed(self) -> None:
        """Wait until the source is closed."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    # -- its watchers

    @property
    def crowd(self) -> Crowd:
        """The watchers that have taken everything."""
        if self._crowd is None:
            self._crowd = Crowd(self.log, self.timers)
        return self._crowd

    def position(self, from_now: bool) -> int:
        """Where a newcomer starts: at the oldest event held, at the first one, or at the live end."""
        log = self.log
        if from_now:
            return log.last - log.closed
        return self.opening.start if self.format.from_first else log.first - 1

    def attach(self, watcher: Watcher) -> None:
        """Let `watcher` follow from its position on; no await between finding the stream and this."""
        self.log.attach(watcher)
        if self.state is State.RUNNING:
            self._set_timer(None)

    def detach(self, watcher: Watcher) -> None:
        self.log.detach(watcher)
        if self.log.watchers:
            return
        if self.elsewhere or self.log.closed:
            self.log.budget.renew()
        if self.state is State.RUNNING:
            self._set_timer(self.opening.linger)
        elif self._waits is None:  # its keep ran out while it was watched
            self._on_idle(self)

    def preamble(self, position: int, retry: int | None, *, newcomer: bool) -> tuple[bytes, ...]:
        """The bytes before a watcher's first event: they hold its position, so that it can resume if the connection breaks now.

        A block with an id and no data dispatches nothing and still moves the last event ID (HTML 9.2.6).
        """
        opening, *more = self._slices() if newcomer else (b"",)
        if not self._id:
            return opening or b":\n", *more
        reconnection = b"" if retry is None else b"retry: %d\n" % retry
        return b"%b%d\n%b%b" % (self._id, position, reconnection, opening or b"\n"), *more

    def _slices(self) -> tuple[bytes, ...]:
        """The format's opening. A large one is made once, for all newcomers."""
        if self._large:
            return self._large
        opening = self._said(self.format.opening(self.id) or b"")
        if len(opening) <= GATHER:
            return (opening,)
        self.kept.add(len(opening))
        self._large = tuple(opening[begin : begin + GATHER] for begin in range(0, len(opening), GATHER))
        return self._large

    def discard(self) -> None:
        """Give back what it was charged: the stream has ended, and nobody can find it any more."""
        self.discarded = True
        self._set_timer(None)
        self.log.clear()
        self.kept.clear()

    def ready(self, watcher: Watcher) -> bool:
        """Whether there is something to take; if not, `watcher` will be woken when there is."""
        return self.log.ready(watcher)

    def take(self, watcher: Watcher, *, whole: bool = False) -> bytes:
        """What is ready for `watcher`, as of `EventLog.take`."""
        return self.log.take(watcher, whole=whole)

    def finished(self, watcher: Watcher) -> bool:
        """Whether `watcher` has taken the terminal event."""
        return self.log.closed and watcher.position == self.log.last

    def apology(self) -> bytes:
        """An error of ours while a watcher was served, as an event without an id: the stream itself goes on."""
        return self._said(self.format.apology())

    def wait(self, seconds: float) -> None:
        """The linger begins anew, unless somebody watches; it takes at least so many seconds."""
        if self.opening.linger is not None and self.state is State.RUNNING and not self.log.watchers:
            self._set_timer(max(self.opening.linger, seconds))

    def abandon(self) -> None:
        """Nobody wants it any more."""
        self.end(Trigger.ABANDONED)

    # -- its timer: the linger while it runs, its keep afterwards

    def _set_timer(self, seconds: float | None) -> None:
        if self._waits is not None:
            self.timers[self._waits].end(self)
        self._waits = seconds
        if seconds is not None:
            self.timers[seconds].begin(self)

    def time_is_up(self) -> None:
        self._waits = None
        if not self.log.watchers:
            self._on_idle(self)

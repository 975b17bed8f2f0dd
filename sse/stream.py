"""A stream: one source, one event log, one end. Watchers come and go; the work goes on without them for `linger` seconds.

In:  an `Opening`: a source, or none where events are emitted from outside, and for how long. Out: the events of its log.

The stream's task owns the run: it alone iterates the source, and closes it in `finally`. Whatever happens, exactly one terminal
event is written, at the moment the stream ends; a source that is slow to clean up afterwards holds nobody.

    RUNNING ─► DONE        the source ended
            ─► CANCELLED   somebody asked · nobody watched for as long as the linger · the server shuts down
            ─► FAILED      the source raised, or its publisher vanished
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final

from sse.errors import SourceFailed, describe
from sse.formats import Format, Written, internal
from sse.log import Budget, EventLog, Watcher

logger = logging.getLogger("sse")

MAX_EVENT = 2 << 20
"""Bytes of one encoded event; a larger one is an `item_error`."""

CLEANUP = 5.0
"""Seconds a source may take to clean up before that is reported."""


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
    ABANDONED = "abandoned"  # nobody watched for as long as the linger
    SHUTTING_DOWN = "shutting_down"


ENDS: Final = {
    Trigger.SOURCE_ENDED: State.DONE,
    Trigger.SOURCE_FAILED: State.FAILED,
    Trigger.DELETED: State.CANCELLED,
    Trigger.ABANDONED: State.CANCELLED,
    Trigger.SHUTTING_DOWN: State.CANCELLED,
}
"""What each trigger makes of a running stream. A stream that has ended stays as it is."""


def new_id() -> str:
    """128 random bits, URL-safe: 22 of `[A-Za-z0-9_-]`."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True, slots=True)
class Opening:
    """How a stream is opened.

    source: an async iterator, closed with `aclose` if it has that; None where events are emitted from outside.
    linger: seconds the work goes on while nobody watches, from the opening on; None: for ever.
    keep: seconds an ended stream can be read; longer while somebody watches it.
    metadata: any JSON, shown beside the stream. result: what the stream has come to so far, at any time.
    identity: what opened it, with its query and body; only the same may resume it there. claim: the key that it holds, if any.
    ids: what stands before an event's number in its id; `<stream id>.` unless given. start: the number of the event before
    the first one. listed: whether it can be found again, and its events are kept for that. request_id: of the request that
    opened it. key: what permits to cancel the stream and to publish to it; made unless given.
    """

    source: AsyncIterator[Any] | None
    format: Format
    linger: float | None = 30.0
    keep: float = 300.0
    metadata: Any = None
    result: Callable[[], Any] | None = None
    identity: str = ""
    claim: str = ""
    id: str = field(default_factory=new_id)
    ids: str | None = None
    start: int = 0
    listed: bool = True
    request_id: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one log: events and bytes."""

    events: int = 65536
    bytes: int = 16 << 20


DEFAULT_LIMITS: Final = Limits()


class Stream:
    """One answer and its life. Built inside a running event loop, it runs at once.

    on_end, on_expire: called once each, with the stream. discarded: its events are gone, and it can't be followed any more.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        limits: Limits = DEFAULT_LIMITS,
        budget: Budget | None = None,
        on_end: Callable[["Stream"], None] = lambda _: None,
        on_expire: Callable[["Stream"], None] = lambda _: None,
    ) -> None:
        self.opening = opening
        self.id = opening.id
        self.format = format = opening.format
        self.source = source = opening.source
        self.state = State.RUNNING
        self.reason: str | None = None
        self.failure: SourceFailed | None = None
        self.resumes = 0
        self.created = time.time()
        self.ended: float | None = None
        self.last_event: float | None = None
        self.discarded = False
        self._key = opening.key
        self._ids = (f"{self.id}." if opening.ids is None else opening.ids) if format.ids else None
        self._head = head = b"id: %b%%d\n%%b" % self._ids.encode() if self._ids is not None else None
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._on_expire = on_expire
        self._timer: asyncio.TimerHandle | None = None  # linger while it runs, keep afterwards
        self._iterating = False
        self._cleanup: asyncio.TimerHandle | None = None

        def gap(first: int, last: int) -> bytes:  # refers to no stream: what is forgotten is freed without a garbage collection
            event = format.gap(first, last)
            return head % (last, event) if head else event

        self.log = EventLog(
            gap,
            start=opening.start,
            max_events=limits.events,
            max_bytes=limits.bytes,
            budget=budget,
            replay=opening.listed,
        )
        self._task = asyncio.Task(self._run(source), loop=self._loop) if source is not None else None
        self._begin_linger()

    @property
    def key(self) -> str:
        """What permits to cancel the stream and to publish to it; made when it is first asked for."""
        if not self._key:
            self._key = new_id()
        return self._key

    # -- the run

    async def _run(self, source: AsyncIterator[Any]) -> None:
        log = self.log
        try:
            if self.state is State.RUNNING:
                self._iterating = True
                async for item in source:
                    if self.state is not State.RUNNING:
                        break  # the source was cancelled, and went on all the same
                    self.emit(item)
                    if log.full:
                        await log.room()
            self.end(Trigger.SOURCE_ENDED)
        except SourceFailed as failure:
            self.end(Trigger.SOURCE_FAILED, failure)
        except BaseException as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise  # by `end`, or from outside; otherwise the source has waited for something that was cancelled
            # SystemExit and KeyboardInterrupt too: raised by a source they are its failure, and must not end the event loop.
            logger.exception("the source of stream %.8s… failed", self.id)
            self.end(Trigger.SOURCE_FAILED, internal())
        finally:
            self.end(Trigger.SHUTTING_DOWN)  # cancelled, and not by us; otherwise it has ended already
            await self._close(source)

    async def _close(self, source: AsyncIterator[Any]) -> None:
        try:
            if aclose := getattr(source, "aclose", None):
                await aclose()
        except Exception:
            logger.exception("the source of stream %.8s… failed to close", self.id)
        finally:
            if self._cleanup is not None:
                self._cleanup.cancel()

    def emit(self, item: Any) -> int | None:
        """Write what the source yielded. Returns the number of the last event of it, None where nothing is written.

        Raises RuntimeError after the end.
        """
        if self.state is not State.RUNNING:
            raise RuntimeError("nothing follows the terminal event")
        try:
            written = self.format.item(item)
        except Exception as error:  # one odd item must not cost the rest
            logger.warning("an item of stream %.8s… could not be written", self.id, exc_info=error)
            written = self.format.item_error(describe(error))
        if isinstance(written, bytes):
            return self._append(written) if written else None
        number = None
        for event in filter(None, written):
            number = self._append(event)
        return number

    def _append(self, event: bytes) -> int:
        if len(event) > MAX_EVENT:
            event = self.format.item_error(f"an event of {len(event)} bytes is over the limit of {MAX_EVENT}")
        self.last_event = self._loop.time()
        log = self.log
        return log.append(self._head % (log.last + 1, event) if self._head else event)

    def end(self, trigger: Trigger, failure: SourceFailed | None = None) -> bool:
        """Write the terminal event and stop the source, unless the stream has ended before. Returns whether this ended it."""
        if self.state is not State.RUNNING:
            return False
        self.state, self.reason, self.failure = ENDS[trigger], trigger.value, failure
        self.ended = time.time()
        self._set_timer(self.opening.keep, self._expire)  # before a watcher hears of the end, and leaves
        *before, terminal = self._terminal(trigger)
        for event in before:
            self._append(event)
        self.log.close(terminal if self._ids is None else b"id: %bend\n%b" % (self._ids.encode(), terminal))
        if self._task is not None and not self._task.done() and self._task is not asyncio.current_task(self._loop):
            self._cleanup = self._loop.call_later(CLEANUP, self._report_cleanup)
            if self._iterating:  # otherwise its first step sees the state: a task cancelled before that closes nothing
                self._task.cancel()
        self._on_end(self)
        return True

    def _terminal(self, trigger: Trigger) -> list[bytes]:
        """The events of the end, the terminal one last."""
        try:
            written: Written
            if self.state is State.DONE:
                written = self.format.done()
            elif self.failure is not None:
                written = self.format.failed(self.failure)
            else:
                written = self.format.cancelled(trigger.value)
            events = [written] if isinstance(written, bytes) else [*written]
            if all(events) and events:
                return events
            logger.error("the format %s has written no terminal event", self.format.name)
        except Exception:  # without a terminal event its watchers would wait for ever
            logger.exception("the end of stream %.8s… could not be written", self.id)
        written = Format().failed(internal())
        return [written] if isinstance(written, bytes) else [*written]

    def _report_cleanup(self) -> None:
        logger.warning("the source of stream %.8s… is still cleaning up %.0f s after its end", self.id, CLEANUP)

    async def closed(self) -> None:
        """Wait until the source is closed."""
        if self._task is not None:
            await asyncio.wait((self._task,))

    # -- its watchers

    def position(self, from_now: bool) -> int:
        """Where a newcomer starts: at the oldest event held, or at the live end."""
        log = self.log
        return log.last - log.closed if from_now else log.first - 1

    def attach(self, watcher: Watcher) -> None:
        """Let `watcher` follow from its position on; no await between finding the stream and this."""
        self.log.attach(watcher)
        if self.state is State.RUNNING:
            self._set_timer(None)

    def detach(self, watcher: Watcher) -> None:
        self.log.detach(watcher)
        if self.log.watchers:
            return
        if self.state is State.RUNNING:
            self._begin_linger()
        elif self._timer is None:  # its keep ran out while it was watched
            self._on_expire(self)

    def preamble(self, position: int, retry: int | None, *, newcomer: bool) -> bytes:
        """What stands before a watcher's first event: where it is, so that a connection that breaks now can come back.

        A block with an id and no data dispatches nothing and still moves the last event ID (HTML 9.2.6).
        """
        fields = b"" if self._head is None else b"id: %b%d\n" % ((self._ids or "").encode(), position)
        if retry is not None and self._head is not None:
            fields += b"retry: %d\n" % retry
        opening = self.format.opening(self.id) if newcomer else None
        return fields + (opening or b"\n") if fields else opening or b":\n"

    def discard(self) -> None:
        """Give the log's memory back: the stream has ended, and nobody can find it any more."""
        self.discarded = True
        self._set_timer(None)
        self.log.clear()

    def ready(self, watcher: Watcher) -> bool:
        """Whether there is something to take; if not, `watcher` will be woken when there is."""
        return self.log.ready(watcher)

    def take(self, watcher: Watcher) -> bytes:
        """What is ready for `watcher`; empty when nothing is, and then it will be woken."""
        return self.log.take(watcher)

    def finished(self, watcher: Watcher) -> bool:
        """Whether `watcher` has taken the terminal event."""
        return self.log.closed and watcher.position == self.log.last

    def apology(self) -> bytes:
        """An error of ours while a watcher was served, as an event without an id: the stream itself goes on."""
        return self.format.apology()

    # -- its timers

    def _begin_linger(self) -> None:
        if self.opening.linger is not None:
            self._set_timer(self.opening.linger, self._abandon)

    def _abandon(self) -> None:
        self._timer = None
        self.end(Trigger.ABANDONED)

    def _expire(self) -> None:
        self._timer = None
        if not self.log.watchers:
            self._on_expire(self)

    def _set_timer(self, seconds: float | None, callback: Callable[[], None] = lambda: None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, callback)

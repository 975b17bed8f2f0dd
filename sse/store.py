"""The streams of this process: opened, found, expired, and kept within their limits; and the seam to those of other processes.

In:  what a stream is opened with. Out: streams, by their ids. Room is reserved before anything is awaited, and nothing is
awaited between finding a stream and following its log.

Memory: all that is charged to the budget (`sse.budget`) is `memory` bytes at the most. Over that, the store drops in this
order: streams that have ended and are not watched, oldest first; events that every watcher has taken; events that only slow
watchers still need, which get a gap; events that nobody has taken, the newest of each log last. While that is not enough,
nothing new is opened.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from sse.budget import Budget
from sse.errors import Full
from sse.log import EventLog
from sse.stream import Opening, Stream, Trigger
from sse.timers import Timers

logger = logging.getLogger("sse")

CLEAN_UP = 1.0
"""Seconds that all sources together may take to clean up when a shutdown ends their streams."""


FAREWELL = b":\n"
"""When this process shuts down, watchers of a stream that runs elsewhere get this comment last, and no terminal event."""


class Holder(NamedTuple):
    """Who has a key. digest: of the request that took it; the same key with another digest is a mistake."""

    stream_id: str
    digest: str


@dataclass(slots=True)
class Link:
    """The state of a backend's connection to its store.

    up: whether it answers. reached: whether it ever has. lag: events that it doesn't have yet. errors, reconnects: how many.
    """

    up: bool = False
    reached: bool = False
    lag: int = 0
    errors: int = 0
    reconnects: int = 0


class Backend:
    """What holds streams and keys beyond this process. Its defaults are those of a single process: it knows no other stream,
    and has the keys. A backend of several processes overrides all that it does.

    A stream that runs elsewhere is an ordinary `Stream` without a source, whose log a reader of the backend fills. A method
    raises Full while the backend can't be reached: then it is unknown whether a stream exists.
    """

    def __init__(self) -> None:
        self._keys: dict[str, Holder] = {}

    @property
    def link(self) -> Link | None:
        """None: the backend has no connection."""

    def start(self, store: "Store") -> None:
        """Called once, in the event loop, with the store that uses this backend."""

    async def stop(self) -> None:
        """The process ends: hand over the last events of its streams, and close what is open."""

    async def find(self, stream_id: str) -> Stream | None:
        """A stream that this process doesn't hold, with all events until now. Raises Full."""

    async def newest(self, limit: int) -> list[Stream]:  # noqa: ARG002
        """The newest streams that this process doesn't hold, newest first; to be described, not to be watched. Raises Full."""
        return []

    async def announce(self, opening: Opening) -> None:
        """A stream is about to begin here: from now on it can be found everywhere."""

    def begin(self, stream: Stream) -> None:
        """A stream has begun here: record its events."""

    def abandon(self, stream: Stream) -> None:
        """Nobody has watched `stream` here for its linger: end it, unless it is watched elsewhere."""
        stream.abandon()

    def forget(self, stream_id: str, claim: str) -> None:
        """A stream is no longer held here, or was announced and never begun: forget it, and its key if it has one."""
        if claim in self._keys and self._keys[claim].stream_id == stream_id:
            del self._keys[claim]

    async def erase(self, stream: Stream) -> None:
        """A stream that has ended was deleted: let no process find it any more. Raises Full."""

    async def ask(self, stream: Stream, what: str, args: Sequence[Any]) -> Any:
        """The result of `Store.answer` in the process that runs `stream`. Raises Full, and the Problem that it raised there."""

    async def claim(self, key: str, holder: Holder, instead_of: str = "") -> Holder:
        """Take a key unless another stream than `instead_of` holds it. Returns the key's holder now. Raises Full."""
        if key in self._keys and self._keys[key].stream_id == instead_of:
            del self._keys[key]
        return self._keys.setdefault(key, holder)

    async def holder(self, key: str) -> Holder | None:
        """The holder of a key, if any. Raises Full."""
        return self._keys.get(key)


class Limits(NamedTuple):
    """Streams that run at once, connections that watch, bytes of all logs together; events and bytes of each log."""

    streams: int = 1000
    watchers: int = 10000
    memory: int = 256 << 20
    events: int = 65536
    bytes: int = 16 << 20


class Seat:
    """The place of one watcher, for as long as this lives: the answer that needs it holds it, and it is freed with that."""

    __slots__ = ("_store",)

    def __init__(self, store: "Store") -> None:
        self._store = store
        store.watchers += 1

    def __del__(self) -> None:
        self._store.watchers -= 1


class Store:
    """streams: all that are held and can be found, oldest first. running: those that have not ended.

    watchers: how many connections watch. gaps: number of gaps in streams that are no longer held. forgotten: number of streams
    that were dropped before their time, for want of memory.
    """

    def __init__(
        self,
        limits: Limits | None = None,
        *,
        backend: Backend | None = None,
        on_end: Callable[[Stream], None] = lambda _: None,
    ) -> None:
        self.limits = limits = limits or Limits()
        self.backend = backend or Backend()
        self.streams: dict[str, Stream] = {}
        self.running: dict[str, Stream] = {}
        self.timers = Timers()
        self.watchers = 0
        self.gaps = 0
        self.forgotten = 0
        self.draining = False
        self.budget = Budget(limits.memory, self._relieve, events=limits.events, bytes=limits.bytes)
        self._on_end = on_end
        self._reserved = 0
        self._quiet: asyncio.Future[None] | None = None  # done when nothing runs any more
        self.backend.start(self)

    @property
    def busy(self) -> int:
        """Streams that run, and requests that work towards one."""
        return len(self.running) + self._reserved

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Reserve room for the one stream that the block may open, or for the whole answer that it makes. Raises Full."""
        if self.draining:
            raise Full("shutting down")
        if not self.budget.room():
            raise Full("memory")
        if self.busy >= self.limits.streams:
            raise Full("streams")
        self._reserved += 1
        try:
            yield
        finally:
            self._reserved -= 1
            self._rest()

    def seat(self) -> Seat:
        """Reserve room for one watcher. Raises Full."""
        if self.watchers >= self.limits.watchers:
            raise Full("watchers")
        return Seat(self)

    def open(self, opening: Opening) -> Stream:
        """Open a stream, which runs at once; within `reserve`."""
        stream = Stream(opening, self.budget, self.timers, on_end=self._ended, on_idle=self._idle)
        self.running[stream.id] = stream
        if opening.listed:
            self.streams[stream.id] = stream
            self.backend.begin(stream)
        return stream

    async def find(self, stream_id: str) -> Stream | None:
        """The stream with this id, whichever process runs it."""
        stream = self.streams.get(stream_id)
        return stream if stream is not None else await self.backend.find(stream_id)

    async def end(self, stream: Stream, trigger: Trigger) -> None:
        """End a stream, whichever process runs it; one that has ended stays as it is."""
        if not stream.log.closed:
            await self.ask(stream, "end", trigger)

    async def ask(self, stream: Stream, what: str, *args: Any) -> Any:
        """Ask a stream for something, whichever process runs it. args: what JSON can hold. Raises Full, Problem."""
        return await (self.backend.ask(stream, what, args) if stream.elsewhere else self.answer(stream, what, args))

    async def answer(self, stream: Stream, what: str, args: Sequence[Any]) -> Any:
        """What a stream that runs here says to that: `end`, `result` (what it has come to so far), `gap` (its event for a range
        of events, as a text), or its feature's own.
        """
        opening = stream.opening
        if what == "end":
            return stream.end(Trigger(args[0]))
        if what == "result":
            return opening.result() if opening.result is not None else None
        if what == "gap":
            return stream.gap(*args).decode()
        return await opening.asked(stream, what, *args) if opening.asked is not None else None

    async def delete(self, stream: Stream) -> None:
        """End a stream and let it go, whichever process runs it: nobody finds it any more. Those who watch it get its end."""
        await self.end(stream, Trigger.DELETED)
        self.drop(stream)
        await self.backend.erase(stream)

    def drop(self, stream: Stream) -> None:
        """Find an ended stream no more; its log stays for those who watch it."""
        if not stream.log.watchers:
            self.forget(stream)
        elif not stream.elsewhere:  # a mirror goes by itself, soon after its last watcher
            self._let_go(stream)

    def forget(self, stream: Stream) -> None:
        """Let a stream go, with its log and its key: it has ended, or runs elsewhere and is not watched here."""
        self._let_go(stream)
        stream.discard()
        self.gaps, stream.log.gaps = self.gaps + stream.log.gaps, 0

    def _let_go(self, stream: Stream) -> None:
        if self.streams.pop(stream.id, None) is not None:
            self.backend.forget(stream.id, stream.opening.claim)

    async def drain(self, seconds: float) -> None:
        """Open nothing more; let what runs finish for `seconds`, then end it. The wait ends as soon as nothing runs."""
        self.draining = True
        for stream in list(self.streams.values()):
            if stream.elsewhere:  # its watchers go on at another process
                stream.log.close(FAREWELL)
                self._let_go(stream)
        if self.busy:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._quiet,), timeout=seconds)
        ending = {asyncio.ensure_future(stream.closed()): stream.id for stream in self.running.values()}
        for stream in list(self.running.values()):
            stream.end(Trigger.SHUTTING_DOWN)
        if ending:  # their sources may clean up, but not for ever
            _, late = await asyncio.wait(ending, timeout=CLEAN_UP)
            for waiting in late:
                logger.warning("the source of stream %.8s… is still cleaning up", ending[waiting])
                waiting.cancel()

    def _ended(self, stream: Stream) -> None:
        self.running.pop(stream.id, None)
        self.budget.renew()
        self._rest()
        self._on_end(stream)

    def _idle(self, stream: Stream) -> None:
        if stream.log.closed:
            self.forget(stream)
        elif stream.opening.listed:
            self.backend.abandon(stream)
        else:
            stream.abandon()

    def _rest(self) -> None:
        if not self.busy and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    def _relieve(self, size: int) -> None:
        """Make room for `size` bytes, and for some more, so that it isn't needed again at once."""
        budget = self.budget
        for stream in list(self.streams.values()):
            if budget.used + size <= budget.limit * 7 // 8 and budget.charged + size <= budget.limit * 3 // 4:
                return
            if (stream.elsewhere or stream.log.closed) and not stream.log.watchers:
                self.forgotten += 1
                self.forget(stream)
        logs = sorted((stream.log for stream in (self.streams | self.running).values()), key=lambda log: log.size, reverse=True)
        for drop in (EventLog.drop_taken, EventLog.drop_led, EventLog.drop_old, EventLog.drop_all):
            for log in logs:
                if budget.used + size <= budget.limit * 15 // 16:
                    return
                drop(log)

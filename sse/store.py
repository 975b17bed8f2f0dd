"""The streams of this process: opened, found, expired, and kept within their limits; and the seam to those of other processes.

In:  what a stream is opened with. Out: streams, by their ids. A place is reserved before anything is awaited, and nothing is
awaited between finding a stream and following its log.

Memory: all logs together hold `memory` bytes at the most. Over that, what nobody needs goes first: streams that have ended and
are not watched, oldest first; then events that every watcher has taken; then those that only laggards still want, who are told
the gap. While that is not enough, nothing new is opened.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import NamedTuple, Protocol

from sse.errors import Full
from sse.log import Budget, EventLog
from sse.stream import DEFAULT_LIMITS, Limits, Opening, Stream, Trigger

CLEAN_UP = 1.0
"""Seconds that the sources of streams which a shutdown ends may take to clean up, all together."""


class Holder(NamedTuple):
    """Who has a key. digest: of the request that took it; the same key with another digest is a mistake."""

    stream_id: str
    digest: str


class Backend(Protocol):
    """What holds streams beyond this process. `Memory`: nothing does.

    A stream that runs elsewhere is an ordinary `Stream` without a source, whose log a reader of the backend fills.
    """

    async def find(self, stream_id: str) -> Stream | None:
        """A stream that this process doesn't hold, with all events until now: a client may come with the newest one's id."""

    def begin(self, stream: Stream) -> None:
        """A stream begins here: record its events from now on."""

    async def end(self, stream: Stream) -> bool:
        """Ask whichever process runs `stream` to end it. False: it is this one."""

    async def claim(self, key: str, holder: Holder) -> Holder:
        """Take a key, unless somebody has it. Whose it is now."""

    def release(self, key: str) -> None:
        """The stream that held the key is gone, or was never opened."""


class Memory:
    """No other process: what isn't held here doesn't exist."""

    def __init__(self) -> None:
        self._keys: dict[str, Holder] = {}

    async def find(self, stream_id: str) -> Stream | None:  # noqa: ARG002
        return None

    def begin(self, stream: Stream) -> None:
        pass

    async def end(self, stream: Stream) -> bool:  # noqa: ARG002
        return False

    async def claim(self, key: str, holder: Holder) -> Holder:
        return self._keys.setdefault(key, holder)

    def release(self, key: str) -> None:
        self._keys.pop(key, None)


class Room:
    """Places of one kind. what: their name for whoever finds none."""

    __slots__ = ("limit", "taken", "what")

    def __init__(self, what: str, limit: int) -> None:
        self.what = what
        self.limit = limit
        self.taken = 0

    def take(self) -> None:
        """Raises Full."""
        if self.taken >= self.limit:
            raise Full(self.what)
        self.taken += 1

    def give_back(self) -> None:
        self.taken -= 1


class Place:
    """Room for one stream, as a context manager: given back at the end of the block, unless a stream has it by then.

    A request that works towards an answer in one piece keeps its place for as long as it works.
    """

    __slots__ = ("_store", "stream")

    def __init__(self, store: "Store") -> None:
        self._store = store
        self.stream: Stream | None = None

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.stream is None:
            self._store.leave()


@dataclass(frozen=True, slots=True)
class StoreLimits:
    """Streams that run at once, connections that watch, bytes of all logs; and the limits of each log."""

    streams: int = 1000
    watchers: int = 10000
    memory: int = 256 << 20
    log: Limits = DEFAULT_LIMITS


class Store:
    """streams: all that are held and can be found, oldest first. running: those that have not ended.

    places: of streams that run, and of requests that work towards one. watchers: of connections that watch.
    gaps: of streams that are held no more.
    """

    def __init__(
        self,
        limits: StoreLimits | None = None,
        *,
        backend: Backend | None = None,
        on_end: Callable[[Stream], None] = lambda _: None,
    ) -> None:
        self.limits = limits or StoreLimits()
        self.backend = backend or Memory()
        self.streams: dict[str, Stream] = {}
        self.running: dict[str, Stream] = {}
        self.places = Room("streams", self.limits.streams)
        self.watchers = Room("watchers", self.limits.watchers)
        self.gaps = 0
        self.draining = False
        self.budget = Budget(self.limits.memory, self._relieve)
        self._on_end = on_end
        self._quiet: asyncio.Future[None] | None = None  # done when nothing runs any more

    def reserve(self) -> Place:
        """A place for one stream. Raises Full."""
        if self.draining:
            raise Full("shutting down")
        if self.budget.used > self.budget.limit:
            raise Full("memory")
        self.places.take()
        return Place(self)

    def leave(self) -> None:
        """A place is free again."""
        self.places.give_back()
        self._rest()

    def open(self, opening: Opening, place: Place) -> Stream:
        """Open a stream, which runs at once."""
        stream = place.stream = Stream(
            opening, limits=self.limits.log, budget=self.budget, on_end=self._ended, on_expire=self.forget
        )
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
        if not await self.backend.end(stream):
            stream.end(trigger)

    def forget(self, stream: Stream) -> None:
        """Let an ended stream go, with its log and its key."""
        stream.discard()
        self.gaps, stream.log.gaps = self.gaps + stream.log.gaps, 0
        if self.streams.pop(stream.id, None) is not None and stream.opening.claim:
            self.backend.release(stream.opening.claim)

    async def drain(self, seconds: float) -> None:
        """Open nothing more; let what runs finish for `seconds`, then end it. The wait ends as soon as nothing runs."""
        self.draining = True
        if self.places.taken:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._quiet,), timeout=seconds)
        ending = [asyncio.ensure_future(stream.closed()) for stream in self.running.values()]
        for stream in list(self.running.values()):
            stream.end(Trigger.SHUTTING_DOWN)
        if ending:  # their sources may clean up, and hold up nobody
            _, still = await asyncio.wait(ending, timeout=CLEAN_UP)
            for waiting in still:
                waiting.cancel()

    def _ended(self, stream: Stream) -> None:
        self.running.pop(stream.id, None)
        self.leave()
        self._on_end(stream)

    def _rest(self) -> None:
        if not self.places.taken and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    def _relieve(self) -> None:
        """Make room down to seven eighths of the limit, so that it isn't needed again at the next event."""
        target = self.budget.limit * 7 // 8
        for stream in list(self.streams.values()):
            if self.budget.used <= target:
                return
            if stream.log.closed and not stream.log.watchers:
                self.forget(stream)
        largest_first = sorted((stream.log for stream in self.streams.values()), key=lambda log: log.size, reverse=True)
        for drop in (EventLog.drop_taken, EventLog.drop_led):
            for log in largest_first:
                if self.budget.used <= target:
                    return
                drop(log)

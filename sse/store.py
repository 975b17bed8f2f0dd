"""The streams of one process: opened, found, expired, and kept within their limits.

Finding and attaching happen without an await between them, and so do looking up a key and opening: both are plain functions.

Memory: all logs together hold `memory` bytes at the most. Over that, what nobody needs goes first: streams that have ended and
are not watched, oldest first; then events that every watcher has taken; then those that only laggards still want, who are told
the gap. While that is not enough, nothing new is opened.

Seam: watchers follow a stream's log in memory. A store for several processes fills such logs from elsewhere.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sse.errors import Full, KeyReused
from sse.formats import Format
from sse.log import Budget, EventLog
from sse.state import State, Trigger
from sse.stream import Stream

CLEAN_UP = 1.0
"""Seconds that the sources of streams which a shutdown ends may take to clean up, all together."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Streams that run at once, connections that watch, events and bytes of one log, bytes of all logs."""

    streams: int = 1000
    watchers: int = 10000
    events: int = 65536
    bytes: int = 16 << 20
    memory: int = 256 << 20


@dataclass(frozen=True, slots=True)
class Claim:
    """An idempotency key: who asks for what. digest: of the body; the same claim with another digest is a mistake."""

    caller: str
    method: str
    route: str
    key: str
    digest: str = ""


@dataclass(frozen=True, slots=True)
class Opening:
    """How a stream is opened. request: what opened it, with its query and body: only the same may resume it there.

    linger, keep: seconds. result: what the stream has come to so far, at any time. ids, start: as `Stream` has them.
    listed: whether it can be found again; one that isn't lives as long as its one connection.
    """

    request: str
    format: Format
    linger: float | None = 30.0
    keep: float = 300.0
    metadata: Any = None
    result: Callable[[], Any] | None = None
    claim: Claim | None = None
    ids: str | None = None
    start: int = 0
    listed: bool = True


class Store:
    """streams: all that are held, oldest first. running: those that have not ended. watchers: connections that watch.

    requests: those that work towards an answer in one piece; a drain waits for them as it does for streams.
    gaps: of streams that are held no more.
    """

    def __init__(self, limits: Limits | None = None, *, on_end: Callable[[Stream], None] = lambda _: None) -> None:
        self.limits = limits or Limits()
        self.streams: dict[str, Stream] = {}
        self.running: dict[str, Stream] = {}
        self.watchers = 0
        self.requests = 0
        self.gaps = 0
        self.draining = False
        self.budget = Budget(self.limits.memory, self._relieve)
        self._claims: dict[tuple[str, str, str, str], tuple[str, str]] = {}
        self._openings: dict[str, Opening] = {}
        self._on_end = on_end
        self._quiet: asyncio.Future[None] | None = None  # done when nothing runs any more

    def admit(self) -> None:
        """Raise Full if no stream may be opened now."""
        if self.draining:
            raise Full("shutting down")
        if len(self.running) >= self.limits.streams:
            raise Full("streams")
        if self.budget.used > self.budget.limit:
            raise Full("memory")

    def open(self, source: AsyncIterator[Any] | None, opening: Opening) -> Stream:
        """Open a stream, which runs at once. Raises Full; the source is then not started, and not closed."""
        self.admit()
        limits = self.limits
        stream = Stream(
            source,
            opening.format,
            ids=opening.ids,
            start=opening.start,
            linger=opening.linger,
            keep=opening.keep,
            max_events=limits.events,
            max_bytes=limits.bytes,
            budget=self.budget,
            replay=opening.listed,
            metadata=opening.metadata,
            result=opening.result,
            on_end=self._ended,
            on_expire=self.forget,
        )
        self.running[stream.id] = stream
        if not opening.listed:
            return stream
        self.streams[stream.id] = stream
        self._openings[stream.id] = opening
        if claim := opening.claim:
            self._claims[claim.caller, claim.method, claim.route, claim.key] = (stream.id, claim.digest)
        return stream

    def find(self, stream_id: str) -> Stream | None:
        return self.streams.get(stream_id)

    def opening(self, stream_id: str) -> Opening:
        """How a held stream was opened."""
        return self._openings[stream_id]

    def claimed(self, claim: Claim) -> Stream | None:
        """The stream that the same claim opened. Raises KeyReused if that was with another body."""
        stream_id, digest = self._claims.get((claim.caller, claim.method, claim.route, claim.key), ("", ""))
        stream = self.streams.get(stream_id)
        if stream is not None and digest != claim.digest:
            raise KeyReused(claim.key)
        return stream

    def forget(self, stream: Stream) -> None:
        """Let an ended stream go, with its log."""
        stream.discard()
        self.gaps, stream.log.gaps = self.gaps + stream.log.gaps, 0
        if self.streams.pop(stream.id, None) is not None and (claim := self._openings.pop(stream.id).claim):
            self._claims.pop((claim.caller, claim.method, claim.route, claim.key), None)

    async def drain(self, seconds: float) -> None:
        """Open nothing more; let what runs finish for `seconds`, then end it. The wait ends as soon as nothing runs."""
        self.draining = True
        if self.running or self.requests:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._quiet,), timeout=seconds)
        ending = [asyncio.ensure_future(stream.closed()) for stream in self.running.values()]
        for stream in list(self.running.values()):
            stream.end(Trigger.SHUTTING_DOWN)
        if ending:  # their sources may clean up, and hold up nobody
            _, still = await asyncio.wait(ending, timeout=CLEAN_UP)
            for waiting in still:
                waiting.cancel()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Count a watcher for as long as its connection lasts."""
        self.watchers += 1
        try:
            yield
        finally:
            self.watchers -= 1

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count a request for as long as it works towards its answer."""
        self.requests += 1
        try:
            yield
        finally:
            self.requests -= 1
            self._rest()

    def _ended(self, stream: Stream) -> None:
        self.running.pop(stream.id, None)
        self._rest()
        self._on_end(stream)

    def _rest(self) -> None:
        if not self.running and not self.requests and self._quiet is not None and not self._quiet.done():
            self._quiet.set_result(None)

    def _relieve(self) -> None:
        """Make room down to seven eighths of the limit, so that it isn't needed again at the next event."""
        target = self.budget.limit * 7 // 8
        for stream in list(self.streams.values()):
            if self.budget.used <= target:
                return
            if stream.state is not State.RUNNING and not stream.log.watchers:
                self.forget(stream)
        largest_first = sorted((stream.log for stream in self.streams.values()), key=lambda log: log.size, reverse=True)
        for drop in (EventLog.drop_taken, EventLog.drop_led):
            for log in largest_first:
                if self.budget.used <= target:
                    return
                drop(log)

"""A stream whose events come from outside: its source, its format, and one request that adds to it.

    POST /streams ──► Publication (the source: yields nothing, ends when it is closed or its publisher is gone)
    POST …/events ──► Appending, in a task of its own ──► Stream.emit

The request owns its Appending's task and always awaits it; the Publication may cancel it, which is how a publisher that is idle
in the middle of a body learns that the stream has ended.

`ttl` seconds without an open publish request end the stream as failed, with the code `publisher_gone`.
Limit: a publisher whose machine vanished in the middle of a body, without a FIN, keeps its request open for `IDLE` seconds.
"""

import asyncio
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass
from typing import Any, Self

from handlers.publish.bodies import Reader, from_json
from sse.errors import Problem, SourceFailed
from sse.formats import Format
from sse.http import Request
from sse.stream import Stream
from sse.wire.encoder import encode
from sse.wire.event import Event

IDLE = 86400.0
"""Seconds that a body may be silent."""


class Published(Format):
    """The events as they were posted, encoded already; ends with `event: end`, `cancelled` or `error`."""

    name = "published"
    transliterated = False

    def opening(self, stream_id: str) -> bytes | None:  # noqa: ARG002
        return None

    def item(self, item: bytes) -> bytes:
        return item

    def done(self) -> bytes:
        return encode(Event("{}", "end"))


class Publication:
    """The source of a published stream. ttl: seconds."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[Any] = self._loop.create_future()  # fails when the ttl is over, else waits to be cancelled
        self._publishers: set[asyncio.Task[None]] = set()
        self._timer = self._loop.call_later(ttl, self._lapse)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._over

    async def aclose(self) -> None:
        """The stream has ended: stop those who still publish to it."""
        self._over.cancel()
        self._timer.cancel()
        for task in self._publishers:
            task.cancel()

    async def publish(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run `work` for as long as the stream does; whether it came to its end. The ttl stands still meanwhile."""
        task = self._loop.create_task(work)
        task.add_done_callback(lambda _: task.cancelled() or task.exception())  # seen, should this be cancelled meanwhile
        self._publishers.add(task)
        self._timer.cancel()
        try:
            await asyncio.wait((task,))
        finally:
            self._publishers.discard(task)
            if not self._publishers and not self._over.done():
                self._timer = self._loop.call_later(self._ttl, self._lapse)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
        if task.cancelled():
            return False
        task.result()
        return True

    def _lapse(self) -> None:
        if not self._over.done():
            self._over.set_exception(SourceFailed(f"no publisher for {self._ttl:g} s", "publisher_gone"))


@dataclass(slots=True)
class Appending:
    """One publish request. number: what the next event is, where the publisher numbers them."""

    stream: Stream
    number: int | None
    first: int | None = None
    events: int = 0
    skipped: int = 0

    async def whole(self, request: Request, limit: int) -> None:
        """A JSON body: all of its events or none."""
        for event in from_json(await request.json(limit=limit)):
            self._append(event)
        await self._room()

    async def streamed(self, request: Request, reader: Reader) -> None:
        """Events as they arrive. While the watchers are behind, nothing is read."""
        async for chunk in request.chunks(timeout=IDLE):
            await self._append_all(reader.feed(chunk))
        await self._append_all(reader.end())

    def answer(self) -> dict[str, Any]:
        """first: the number of the first event added, None without any. last: the newest one's of the whole stream."""
        log = self.stream.log
        return {"first": self.first, "last": log.last - log.closed, "events": self.events, "skipped": self.skipped}

    async def _append_all(self, events: Iterable[bytes]) -> None:
        for event in events:
            self._append(event)
            await self._room()

    def _append(self, event: bytes) -> None:
        log = self.stream.log
        if log.closed:
            raise ended(self.stream)
        if self.number is not None:
            number, self.number = self.number, self.number + 1
            if number <= log.last:
                self.skipped += 1
                return
            if number > log.last + 1:
                raise Problem(409, f"Event {number} would leave a hole: the last one is {log.last}.")
        self.stream.emit(event)
        self.events += 1
        self.first = self.first or log.last

    async def _room(self) -> None:
        if self.stream.log.full:
            await self.stream.log.room()


def ended(stream: Stream) -> Problem:
    """The application may stop: nobody wants what is left of its body either."""
    return Problem(410, f"The stream has ended: {stream.reason}.", headers={"connection": "close"}, reason=stream.reason)

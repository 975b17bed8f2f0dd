"""A stream whose events come from outside: its source, its format, and one request that adds to it.

    POST /streams ──► Publication (the source: yields nothing, ends when it is closed or its publisher is gone)
    POST …/events ──► Appending, in a task of its own ──► Store.ask ──► Publication.asked ──► Stream.emit

The request owns the task of its Appending and always awaits it. The Publication cancels that task when the stream ends, so that
a publisher that is idle in the middle of a body learns of the end. If another process has the Publication, the request asks it
every second.

After `ttl` seconds without an open publish request the stream ends as failed, with the code `publisher_gone`.
Limit: if a publisher's machine vanishes in the middle of a body, without a FIN, its request stays open for `IDLE` seconds.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self

from handlers.publish.bodies import Reader, from_json
from sse.asgi import stopped
from sse.errors import Problem, SourceFailed
from sse.formats import Format
from sse.http import Request
from sse.store import Store
from sse.stream import State, Stream, Trigger
from sse.wire.encoder import encode
from sse.wire.event import Event

PRESENCE = 1.0
"""Seconds between two words to another process that a publisher is there."""

IDLE = 86400.0
"""Seconds that a body may be silent."""


class Published(Format):
    """Items are the posted events, already encoded. A stream ends with `event: end`, `cancelled` or `error`."""

    name = "published"
    transliterated = False
    greets = False

    def item(self, item: bytes) -> bytes:
        return item

    def done(self) -> bytes:
        return encode(Event("{}", "end"))


class Publication:
    """The source of a published stream. ttl: seconds."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[Any] = self._loop.create_future()  # fails when the ttl is over; `aclose` cancels it
        self._publishers: set[asyncio.Task[None]] = set()
        self._timer = self._loop.call_later(ttl, self._lapse)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        return await self._over

    async def aclose(self) -> None:
        """The stream has ended: cancel the requests that still publish to it."""
        self._over.cancel()
        self._timer.cancel()
        for task in self._publishers:
            task.cancel()

    async def publish(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run `work` until it or the stream ends, and return whether it has come to its end. The ttl stops meanwhile."""
        task = self._loop.create_task(work)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # takes its error, in case this is cancelled
        self._publishers.add(task)
        self._timer.cancel()
        try:
            await asyncio.wait((task,))
        finally:
            self._publishers.discard(task)
            self._renew()
            await stopped(task)
        try:
            return not task.cancelled() and task.result() is None
        finally:
            del task  # a task holds its error, which holds this function's variables

    async def asked(self, stream: Stream, what: str, *args: Any) -> Any:
        """What a request wants (`Store.ask`): `close`, and whether it has ended well; or `append`."""
        if what == "close":
            return stream.end(Trigger.SOURCE_ENDED) or stream.state is State.DONE
        return await self._append(stream, *args)

    async def _append(self, stream: Stream, events: Sequence[bytes | str], number: int | None) -> dict[str, Any]:
        """first: the number of the first event added. last: the newest one's. hole: the number that would leave one."""
        log, first, added, skipped, hole = stream.log, None, 0, 0, None
        self._renew()  # somebody may publish through another process
        for event in events:
            if stream.state is not State.RUNNING:
                break
            if number is not None and number > log.last + 1:
                hole = number
                break
            if number is not None and number <= log.last:
                skipped += 1
            else:
                stream.emit(event.encode() if isinstance(event, str) else event)
                added, first = added + 1, first or log.last
                if log.full:
                    await log.room()
            number = number and number + 1
        return {"first": first, "last": stream.newest, "events": added, "skipped": skipped, "hole": hole}

    def _renew(self) -> None:
        """The ttl begins anew, unless it stands still because somebody publishes here."""
        if not self._publishers and not self._over.done():
            self._timer.cancel()
            self._timer = self._loop.call_later(self._ttl, self._lapse)

    def _lapse(self) -> None:
        if not self._over.done():
            self._over.set_exception(SourceFailed(f"no publisher for {self._ttl:g} s", "publisher_gone"))


async def publish_elsewhere(store: Store, stream: Stream, work: Coroutine[Any, Any, None]) -> bool:
    """`Publication.publish` where another process has the publication: it hears each second that a publisher is there.

    Limit: a ttl of a second or less runs out in the middle of a body that is silent.
    """
    task, over = asyncio.create_task(work), False
    try:
        while not over:
            if (await asyncio.wait((task,), timeout=PRESENCE))[0]:
                task.result()
                return True
            over = await store.ask(stream, "append", [], None) is None
        return False
    finally:
        await stopped(task)


@dataclass(slots=True)
class Appending:
    """One publish request. number: the next event's, if the publisher numbers them."""

    store: Store
    stream: Stream
    number: int | None
    first: int | None = None
    last: int = 0
    events: int = 0
    skipped: int = 0

    async def whole(self, request: Request, limit: int) -> None:
        """Append the events of a JSON body: all of them or none."""
        await self._append(from_json(await request.json(limit=limit)))

    async def streamed(self, request: Request, reader: Reader) -> None:
        """Append the events as they arrive. While the watchers are behind, nothing is read."""
        async for chunk in request.chunks(timeout=IDLE):
            before = self.events + self.skipped
            await self._append_all(reader.feed(chunk))
            if self.events + self.skipped > before:
                request.charge.clear()
            request.charge.claim(len(chunk))  # what the reader keeps of an event that isn't complete, at the most
        await self._append_all(reader.end())

    def answer(self) -> dict[str, Any]:
        """first: number of the first event added, None if none was. last: number of the stream's newest event."""
        return {"first": self.first, "last": self.last, "events": self.events, "skipped": self.skipped}

    async def _append_all(self, events: Iterable[bytes]) -> None:
        """Those before one that can't be read are added."""
        batch: list[bytes] = []
        try:
            batch.extend(events)
        finally:
            await self._append(batch)

    async def _append(self, events: Sequence[bytes]) -> None:
        said = await self.store.ask(self.stream, "append", events, self.number)
        if said is None:
            raise ended(self.stream)
        self.first, self.last = self.first or said["first"], said["last"]
        self.events += said["events"]
        self.skipped += said["skipped"]
        if self.number is not None:
            self.number += said["events"] + said["skipped"]
        if said["events"] + said["skipped"] < len(events):
            if said["hole"] is None:
                raise ended(self.stream)
            raise Problem(409, f"Event {said['hole']} would leave a hole: the last one is {self.last}.")


def ended(stream: Stream) -> Problem:
    """The answer to a publisher of a stream that has ended. It closes the connection instead of reading the body's rest."""
    return Problem(410, f"The stream has ended: {stream.reason}.", headers={"connection": "close"}, reason=stream.reason)

"""`GET /merge?streams=a,b,c`: several streams watched over one connection; a browser has only six (HTTP/1.1).

There is no second log: each event is taken from its stream's, keeps its name, and its data becomes `{"stream", "data"}`. Its id
holds one position for each stream, in the order of the query, so that the whole is resumed like any other stream:

    position-list = position *31( "-" position )        17-5-end: events up to 17 of the first, up to 5 of the second, all of
    position      = 1*15DIGIT / "end"                   the third, its terminal event included

A stream that isn't held any more is reported by an `error` event of its own and the others go on. The body ends when all have;
an id of nothing but `end` is answered 204. Going away lets go of the streams and cancels none.

`GET /merge` alone is a demonstration of `sse.merge`: two sources at different paces as one plain stream.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, suppress
from typing import Any

import orjson

from handlers import access
from handlers.access import Right
from handlers.service import Proposal, Reply, Service, last_event_id
from sse.errors import Problem
from sse.formats import Plain
from sse.http import Request, Response
from sse.log import GATHER, Watcher
from sse.merge import Item, merge
from sse.state import State
from sse.store import Opening
from sse.stream import Stream
from sse.wire.encoder import encode, encode_json
from sse.wire.event import Event, MessageEvent
from sse.wire.parser import Parser
from sse.wire.payload import dumps

MAX_STREAMS = 32
_POSITIONS = re.compile(r"(?:[0-9]{1,15}|end)(?:-(?:[0-9]{1,15}|end))*")


class Part:
    """One of the merged streams, as its log's watcher. position: the last event taken; over: its terminal event was."""

    def __init__(self, name: str, stream: Stream | None, position: int, *, over: bool) -> None:
        self.name = name
        self.stream = stream
        self.position = position
        self.over = over
        self.told = str(position)  # what stands for this stream in the ids
        self.whole: Watcher | None = None
        self._parser = Parser()
        if over:
            self.told = "end"

    def wake(self) -> None:
        if self.whole is not None:
            self.whole.wake()

    def take(self) -> Sequence[MessageEvent]:
        """Its next events; the position moves behind them."""
        if self.over:
            return ()
        if self.stream is None:
            self.over = True
            gone = dumps({"error": "The stream is unknown or has expired.", "code": "stream_gone", "fatal": True})
            return (MessageEvent("error", gone.decode(), f"{self.name}.end"),)
        events = self._parser.feed(self.stream.take(self))
        self.over = self.stream.finished(self)
        return events


class Merged:
    """Several streams, watched as one by one connection."""

    id = "merged"

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._turn = 0

    def position(self, from_now: bool) -> int:
        for part in self._parts:
            if part.stream is not None and not part.over:
                part.position = part.stream.position(from_now)
                part.told = str(part.position)
        return 0

    def preamble(self, position: int, retry: int | None, *, newcomer: bool) -> bytes:  # noqa: ARG002
        return encode(Event(id=self._id(), retry=retry))

    def attach(self, watcher: Watcher) -> None:
        for part in self._parts:
            if part.stream is not None and not part.over:
                part.whole = watcher
                part.stream.attach(part)

    def detach(self, watcher: Watcher) -> None:  # noqa: ARG002
        for part in self._parts:
            if part.whole is not None:
                part.whole = None
                assert part.stream is not None
                part.stream.detach(part)

    def take(self, watcher: Watcher) -> bytes:  # noqa: ARG002
        """One helping from each stream in turn, beginning with another one each time: none can starve the others."""
        body = b""
        for _ in self._parts:
            part = self._parts[self._turn]
            self._turn = (self._turn + 1) % len(self._parts)
            body += b"".join([self._encode(part, event) for event in part.take()])
            if len(body) >= GATHER:
                break
        return body

    def finished(self, watcher: Watcher) -> bool:  # noqa: ARG002
        return all(part.over for part in self._parts)

    def apology(self) -> bytes:
        return encode_json(dumps({"error": "internal error", "code": "internal"}), "error")

    def _encode(self, part: Part, event: MessageEvent) -> bytes:
        part.told = event.last_event_id.rpartition(".")[2]
        data: Any = event.data
        with suppress(orjson.JSONDecodeError):  # what isn't JSON stays a text
            orjson.loads(event.data)
            data = orjson.Fragment(event.data)
        name = None if event.type == "message" else event.type
        return b"id: %b\n%b" % (self._id().encode(), encode_json(dumps({"stream": part.name, "data": data}), name))

    def _id(self) -> str:
        return "-".join([part.told for part in self._parts])


async def watch(service: Service, request: Request) -> Reply:
    """`GET /merge`."""
    if "streams" not in request.query:
        access.check(service.settings, request, Right.TOKEN, None)  # this opens a stream; the rest only watches
        return service.answer(request, lambda identity: _demonstration(service, identity))
    names = request.query["streams"].split(",")
    if not 1 <= len(names) <= MAX_STREAMS or len(set(names)) != len(names) or not all(names):
        detail = f"streams must be 1 to {MAX_STREAMS} different stream ids, separated by commas."
        raise Problem(400, detail, parameter="streams")
    last = last_event_id(request)
    positions = _positions(last, len(names))
    if all(position is None for position in positions):
        return Response(204)
    parts = [_part(service, name, position) for name, position in zip(names, positions, strict=True)]
    return service.follow_along(request, Merged(parts), None if last is None else 0, newcomer=last is None)


def _positions(last: str | None, count: int) -> list[int | None]:
    """The position of each stream, None for one that is over. Raises Problem 400."""
    if last is None:
        return [0] * count
    if _POSITIONS.fullmatch(last) is None or last.count("-") != count - 1:
        raise Problem(400, "The last event ID must hold one position for each stream.", parameter="last_event_id")
    return [None if text == "end" else int(text) for text in last.split("-")]


def _part(service: Service, name: str, position: int | None) -> Part:
    stream = service.store.find(name)
    if position is None:
        return Part(name, stream, 0, over=True)
    if stream is not None:
        if not stream.format.ids:
            raise Problem(409, f"Stream {name} has no ids, so that it can't be merged.", parameter="streams")
        last = stream.log.last - stream.log.closed
        if position > last and stream.state is State.RUNNING:
            raise Problem(409, "The last event ID is ahead of its stream.", parameter="last_event_id")
        position = min(position, last)
    return Part(name, stream, position, over=False)


def _demonstration(service: Service, identity: str) -> Proposal:
    async def source() -> AsyncIterator[dict[str, Any]]:
        async with aclosing(merge({"A": _counter(10, 0.3), "B": _counter(10, 0.5)})) as merged:
            async for record in merged:
                if isinstance(record, Item):
                    yield {"source": record.source, "value": record.value}

    settings = service.settings
    opening = Opening(identity, Plain(ascii=settings.ascii), linger=settings.linger, keep=settings.keep)
    return Proposal(source, opening)


async def _counter(count: int, interval: float) -> AsyncIterator[int]:
    for value in range(count):
        await asyncio.sleep(interval)
        yield value

"""`GET /merge?streams=a,b,c`: several streams watched over one connection, since a browser has only six (HTTP/1.1).

An event's id holds one position for each stream, in the order of the query, so that the whole is resumed like any other stream:

    position-list = position *31( "-" position )        17-5-end: events up to 17 of the first, up to 5 of the second, all of
    position      = 1*15DIGIT / "end"                   the third, its terminal event included

A stream that isn't held is reported by an `error` event of its own, and the others go on. The body ends when all have ended;
a last event ID of nothing but `end` is answered 204. A client that leaves cancels none of the streams.

`GET /merge` alone is a demonstration of `sse.merge`: two sources at different paces as one plain stream.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from handlers.merge.merged import Merged, Part
from sidecar import access, answers
from sidecar.access import Right
from sidecar.request import Reply, Request
from sidecar.settings import Settings
from sse.errors import Problem
from sse.formats import Format
from sse.http import Response
from sse.merge import merge
from sse.stream import Opening, State, Stream

MAX_STREAMS = 32
PACES = {"A": (10, 0.3), "B": (10, 0.5)}
"""The demonstration: how many values each source has, and the seconds between them."""

_POSITIONS = re.compile(r"(?:[0-9]{1,15}|end)(?:-(?:[0-9]{1,15}|end))*")


async def watch(request: Request) -> Reply:
    """`GET /merge`."""
    service = request.service
    if "streams" not in request.query:
        access.check(service.settings, request, Right.TOKEN)  # this opens a stream; with `streams` a request only watches
        return await answers.open(request, partial(_demonstration, service.settings))
    names = request.query["streams"].split(",")
    if len(names) > MAX_STREAMS or len(set(names)) != len(names) or not all(names):
        detail = f"streams must be 1 to {MAX_STREAMS} different stream ids, separated by commas."
        raise Problem(400, detail, parameter="streams")
    last = request.last_event_id
    positions = _positions(last, len(names))
    if all(position is None for position in positions):
        return Response(204)
    streams = [
        None if position is None else await service.store.find(name) for name, position in zip(names, positions, strict=True)
    ]
    parts = [_part(*named) for named in zip(names, streams, positions, strict=True)]
    store = service.store
    return answers.follow(request, Merged(parts, store.budget, store.timers), None if last is None else 0)


def _positions(last: str | None, count: int) -> list[int | None]:
    """The position of each stream, None for one that is over. Raises Problem 400."""
    if last is None:
        return [0] * count
    if _POSITIONS.fullmatch(last) is None or last.count("-") != count - 1:
        raise Problem(400, "The last event ID must hold one position for each stream.", parameter="last_event_id")
    return [None if text == "end" else int(text) for text in last.split("-")]


def _part(name: str, stream: Stream | None, position: int | None) -> Part:
    if position is None:
        return Part(name, stream, 0, over=True)
    if stream is not None and stream.discarded:  # it expired while the others were looked up
        stream = None
    if stream is not None:
        if not stream.format.ids:
            raise Problem(409, f"Stream {name} has no ids, so that it can't be merged.", parameter="streams")
        if position > stream.newest and stream.state is State.RUNNING:
            raise Problem(409, "The last event ID is ahead of its stream.", parameter="last_event_id")
        position = min(position, stream.newest)
    return Part(name, stream, position, over=False)


def _demonstration(settings: Settings, **facts: Any) -> Opening:
    async def source() -> AsyncIterator[dict[str, Any]]:
        counters = {name: _counter(count, interval) for name, (count, interval) in PACES.items()}
        async with aclosing(merge(counters)) as merged:
            async for name, value in merged:
                yield {"source": name, "value": value}

    return Opening(source(), Format(), linger=settings.linger, keep=settings.keep, **facts)


async def _counter(count: int, interval: float) -> AsyncGenerator[int, None]:
    for value in range(count):
        await asyncio.sleep(interval)
        yield value

"""The wire lab's streams: `GET /lab/{lesson}` plays a lesson, `GET /lab/probe` sends events at a known pace, and
`POST /lab/probe` judges how they arrived.

Anybody may ask for them, as for a file: they send only what is in the repository or in the request, start no work, take a few
hundred bytes of memory, and end after about `MAX_SILENCE` seconds. They don't count as watchers, and have a limit of their own,
`MAX_PLAYING` at once.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Final

from handlers.page.lessons import Play, lessons
from sidecar.request import Reply, Request
from sse.chunks import Chunks
from sse.errors import Full, Problem
from sse.http import Response, json_response
from sse.probe import COMMENT, Passage, Passages, judge
from sse.wire.encoder import encode
from sse.wire.event import Event
from sse.wire.payload import dumps

MAX_PLAYING: Final = 100
MAX_SILENCE: Final = 120.0
MAX_PASSAGES: Final = 64 * 1024
"""Bytes of a body with measurements."""


class Lab:
    """Its methods are the handlers. playing: how many of its streams run."""

    def __init__(self) -> None:
        self.playing = 0

    async def lesson(self, request: Request) -> Reply:
        """`GET /lab/{lesson}`. An EventSource reconnects when the body ends; then it gets the next part, or 204 (9.2.3)."""
        lesson = lessons().get(request.params["lesson"])
        if lesson is None:
            raise Problem(404, f"There is no such lesson; there are {', '.join(lessons())}.")
        play = lesson.plays.get(request.last_event_id or "*")
        if lesson.status == 204 or play is None:
            return Response(204)
        return self._played(_chunks(play), {"content-type": lesson.type, "x-accel-buffering": "no"})

    async def probe(self, request: Request) -> Reply:
        """`GET /lab/probe?count=&interval=&silence=&plain=`: events at a known pace. `plain`: without X-Accel-Buffering."""
        count = request.integer("count", 12, minimum=1, maximum=50)
        interval = request.number("interval", 0.1, minimum=0.01, maximum=1)
        silence = request.number("silence", 0, minimum=0, maximum=MAX_SILENCE)
        headers = {"content-type": "text/event-stream"} | ({} if "plain" in request.query else {"x-accel-buffering": "no"})
        return self._played(_paced(request, count, interval, silence), headers)

    async def judge(self, request: Request) -> Reply:
        """`POST /lab/probe` {"paced", "plain", "silent"}, each a `sse.probe.Passage` as JSON."""
        body = await request.json(limit=MAX_PASSAGES)
        try:
            passages = Passages(*(Passage.read((body or {}).get(name)) for name in Passages._fields))
        except (ValueError, AttributeError) as error:
            raise Problem(422, f"That is no measurement: {error}.") from None
        return json_response({"findings": [finding._asdict() for finding in judge(passages)]})

    def _played(self, source: AsyncGenerator[bytes, None], headers: dict[str, str]) -> Reply:
        if self.playing >= MAX_PLAYING:
            raise Full("lessons")
        return _Played(self, source, headers)


class _Played(Chunks):
    """A stream of the lab, which counts for as long as it lives."""

    def __init__(self, lab: Lab, source: AsyncGenerator[bytes, None], headers: dict[str, str]) -> None:
        super().__init__(source, headers)
        self._lab = lab
        lab.playing += 1

    def __del__(self) -> None:
        self._lab.playing -= 1


async def _chunks(play: Play) -> AsyncGenerator[bytes, None]:
    for pause, chunk in play:
        await asyncio.sleep(pause)
        yield chunk


async def _paced(request: Request, count: int, interval: float, silence: float) -> AsyncGenerator[bytes, None]:
    """A comment and an event at each interval, and one more after the silence. The first event has facts of the request."""
    seen = {"http_version": request.scope.get("http_version"), "last_event_id": request.header(b"last-event-id")}
    begin = time.monotonic()
    for number in range(1, count + 1 + bool(silence)):
        due = begin + (number - 1) * interval + (silence if number > count else 0)
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        document = {"number": number, "sent": round(time.monotonic() - begin, 4)} | ({"seen": seen} if number == 1 else {})
        yield COMMENT + encode(Event(dumps(document), id=str(number)))

"""`GET /lab/{lesson}`: a lesson of the wire lab, played byte for byte, chunk for chunk, pause for pause.

In:  `static/lessons.json`, which the page shows as well, and the request's Last-Event-ID. Out: prepared chunks.

Anybody may ask for one, as for a file: a lesson says nothing that isn't in the repository, starts no work, holds a few hundred
bytes and lasts for some seconds. So that nobody's watchers lose their places to it, it takes none of theirs; `MAX_PLAYING` at
once are played, and more are told to wait.

An EventSource comes back after a body that ends. A play for the last event ID that it comes with is the next part of a lesson;
without one it is answered 204, so that it stops (9.2.3).
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sidecar.answers import Reply, last_event_id
from sidecar.service import Service
from sse.errors import Full, Problem
from sse.http import Chunks, Request, Response
from sse.stream import Stream

FILE = Path(__file__).parent / "static" / "lessons.json"
MAX_PLAYING = 100

Play = Sequence[tuple[float, bytes]]
"""Chunks, each with the seconds of pause before it."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """plays: by the Last-Event-ID that the request has; "*": of any request without one."""

    status: int
    type: str
    plays: Mapping[str, Play]


@cache
def lessons() -> Mapping[str, Lesson]:
    """All lessons by name, read when the first one is asked for."""
    return {entry["name"]: _lesson(entry) for entry in json.loads(FILE.read_text())["lessons"]}


def _lesson(entry: Mapping[str, Any]) -> Lesson:
    plays = {
        last: [(pause / 1000, written.encode().decode("unicode_escape").encode("latin-1")) for pause, written in play]
        for last, play in entry["plays"].items()
    }
    return Lesson(entry.get("status", 200), entry.get("type", "text/event-stream"), plays)


class Lessons:
    """Its method is the handler. playing: how many lessons are."""

    def __init__(self) -> None:
        self.playing = 0

    async def play(self, service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG002
        """`GET /lab/{lesson}`."""
        lesson = lessons().get(request.params["lesson"])
        if lesson is None:
            raise Problem(404, f"There is no such lesson; there are {', '.join(lessons())}.")
        play = lesson.plays.get(last_event_id(request) or "*")
        if lesson.status == 204 or play is None:
            return Response(204)
        if self.playing >= MAX_PLAYING:
            raise Full("lessons")
        return Chunks(self._played(play), {"content-type": lesson.type, "x-accel-buffering": "no"})

    async def _played(self, play: Play) -> AsyncGenerator[bytes, None]:
        self.playing += 1
        try:
            for pause, chunk in play:
                await asyncio.sleep(pause)
                yield chunk
        finally:
            self.playing -= 1

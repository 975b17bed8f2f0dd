"""The lessons of the wire lab, read from `static/lessons.json`, which the page shows as well.

In:  the file. Out: for each lesson the chunks to send, byte for byte, and the pauses before them.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).parent / "static" / "lessons.json"

Play = Sequence[tuple[float, bytes]]
"""Chunks, each with the seconds of pause before it."""


class Lesson(NamedTuple):
    """plays: the chunks to send, by the request's Last-Event-ID; "*" stands for a request without one."""

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

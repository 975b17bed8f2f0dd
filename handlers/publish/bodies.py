"""The body of a publish request -> encoded events, without I/O.

    application/json                           an event, or a list of them: all or nothing
    application/jsonl, application/x-ndjson    an event a line; empty lines are skipped, the last one needs no line feed
    text/event-stream                          as an EventSource would have dispatched it (HTML 9.2.6)

An event is `{"event": name, "data": value}`, both optional. A text becomes the data as it is, any other value as JSON.
`id` and `retry` are dropped, since the log numbers the events. Names that the format itself uses are refused.

An event and a list have limits (413); JSON lines and event streams may be of any length. Raises Problem 400 for a body that
can't be read, Problem 422 that names a wrong member, EventTooLong.
"""

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from sse.errors import EventTooLong, Problem, Unwritable
from sse.stream import MAX_EVENT
from sse.wire.document import loads
from sse.wire.encoder import encode
from sse.wire.event import Event
from sse.wire.lines import LineSplitter
from sse.wire.parser import Parser
from sse.wire.payload import dumps

MAX_LIST = 10_000
"""Events of one list. All are added in one turn of the event loop, which nothing else gets meanwhile."""

RESERVED = frozenset({"connected", "item_error", "gap", "end", "cancelled", "error"})
"""Names of events that the format writes; a publisher can't use them."""


def from_json(value: Any) -> list[bytes]:
    """The events of a JSON body."""
    if not isinstance(value, list):
        return [_event(value, "")]
    if len(value) > MAX_LIST:
        raise Problem(413, f"A list may have {MAX_LIST} events at the most; JSON lines have no limit.")
    return [_event(item, f"[{index}].") for index, item in enumerate(value)]


class JSONLines:
    """One event a line."""

    def __init__(self) -> None:
        self._lines = LineSplitter(MAX_EVENT)
        self._number = 0

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        for line in self._lines.feed(chunk):
            self._number += 1
            if line.strip():
                yield _event(self._loads(line), f"line {self._number}: ")
        try:
            self._lines.check()
        except EventTooLong:
            raise EventTooLong(f"line {self._number + 1} is longer than {MAX_EVENT} bytes") from None

    def end(self) -> Iterator[bytes]:
        return self.feed(b"\n")

    def _loads(self, line: bytes) -> Any:
        try:
            return loads(line)
        except ValueError as error:
            raise Problem(400, f"Line {self._number} {error}.") from None


class EventStreamBody:
    """Another server's events, or a file of them. An event that lacks its empty line is discarded (9.2.6)."""

    def __init__(self) -> None:
        self._parser = Parser(MAX_EVENT)

    def feed(self, chunk: bytes) -> Iterator[bytes]:
        for message in self._parser.feed(chunk):
            yield _encode(message.data, None if message.type == "message" else message.type, "")

    def end(self) -> Iterator[bytes]:
        return self.feed(b"")  # raises now for an event over the limit, which the last call held back


Reader: TypeAlias = JSONLines | EventStreamBody
"""A body that is read as it arrives. feed: the events that a chunk of it completes; end: those that its end does."""

READERS: Mapping[str, type[Reader]] = {
    "application/jsonl": JSONLines,
    "application/x-ndjson": JSONLines,
    "text/event-stream": EventStreamBody,
}


def _event(value: Any, where: str) -> bytes:
    """One posted event. where: is put before the name of a wrong member."""
    if not isinstance(value, dict):
        place = where.rstrip(".: ") or "body"
        raise Problem(422, f"{place} must be an object: event and data are its members, both optional.", parameter=place)
    for member in value.keys() - {"event", "data", "id", "retry"}:
        raise Problem(422, f"{where}{member} is not known here.", parameter=f"{where}{member}")
    data, name = value.get("data"), value.get("event")
    if name is not None and not isinstance(name, str):
        raise Problem(422, f"{where}event must be a text.", parameter=f"{where}event")
    try:
        return _encode(data if isinstance(data, str) else dumps(data), name or None, where)
    except Unwritable:  # orjson reads 1,024 levels, and writes 254
        raise Problem(422, f"{where}data may have 254 levels at the most.", parameter=f"{where}data") from None


def _encode(data: str | bytes, name: str | None, where: str) -> bytes:
    if name in RESERVED:
        raise Problem(422, f"{where}event: the name {name} is reserved.", parameter=f"{where}event")
    try:
        event = encode(Event(data, name))
    except ValueError as error:  # the name holds CR or LF; JSON has no text that UTF-8 can't hold
        raise Problem(422, f"{where}{error}.", parameter=f"{where}event") from None
    if len(event) > MAX_EVENT:
        raise EventTooLong(f"{where}an event of {len(event)} bytes is over the limit of {MAX_EVENT}")
    return event

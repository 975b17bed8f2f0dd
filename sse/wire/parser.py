r"""Lines -> events, as a browser dispatches them.

In:  the chunks of a body of type `text/event-stream`, cut anywhere. Out: each event as soon as its last byte is there.
HTML Standard, section 9.2.6 "Interpreting an event stream". What a line (see `lines`) is:

    line    = comment / field / empty
    comment = ":" *char                              ignored
    field   = 1*name-char [ ":" [ SP ] *char ]       one space after the colon is no part of the value
    empty   =                                        dispatches
    char = any but CR and LF; name-char = any but CR, LF and ":"

What a field does; names are compared exactly, case included:

    data    the value is one more line of the data buffer
    event   the value replaces the event type buffer
    id      the value replaces the last event ID buffer, unless it holds NUL
    retry   the value is the new reconnection time, if it is ASCII digits and nothing else
    other   ignored

What an empty line does, in this order:

    1. the last event ID becomes what the last event ID buffer holds; the buffer stays as it is
    2. without any `data` line: the event type buffer is emptied, and that is all
    3. otherwise an event is dispatched, `message` if no type was named, and both buffers are emptied

What follows the last empty line is never dispatched: nothing tells the parser that the body has ended.
"""

from sse.errors import EventTooLong
from sse.wire.event import MAX_RECONNECTION_TIME, MessageEvent
from sse.wire.lines import LineSplitter

DEFAULT_LIMIT = 16 * 1024 * 1024


class Parser:
    """Reads one event stream after another, as an EventSource does that reconnects.

    limit: the most bytes that a line may have, and the data of one event. Limit: the standard has none.
    last_event_id: where to carry on, if the first connection is itself a resumption.
    """

    __slots__ = ("_data", "_failure", "_id", "_limit", "_lines", "_type", "last_event_id", "reconnection_time")

    last_event_id: str
    """What a reconnect sends as Last-Event-ID (9.2.4), if it isn't empty. Changes at an empty line, not at the `id`."""

    reconnection_time: int | None
    """Milliseconds to wait before a reconnect (9.2.3); None if the server has not said. Changes at the `retry` line."""

    def __init__(self, limit: int = DEFAULT_LIMIT, *, last_event_id: str = "") -> None:
        self._limit = limit
        self.last_event_id = last_event_id
        self.reconnection_time = None
        self.reset()

    def reset(self) -> None:
        """Begin a new connection: an event that was not dispatched is forgotten.

        The reconnection time and the last event ID stay.
        """
        self._lines = LineSplitter(self._limit)
        # The three buffers of 9.2.6. This one is decoded when it is complete.
        self._data = bytearray()
        self._type = ""
        # Deviation: 9.2.6 begins every stream with an empty last event ID buffer, so that the first event without an
        # `id` would wipe out the last event ID. Browsers carry it over, as web-platform-tests ask for it
        # (eventsource/format-field-id-2), and so do we.
        self._id = self.last_event_id
        self._failure = ""

    def feed(self, chunk: bytes) -> list[MessageEvent]:
        """The events that this chunk completes.

        Raises EventTooLong when one is over the limit; the events before it are returned first, then every call raises.
        """
        if self._failure:
            raise EventTooLong(self._failure)
        events: list[MessageEvent] = []
        try:
            for line in self._lines.feed(chunk):
                if line:
                    self._field(line)
                else:
                    self._dispatch(events)
            self._lines.check()
        except EventTooLong as error:
            self._failure = str(error)
            if not events:
                raise
        return events

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")  # without a colon, the whole line is the name and the value is empty
        if value[:1] == b" ":
            value = value[1:]
        if name == b"data":
            self._data += value + b"\n"
            if len(self._data) > self._limit:
                raise EventTooLong(f"the data of an event is longer than {self._limit} bytes")
        elif name == b"event":
            self._type = _decode(value)
        elif name == b"id":
            if b"\0" not in value:
                self._id = _decode(value)
        elif name == b"retry" and value.isdigit():  # bytes: one or more of "0" to "9"; int() alone takes +5 and 1_0
            self.reconnection_time = _milliseconds(value)
        # The rest is ignored: unknown names, and comments, whose name is empty.

    def _dispatch(self, events: list[MessageEvent]) -> None:
        self.last_event_id = self._id
        if self._data:
            data = _decode(self._data[:-1])  # without the LF of the last line
            events.append(MessageEvent(self._type or "message", data, self._id))
            self._data.clear()
        self._type = ""


def _decode(value: bytes | bytearray) -> str:
    """UTF-8 (9.2.5), with one U+FFFD for each maximal part of a broken sequence (Encoding Standard, "UTF-8 decode")."""
    return value.decode("utf-8", "replace")


def _milliseconds(digits: bytes) -> int:
    # Digits without end are allowed, but Python reads 4300 at most: count before reading.
    digits = digits.lstrip(b"0") or b"0"
    return min(int(digits), MAX_RECONNECTION_TIME) if len(digits) < 20 else MAX_RECONNECTION_TIME

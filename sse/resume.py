"""How a last event ID is answered: one pure function, and the table that it follows (HTML 9.2.3, 9.2.4).

In:  the `Last-Event-ID` header or the `last_event_id` query parameter, and facts of the stream that the request's path names
or, if it names none, this ID. Out: a `Resumption`, which the caller turns into HTTP.

    last event ID       stream                           verdict
    none                                                 OPEN      a new stream, or a newcomer's view of one
    <id>.end            any                              FINISHED  204: how EventSource learns to stop
    malformed           any                              MALFORMED 400
    <id>.<n>            unknown or expired               GONE      404; to an event stream client, an event that says so
    <id>.<n>            another one                      CONFLICT  409
    <id>.<n>            of another route or query        CONFLICT  409
    <id>.<n>            ended, whatever n                WATCH     what is held after n, the terminal event at least
    <id>.<n>            running, n ahead of it           CONFLICT  409: the number is not of this run
    <id>.<n>            running, n held or older         WATCH     what follows n; a gap first, if events are missing

    last-event-id = stream-id "." ( number / "end" )
    stream-id     = 1*64( ALPHA / DIGIT / "-" / "_" )
    number        = 1*15DIGIT
"""

import re
from enum import Enum
from typing import Final, NamedTuple

_GRAMMAR: Final = re.compile(r"([A-Za-z0-9_-]{1,64})\.(?:([0-9]{1,15})|end)")

GONE_ID: Final = "gone.end"
"""The id of the event that says that a stream is gone. A reconnect with it is answered 204."""


class Verdict(Enum):
    OPEN = "open"
    WATCH = "watch"
    FINISHED = "finished"
    MALFORMED = "malformed"
    GONE = "gone"
    CONFLICT = "conflict"


class LastEventID(NamedTuple):
    """stream: a stream's id. number: of the last event received; None: that was the terminal event."""

    stream: str
    number: int | None


class Held(NamedTuple):
    """Facts of the stream that a request names. last: number of its newest event.

    same: whether this request's route and query are those that opened it.
    """

    stream: str
    last: int
    ended: bool
    same: bool


class Resumption(NamedTuple):
    """after: with WATCH, the number of the last event that the client has."""

    verdict: Verdict
    after: int = 0


def parse(text: str) -> LastEventID | None:
    """Read a last event ID; None if it isn't one of ours."""
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        return None
    return LastEventID(match[1], int(match[2]) if match[2] else None)


def decide(last_event_id: str | None, held: Held | None) -> Resumption:
    """Follow the table above. last_event_id: None or empty, if there is none (an empty ID is none, 9.2.6)."""
    if not last_event_id:
        return Resumption(Verdict.OPEN)
    parsed = parse(last_event_id)
    if parsed is None:
        return Resumption(Verdict.MALFORMED)
    if parsed.number is None:
        return Resumption(Verdict.FINISHED)
    if held is None:
        return Resumption(Verdict.GONE)
    if parsed.stream != held.stream or not held.same or (parsed.number > held.last and not held.ended):
        return Resumption(Verdict.CONFLICT)
    return Resumption(Verdict.WATCH, min(parsed.number, held.last))

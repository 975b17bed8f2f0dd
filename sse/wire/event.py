"""Events as values: `Event` and `Comment` are written, `MessageEvent` is dispatched.

In:  the fields of an event, as a server wants them to arrive. Out: a value that can be written as it is, or ValueError.
HTML Standard, section 9.2.5 (what a line is) and 9.2.6 (what its fields mean):

    field   may not hold                  because
    id      CR, LF                        they end the line, and what follows would be a field of its own
            NUL                           an id with NUL is ignored (9.2.6): the last event ID would not move
    event   CR, LF                        as above
            nothing ("")                  an empty event type means `message` (9.2.6): leave the field out instead
    retry   anything but digits           anything else is ignored (9.2.6)
    data    (CR LF, LF and CR are fine)   each line gets a `data` field of its own, and arrives ending in LF
    all     what UTF-8 can't hold         a lone surrogate in str, an invalid sequence in bytes: U+FFFD would arrive

An event that can't be written safely can't be built, so the encoder has nothing left to check.
"""

from dataclasses import dataclass
from typing import NamedTuple

MAX_RECONNECTION_TIME = 2**53 - 1
"""Milliseconds: the largest integer that JavaScript can hold too. Limit: the parser reads a larger number as this one."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event of an event stream, as a server writes it.

    data: text, or its UTF-8. None writes no `data` field: nothing is dispatched (9.2.6), but `id` and `retry` count.
        "" is dispatched with empty data.
    event: the type that listeners are registered for; None is `message`.
    id: becomes the client's last event ID; "" resets it.
    retry: the reconnection time in milliseconds.

    Raises ValueError that names the field, for what the table above forbids.
    """

    data: str | bytes | None = None
    event: str | None = None
    id: str | None = None
    retry: int | None = None

    def __post_init__(self) -> None:
        if self.data is not None:
            _check_utf8("data", self.data)
        if self.event is not None:
            _check_line("event", self.event, "\r\n")
            if not self.event:
                raise ValueError("event: must not be empty; leave it out for the type `message`")
        if self.id is not None:
            _check_line("id", self.id, "\r\n\0")
        if self.retry is not None:
            _check_retry(self.retry)


@dataclass(frozen=True, slots=True)
class Comment:
    """A line that no client dispatches (9.2.6): a heartbeat, or a remark for whoever reads the bytes.

    text: one comment line for each of its lines. Raises ValueError if UTF-8 can't hold it.
    """

    text: str = ""

    def __post_init__(self) -> None:
        _check_line("text", self.text, "")


class MessageEvent(NamedTuple):
    """An event as a client dispatches it (9.2.6).

    type: "message" unless the event named another. data: its lines joined by LF. last_event_id: the last event ID at
    that moment, whether this event set it or an earlier one. `error` is a type like others, but in a page a broken
    connection fires an event of that type too (9.2.3), one without data.
    """

    # A NamedTuple and not a frozen dataclass: a parser builds many, and this takes half the time.
    type: str
    data: str
    last_event_id: str


def _check_line(field: str, value: str, forbidden: str) -> None:
    if not isinstance(value, str):
        raise ValueError(f"{field}: must be str, not {type(value).__name__}")
    _check_utf8(field, value)
    for char in forbidden:
        if char in value:
            raise ValueError(f"{field}: must not contain {char!r}")


def _check_utf8(field: str, value: str | bytes) -> None:
    if not isinstance(value, (str, bytes)):
        raise ValueError(f"{field}: must be str or bytes, not {type(value).__name__}")
    if value.isascii():  # true of most, and str knows it without scanning
        return
    try:
        value.encode() if isinstance(value, str) else value.decode()
    except (UnicodeEncodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{field}: is not text that UTF-8 can hold ({error.reason})") from None


def _check_retry(value: int) -> None:
    # bool is an int to Python, and "retry: True" would be ignored
    if not isinstance(value, int) or isinstance(value, bool):
        raise ValueError(f"retry: must be int (milliseconds), not {type(value).__name__}")
    if not 0 <= value <= MAX_RECONNECTION_TIME:
        raise ValueError(f"retry: must be between 0 and {MAX_RECONNECTION_TIME} milliseconds")

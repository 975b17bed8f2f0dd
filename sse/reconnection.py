"""When a client reconnects, and how long it waits first: HTML 9.2.3 as tables and pure functions, for `sse/client.py`.

In: a readyState and what happened, a status, a Retry-After, a count of failures. Out: the next readyState, what to do
with the answer, seconds to wait.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum, IntEnum
from random import random


class ReadyState(IntEnum):
    """`EventSource.readyState` (HTML 9.2.2)."""

    CONNECTING = 0
    OPEN = 1
    CLOSED = 2


class Step(Enum):
    """What moves the readyState: the three algorithms of HTML 9.2.3, and `close()` of 9.2.2."""

    ANNOUNCE = "announce the connection"
    REESTABLISH = "reestablish the connection"
    FAIL = "fail the connection"
    CLOSE = "close"


# Every algorithm does nothing once the readyState is CLOSED. A missing row is a bug: only what is open can't be
# announced.
NEXT_STATE: Mapping[tuple[ReadyState, Step], ReadyState] = {
    (ReadyState.CONNECTING, Step.ANNOUNCE): ReadyState.OPEN,
    (ReadyState.CONNECTING, Step.REESTABLISH): ReadyState.CONNECTING,
    (ReadyState.CONNECTING, Step.FAIL): ReadyState.CLOSED,
    (ReadyState.CONNECTING, Step.CLOSE): ReadyState.CLOSED,
    (ReadyState.OPEN, Step.REESTABLISH): ReadyState.CONNECTING,
    (ReadyState.OPEN, Step.FAIL): ReadyState.CLOSED,
    (ReadyState.OPEN, Step.CLOSE): ReadyState.CLOSED,
    (ReadyState.CLOSED, Step.ANNOUNCE): ReadyState.CLOSED,
    (ReadyState.CLOSED, Step.REESTABLISH): ReadyState.CLOSED,
    (ReadyState.CLOSED, Step.FAIL): ReadyState.CLOSED,
    (ReadyState.CLOSED, Step.CLOSE): ReadyState.CLOSED,
}

# What a final status means (redirects are followed before); every other one fails the connection.
# Deviation: 429, 502, 503 and 504 fail a browser's connection for good. They say "later", so a program comes back
# later.
ON_STATUS: Mapping[int, Step] = {
    200: Step.ANNOUNCE,
    204: Step.CLOSE,
    429: Step.REESTABLISH,
    502: Step.REESTABLISH,
    503: Step.REESTABLISH,
    504: Step.REESTABLISH,
}


def is_event_stream(content_type: str) -> bool:
    """Whether a Content-Type is `text/event-stream`, whatever its parameters (9.2.3; MIME Sniffing 4)."""
    return content_type.partition(";")[0].strip().lower() == "text/event-stream"


def retry_after(value: str, now: float) -> float:
    """Seconds that a Retry-After asks for at the Unix time `now`: a number of them, or an HTTP date (RFC 9110 10.2.3).

    0 for a date that has passed and for anything else.
    """
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """Exponential backoff with full jitter, on top of what the server asked for.

    base: seconds that the jitter of the first retry covers; doubled with each further one, up to `ceiling` seconds.
    random: uniform in [0, 1).
    """

    base: float = 1.0
    ceiling: float = 30.0
    random: Callable[[], float] = random

    def delay(self, failures: int, reconnection_time: int | None = None, retry_after: float = 0.0) -> float:
        """Seconds to wait before the next try.

        failures: tries without an event so far, this one included, 1 and up. The jitter comes after the longer of
        reconnection_time (ms, the server's `retry:`) and retry_after (s), so that clients cut off together don't
        come back together.
        """
        asked = max((reconnection_time or 0) / 1000, retry_after)
        return asked + self.random() * min(self.ceiling, self.base * 2.0 ** min(failures - 1, 64))

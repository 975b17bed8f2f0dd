"""Everything that Sidestream raises on purpose, in one hierarchy.

    SSEError
    ├── EventTooLong       reading: one event is over the parser's limit
    ├── Unwritable         writing: a value has no JSON form
    ├── SourceFailed       a source ends its stream with a code that clients may rely on
    ├── Problem            an HTTP request is answered by a problem document (RFC 9457)
    │   └── Full           no room for another stream or watcher; try again later
    ├── Disconnected       the client went away before its answer was complete
    └── ConnectionFailed   reading: the server said no, and reconnecting would not help (HTML 9.2.3)

`Event` and `Comment` raise ValueError, none of these: an event that can't be written safely can't be built.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

LONGEST_MESSAGE: Final = 2000
"""Characters of an error's message that are passed on to clients, models and log lines."""


class SSEError(Exception):
    """The root: `except SSEError` catches all of them."""


class EventTooLong(SSEError):
    """An event grew over the limit given to `Parser`; the connection it came from can't be read further."""


class Unwritable(SSEError):
    """`payload.dumps` was given a value that has no JSON form; the message says why, and the cause is what was raised."""


class SourceFailed(SSEError):
    """Raised by a source to end its stream as failed.

    message: for people. code: for programs, documented and stable. retryable: whether the same request may succeed later.
    """

    def __init__(self, message: str, code: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable


class Problem(SSEError):
    """An HTTP error answer, written as `application/problem+json` (RFC 9457).

    status: 4xx or 5xx. detail: what to do about it. headers: added to the answer. members: extension members of the
    document, such as `parameter`.
    """

    def __init__(self, status: int, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.members = members


class Full(Problem):
    """No room for another stream, watcher or job: 503, with a Retry-After. what: the limit that is reached, or why else."""

    _other = MappingProxyType({"store": "The store doesn't answer.", "shutting down": "The server is shutting down."})

    def __init__(self, what: str) -> None:
        super().__init__(503, self._other.get(what, f"No room: {what}."), headers={"retry-after": "5"}, limit=what)
        self.what = what


class Disconnected(SSEError):
    """The client left before its answer was complete."""


class ConnectionFailed(SSEError):
    """A client's connection failed for good: a status or content type that HTML 9.2.3 doesn't reconnect on, or too many tries.

    status: of the last answer, None if there was none. problem: its problem document, if it was one. retry_after: seconds
    that its Retry-After asks for, 0.0 without one.
    """

    def __init__(
        self, message: str, status: int | None = None, problem: Mapping[str, Any] | None = None, retry_after: float = 0.0
    ) -> None:
        super().__init__(message)
        self.status = status
        self.problem = problem
        self.retry_after = retry_after


def describe(error: BaseException) -> str:
    """The type and the message of an error, cut if it is long. It works even if the error's `__str__` raises."""
    name = type(error).__name__
    try:
        message = str(error)[:LONGEST_MESSAGE]
    except BaseException as unprintable:  # a `__str__` may raise SystemExit too
        return f"{name} (its message can't be shown: {type(unprintable).__name__})"
    return f"{name}: {message}" if message else name

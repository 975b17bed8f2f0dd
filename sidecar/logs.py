"""One line at the end of each request and of each stream, and how all lines look.

    on a terminal    INFO sidestream.request: GET /streams/3q2-7wEj… status=200 duration=1.204 bytes=5120 …
    elsewhere        {"time", "level", "logger", "message", and the same fields as members}, a JSON object a line

A stream id is cut to its first 8 characters, with which nobody can watch the stream. A query, a body, a token and a key never
appear. A path appears, its long segments cut in the same way. Health checks and scrapes are logged at the level debug.

A request's id is taken from X-Request-ID, or made here. It is answered in X-Request-ID and passed on to the upstream.
"""

import logging
import re
import sys
import time
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any, Final, TextIO

from sse.http import Headers, Reply, Request, Response
from sse.ids import new_id
from sse.stream import Stream
from sse.watch import EventStream
from sse.wire.payload import dumps

requests = logging.getLogger("sidestream.request")
streams = logging.getLogger("sidestream.stream")

REPEATED: Final = ("/healthz", "/readyz", "/metrics")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~+/=:-]{1,64}")
_LONGEST_NAME = 16
"""Characters of a path's segment. A longer segment is an id, or is in no path that is served."""


REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request that is being answered or, in a stream's task, of the request that opened the stream."""


class Exchange:
    """One request and its answer: makes the request's id, and writes its line."""

    __slots__ = ("_begin", "_request", "id")

    def __init__(self, request: Request) -> None:
        given = request.header(b"x-request-id") or ""
        self.id = given if _REQUEST_ID.fullmatch(given) else new_id()[:16]
        self._request = request
        self._begin = time.monotonic()
        REQUEST_ID.set(self.id)  # for this task, and for those that it starts

    def headers(self, more: Mapping[str, str]) -> Headers:
        """The headers to add to the answer: the id, and `more`."""
        return ((b"x-request-id", self.id.encode()), *((name.encode(), value.encode()) for name, value in more.items()))

    def end(self, reply: Reply | None) -> None:
        """Write the line. reply: None if the client left before there was one."""
        request = self._request
        level = logging.DEBUG if request.path in REPEATED else logging.INFO
        if not requests.isEnabledFor(level):
            return
        fields: dict[str, Any] = {"status": None if reply is None else reply.status}
        fields |= {"duration": round(time.monotonic() - self._begin, 4), "request_id": self.id}
        if isinstance(reply, Response):
            fields["bytes"] = len(reply.body)
        elif isinstance(reply, EventStream) and (sender := reply.sender) is not None:
            outcome = None if reply.outcome is None else reply.outcome.value
            fields |= {"stream": short(sender.stream.id), "outcome": outcome, "events": sender.events, "bytes": sender.sent}
        _log(requests, level, f"{request.method[:16]} {short_path(request.path)}", fields)


def stream_ended(stream: Stream) -> None:
    """Write the line of a stream."""
    if not streams.isEnabledFor(logging.INFO):
        return
    log = stream.log
    fields = {
        "stream": short(stream.id),
        "state": stream.state.value,
        "reason": stream.reason,
        "code": None if stream.failure is None else stream.failure.code,
        "format": stream.format.name,
        "events": stream.newest,
        "bytes": log.written,
        "duration": round((stream.ended or stream.created) - stream.created, 4),
        "watchers": len(log.watchers),
        "resumes": stream.resumes,
        "gaps": log.gaps,
        "request_id": stream.opening.request_id or None,
        "metadata": stream.opening.metadata,
    }
    _log(streams, logging.INFO, "ended", fields)


def _log(logger: logging.Logger, level: int, message: str, fields: Mapping[str, Any]) -> None:
    told = {name: value for name, value in fields.items() if value is not None}
    logger.log(level, "%s", message, extra={"fields": told})


def short(stream_id: str) -> str:
    """Enough of a stream's id to recognise it, and too little to watch it."""
    return stream_id if len(stream_id) <= 8 else stream_id[:8] + "…"


def short_path(path: str) -> str:
    """A path whose ids are short."""
    return "/".join(part if len(part) <= _LONGEST_NAME else short(part) for part in path.split("/"))[:200]


class Lines(logging.Formatter):
    """A record as a JSON object, on one line. A traceback is a member of it."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            document["traceback"] = self.formatException(record.exc_info)
        return dumps(document).decode()

    converter = staticmethod(time.gmtime)


class Terminal(logging.Formatter):
    """A record for people. Control characters are escaped everywhere, so that text from outside can't move the cursor."""

    def format(self, record: logging.LogRecord) -> str:
        fields = [f"{name}={_text(value)}" for name, value in getattr(record, "fields", {}).items()]
        line = " ".join([f"{record.levelname} {record.name}: {_printable(record.getMessage())}", *fields])
        traceback = self.formatException(record.exc_info).split("\n") if record.exc_info else []
        return "\n".join([line, *map(_printable, traceback)])


def _text(value: Any) -> str:
    # JSON itself escapes only the characters below U+0020
    return _printable(value if isinstance(value, str) else dumps(value).decode())


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def configure(level: str, stream: TextIO | None = None) -> None:
    """Let all loggers write to `stream` (stderr unless given), one line a record."""
    stream = stream or sys.stderr
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Terminal() if stream.isatty() else Lines())
    logging.basicConfig(level=level.upper(), handlers=[handler])

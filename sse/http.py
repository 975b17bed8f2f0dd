"""HTTP on ASGI: a request, a response, problem documents (RFC 9457).

In:  scope and receive (asgiref `specs/www.rst`). Out: messages to send.
"""

import asyncio
import codecs
import re
import time
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import parse_qsl

from sse import accept
from sse.asgi import CONNECTION, Message, Receive, Scope, Send
from sse.budget import Budget, Charge
from sse.errors import Disconnected, Problem, Unwritable
from sse.wire.document import loads, steps
from sse.wire.payload import dumps, fragment

MAX_BODY = 16 << 20
MAX_VALUES = 300_000
"""Values and names of members in a body. A table of 1,000 rows and 20 columns, as a tool returns it to a page, has 40,000."""

MAX_PARAMETERS = 100
BODY_TIMEOUT = 30.0
BODY_RATE = 16 << 10
"""Bytes a second of a body that is read whole: whoever sends faster has more time. A phone sends 4 MB in 40 s."""

SEND_TIMEOUT = 30.0

SLICE = 16 * 1024
"""Bytes of one body message at the most."""

_INTEGER = re.compile(r"-?[0-9]{1,15}"), "an integer"
_NUMBER = re.compile(r"-?([0-9]+\.?|[0-9]*\.[0-9]+)([eE][+-]?[0-9]{1,3})?"), "a number"

UNCHARGED = Charge(Budget())
"""Where nobody keeps account."""

Headers = tuple[tuple[bytes, bytes], ...]

ALWAYS: Headers = ((b"cache-control", b"no-store, no-transform"), (b"x-content-type-options", b"nosniff"))
"""Headers of every answer: it may not be cached, rewritten on the way, or taken for another type."""


class Request:
    """One HTTP request. path: decoded, without `root_path`. params: what the route's pattern matched.

    send_timeout: seconds that one send may be pending. charge: the memory of the body, and of what is made of it. turn: held
    while a large body is parsed, so that other tasks never wait for two of them.
    """

    __slots__ = ("_headers", "_query", "charge", "method", "params", "path", "receive", "root_path", "scope", "send_timeout",
                 "turn")  # fmt: skip

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.scope = scope
        self.receive = receive
        self.method: str = scope["method"]
        self.root_path: str = scope.get("root_path", "").rstrip("/")
        self.path = self._strip(scope["path"])
        self.params: dict[str, str] = {}
        self.send_timeout = SEND_TIMEOUT
        self.charge = UNCHARGED
        self.turn: asyncio.Lock | None = None
        self._headers: dict[bytes, bytes] | None = None
        self._query: dict[str, str] | None = None

    def _strip(self, path: str) -> str:
        # "root_path: the root path this application is mounted at", and part of path (asgiref specs/www.rst)
        root = self.root_path
        return path[len(root) :] or "/" if root and (path == root or path.startswith(root + "/")) else path

    def header(self, name: bytes) -> str | None:
        """The first header of that name (lower case), decoded as UTF-8: that is what Last-Event-ID is sent as (9.2.4)."""
        if self._headers is None:
            self._headers = dict(reversed(self.scope["headers"]))
        value = self._headers.get(name)
        return None if value is None else value.decode("utf-8", "replace")

    @property
    def query(self) -> Mapping[str, str]:
        """The query's parameters; of one given twice, the first."""
        if self._query is None:
            try:
                text = self.scope.get("query_string", b"").decode("ascii")
                pairs = _pairs(text)
            except ValueError as error:
                raise Problem(400, "The query can't be read.") from error
            self._query = dict(reversed(pairs))
        return self._query

    def forget(self) -> None:
        """The answer has begun, and may take hours: nothing more is asked of head and query. They are read anew if it is."""
        self._headers = self._query = None

    @property
    def last_event_id(self) -> str | None:
        """From the header (9.2.4) or, since a page can't set that on its first connection, from a query parameter.

        Polyfills of EventSource, which can't set it later either, call the parameter lastEventId.
        """
        return self.header(b"last-event-id") or self.query.get("last_event_id") or self.query.get("lastEventId") or None

    def integer(self, name: str, default: int, *, minimum: int, maximum: int) -> int:
        """A query parameter as an integer within bounds, else a 400 that names it."""
        # int() also takes "+5", "1_0", " 5" and other scripts' digits
        return int(self._bounded(name, default, *_INTEGER, minimum, maximum))

    def number(self, name: str, default: float, *, minimum: float, maximum: float) -> float:
        """A query parameter as a number within bounds, else a 400 that names it."""
        return self._bounded(name, default, *_NUMBER, minimum, maximum)

    def _bounded(self, name: str, default: float, pattern: re.Pattern[str], kind: str, minimum: float, maximum: float) -> float:
        text = self.query.get(name)
        if text is None:
            return default
        if pattern.fullmatch(text) is None or not minimum <= (value := float(text)) <= maximum:
            raise Problem(400, f"{name} must be {kind} from {minimum:.15g} to {maximum:.15g}.", parameter=name)
        return value

    def accepts(self, media_type: str) -> bool:
        """Whether this is the type that the Accept header names, or prefers of those that it names (`sse.accept`)."""
        return accept.names(self.header(b"accept") or "", media_type)

    @property
    def media_type(self) -> str:
        """The Content-Type without its parameters, in lower case; empty if there is none."""
        return (self.header(b"content-type") or "").partition(";")[0].strip().lower()

    async def chunks(self, *, timeout: float = BODY_TIMEOUT) -> AsyncIterator[bytes]:
        """The body as it arrives; 415 if it is compressed. timeout: seconds to wait for the next piece; 408 after that."""
        if (self.header(b"content-encoding") or "identity").lower() != "identity":  # RFC 9110, 12.5.3 and 15.5.16
            raise Problem(415, "The body must not be compressed.", headers={"accept-encoding": "identity"})
        more = True
        while more:
            try:
                async with asyncio.timeout(timeout):
                    message = await self.receive()
            except TimeoutError:
                raise Problem(408, f"No more of the body came for {timeout:g} s.") from None
            if message["type"] == "http.disconnect":
                raise Disconnected("while the body was read")
            more = message.get("more_body", False)
            if body := message.get("body", b""):
                yield body

    async def body(self, *, limit: int = MAX_BODY, timeout: float = BODY_TIMEOUT) -> bytes:
        """The whole body: at most `limit` bytes, else 413. Raises Full.

        It has `timeout` seconds, and one more for each `BODY_RATE` bytes that have come; else 408.
        """
        length = self.header(b"content-length") or ""
        if length.isascii() and length.isdigit() and (len(length) > 15 or int(length) > limit):
            raise _too_large(limit)
        body = bytearray()
        try:
            async with asyncio.timeout(timeout) as pending:
                due = pending.when() or 0
                async for chunk in self.chunks(timeout=timeout):
                    self.charge.claim(len(chunk))
                    body += chunk
                    if len(body) > limit:
                        raise _too_large(limit)
                    pending.reschedule(due + len(body) / BODY_RATE)
        except TimeoutError:
            raise Problem(408, f"The body comes slower than {BODY_RATE >> 10} KiB/s.") from None
        return bytes(body)

    async def json(self, *, limit: int = MAX_BODY, timeout: float = BODY_TIMEOUT) -> Any:
        """The body as JSON, None where it is empty: 415 unless it says that it is JSON, 400 for what `document` refuses.

        Charged is then what the value takes. Raises Full.
        """
        body = (await self.body(limit=limit, timeout=timeout)).removeprefix(codecs.BOM_UTF8)  # RFC 8259, 8.1: may be ignored
        if not body:
            return None
        if self.media_type != "application/json":
            raise Problem(415, "The body must be application/json.", headers={"accept": "application/json"})
        try:
            value = loads(body, self.charge.claim) if len(body) <= SLICE else await self._slowly(body)
        except ValueError as error:
            raise Problem(400, f"The body {error}.") from None
        self.charge.add(-len(body))
        return value

    async def _slowly(self, body: bytes) -> Any:
        """`loads` for a large body. Each step is followed by a pause that is as long."""
        value = None
        async with self.turn or nullcontext():
            begin = time.monotonic()
            try:
                for value in steps(body, self.charge.claim, MAX_VALUES):  # noqa: B007
                    await asyncio.sleep(time.monotonic() - begin)
                    begin = time.monotonic()
            except ValueError:
                await asyncio.sleep(time.monotonic() - begin)
                raise
        return value


def _too_large(limit: int) -> Problem:
    return Problem(413, f"The body may have {limit} bytes at the most.")


def _pairs(query: str) -> list[tuple[str, str]]:
    """The parameters of a query. Raises ValueError if there are too many."""
    if "%" in query or "+" in query or query.count("&") >= MAX_PARAMETERS:
        return parse_qsl(query, keep_blank_values=True, errors="replace", max_num_fields=MAX_PARAMETERS)
    parts = [part.partition("=") for part in query.split("&") if part]  # as parse_qsl: 1.5 µs instead of 6
    return [(name, value) for name, _, value in parts]


class Reply(Protocol):
    """An answer, ready to be sent. headers: added to its own."""

    @property
    def status(self) -> int: ...

    def __call__(self, request: Request, send: Send, headers: Headers = ()) -> Awaitable[None]: ...


class Response:
    """A whole answer. headers: names in lower case; those given to a call are added."""

    def __init__(self, status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.body = body
        self.headers = dict(headers or {})

    async def __call__(self, request: Request, send: Send, headers: Headers = ()) -> None:
        own = [(name.encode("ascii"), value.encode("latin-1")) for name, value in self.headers.items()]
        told = [*own, *ALWAYS, *headers]
        if self.status not in (204, 304):  # RFC 9110, 8.6: no Content-Length on these
            told.append((b"content-length", b"%d" % len(self.body)))
        # RFC 9110, 9.3.2: HEAD is GET without the content
        await deliver(request, send, _messages(self.status, told, b"" if request.method == "HEAD" else self.body))


async def deliver(request: Request, send: Send, messages: Iterable[Message]) -> None:
    """Send these messages. Raises Disconnected if the client takes none for the send timeout."""
    loop, timeout = asyncio.get_running_loop(), request.send_timeout
    try:
        async with asyncio.timeout(timeout) as pending:
            for message in messages:
                await send(message)
                if message.get("more_body"):
                    pending.reschedule(loop.time() + timeout)
    except TimeoutError:
        request.scope.get("extensions", {}).get(CONNECTION, {}).get("abort", lambda: None)()
        raise Disconnected("it has stopped reading") from None


def _messages(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> Iterator[Message]:
    """The messages of a whole answer, of which none is longer than a slice."""
    yield {"type": "http.response.start", "status": status, "headers": headers}
    for begin in range(0, len(body) or 1, SLICE):
        end = begin + SLICE
        yield {"type": "http.response.body", "body": body[begin:end], "more_body": end < len(body)}


def json_response(document: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer. A member that has no JSON form, such as a job's report, is replaced by the reason."""
    try:
        body = dumps(document)
    except Unwritable:
        body = dumps({name: fragment(member) for name, member in document.items()})
    body = body if len(body) >= SLICE else body + b"\n"  # for people; what is too long for them isn't copied for that
    return Response(status, body, {"content-type": "application/json", **(headers or {})})


def text_response(text: str, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(status, text.encode(), {"content-type": "text/plain; charset=utf-8", **(headers or {})})


_PHRASES = {413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
"""RFC 9110, 15.5. Python has older phrases for these before 3.13."""


def problem_response(problem: Problem) -> Response:
    """RFC 9457: type is about:blank, so title is the status phrase."""
    title = _PHRASES.get(problem.status) or HTTPStatus(problem.status).phrase
    document = {"title": title, "status": problem.status, "detail": problem.detail}
    headers = {"content-type": "application/problem+json", **problem.headers}
    return json_response({**document, **problem.members}, problem.status, headers)

"""What the handlers share: the settings, the store, and the one way in which a request opens, finds or resumes a stream.

A handler says what it would open; here is decided whether that is needed. In this order: HEAD, a last event ID (`sse.resume`),
an idempotency key, a new stream. Nothing in here awaits, so that no other request can come in between.
"""

import hashlib
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlencode

from sidecar.answers import Head, Reply, Watching, gone, one_event
from sidecar.counts import Counts
from sidecar.settings import Settings
from sse.errors import Full, KeyReused, Problem
from sse.formats import Format
from sse.http import Request, Response, json_response
from sse.resume import Answer, Held, Verdict, decide
from sse.sender import Followed, Pace
from sse.state import State
from sse.store import Claim, Limits, Opening, Store
from sse.stream import Stream
from sse.watch import EventStream
from sse.wire.event import Event
from sse.wire.payload import dumps

NOT_OF_THE_STREAM = ("last_event_id", "key", "from")
"""Query parameters that say how to watch, not what: a request is the same with or without them."""

MAX_METADATA = 1024
"""Bytes of JSON that whoever opens a stream may have kept beside it."""


REQUEST_ID: ContextVar[str] = ContextVar("request_id", default="")
"""Of the request that is answered, or that opened the stream whose source runs."""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What a handler would open. source: called only if it is opened, with nothing awaited after it."""

    source: Callable[[], AsyncIterator[Any] | None]
    opening: Opening


class Service:
    """settings, store, counts; and `state`, where a feature keeps what it makes once, under the handler's name.

    on_end: called with each stream that ends. request_ids: of those that opened the streams that run, by stream id.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.counts = Counts()
        self.on_end: list[Callable[[Stream], None]] = [self.counts.stream_ended]
        self.request_ids: dict[str, str] = {}
        self.store = Store(
            Limits(
                streams=settings.max_streams,
                watchers=settings.max_watchers,
                events=settings.replay_events,
                bytes=settings.replay_bytes,
                memory=settings.memory,
            ),
            on_end=self._ended,
        )
        self.pace = Pace(settings.heartbeat, settings.send_timeout, settings.retry)
        self.state: dict[str, Any] = {}

    # -- opening and resuming

    def answer(self, request: Request, propose: Callable[[str], Proposal], *, body: bytes = b"") -> Reply:
        """The answer to a request that may open a stream. propose: called with what the request is, if one is to be opened."""
        if request.method == "HEAD":
            return Head()
        identity = identify(request, body)
        answer = decide(last_event_id(request), lambda stream_id: self._held(stream_id, identity))
        if answer.verdict is not Verdict.OPEN:
            return self.follow(request, answer)
        if request.accepts("application/json"):
            return self.opened(request, self.open(request, propose, body=body), 202)
        self.admit_watcher()
        stream = self.open(request, propose, body=body)
        return self.watch(request, stream, None, key=stream.key)

    def open(self, request: Request, propose: Callable[[str], Proposal], *, body: bytes = b"") -> Stream:
        """The stream that the request's idempotency key names, or a new one. Raises Problem 422, 503."""
        identity = identify(request, body)
        claim = self._claim(request, identity)
        stream = self._claimed(claim)
        if stream is not None:
            return stream
        self.admit()
        proposal = propose(identity)
        return self.begin(replace(proposal, opening=replace(proposal.opening, claim=claim)))

    def admit(self) -> None:
        """Raise Problem 503 if no stream may be opened now."""
        try:
            self.store.admit()
        except Full as full:
            raise busy(full) from None

    def begin(self, proposal: Proposal) -> Stream:
        """Open what is proposed. Raises Problem 503; its source is then neither started nor closed."""
        self.admit()
        stream = self.store.open(proposal.source(), proposal.opening)
        if request_id := REQUEST_ID.get():
            self.request_ids[stream.id] = request_id
        return stream

    def follow(self, request: Request, answer: Answer) -> Reply:
        """Every row of `sse.resume` but the first."""
        stream = self.store.find(answer.stream)
        match answer.verdict:
            case Verdict.WATCH if stream is not None:
                stream.resumes += request.method != "HEAD"
                self.counts.resumes += request.method != "HEAD"
                return self.watch(request, stream, answer.after)
            case Verdict.FINISHED:
                return Response(204)
            case Verdict.MALFORMED:
                raise Problem(400, "The last event ID is not one of this server's.", parameter="last_event_id")
            case Verdict.CONFLICT:
                raise Problem(409, "The last event ID belongs to another stream, or is ahead of this one.")
        return gone(request)

    def watch(
        self, request: Request, stream: Stream, after: int | None, *, key: str | None = None, newest: bool = False
    ) -> Reply:
        """Follow `stream` over this connection. key: told to whom opened it. newest: a newcomer starts at the newest event."""
        headers = [(b"location", self.location(request, stream).encode())]
        if key is not None:
            headers.append((b"stream-key", key.encode()))
        newcomer = after is None
        if newest and newcomer:
            after = max(stream.position(from_now=True) - 1, stream.position(from_now=False))
        return self.follow_along(request, stream, after, newcomer=newcomer, headers=tuple(headers))

    def watch_named(self, request: Request, stream_id: str, *, newest: bool = False) -> Reply:
        """Watch or resume the stream that the path names; only its own last event IDs are good there."""

        def find(named: str) -> Held | None:
            other = self.store.find(named)
            return held(other, same=named == stream_id) if other is not None else None

        answer = decide(last_event_id(request), find)
        if answer.verdict is not Verdict.OPEN:
            return self.follow(request, answer)
        stream = self.store.find(stream_id)
        return gone(request) if stream is None else self.watch(request, stream, None, newest=newest)

    def follow_along(
        self,
        request: Request,
        followed: Followed,
        after: int | None,
        *,
        newcomer: bool,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> Reply:
        """The event stream response, if there is room for one more watcher."""
        try:
            self.admit_watcher()
        except Problem as problem:
            return self._later(request, problem)
        from_now = request.query.get("from") == "now"
        response = EventStream(followed, after=after, from_now=from_now, newcomer=newcomer, pace=self.pace, headers=headers)
        return Watching(self.store, self.counts, response)

    def private(self, request: Request, source: AsyncIterator[Any], format: Format, *, after: int | None = None) -> Reply:
        """A stream for this one connection, whose ids are bare numbers. after: the number that the client has, if any."""
        if request.method == "HEAD":
            return Head()
        opening = Opening("", format, linger=0, keep=0, ids="", start=after or 0, listed=False)
        try:
            self.admit_watcher()
            stream = self.begin(Proposal(lambda: source, opening))
        except Problem as problem:
            return self._later(request, problem)
        return self.follow_along(request, stream, after, newcomer=after is None)

    def _later(self, request: Request, problem: Problem) -> Reply:
        """There is no room. 503 would end an EventSource for good (9.2.3): one that comes back is told when to try again."""
        if last_event_id(request) is None or not request.accepts("text/event-stream"):
            raise problem
        return one_event(Event(retry=max(self.settings.retry, 5000)))

    def admit_watcher(self) -> None:
        """Raise Problem 503 if nobody more may watch now."""
        if self.store.watchers >= self.settings.max_watchers:
            raise busy(Full("watchers"))

    def opened(self, request: Request, stream: Stream, status: int) -> Response:
        """A stream that runs, told to a backend: watch it at `url`; `key` permits cancelling and publishing."""
        url = self.location(request, stream)
        body = {"stream_id": stream.id, "url": url, "key": stream.key}
        return json_response(body, status, {"location": url})

    def location(self, request: Request, stream: Stream) -> str:
        return f"{self.base(request)}/streams/{stream.id}"

    def base(self, request: Request) -> str:
        """What stands before every path that a client is told."""
        return request.root_path or self.settings.root_path

    def _held(self, stream_id: str, identity: str) -> Held | None:
        stream = self.store.find(stream_id)
        if stream is None:
            return None
        return held(stream, same=self.store.opening(stream_id).request == identity)

    def _claim(self, request: Request, identity: str) -> Claim | None:
        key = request.header(b"idempotency-key") or request.query.get("key")
        if not key:
            return None
        if len(key) > 256:
            raise Problem(400, "An idempotency key may have 256 characters at the most.", parameter="key")
        caller = hashlib.sha256((request.header(b"authorization") or "").encode()).hexdigest()
        return Claim(caller, request.method, request.path, key, identity)

    def _claimed(self, claim: Claim | None) -> Stream | None:
        try:
            return self.store.claimed(claim) if claim is not None else None
        except KeyReused:
            raise Problem(422, "This idempotency key was used for another request.", parameter="key") from None

    def _ended(self, stream: Stream) -> None:
        for listener in self.on_end:
            listener(stream)
        self.request_ids.pop(stream.id, None)


def last_event_id(request: Request) -> str | None:
    """The header wins; a page can't set it on its first connection, so that a query parameter does as well."""
    return request.header(b"last-event-id") or request.query.get("last_event_id") or None


def held(stream: Stream, *, same: bool) -> Held:
    log = stream.log
    return Held(last=log.last - log.closed, ended=stream.state is not State.RUNNING, same=same)


def identify(request: Request, body: bytes = b"") -> str:
    """What a request asks for, whoever sends it and however it watches."""
    query = urlencode(sorted((name, value) for name, value in request.query.items() if name not in NOT_OF_THE_STREAM))
    digest = hashlib.sha256(body).hexdigest() if body else ""
    return f"{request.method} {request.path}?{query} {digest}"


def check_metadata(metadata: Any) -> None:
    """Raise Problem 422 if it is more than `MAX_METADATA`."""
    if metadata is not None and len(dumps(metadata)) > MAX_METADATA:
        raise Problem(422, f"metadata may have {MAX_METADATA} bytes at the most.", parameter="metadata")


def busy(full: Full) -> Problem:
    return Problem(503, f"No room: {full.what}.", headers={"retry-after": str(full.retry_after)}, limit=full.what)

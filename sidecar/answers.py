"""How a request opens, resumes or watches a stream.

In:  a request, the stream that it names if that is held, and what a handler would open. Out: a `Reply`. `open` decides
in this order: HEAD, a last event ID (`sse.resume`), a conversation or an idempotency key, a new stream. `refusal` answers what
was raised.
"""

import hashlib
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlencode

from sidecar.conversations import MAX_KEY, Conversation, digest, join
from sidecar.counts import Counts
from sidecar.logs import REQUEST_ID
from sidecar.request import Reply, Request
from sidecar.service import Service
from sse.asgi import Send, attended
from sse.errors import Problem
from sse.formats import Format
from sse.http import Headers, Response, json_response
from sse.http import Request as HTTPRequest
from sse.ids import new_id
from sse.resume import GONE_ID, Held, Verdict, decide
from sse.sender import Followed
from sse.store import Holder, Seat, Store
from sse.stream import Opening, State, Stream
from sse.watch import EventStream, head
from sse.wire.encoder import encode
from sse.wire.event import Event
from sse.wire.payload import dumps

NOT_OF_THE_STREAM = ("last_event_id", "lastEventId", "key", "from")
"""Query parameters that say how to watch and not what. They don't count when two requests are compared."""

PASSING = ("shutting down", "store")
"""Limits that hold only in this process, or only for now: another process may have room."""

Propose = Callable[..., Opening]
"""Returns what a handler would open, with the members that it is given. Called only when there is room for one more stream."""

Ready = Callable[[], Coroutine[Any, Any, object]]
"""What has to be done before a stream is opened. It is cancelled if the client leaves meanwhile."""


class Gone(Problem):
    """The stream isn't held."""

    def __init__(self, what: str = "stream") -> None:
        super().__init__(404, f"The {what} is unknown or has expired.", code="stream_gone")


@dataclass(slots=True, eq=False, kw_only=True)
class Watching(EventStream):
    """An event stream response that counts as a watcher. seat: its place."""

    counts: Counts
    seat: Seat

    status: ClassVar = 200

    def begun(self) -> None:
        assert self.sender is not None
        self.counts.watching.add(self.sender)

    def over(self) -> None:
        if self.sender is not None and self.outcome is not None:
            self.counts.unwatched(self.sender, self.outcome)


@dataclass(slots=True)
class Head:
    """The answer to HEAD where GET would follow a stream: no stream is opened, no watcher counted (RFC 9110, 9.3.2)."""

    headers: Headers = ()

    status: ClassVar = 200

    async def __call__(self, request: HTTPRequest, send: Send, headers: Headers = ()) -> None:
        await head(request, send, (*self.headers, *headers))


class Large(Response):
    """A whole answer that takes several messages. It counts as a watcher, and is charged until it is sent."""

    def __init__(self, service: Service, response: Response) -> None:
        """Raises Full."""
        super().__init__(response.status, response.body, response.headers)
        self._charges, self._seat = service.outgoing(len(response.body)), service.store.seat()


# -- opening


async def open(request: Request, propose: Propose, body: bytes = b"", conversation: Conversation | None = None) -> Reply:
    """The answer to a request that may open a stream: its events, or with `Accept: application/json` where they are.

    conversation: where the stream is to run. Raises Full, Problem 400, 404, 409, 422.
    """
    if request.method == "HEAD":
        return Head()
    if request.last_event_id is not None:
        stream = request.stream
        return resume(request, stream, same=stream is not None and stream.opening.identity == identify(request, body))
    if request.accepts("application/json"):
        return await opened(request, 202, propose, body, conversation)
    seat = request.service.store.seat()
    stream = await start(request, propose, body, conversation)
    return follow(request, stream, None, seat)


async def start(request: Request, propose: Propose, body: bytes = b"", conversation: Conversation | None = None) -> Stream:
    """The stream that the request's idempotency key has opened before, or that it joins in its conversation, or a new one.

    In a conversation an idempotency key names the run. Raises Full, Problem 400, 409, 422.
    """
    store, key, identity, stream_id = request.service.store, _key(request), identify(request, body), new_id()
    claim, holder, stream = "", Holder(stream_id, identity), None
    if conversation is not None:
        conversation = conversation._replace(run=conversation.run or key)
        claim, holder, stream = await join(store, request, conversation, holder)
    elif key:
        claim = digest(request.header(b"authorization") or "", request.method, request.path, key)
        stream = await _again(store, claim, holder)
    return stream or await begin(request, propose, stream_id, claim, identity=identity, digest=holder.digest)


async def begin(
    request: Request, propose: Propose, stream_id: str, claim: str = "", *, ready: Ready | None = None, **facts: Any
) -> Stream:
    """Open a stream, in a place of its own. ready: awaited before that. facts: members of the opening.

    If this fails, nothing is left: no key, no announcement, no source. Raises Full, Disconnected, and what `ready` raises.
    """
    store, opening = request.service.store, None
    try:
        with store.reserve():
            facts |= {"request_id": REQUEST_ID.get(), "charge": request.charge, "ascii": request.service.settings.ascii}
            opening = propose(id=stream_id, claim=claim, **facts)
            if ready is not None:
                await attended(request.receive, ready())
            if opening.listed:
                await store.backend.announce(opening)
            return store.open(opening)
    except BaseException:
        store.backend.forget(stream_id, claim)
        if opening is not None:
            await opening.close()
        raise


async def _again(store: Store, claim: str, holder: Holder) -> Stream | None:
    """The stream that was opened with an idempotency key before. Raises Problem 409, 422."""
    held = await store.backend.claim(claim, holder)
    if held.digest != holder.digest:
        raise Problem(422, "This idempotency key was used for another request.", parameter="key")
    if held.stream_id == holder.stream_id:
        return None
    stream = await store.find(held.stream_id)
    if stream is None:
        detail = "The request that has this idempotency key has not opened its stream yet."
        raise Problem(409, detail, headers={"retry-after": "1"}, parameter="key")
    return stream


async def opened(request: Request, status: int, *proposal: Any) -> Response:
    """Start a stream. The answer names it as JSON: its `url` to watch it, its `key` to cancel it and to publish to it.

    proposal: as of `start`.
    """
    stream = await start(request, *proposal)
    url = location(request, stream)
    return json_response({"stream_id": stream.id, "url": url, "key": stream.key}, status, {"location": url})


async def private(
    request: Request, source: AsyncIterator[Any], format: Format, *, after: int = 0, ready: Ready | None = None, **more: Any
) -> Reply:
    """A stream for this one connection, whose ids are bare numbers.

    after: the number that the client has, 0 for a newcomer. ready: as of `begin`. more: members of the opening.
    """
    if request.method == "HEAD":
        return Head()

    def propose(**facts: Any) -> Opening:
        return Opening(source, format, linger=0, keep=0, ids="", start=after, listed=False, **more, **facts)

    seat = request.service.store.seat()
    stream = await begin(request, propose, new_id(), ready=ready)
    return follow(request, stream, after or None, seat)


# -- resuming and watching


def resume(request: Request, stream: Stream | None, *, same: bool = True, newest: bool = False) -> Reply:
    """Watch the stream that the request names, if it is held, from its last event ID on, or without one from the beginning.

    same: whether this request is the one that opened the stream, or names it by its path. newest: a newcomer starts at the
    newest event. Raises Full, Gone, Problem 400, 409.
    """
    if stream is not None and stream.discarded:  # it expired while the request's body was read
        stream = None
    held = Held(stream.id, stream.newest, stream.state is not State.RUNNING, same) if stream is not None else None
    answer = decide(request.last_event_id, held)
    match answer.verdict:
        case Verdict.OPEN if stream is not None:
            return follow(request, stream, None, newest=newest)
        case Verdict.WATCH if stream is not None:
            if request.method != "HEAD":
                stream.resumes += 1
                request.service.counts.resumes += 1
            return follow(request, stream, answer.after)
        case Verdict.FINISHED:
            return Response(204)
        case Verdict.MALFORMED:
            raise Problem(400, "The last event ID is not one of this server's.", parameter="last_event_id")
        case Verdict.CONFLICT:
            raise Problem(409, "The last event ID belongs to another stream, or is ahead of this one.")
    raise Gone


def follow(request: Request, followed: Followed, after: int | None, seat: Seat | None = None, *, newest: bool = False) -> Reply:
    """Follow a stream, or several as one, over this connection. after: the number that the client has; None: a newcomer.

    seat: reserved by the request that has opened the stream, before it did; it gets the stream's key. newest: a newcomer starts
    at the newest event. Raises Full.
    """
    headers: Headers = ()
    newcomer = after is None
    if isinstance(followed, Stream):
        headers = followed.format.headers
        if followed.opening.listed:
            headers = (*headers, (b"location", location(request, followed).encode()))
        if followed.opening.listed and seat is not None:
            headers = (*headers, (b"stream-key", followed.key.encode()))
        newcomer = newcomer and (seat is None or followed.format.tells_opener)
    if request.method == "HEAD":
        return Head(headers)
    position = after
    if position is None:
        position = followed.position(from_now=newest or request.query.get("from") == "now")
        if newest:
            position = max(position - 1, followed.position(from_now=False))
    service = request.service
    seat = seat or service.store.seat()
    return Watching(followed, position, newcomer, service.pace, headers, counts=service.counts, seat=seat)


def found(request: Request) -> Stream:
    """The stream that the path names. Raises Gone."""
    if request.stream is None:
        raise Gone
    return request.stream


# -- errors


def refusal(request: Request, problem: Problem, errors: Callable[[Problem], Response]) -> Response:
    """The answer to a problem: in the shape that errors have on this route, or as an event for an EventSource.

    An EventSource can't read an error's body, and 503 would end it for good (9.2.3). One that reconnects to a full server gets
    a `retry`, and where there are several processes, so does a newcomer. One whose stream is gone gets an event that says so;
    with its id, the next reconnect is answered 204.
    """
    service = request.service
    if "limit" in problem.members:
        service.counts.refused[problem.members["limit"]] += 1
    if request.accepts("text/event-stream"):
        if isinstance(problem, Gone) and request.method != "DELETE":
            data = dumps({"error": problem.detail, **problem.members, "fatal": True})
            return one_event(Event(data, "error", GONE_ID))
        limit = problem.members.get("limit") if problem.status == 503 else None
        if limit in PASSING and service.store.backend.link is not None and request.method == "GET":
            return one_event(Event(retry=service.settings.retry))
        if limit is not None and request.last_event_id is not None:
            return one_event(Event(retry=max(service.settings.retry, 5000)))
    return errors(problem)


def one_event(event: Event) -> Response:
    """An event stream of this one event."""
    return Response(200, encode(event), {"content-type": "text/event-stream"})


# -- facts of a request


def identify(request: Request, body: bytes = b"") -> str:
    """A text that is the same for requests that ask for the same, whoever sends them and however they watch."""
    query = urlencode(sorted((name, value) for name, value in request.query.items() if name not in NOT_OF_THE_STREAM))
    digest = hashlib.sha256(body).hexdigest() if body else ""
    return f"{request.method} {request.path}?{query} {digest}"


def location(request: Request, stream: Stream) -> str:
    return f"{request.base}/streams/{stream.id}"


def _key(request: Request) -> str:
    """The idempotency key; empty without one. Raises Problem 400."""
    key = request.header(b"idempotency-key") or request.query.get("key") or ""
    if len(key) > MAX_KEY:
        raise Problem(400, f"An idempotency key may have {MAX_KEY} characters at the most.", parameter="key")
    return key

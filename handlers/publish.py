"""Events from outside: an application opens a stream, posts events to it, and closes it, in any language.

    POST /streams                 {"linger", "ttl", "metadata"}, all optional        201 {"stream_id", "url", "key"}
    POST /streams/{id}/events     one event, a list, JSON lines or an event stream   200 {"first", "last", "events", "skipped"}
    POST /streams/{id}/close                                                         204

An event is `{"event": name, "data": value}`, both optional: a text goes out as it is, anything else as JSON. Its own id and
retry are dropped; numbers are the log's to give. `?first=N` numbers the body's first event: what is there already is skipped, a
hole is 409, so that a publisher can send again what it had no answer for, without doubling.

Whoever publishes faster than the watchers read is made to wait by its connection: nothing is read from it meanwhile. A stream
that has ended answers 410 and closes the connection, in the middle of a body too: so the application learns to stop.

`ttl` seconds without an open publish request end the stream as failed: its publisher is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Self

import orjson

from handlers.service import Proposal, Reply, Service, check_metadata
from sse.errors import EventTooLong, Problem, SourceFailed
from sse.formats import Plain
from sse.http import Request, Response, json_response
from sse.state import State, Trigger
from sse.store import Opening
from sse.stream import MAX_EVENT, Stream
from sse.wire.encoder import encode
from sse.wire.event import Event
from sse.wire.parser import Parser
from sse.wire.payload import dumps

DEFAULT_TTL = 300.0
MAX_DURATION = 86400.0
RESERVED = frozenset({"connected", "item_error", "gap", "end", "cancelled", "error"})
"""Names that the stream itself says; a publisher can't say them for it."""


class Published(Plain):
    """The events as they were posted; ends with `event: end`, `cancelled` or `error`."""

    name = "published"

    def opening(self, stream_id: str) -> bytes | None:  # noqa: ARG002
        return None

    def item(self, item: Event) -> bytes:
        return encode(item)

    def done(self) -> bytes:
        return encode(Event("{}", "end"))


class Publication:
    """The source of a published stream: it yields nothing itself, and ends when it is closed or its publisher is gone."""

    def __init__(self, ttl: float) -> None:
        self._ttl = ttl
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[None] = self._loop.create_future()
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(ttl, self._lapse)
        self._publishers: set[asyncio.Task[Any]] = set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Any:
        await self._over
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """The stream has ended: stop those who still publish to it."""
        self._set_timer(None)
        for task in self._publishers:
            task.cancel()

    async def publish(self, work: AsyncIterator[None]) -> bool:
        """Run `work` for as long as the stream does; whether it came to its end. The ttl stands still meanwhile."""
        task = asyncio.ensure_future(_exhaust(work))
        self._publishers.add(task)
        self._set_timer(None)
        try:
            await asyncio.wait((task,))
        finally:
            self._publishers.discard(task)
            if not task.done():
                task.cancel()
                await asyncio.wait((task,))
            if not self._publishers and not self._over.done():
                self._set_timer(self._ttl)
        if task.cancelled():
            return False
        task.result()
        return True

    def _lapse(self) -> None:
        if not self._over.done():
            self._over.set_exception(SourceFailed(f"no publisher for {self._ttl:g} s", "publisher_gone", retryable=False))

    def _set_timer(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self._loop.call_later(seconds, self._lapse)


async def _exhaust(work: AsyncIterator[None]) -> None:
    async for _ in work:
        pass


@dataclass(slots=True)
class Appending:
    """One publish request: which numbers its events got. number: the next event's, where the publisher numbers them."""

    stream: Stream
    number: int | None
    first: int | None = None
    events: int = 0
    skipped: int = 0

    def append(self, event: Event) -> None:
        log = self.stream.log
        if log.closed:
            raise _ended(self.stream, self)
        if self.number is not None:
            number, self.number = self.number, self.number + 1
            if number <= log.last:
                self.skipped += 1
                return
            if number > log.last + 1:
                raise Problem(409, f"Event {number} would leave a hole: the last one is {log.last}.", **self.answer())
        self.stream.emit(event)
        self.events += 1
        self.first = self.first or log.last

    def answer(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.stream.log.last, "events": self.events, "skipped": self.skipped}


async def open(service: Service, request: Request) -> Reply:
    """`POST /streams`."""
    body = await request.json(limit=service.settings.max_body)
    wishes = {} if body is None else body
    if not isinstance(wishes, dict):
        raise Problem(400, "The body must be an object.")
    for name in wishes.keys() - {"linger", "ttl", "metadata"}:
        raise Problem(422, f"{name} is not known here.", parameter=name)
    linger = None if wishes.get("linger") is None else _seconds(wishes, "linger")
    ttl = DEFAULT_TTL if wishes.get("ttl") is None else _seconds(wishes, "ttl")
    metadata = wishes.get("metadata")
    check_metadata(metadata)

    def propose(identity: str) -> Proposal:
        opening = Opening(identity, Published(), linger=linger, keep=service.settings.keep, metadata=metadata)
        return Proposal(lambda: Publication(ttl), opening)

    stream = service.open(request, propose, body=dumps(wishes))
    return service.opened(request, stream, 201)


async def publish(service: Service, request: Request) -> Reply:
    """`POST /streams/{id}/events`."""
    stream, publication = _published(service, request)
    number = request.integer("first", 0, minimum=1, maximum=10**15) if "first" in request.query else None
    appending = Appending(stream, number)
    content_type = (request.header(b"content-type") or "").split(";")[0].strip().lower()
    match content_type:
        case "application/json":
            work = _from_json(request, appending, service.settings.max_body)
        case "application/jsonl" | "application/x-ndjson":
            work = _from_stream(request, appending, _Lines())
        case "text/event-stream":
            work = _from_stream(request, appending, _Events())
        case _:
            accept = "application/json, application/jsonl, application/x-ndjson, text/event-stream"
            raise Problem(415, f"The body must be one of {accept}.", headers={"accept": accept})
    try:
        complete = await publication.publish(work)
    except EventTooLong as error:
        raise Problem(413, f"{error}.", **appending.answer()) from None
    if not complete:
        raise _ended(stream, appending)
    return json_response(appending.answer())


async def close(service: Service, request: Request) -> Reply:
    """`POST /streams/{id}/close`: end it well. Once more does nothing more."""
    stream = find(service, request)
    if not stream.end(Trigger.SOURCE_ENDED) and stream.state is not State.DONE:
        raise _ended(stream)
    return Response(204)


def find(service: Service, request: Request) -> Stream:
    """The published stream that the request's path names, ended or not. Raises Problem 404, 409."""
    stream = service.store.find(request.params["id"])
    if stream is None:
        raise Problem(404, "The stream is unknown or has expired.", code="stream_gone")
    if not isinstance(stream.source, Publication):
        raise Problem(409, "This stream has a source of its own; nothing can be published to it.")
    return stream


def _published(service: Service, request: Request) -> tuple[Stream, Publication]:
    stream = find(service, request)
    assert isinstance(stream.source, Publication)
    if stream.state is not State.RUNNING:
        raise _ended(stream)
    return stream, stream.source


def _ended(stream: Stream, appending: Appending | None = None) -> Problem:
    members = {} if appending is None else appending.answer()
    headers = {"connection": "close"}  # what is left of the body isn't wanted
    return Problem(410, f"The stream has ended: {stream.reason}.", headers=headers, reason=stream.reason, **members)


def _seconds(wishes: dict[str, Any], name: str) -> float:
    value = wishes[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_DURATION:
        raise Problem(422, f"{name} must be seconds, from 0 to {MAX_DURATION:g}.", parameter=name)
    return float(value)


async def _from_json(request: Request, appending: Appending, limit: int) -> AsyncIterator[None]:
    """One event or a list: all or nothing."""
    body = await request.json(limit=limit)
    events = [_event(value, f"[{index}]") for index, value in enumerate(body if isinstance(body, list) else [body])]
    if not events:
        raise Problem(400, "The body holds no event.")
    for event in events:
        appending.append(event)
    if appending.stream.log.full:
        await appending.stream.log.room()
    yield


async def _from_stream(
    request: Request, appending: Appending, feed: "Callable[[bytes | None], Iterable[Event]]"
) -> AsyncIterator[None]:
    """Events as they arrive. feed: called with each chunk, and with None at the end."""
    log = appending.stream.log
    async for chunk in request.chunks(timeout=MAX_DURATION):
        for event in feed(chunk):
            appending.append(event)
            if log.full:
                await log.room()
        yield
    for event in feed(None):
        appending.append(event)


class _Events:
    """The chunks of an event stream -> its events, as an EventSource would have dispatched them."""

    def __init__(self) -> None:
        self._parser = Parser(MAX_EVENT // 2)

    def __call__(self, chunk: bytes | None) -> Iterable[Event]:
        for message in self._parser.feed(chunk) if chunk is not None else ():
            yield Event(message.data, _name(None if message.type == "message" else message.type, "event"))


class _Lines:
    """The chunks of JSON lines -> the events on them. A last line without its line feed counts too."""

    def __init__(self) -> None:
        self._rest = b""
        self._number = 0

    def __call__(self, chunk: bytes | None) -> Iterable[Event]:
        *lines, self._rest = (self._rest + chunk).split(b"\n") if chunk is not None else (self._rest, b"")
        if len(self._rest) > MAX_EVENT // 2:
            raise EventTooLong(f"a line is longer than {MAX_EVENT // 2} bytes")
        for line in lines:
            self._number += 1
            if line.strip():
                yield _event(_loads(line, self._number), f"line {self._number}: ")


def _loads(line: bytes, number: int) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise Problem(400, f"Line {number} is not JSON: {error}.") from error


def _event(value: Any, where: str) -> Event:
    """One posted event. Raises Problem 422 that names what is wrong with it."""
    if not isinstance(value, dict):
        raise Problem(422, f"{where} must be an object with event and data.", parameter=where)
    for member in value.keys() - {"event", "data", "id", "retry"}:
        raise Problem(422, f"{where}{member} is not known here.", parameter=f"{where}{member}")
    data = value.get("data")
    text = data if isinstance(data, str) else dumps(data)
    if len(text) > MAX_EVENT // 2:
        raise EventTooLong(f"{where}data is longer than {MAX_EVENT // 2} bytes")
    try:
        return Event(text, _name(value.get("event"), f"{where}event"))
    except ValueError as error:
        raise Problem(422, f"{where}: {error}.", parameter=where) from None


def _name(name: Any, where: str) -> str | None:
    if name is not None and not isinstance(name, str):
        raise Problem(422, f"{where} must be a text.", parameter=where)
    if name in RESERVED:
        raise Problem(422, f"{where}: the name {name} is reserved.", parameter=where)
    return name or None

"""Events from outside: an application opens a stream, posts events to it, and closes it, in any language.

    POST /streams                 {"linger", "ttl", "metadata"}, all optional        201 {"stream_id", "url", "key"}
    POST /streams/{id}/events     one event, a list, JSON lines or an event stream   200 {"first", "last", "events", "skipped"}
    POST /streams/{id}/close                                                         204, also when it is closed

`bodies` says what a body may hold. The answer has the number of the first event that this request added, the number of the
stream's newest event, and how many events were added and skipped; so has the answer to a body that fails in the middle.

`?first=N` numbers the body's first event. Events whose numbers exist are skipped; a number that would leave a hole is answered
409. So a publisher can repeat a request that it got no answer for, and no event is doubled.

While the watchers are behind, nothing is read from a publisher's connection, so it has to wait. A stream that has ended is
answered 410 and the connection is closed, also in the middle of a body: so the application learns to stop.
"""

from typing import Any

from handlers.publish.bodies import READERS
from handlers.publish.source import Appending, Publication, Published, ended, publish_elsewhere
from sidecar.answers import found, opened
from sidecar.request import Reply, Request
from sidecar.service import check_metadata
from sse.errors import EventTooLong, Problem
from sse.http import Response, json_response
from sse.stream import Opening, State, Stream
from sse.wire.payload import dumps

KIND = "published"
DEFAULT_TTL = 300.0
MAX_DURATION = 86400.0
ACCEPT = ", ".join(["application/json", *READERS])


async def open(request: Request) -> Reply:
    """`POST /streams`. linger: seconds that it goes on unwatched; null: for ever. ttl: seconds. metadata: any JSON."""
    body = await request.json(limit=request.service.settings.max_body)
    wishes = {} if body is None else body
    if not isinstance(wishes, dict):
        raise Problem(400, "The body must be an object.")
    for name in wishes.keys() - {"linger", "ttl", "metadata"}:
        raise Problem(422, f"{name} is not known here.", parameter=name)
    linger, ttl = _seconds(wishes, "linger", None), _seconds(wishes, "ttl", DEFAULT_TTL)
    metadata = wishes.get("metadata")
    check_metadata(metadata)

    def propose(**facts: Any) -> Opening:
        publication, keep = Publication(ttl), request.service.settings.keep
        return Opening(publication, Published(), linger, keep, metadata, kind=KIND, asked=publication.asked, **facts)

    return await opened(request, 201, propose, dumps(wishes))


async def publish(request: Request) -> Reply:
    """`POST /streams/{id}/events`; PUT is the same, for `curl -T -`."""
    service, stream = request.service, _published(request)
    if stream.state is not State.RUNNING:
        raise ended(stream)
    number = request.integer("first", 0, minimum=1, maximum=10**15 - 1) if "first" in request.query else None
    appending = Appending(service.store, stream, number, last=stream.log.last)
    if request.media_type == "application/json":
        work = appending.whole(request, service.settings.max_body)
    elif request.media_type in READERS:
        work = appending.streamed(request, READERS[request.media_type]())
    else:
        raise Problem(415, f"The body must be one of {ACCEPT}.", headers={"accept": ACCEPT})
    try:
        source = stream.opening.source
        if isinstance(source, Publication):
            done = await source.publish(work)
        else:
            done = await publish_elsewhere(service.store, stream, work)
        if not done:
            raise ended(await service.store.find(stream.id) or stream)
    except (EventTooLong, Problem) as error:
        raise _interrupted(error, appending) from None
    return json_response(appending.answer())


async def close(request: Request) -> Reply:
    """`POST /streams/{id}/close`: end it as complete. On a stream that has ended this does nothing."""
    stream = _published(request)
    closed = stream.state is State.RUNNING and await request.service.store.ask(stream, "close")
    if not closed and stream.state is not State.DONE:
        raise ended(stream)
    return Response(204)


def _published(request: Request) -> Stream:
    """The published stream that the request's path names, ended or not. Raises Gone, Problem 409."""
    stream = found(request)
    if stream.opening.kind != KIND:
        raise Problem(409, "This stream has a source of its own; nothing can be published to it.")
    return stream


def _interrupted(error: EventTooLong | Problem, appending: Appending) -> Problem:
    """The answer to a body that failed in the middle, with what was added. It closes the connection instead of the rest."""
    problem = error if isinstance(error, Problem) else Problem(413, f"{error}.")
    problem.headers["connection"] = "close"
    problem.members |= appending.answer()
    return problem


def _seconds(wishes: dict[str, Any], name: str, default: Any) -> Any:
    value = wishes.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_DURATION:
        raise Problem(422, f"{name} must be seconds, from 0 to {MAX_DURATION:g}.", parameter=name)
    return value

"""Any stream: watch or resume it, read its state, let go of its watchers, cancel it, list all."""

import asyncio
import time
from typing import Any

from sidecar.answers import Reply, found, location, resume
from sidecar.service import Service
from sse.http import Request, Response, json_response
from sse.stream import State, Stream, Trigger


async def watch(service: Service, request: Request, stream: Stream | None) -> Reply:
    """`GET /streams/{id}`: the events; with `Accept: application/json` the state."""
    if request.accepts("application/json"):
        stream = found(stream)
        result = {} if stream.opening.result is None else {"result": await service.result(stream)}
        return json_response(describe(service, request, stream) | result)
    return resume(service, request, stream)


async def cancel(service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG001
    """`DELETE /streams/{id}`: end it, unless it has ended."""
    await service.store.end(found(stream), Trigger.DELETED)
    return Response(204)


async def drop(service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG001
    """`DELETE /streams/{id}/watchers`: end all connections that watch it. The stream goes on, and watchers can resume it.

    Limit: a connection that watches several streams as one (`/merge`) stays.
    """
    dropped = found(stream)
    for watching in list(service.counts.watching):
        if watching.stream is dropped and watching.sender is not None:
            watching.sender.drop()
    return Response(204)


async def index(service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG001
    """`GET /streams?limit=`: all streams that are held, newest first, without their results."""
    limit = request.integer("limit", 100, minimum=1, maximum=10000)
    streams = [*service.store.streams.values(), *await service.store.backend.newest(limit)]
    newest = sorted(streams, key=lambda stream: stream.created, reverse=True)[:limit]
    return json_response({"streams": [describe(service, request, stream) for stream in newest]})


def describe(service: Service, request: Request, stream: Stream) -> dict[str, Any]:
    """The state document, without the result. Times: seconds since 1970. Ages: seconds. lag: events that a watcher lacks."""
    log = stream.log
    events = log.last - log.closed
    age = None if stream.last_event is None else asyncio.get_running_loop().time() - stream.last_event
    document = {
        "stream_id": stream.id,
        "url": location(service, request, stream),
        "state": stream.state,
        "reason": stream.reason,
        "format": stream.format.name,
        "events": events,
        "bytes": log.size,
        "oldest": log.first if log.first <= events else None,
        "watchers": [{"position": w.position, "lag": log.last - w.position} for w in log.watchers],
        "resumes": stream.resumes,
        "gaps": log.gaps,
        "created": stream.created,
        "ended": stream.ended,
        "last_event_age": age,
        "waits_for": waits_for(stream),
        "metadata": stream.opening.metadata,
    }
    if stream.ended is not None:
        document["duration"] = stream.ended - stream.created
    else:
        document["age"] = time.time() - stream.created
    if stream.failure is not None:
        document["error"] = {"error": stream.failure.message, "code": stream.failure.code}
    return document


def waits_for(stream: Stream) -> str:
    """What a stream waits for: the first thing to know when it is stuck."""
    if stream.state is not State.RUNNING:
        return "nothing"
    return "watcher" if stream.log.waiting else "source"

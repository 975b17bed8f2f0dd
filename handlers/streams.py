"""Any stream: watch or resume it, read its state, let go of its watchers, cancel it, list all."""

import asyncio
import time
from typing import Any

import orjson

from sidecar.answers import found, resume
from sidecar.request import Reply, Request
from sse.http import Response, json_response
from sse.stream import State, Stream, Trigger
from sse.wire.payload import dumps

AT_ONCE = 100
"""Streams of a list that are described in one turn of the event loop: 10,000 take 0.3 s."""


async def watch(request: Request) -> Reply:
    """`GET /streams/{id}`: the events; with `Accept: application/json` the state."""
    if request.accepts("application/json"):
        stream = found(request)
        result = {} if stream.opening.result is None else {"result": await request.service.result(stream)}
        return json_response(describe(request, stream) | result)
    return resume(request, request.stream)


async def cancel(request: Request) -> Reply:
    """`DELETE /streams/{id}`: end it, unless it has ended."""
    await request.service.store.end(found(request), Trigger.DELETED)
    return Response(204)


async def drop(request: Request) -> Reply:
    """`DELETE /streams/{id}/watchers`: end all connections that watch it. The stream goes on, and watchers can resume it.

    Limit: a connection that watches several streams as one (`/merge`) stays.
    """
    dropped = found(request)
    for sender in list(request.service.counts.watching):
        if sender.stream is dropped:
            sender.drop()
    return Response(204)


async def index(request: Request) -> Reply:
    """`GET /streams?limit=`: all streams that are held, newest first, without their results."""
    limit = request.integer("limit", 100, minimum=1, maximum=10000)
    store = request.service.store
    streams = [*store.streams.values(), *await store.backend.newest(limit)]
    newest = sorted(streams, key=lambda stream: stream.created, reverse=True)[:limit]
    told = bytearray()
    for number, stream in enumerate(newest, 1):
        told += dumps(describe(request, stream)) + b","
        if number % AT_ONCE == 0:
            request.charge.claim(len(told) - request.charge.size)
            await asyncio.sleep(0)
    request.charge.clear()  # the answer has a charge of its own
    return json_response({"streams": orjson.Fragment(b"[%b]" % bytes(told[:-1]))})


def describe(request: Request, stream: Stream) -> dict[str, Any]:
    """The state document, without the result. Times: seconds since 1970. Ages: seconds. lag: events that a watcher lacks."""
    log = stream.log
    events = log.last - log.closed
    age = None if stream.last_event is None else asyncio.get_running_loop().time() - stream.last_event
    document = {
        "stream_id": stream.id,
        "url": f"{request.base}/streams/{stream.id}",
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

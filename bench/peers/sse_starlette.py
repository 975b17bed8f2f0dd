"""The same work with sse-starlette, as its documentation does it: a generator, or a queue for each that watches."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import orjson
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.peers.bare import chunks

queues: set["asyncio.Queue[str]"] = set()


async def bench(request: Request) -> Response:
    async def events() -> AsyncIterator[dict[str, Any]]:
        number = 0
        async for chunk in chunks(dict(request.query_params)):
            number += 1
            yield {"id": str(number), "data": orjson.dumps(chunk).decode()}
        yield {"data": "[DONE]"}

    return EventSourceResponse(events(), sep="\n")


async def watch(request: Request) -> Response:
    async def events() -> AsyncIterator[dict[str, Any]]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.add(queue)
        try:
            while True:
                yield {"data": await queue.get()}
        finally:
            queues.discard(queue)

    return EventSourceResponse(events(), sep="\n")


async def publish(request: Request) -> Response:
    body = (await request.body()).decode()
    for queue in queues:
        queue.put_nowait(body)
    return Response()


app = Starlette(routes=[Route("/bench", bench), Route("/watch", watch), Route("/publish", publish, methods=["POST"])])

"""sse-starlette's EventSourceResponse, as its documentation uses it: a generator that yields events."""

from collections.abc import AsyncIterator
from typing import Any

from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.peers.source import DONE, Hub, chunks

hub = Hub()


async def bench(request: Request) -> Response:
    async def events() -> AsyncIterator[dict[str, Any]]:
        async for number, data in chunks(request.query_params):
            yield {"id": str(number), "data": data.decode()}
        yield {"data": DONE}

    return EventSourceResponse(events(), sep="\n")


async def watch(request: Request) -> Response:
    async def events() -> AsyncIterator[dict[str, Any]]:
        async for data in hub.watch():
            yield {"data": data.decode()} if data else {"comment": ""}

    return EventSourceResponse(events(), sep="\n")


async def publish(request: Request) -> Response:
    hub.publish(await request.body())
    return Response()


app = Starlette(routes=[Route("/bench", bench), Route("/watch", watch), Route("/publish", publish, methods=["POST"])])

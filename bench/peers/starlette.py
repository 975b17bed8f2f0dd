"""Starlette's StreamingResponse over a generator that writes the event stream itself."""

from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bench.peers.source import Hub, chunks

hub = Hub()


async def bench(request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        async for number, data in chunks(request.query_params):
            yield b"id: %d\ndata: %b\n\n" % (number, data)
        yield b"data: [DONE]\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def watch(request: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        async for data in hub.watch():
            yield b"data: %b\n\n" % data if data else b":\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


async def publish(request: Request) -> Response:
    hub.publish(await request.body())
    return Response()


app = Starlette(routes=[Route("/bench", bench), Route("/watch", watch), Route("/publish", publish, methods=["POST"])])

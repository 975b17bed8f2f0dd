"""Litestar's ServerSentEvent over a generator of its messages."""

from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, Request, get, post
from litestar.response import ServerSentEvent, ServerSentEventMessage

from bench.peers.source import DONE, Hub, chunks

hub = Hub()


async def bench(request: Request[Any, Any, Any]) -> ServerSentEvent:
    async def events() -> AsyncIterator[ServerSentEventMessage]:
        async for number, data in chunks(request.query_params):
            yield ServerSentEventMessage(id=number, data=data, sep="\n")
        yield ServerSentEventMessage(data=DONE, sep="\n")

    return ServerSentEvent(events())


async def watch() -> ServerSentEvent:
    async def events() -> AsyncIterator[ServerSentEventMessage]:
        async for data in hub.watch():
            yield ServerSentEventMessage(data=data, sep="\n") if data else ServerSentEventMessage(None, comment="", sep="\n")

    return ServerSentEvent(events())


async def publish(request: Request[Any, Any, Any]) -> None:
    hub.publish(await request.body())


app = Litestar(
    [get("/bench")(bench), get("/watch")(watch), post("/publish")(publish)], logging_config=None, openapi_config=None
)

"""FastAPI's own server-sent events: a path operation that yields `ServerSentEvent`."""

from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.sse import EventSourceResponse, ServerSentEvent

from bench.peers.source import DONE, Hub, chunks

app = FastAPI()
hub = Hub()


@app.get("/bench", response_class=EventSourceResponse)
async def bench(request: Request) -> AsyncIterator[ServerSentEvent]:
    async for number, data in chunks(request.query_params):
        yield ServerSentEvent(id=str(number), raw_data=data.decode())
    yield ServerSentEvent(raw_data=DONE)


@app.get("/watch", response_class=EventSourceResponse)
async def watch() -> AsyncIterator[ServerSentEvent]:
    async for data in hub.watch():
        yield ServerSentEvent(raw_data=data.decode()) if data else ServerSentEvent(comment="")


@app.post("/publish")
async def publish(request: Request) -> None:
    hub.publish(await request.body())

"""Server-sent events from a FastAPI application, with nothing but `sse`: an async generator, and a response that streams it.

uvicorn examples.fastapi_app:app
curl -N http://127.0.0.1:8000/clock
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Response
from starlette.types import Receive, Scope, Send

from sse.watch import watch

app = FastAPI()


class EventStreamResponse(Response):
    media_type = "text/event-stream"

    def __init__(self, source: AsyncIterator[Any]) -> None:
        super().__init__()
        self.source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await watch(scope, receive, send, self.source)


async def ticks(count: int) -> AsyncIterator[dict[str, int]]:
    for number in range(1, count + 1):
        yield {"tick": number}
        await asyncio.sleep(0.01)


@app.get("/clock")
async def clock(count: int = 10) -> EventStreamResponse:
    return EventStreamResponse(ticks(count))

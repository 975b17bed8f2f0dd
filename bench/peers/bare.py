"""The least that streams events on ASGI: one callable, one event a send. What everything else is measured against."""

import asyncio
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl

from bench.peers.source import Hub, chunks

HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
hub = Hub()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if scope["path"] == "/publish":
        hub.publish((await receive())["body"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    if scope["path"] == "/watch":
        await watch(receive, send)
        return
    await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
    async for number, data in chunks(dict(parse_qsl(scope["query_string"].decode()))):
        body = b"id: %d\ndata: %b\n\n" % (number, data)
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def watch(receive: Any, send: Any) -> None:
    gone = asyncio.create_task(disconnected(receive, asyncio.current_task()))
    try:
        async with aclosing(hub.watch()) as events:
            async for data in events:
                body = b"data: %b\n\n" % data if data else b":\n\n"
                await send({"type": "http.response.body", "body": body, "more_body": True})
    except asyncio.CancelledError:
        pass
    finally:
        gone.cancel()


async def disconnected(receive: Any, task: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()

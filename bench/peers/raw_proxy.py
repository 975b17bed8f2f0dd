"""The least that passes a model's answer on: one ASGI callable, and the bytes of httpx2 as they come, unread."""

import os
from typing import Any

import httpx2

HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
upstream = os.environ.get("OPENAI_BASE_URL", "") + "/chat/completions"
client = httpx2.AsyncClient(timeout=60, limits=httpx2.Limits(max_connections=None))


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    body = (await receive())["body"]
    async with client.stream("POST", upstream, content=body, headers={"content-type": "application/json"}) as answer:
        await send({"type": "http.response.start", "status": answer.status_code, "headers": HEADERS})
        async for data in answer.aiter_raw():
            await send({"type": "http.response.body", "body": data, "more_body": True})
    await send({"type": "http.response.body", "body": b""})

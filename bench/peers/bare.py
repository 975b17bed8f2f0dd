"""The least that streams events on ASGI: one callable, one event a send. What everything else is measured against.

GET /bench?events=&size=&interval=&burst=    as the sidecar's
GET /watch · POST /publish                   one event to all who watch, through a queue each
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qsl

import orjson

HEADERS = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")]
queues: set["asyncio.Queue[bytes]"] = set()


async def chunks(query: dict[str, str]) -> AsyncIterator[dict[str, Any]]:
    """The same load as `handlers.bench.chunks`."""
    loop = asyncio.get_running_loop()
    interval, burst = float(query.get("interval", 0)), int(query.get("burst", 1))
    pad, begin = "x" * max(0, int(query.get("size", 190)) - 50), loop.time()
    for number in range(int(query["events"])):
        if interval and number and number % burst == 0:
            await asyncio.sleep(begin + number // burst * interval - loop.time())
        yield {"n": number, "t": time.monotonic_ns(), "pad": pad}


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    if scope["path"] == "/publish":
        event = b"data: %b\n\n" % (await receive())["body"]
        for queue in queues:
            queue.put_nowait(event)
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    await send({"type": "http.response.start", "status": 200, "headers": HEADERS})
    if scope["path"] == "/watch":
        await watch(receive, send)
        return
    await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
    number = 0
    async for chunk in chunks(dict(parse_qsl(scope["query_string"].decode()))):
        number += 1
        body = b"id: %d\ndata: %b\n\n" % (number, orjson.dumps(chunk))
        await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})


async def watch(receive: Any, send: Any) -> None:
    queue: asyncio.Queue[bytes] = asyncio.Queue()
    queues.add(queue)
    gone = asyncio.create_task(disconnected(receive, asyncio.current_task()))
    try:
        await send({"type": "http.response.body", "body": b":\n\n", "more_body": True})
        while True:
            await send({"type": "http.response.body", "body": await queue.get(), "more_body": True})
    except asyncio.CancelledError:
        pass
    finally:
        queues.discard(queue)
        gone.cancel()


async def disconnected(receive: Any, task: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    task.cancel()

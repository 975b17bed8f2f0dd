"""`GET /bench?events=&size=&interval=&burst=`: a deterministic load, through everything that a real stream goes through.

Each event is a chunk as a model would send it, numbered, with the time at which it was made. `burst` events come at a time, and
`interval` seconds lie between bursts; with 0 the source never waits.

Without a token set, only clients on this machine get it: otherwise anybody could use it to overload the sidecar.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from sidecar.access import has_token
from sidecar.answers import private
from sidecar.origins import is_loopback
from sidecar.request import Reply, Request
from sse.errors import Problem
from sse.formats import Format
from sse.http import Response


async def chunks(events: int, size: int, interval: float, burst: int) -> AsyncIterator[dict[str, Any]]:
    """`events` events of about `size` bytes. Bursts keep to a schedule: a late one doesn't delay those after it."""
    loop = asyncio.get_running_loop()
    pad = "x" * max(0, size - 50)
    begin = loop.time()
    for number in range(events):
        if interval and number and number % burst == 0:
            await asyncio.sleep(begin + number // burst * interval - loop.time())
        yield {"n": number, "t": time.monotonic_ns(), "pad": pad}


async def load(request: Request) -> Reply:
    client = request.scope.get("client")  # None: a Unix socket, or a server that doesn't tell
    if client and not is_loopback(client[0]) and not has_token(request.service.settings, request):
        raise Problem(403, "Without a token, the load is for clients on this machine only.")
    if request.last_event_id is not None:
        return Response(204)  # no event is kept: an EventSource that reconnects would start anew
    events = request.integer("events", 1000, minimum=0, maximum=100_000_000)
    size = request.integer("size", 190, minimum=0, maximum=1 << 20)
    interval = request.number("interval", 0.0, minimum=0, maximum=3600)
    burst = request.integer("burst", 1, minimum=1, maximum=1_000_000)
    return await private(request, chunks(events, size, interval, burst), Format())

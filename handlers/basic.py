"""`GET /stream?count=&interval=`: numbered messages, then `[DONE]`: the smallest stream, to try things with.

Its event ids are bare numbers. The query alone determines every event, so a resume needs no stored events, only the number.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

from sidecar.answers import private
from sidecar.request import Reply, Request
from sse.errors import Problem
from sse.formats import Format
from sse.http import Response


async def updates(first: int, count: int, interval: float) -> AsyncIterator[dict[str, Any]]:
    """The messages `first` to `count`, each `interval` seconds after the one before."""
    for number in range(first, count + 1):
        if number > first:
            await asyncio.sleep(interval)
        yield {"count": number, "message": f"Update {number}"}


async def stream(request: Request) -> Reply:
    count = request.integer("count", 10, minimum=0, maximum=1_000_000)
    interval = request.number("interval", 0.5, minimum=0, maximum=3600)
    last = request.last_event_id or "0"
    if last == "end":
        return Response(204)
    if re.fullmatch("[0-9]{1,7}", last) is None or int(last) > count:
        raise Problem(400, f"The last event ID must be a number up to {count}, or end.", parameter="last_event_id")
    source = updates(int(last) + 1, count, interval)
    return await private(request, source, Format(), after=int(last))

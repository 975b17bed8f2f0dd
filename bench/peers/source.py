"""What the Python peers share: the load of `GET /bench`, and one event to all who watch, through a queue each.

`chunks` yields an event's id and its data, which is `handlers.bench`'s to the byte.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping

import orjson

DONE = "[DONE]"


async def chunks(query: Mapping[str, str]) -> AsyncIterator[tuple[int, bytes]]:
    """Number and data of each event that these parameters ask for."""
    loop = asyncio.get_running_loop()
    interval, burst = float(query.get("interval", 0)), int(query.get("burst", 1))
    pad, begin = "x" * max(0, int(query.get("size", 190)) - 50), loop.time()
    for number in range(int(query.get("events", 1000))):
        if interval and number and number % burst == 0:
            await asyncio.sleep(begin + number // burst * interval - loop.time())
        yield number + 1, orjson.dumps({"n": number, "t": time.monotonic_ns(), "pad": pad})


class Hub:
    """All who watch."""

    def __init__(self) -> None:
        self._queues: set[asyncio.Queue[bytes]] = set()

    def publish(self, data: bytes) -> None:
        for queue in self._queues:
            queue.put_nowait(data)

    async def watch(self) -> AsyncGenerator[bytes, None]:
        """First nothing, as soon as this one takes part; then the data of each event that is published."""
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._queues.add(queue)
        try:
            yield b""
            while True:
                yield await queue.get()
        finally:
            self._queues.discard(queue)

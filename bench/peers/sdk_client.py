"""No server at all: the openai SDK reads the upstream itself, as an application without a sidecar does.

python -m bench.peers.sdk_client     a line `STREAMS MAX_TOKENS TIMES` in, a line of JSON out: `bench.chat.Figures`
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from openai import AsyncOpenAI


async def read(client: AsyncOpenAI, max_tokens: int, first: list[float], added: list[float]) -> int:
    """One answer; how many of its chunks had text, which may be the time at which it was sent."""
    begin, count = time.monotonic_ns(), 0
    messages: Any = [{"role": "user", "content": "Hello"}]
    stream = await client.chat.completions.create(model="test", messages=messages, max_tokens=max_tokens, stream=True)
    async for chunk in stream:
        if text := chunk.choices[0].delta.content:
            now = time.monotonic_ns()
            if not count:
                first.append((now - begin) / 1000)
            count += 1
            if len(text) > 10:
                added.append((now - int(text)) / 1000)
    return count


async def main() -> None:
    client = AsyncOpenAI()
    for line in sys.stdin:
        streams, max_tokens, times = map(int, line.split())
        first, added, chunks = list[float](), list[float](), 0
        begin = time.perf_counter()
        for _ in range(times):
            chunks += sum(await asyncio.gather(*(read(client, max_tokens, first, added) for _ in range(streams))))
        seconds = time.perf_counter() - begin
        print(json.dumps({"chunks": chunks, "seconds": seconds, "first": first, "added": added}), flush=True)


uvloop.run(main())

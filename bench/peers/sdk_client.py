"""No server at all: the openai SDK reads the upstream itself, as an application without a sidecar does.

python -m bench.peers.sdk_client STREAMS MAX_TOKENS    prints {"seconds", "first": [µs], "added": [µs]}
"""

import asyncio
import json
import sys
import time
from typing import Any

import uvloop
from openai import AsyncOpenAI


async def read(client: AsyncOpenAI, max_tokens: int, first: list[float], added: list[float]) -> int:
    """One answer; how many chunks of it had text. Its text is the time at which each was sent, where it is a number."""
    begin, count = time.monotonic_ns(), 0
    messages: Any = [{"role": "user", "content": "Hello"}]
    stream = await client.chat.completions.create(model="test", messages=messages, max_tokens=max_tokens, stream=True)
    async for chunk in stream:
        if text := chunk.choices[0].delta.content:
            now = time.monotonic_ns()
            if not count:
                first.append((now - begin) / 1000)
            count += 1
            if text.isdecimal():
                added.append((now - int(text)) / 1000)
    return count


async def main(streams: int, max_tokens: int) -> None:
    client, first, added = AsyncOpenAI(), list[float](), list[float]()
    await read(client, 1, [], [])  # the SDK imports parts of itself at the first request
    begin = time.perf_counter()
    counts = await asyncio.gather(*(read(client, max_tokens, first, added) for _ in range(streams)))
    seconds = time.perf_counter() - begin
    print(json.dumps({"seconds": seconds, "chunks": sum(counts), "first": first, "added": added}))


uvloop.run(main(int(sys.argv[1]), int(sys.argv[2])))

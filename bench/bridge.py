"""Progress calls from threads to the event loop, beside a wake-up for each item; and what busy threads do to lateness.

    python -m bench.bridge

Rate: 8 threads make 100,000 calls in all; every item is read and checked, complete and in order for each thread. The
reference is `call_soon_threadsafe(queue.put_nowait, item)` for each item, with an asyncio.Queue for each thread.
Rounds are interleaved.

Lateness: a timer every 10 ms notes how late it comes while 4 threads compute: hashlib over blocks of 1 MiB, which
releases the interpreter lock, then pure Python, which doesn't. All is printed as JSON.
"""

import asyncio
import hashlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

import uvloop

from sse.threads import OnProgress, Progress, Result, Threads

THREADS = 8
CALLS = 100_000
EACH = CALLS // THREADS
ROUNDS = 5
BRIDGE, REFERENCE = "Sidestream", "a wake-up for each item"


class Start(threading.Barrier):
    """Lets all threads go at once, and keeps the time when it did."""

    def __init__(self, parties: int) -> None:
        super().__init__(parties, action=self.note)
        self.time = 0.0

    def note(self) -> None:
        self.time = time.perf_counter()


def calls(on_progress: OnProgress, start: Start) -> None:
    """The work of one thread: numbered progress, as fast as it can."""
    steps = [{"progress": number} for number in range(EACH)]
    start.wait()
    for details in steps:
        on_progress("count", details)


def check(numbers: list[int]) -> None:
    """Complete, and in order."""
    if numbers != list(range(EACH)):
        raise AssertionError(f"{len(numbers)} of {EACH} items, or out of order")


async def by_bridge() -> float:
    """Items a second through the bridge."""
    threads = Threads(THREADS, 0, buffer=EACH)
    start = Start(THREADS)

    async def read() -> None:
        async with aclosing(threads.run(calls, {"start": start})) as run:
            check([item[1]["progress"] async for item in run if not isinstance(item, Result)])

    return await timed(read, start)


async def by_queue() -> float:
    """Items a second with one wake-up of the loop for each."""
    loop = asyncio.get_running_loop()
    start = Start(THREADS)

    async def read() -> None:
        queue: asyncio.Queue[Progress] = asyncio.Queue()

        def on_progress(step: str, details: Mapping[str, Any]) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, (step, {**details}))

        threading.Thread(target=calls, args=(on_progress, start), daemon=True).start()
        check([(await queue.get())[1]["progress"] for _ in range(EACH)])

    return await timed(read, start)


async def timed(read: Callable[[], Coroutine[Any, Any, None]], start: Start) -> float:
    """Items a second, from the moment all threads are let go until all is read."""
    await asyncio.gather(*(read() for _ in range(THREADS)))
    return CALLS / (time.perf_counter() - start.time)


def digest(on_progress: OnProgress) -> None:
    """Releases the interpreter lock nearly all the time."""
    block, digest = bytes(1 << 20), hashlib.sha256()
    while True:
        digest.update(block)
        on_progress("digest", {})


def spin(on_progress: OnProgress) -> None:
    """Never releases it; a step every few milliseconds."""
    while True:
        sum(number * number for number in range(50_000))
        on_progress("spin", {})


async def lateness(work: Callable[..., None] | None, seconds: float = 1.5, period: float = 0.01) -> tuple[float, float]:
    """Median and p99 of how late a timer comes while 4 threads do this work, in ms."""
    late: list[float] = []
    threads = Threads(4, 0)

    async def read(run: Any) -> None:
        async for _ in run:
            pass

    async with AsyncExitStack() as stack:
        readers = []
        for _ in range(4 if work else 0):
            run = await stack.enter_async_context(aclosing(threads.run(work or spin)))
            readers.append(asyncio.create_task(read(run)))
        due = time.perf_counter()
        for _ in range(int(seconds / period)):
            due += period
            await asyncio.sleep(due - time.perf_counter())
            late.append((time.perf_counter() - due) * 1000)
    await asyncio.gather(*readers)
    return statistics.median(late), statistics.quantiles(late, n=100)[98]


async def measure() -> dict[str, list[dict[str, float]]]:
    """The rounds of each figure, by whose they are."""
    rounds: dict[str, list[dict[str, float]]] = {BRIDGE: [], REFERENCE: []}
    for _ in range(ROUNDS):
        rounds[REFERENCE].append({"items/s": await by_queue()})
        rounds[BRIDGE].append({"items/s": await by_bridge()})
    for name, work, interval in (
        ("no threads", None, 0.005),
        ("4 threads in hashlib", digest, 0.005),
        ("4 threads in Python", spin, 0.005),
        ("4 threads in Python, switching at 0.5 ms", spin, 0.0005),
    ):
        before = sys.getswitchinterval()
        sys.setswitchinterval(interval)
        try:
            median, p99 = await lateness(work)
        finally:
            sys.setswitchinterval(before)
        rounds[name] = [{"late p50 ms": median, "late p99 ms": p99}]
    return rounds


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(measure())))

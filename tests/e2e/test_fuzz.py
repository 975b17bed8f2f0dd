"""Thousands of bad clients against the real process: it lives, answers in HTTP or not at all, leaks nothing, delays nobody."""

import asyncio
import os
import random
import time
from collections import Counter

import pytest

from tests.support.fuzz import fault, request
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, descriptors, fetch, get_json

pytestmark = pytest.mark.e2e

CLIENTS = int(os.environ.get("SIDESTREAM_FUZZ", "3000"))
AT_ONCE = 48
SEED = 20
SETTINGS = {"LINGER": "0.2", "KEEP": "0.2", "DEMO_INTERVAL": "0", "DRAIN": "1"}


async def misbehave(port: int, number: int) -> bytes:
    """One client, all of it drawn from its number; what it was answered."""
    rng = random.Random(SEED * 1_000_000 + number)
    data = b"".join(request(rng) for _ in range(rng.choice((1, 1, 1, 2, 4))))
    received = b""
    loop = asyncio.get_running_loop()
    client = Client(port)
    try:
        async with client:
            match rng.randrange(5):
                case 0:  # in pieces, slowly
                    pieces = sorted(rng.sample(range(len(data)), min(len(data), 4)))
                    for begin, end in zip([0, *pieces], [*pieces, len(data)], strict=True):
                        await client.send(data[begin:end])
                        await asyncio.sleep(0.005)
                case 1:  # cut off
                    await client.send(data[: rng.randrange(len(data) + 1)])
                case _:
                    await client.send(data)
            match rng.randrange(6):
                case 0:
                    client.reset()
                    return b""
                case 1:
                    return b""
                case 2:
                    client.half_close()
            async with asyncio.timeout(0.15):
                while piece := await loop.sock_recv(client.socket, 65536):
                    received += piece
    except (OSError, TimeoutError):
        pass
    return received


async def punctual(port: int, stop: asyncio.Event) -> float:
    """Watch a stream of twenty events a second until told to stop; the longest time between two, in seconds."""
    async with Client(port) as client:
        answer = await client.get("/stream?count=100000&interval=0.05")
        worst, last = 0.0, time.monotonic()
        while not stop.is_set():
            await answer.event()
            now = time.monotonic()
            worst, last = max(worst, now - last), now
        return worst


async def settled(process: Server, files: int) -> None:
    """Wait until nothing runs, nobody watches and the process has no more than `files` open."""
    async with asyncio.timeout(30):
        while True:
            listed = (await get_json(process.port, "/streams?limit=10000"))["streams"]
            for document in listed:
                await fetch(process.port, document["url"], method="DELETE")
            if not listed and descriptors(process.pid) <= files:
                return
            await asyncio.sleep(0.2)


async def test_bad_clients_hurt_nobody() -> None:
    async with sidecar(**{f"SIDESTREAM_{name}": value for name, value in SETTINGS.items()}) as process:
        assert (await fetch(process.port, "/metrics"))[0] == 200  # imported now, with the files that takes
        files = descriptors(process.pid)
        stop = asyncio.Event()
        watcher = asyncio.create_task(punctual(process.port, stop))
        numbers = iter(range(CLIENTS))
        faults: list[str] = []
        statuses: Counter[bytes] = Counter()

        async def clients() -> None:
            for number in numbers:
                received = await misbehave(process.port, number)
                statuses[received[9:12]] += 1
                if problem := fault(received):
                    faults.append(f"client {number}: {problem}")

        await asyncio.gather(*(clients() for _ in range(AT_ONCE)))
        stop.set()
        worst = await watcher
        assert faults == []
        assert statuses.keys() >= {b"", b"200", b"204", b"400", b"404", b"405", b"415", b"431"}, statuses
        assert worst < 1.0
        await settled(process, files + 2)  # its own connections
        metrics = (await fetch(process.port, "/metrics"))[1].decode()
        assert "\nsidestream_watchers 0.0\n" in metrics
        assert '\nsidestream_streams{state="running"} 0.0\n' in metrics
        assert await process.stop() == 0
    assert [line for line in process.stderr if '"level":"error"' in line or "Traceback" in line] == []

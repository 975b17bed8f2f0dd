"""What several processes and a Redis cost.

    python -m bench.store                     all figures as JSON
    python -m bench.store soak [minutes]      what is left at the end of a soak

It starts a redis-server, and sidecars, each of them a process on a port of its own.

    events    /bench at full speed to one watcher: without a store, with one, and with a watcher at another process
    latency   an event that is published at one process, to watchers at both
    memory    bytes in Redis for an event
    soak      500 streams a minute on two processes, cut, cancelled, and Redis restarted once; what is left at the end
"""

import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.counted import COMMAND, tasks_of
from tests.support.redis import RedisServer, redis_server
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, Cut, fetch, get_json

JSON = {"Content-Type": "application/json"}
SIZE = 190
"""Bytes of an event's data, as an answer's chunk has them."""

ALONE = "Sidestream without Redis"


@asynccontextmanager
async def processes(number: int, url: str = "", **env: Any) -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        store = {"SIDESTREAM_STORE": url} if url else {}
        yield [await stack.enter_async_context(sidecar(**store, **env)) for _ in range(number)]


async def published(port: int, **wishes: Any) -> str:
    _, body = await fetch(port, "/streams", method="POST", headers=JSON, body=json.dumps(wishes).encode())
    url: str = json.loads(body)["url"]
    return url


async def pour(port: int, url: str, count: int) -> None:
    """Publish so many events in one request, and close the stream."""
    lines = b"".join(b'{"data": "%b"}\n' % (b"x" * SIZE) for _ in range(count))
    await fetch(port, f"{url}/events", method="POST", headers={"Content-Type": "application/jsonl"}, body=lines)
    await fetch(port, f"{url}/close", method="POST")


async def count_events(port: int, url: str) -> int:
    async with Client(port) as client:
        return len(await (await client.get(url)).events())


async def throughput(owner: int, watcher: int, count: int) -> float:
    """Events a second from a publisher at one process to a watcher at one."""
    url = await published(owner)
    watching = asyncio.create_task(count_events(watcher, url))
    await asyncio.sleep(0.2)
    begin = time.perf_counter()
    await pour(owner, url, count)
    assert await watching >= count
    return count / (time.perf_counter() - begin)


async def latency(owner: int, watchers: list[int], count: int) -> list[list[float]]:
    """Milliseconds from publishing an event to each watcher's having it, one at a time."""
    url = await published(owner)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(Client(port)) for port in watchers]
        answers = [await client.get(url) for client in clients]
        took: list[list[float]] = [[] for _ in watchers]

        async def next_of(which: int, begin: float) -> None:
            await answers[which].event()
            took[which].append((time.perf_counter() - begin) * 1e3)

        publisher = await stack.enter_async_context(Client(owner))
        for _ in range(count):
            begin = time.perf_counter()
            seen = [asyncio.create_task(next_of(which, begin)) for which in range(len(watchers))]
            answer = await publisher.request("POST", f"{url}/events", JSON, b'{"data": "x"}')
            await answer.whole()
            await asyncio.gather(*seen)
            await asyncio.sleep(0.005)
    return took


async def memory(server: RedisServer, port: int, count: int) -> float:
    """Bytes in Redis for an event of `SIZE` bytes."""
    async with server.client() as client:
        before = int((await client.info("memory"))["used_memory"])
        url = await published(port)
        await pour(port, url, count)
        await asyncio.sleep(1)
        return (int((await client.info("memory"))["used_memory"]) - before) / count


async def core_seconds(server: RedisServer) -> float:
    """Of a core that Redis has used so far."""
    async with server.client() as client:
        used = await client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


async def paced(owner: int, watcher: int, streams: int, events: int) -> None:
    """So many jobs at 20 events a second each, every one watched at another process."""

    async def one() -> None:
        body = json.dumps({"kind": "steps", "params": {"count": events, "interval": 0.05}}).encode()
        _, answer = await fetch(owner, "/jobs", method="POST", headers=JSON, body=body)
        await count_events(watcher, f"/streams/{json.loads(answer)['job_id']}")

    await asyncio.gather(*[one() for _ in range(streams)])


def quantiles(took: list[float]) -> dict[str, float]:
    return {"p50 ms": statistics.median(took), "p99 ms": sorted(took)[int(len(took) * 0.99)]}


async def measure(count: int = 30_000) -> dict[str, list[dict[str, float]]]:
    """The rounds of each figure, by whose they are."""
    with tempfile.TemporaryDirectory() as directory:
        async with redis_server(Path(directory)) as server, processes(1) as (alone,), processes(2, server.url) as (here, there):
            pairs = {
                ALONE: (alone, alone),
                "Sidestream with Redis": (here, here),
                "Sidestream, watched at another process": (here, there),
            }
            rounds: dict[str, list[dict[str, float]]] = {}
            for name, (owner, watcher) in pairs.items():
                await throughput(owner.port, watcher.port, 3000)
                (took,) = await latency(owner.port, [watcher.port], 200)
                rounds[name] = [quantiles(took)]
            for number in range(3):
                for name, (owner, watcher) in pairs.items():
                    begin = await core_seconds(server)
                    rate = await throughput(owner.port, watcher.port, count)
                    used = (await core_seconds(server) - begin) / count * 1e6
                    if number:
                        rounds[name].append(rounds[name][0].copy())
                    rounds[name][-1] |= {"events/s": rate} | ({} if owner is alone else {"Redis' CPU µs": used})
            begin = await core_seconds(server)
            await paced(here.port, there.port, 100, 60)
            used = (await core_seconds(server) - begin) / 6000 * 1e6
            rounds["the same, 100 jobs of 20 events/s"] = [{"Redis' CPU µs": used}]
            rounds["an event of 190 bytes in Redis"] = [{"bytes": await memory(server, here.port, count)}]
            return rounds


# -- the soak


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def resident(pid: int) -> float:
    """MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


async def used(server: Server) -> tuple[int, int, float]:
    """Descriptors, tasks, and MiB."""
    return descriptors(server.pid), await tasks_of(server), resident(server.pid)


async def one_stream(ports: list[int], counts: dict[str, int], rng: random.Random) -> None:
    """Start a job, follow it from process to process with random cuts, cancel one in five; check what came."""
    steps = rng.randint(10, 100)
    body = json.dumps({"kind": "steps", "params": {"count": steps, "interval": 0.03}}).encode()
    status, answer = await fetch(rng.choice(ports), "/jobs", method="POST", headers=JSON, body=body)
    if status != 202:
        counts["refused"] += 1
        return
    url = f"/streams/{json.loads(answer)['job_id']}"
    cancel = rng.random() < 0.2
    numbers: list[str] = []
    last = ""
    async with asyncio.timeout(60):
        while last != "end":
            try:
                async with Client(rng.choice(ports)) as client:
                    headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": f"{url[9:]}.{last}"} if last else {})
                    reply = await client.get(url, headers)
                    if reply.status != 200:
                        break
                    for _ in range(rng.randint(5, 60)):
                        last = (await reply.event()).last_event_id.rpartition(".")[2] or last
                        numbers.append(last)
                if cancel and len(numbers) > 5:
                    status, _ = await fetch(rng.choice(ports), url, method="DELETE")
                    counts["cancelled"] += status == 204
                    cancel = status != 204
            except (Cut, OSError, TimeoutError):
                await asyncio.sleep(0.1)
    events = [number for number in numbers if number not in ("0", "end")]
    counts["whole" if events == [str(n) for n in range(1, len(events) + 1)] and last == "end" else "broken"] += 1


async def soak(minutes: float, rate: float = 500) -> dict[str, Any]:
    """rate: streams a minute. What was counted, and what is left when all has expired."""
    rng = random.Random(1)
    counts = dict.fromkeys(("refused", "cancelled", "whole", "broken"), 0)
    settings: dict[str, Any] = {"SIDESTREAM_KEEP": "5", "SIDESTREAM_LINGER": "5", "command": COMMAND}
    with tempfile.TemporaryDirectory() as directory:
        async with (
            redis_server(Path(directory), appendonly="yes") as server,
            processes(2, server.url, **settings) as servers,
        ):
            ports = [each.port for each in servers]
            await asyncio.gather(*[one_stream(ports, counts, rng) for _ in range(20)])  # what is made once is made
            await asyncio.sleep(7)
            before = [await used(each) for each in servers]
            counts = dict.fromkeys(counts, 0)
            tasks: list[asyncio.Task[None]] = []
            begin = time.monotonic()
            restarted = False
            while (now := time.monotonic() - begin) < minutes * 60:
                tasks.append(asyncio.create_task(one_stream(ports, counts, rng)))
                if not restarted and now > minutes * 30:
                    restarted = True
                    await server.kill()
                    await server.start()
                await asyncio.sleep(60 / rate)
            await asyncio.gather(*tasks)
            await asyncio.sleep(12)
            after = [await used(each) for each in servers]
            async with server.client() as client:
                keys = sorted(map(str, await client.keys()))
                connections = len(await client.client_list()) - 1
                channels = len(await client.pubsub_channels())
            held = [len((await get_json(port, "/streams"))["streams"]) for port in ports]
    return {
        "streams": len(tasks), **counts, "descriptors": [b[0] for b in before], "descriptors after": [a[0] for a in after],
        "tasks": [b[1] for b in before], "tasks after": [a[1] for a in after],
        "MiB": [round(b[2]) for b in before], "MiB after": [round(a[2]) for a in after],
        "keys": keys, "connections": connections, "channels": channels, "held": held,
    }  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1:2] == ["soak"]:
        for name, value in asyncio.run(soak(float(sys.argv[2]) if len(sys.argv) > 2 else 5)).items():
            print(f"{name}: {value}")
    else:
        print(json.dumps(asyncio.run(measure())))

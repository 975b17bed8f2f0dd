"""Clients that ask for much, read nothing and send what is refused; and one that looks meanwhile whether the server answers.

python -m tests.support.hostile burst PORT SECONDS     {"answers": {"<burst> <status>": n}}, in a process that others go before
python -m tests.support.hostile probe PORT PID         at the end of its stdin {"probes", "judged", "worst", "seen", "noise"}

Times in seconds. seen: the longest that an answer took. judged: how many answers are judged, namely those for which neither the
probe nor a thread of the server waited for a processor for more than a tenth of the time, which is other programs' work. worst:
the longest of them. noise: how late the probe was woken at the worst, from a sleep that the server has no part in.
"""

import asyncio
import json
import os
import select
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from sidecar.functions import function
from tests.support.sockets import Client, Cut, encode_request, fetch

MEBIBYTE = 1 << 20
JSON = {"Content-Type": "application/json"}
SMALL = 4096
"""Bytes that the kernel holds for a client that reads nothing."""


@function
def large(mebibytes: int = 8) -> str:
    """A result of so many MiB."""
    return "r" * (mebibytes << 20)


@asynccontextmanager
async def deaf(port: int, path: str, count: int) -> AsyncIterator[None]:
    """So many clients that ask and read nothing."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL)
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
            await asyncio.get_running_loop().sock_sendall(one, encode_request(port, "GET", path))
        yield
    finally:
        for one in sockets:
            one.close()


async def post(port: int, path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[int, Any]:
    status, answer = await fetch(port, path, method="POST", headers=JSON | (headers or {}), body=body)
    return status, json.loads(answer)


async def chats(port: int) -> list[int]:
    """Pictures of 15 MiB."""
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * (15 * MEBIBYTE)}}
    body = json.dumps({"messages": [{"role": "user", "content": [{"type": "text", "text": "so?"}, picture]}]}).encode()
    return await many(4, lambda: post(port, "/chat", body, {"Accept": "application/json"}))


async def lists(port: int) -> list[int]:
    """Of 148,000 lists, and of too many."""
    bodies = [b'{"prompt": "x", "stop": [%b[]]}' % (b"[]," * count) for count in (148_000, 1_300_000)]
    return [
        status
        for body in bodies
        for status in await many(3, lambda body=body: post(port, "/chat", body, {"Accept": "application/json"}))  # type: ignore[misc]
    ]


async def refused(port: int) -> list[int]:
    """Bodies that are read whole, and wrong."""
    bodies = [b'{"prompt": 1, "x": "%b"}' % (b"y" * (15 * MEBIBYTE)), b'{"prompt": "%b' % (b"y" * (15 * MEBIBYTE))]
    return [status for body in bodies for status in await many(3, lambda body=body: post(port, "/chat", body))]  # type: ignore[misc]


async def results(port: int) -> list[int]:
    """Jobs whose results have 8 MB, of which sixty clients ask the state and read nothing."""
    status, job = await post(port, "/jobs", b'{"kind": "large"}')
    if status != 202:
        return [status]
    await fetch(port, job["progress"])
    async with deaf(port, f"/jobs/{job['job_id']}", 60):
        await asyncio.sleep(0.5)
    return [status]


async def events(port: int) -> list[int]:
    """2 MB an event, watched by one that reads and a hundred that don't; and ten publishers that hold back an event's end."""
    status, stream = await post(port, "/streams", b'{"linger": 1, "ttl": 1}')
    if status != 201:
        return [status]
    path, headers = f"/streams/{stream['stream_id']}/events", {"Stream-Key": stream["key"]}
    event = json.dumps({"data": "z" * (2 * MEBIBYTE - 200)}).encode()
    watched, merged = f"/streams/{stream['stream_id']}", f"/merge?streams={stream['stream_id']}"
    async with deaf(port, watched, 50), deaf(port, merged, 50):
        reading = asyncio.ensure_future(fetch(port, watched))
        publishing = [asyncio.ensure_future(post(port, path, event, headers)) for _ in range(4)]
        _, waiting = await asyncio.wait(publishing, timeout=0.5)
        halves = [await Client(port).__aenter__() for _ in range(10)]
        for client in halves:
            declared = {**headers, "Content-Type": "application/jsonl", "Content-Length": str(4 * MEBIBYTE)}
            with suppress(OSError):
                await client.send(encode_request(port, "POST", path, declared) + event[: MEBIBYTE * 3 // 2])
        await asyncio.sleep(0.2)
        for client in halves:
            client.close()
        for late in (*waiting, reading):
            late.cancel()
        done = await asyncio.gather(*publishing, reading, return_exceptions=True)
    return [one[0] for one in done if isinstance(one, tuple)]


async def streams(port: int) -> list[int]:
    """A thousand that are opened and closed."""
    statuses = []
    async with Client(port) as client:
        for _ in range(1000):
            answer = await client.request("POST", "/streams", JSON, b"{}")
            opened = await answer.json()
            statuses.append(answer.status)
            if answer.status == 201:
                key = {"Stream-Key": opened["key"]}
                await (await client.request("POST", f"/streams/{opened['stream_id']}/close", key)).whole()
    return statuses


async def many(count: int, request: Callable[[], Awaitable[tuple[int, Any]]]) -> list[int]:
    return [status for status, _ in await asyncio.gather(*(request() for _ in range(count)))]


async def burst(port: int, seconds: float) -> None:
    """All at once, over and over."""
    answers: Counter[str] = Counter()
    end = time.monotonic() + seconds

    async def again(work: Callable[[int], Awaitable[list[int]]]) -> None:
        while time.monotonic() < end:
            try:
                answers.update(f"{work.__name__} {status}" for status in await work(port))
            except (OSError, Cut, TimeoutError) as error:
                answers[f"{work.__name__} {type(error).__name__}"] += 1

    await asyncio.gather(*map(again, (chats, lists, refused, results, results, events, streams)))
    print(json.dumps({"answers": answers}))


def waited(pid: str) -> float:
    """Seconds for which its threads have waited for a processor (proc(5), schedstat); 0 from a kernel that keeps no account."""
    seconds = 0.0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with suppress(OSError):  # a thread that has just ended
            seconds += int(task.read_text().split()[1]) / 1e9
    return seconds


def probe(port: int, pid: str) -> None:
    """A new connection for each question, some eighty a second, until stdin is closed."""
    probes, judged, worst, seen, noise = 0, 0, 0.0, 0.0, 0.0
    while True:
        begin, before = time.monotonic(), waited(pid) + waited("self")
        with socket.create_connection(("127.0.0.1", port), 10) as connection:
            connection.sendall(encode_request(port, "GET", "/healthz", {"Connection": "close"}))
            answer = b"".join(iter(lambda: connection.recv(4096), b""))
        assert answer.startswith(b"HTTP/1.1 200"), answer
        took, others = time.monotonic() - begin, waited(pid) + waited("self") - before
        asked = time.monotonic()
        over, _, _ = select.select([sys.stdin], [], [], 0.01)
        if over:
            break
        probes, seen, noise = probes + 1, max(seen, took), max(noise, time.monotonic() - asked - 0.01)
        if others < took / 10:
            judged, worst = judged + 1, max(worst, took)
    print(json.dumps({"probes": probes, "judged": judged, "worst": worst, "seen": seen, "noise": noise}))


if __name__ == "__main__":
    if sys.argv[1] == "burst":
        os.nice(10)
        asyncio.run(burst(int(sys.argv[2]), float(sys.argv[3])))
    else:
        probe(int(sys.argv[2]), sys.argv[3])

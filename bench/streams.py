"""Streams: a source that never waits, paced latency, one event to many watchers, the memory of an idle one, the start."""

import asyncio
import json
import re
import sys
import time
from collections.abc import Callable
from urllib.request import Request, urlopen

from bench.harness import (
    BARE,
    PEERS,
    SIDESTREAM,
    Connection,
    Counter,
    Peer,
    Running,
    check,
    connect,
    in_turn,
    on_client_core,
    quantile,
    running,
    table,
)

ROUNDS = 3


def burst(connections: int = 50, events: int = 6000) -> None:
    """Events a second from sources that never wait, all connections together."""

    async def client(port: int) -> float:
        counters = [Counter() for _ in range(connections)]
        begin = time.perf_counter()
        made = [await connect(port, f"/bench?events={events}&size=190", counter) for counter in counters]
        await asyncio.gather(*(connection.ended for connection in made))
        seconds = time.perf_counter() - begin
        check(counters, events)
        for connection in made:
            connection.close()
        return connections * events / seconds

    def measure(peer: Peer) -> list[float]:
        with running(peer) as server:
            return [on_client_core(client(server.port))]

    table(f"a source that never waits, {connections} streams", "events/s", in_turn(PEERS, ROUNDS, measure))


def paced(streams: int = 1000, rate: int = 20, seconds: int = 4) -> None:
    """Microseconds from an event's making to its arrival, many streams at a steady rate."""

    async def client(port: int) -> list[float]:
        latencies: list[float] = []
        made_at = re.compile(rb'"t":(\d+)')

        class Timing(Counter):
            def __call__(self, data: bytes) -> None:
                now = time.monotonic_ns()
                latencies.extend((now - int(match)) / 1000 for match in made_at.findall(data))
                super().__call__(data)

        path = f"/bench?events={rate * seconds}&size=190&interval={1 / rate}"
        counters = [Timing() for _ in range(streams)]
        made: list[Connection] = []
        for counter in counters:
            made.append(await connect(port, path, counter))
            await asyncio.sleep(1 / rate / streams * 10)  # spread over the interval, as real clients are
        await asyncio.gather(*(connection.ended for connection in made))
        check(counters, rate * seconds)
        return latencies

    def measure(peer: Peer) -> list[float]:
        with running(peer) as server:
            started = server.cpu()
            latencies = on_client_core(client(server.port))
            cpu = (server.cpu() - started) / len(latencies) * 1e6
            return [quantile(latencies, 0.5), quantile(latencies, 0.99), cpu]

    rows = in_turn(PEERS, ROUNDS, measure)
    table(f"latency, {streams:,} streams of {rate} events/s", "µs", rows, ("median", "p99", "CPU an event"))


def _watch_path(server: Running) -> tuple[str, str, str]:
    """Where to watch and where to publish, and with which type of body."""
    if server.peer is not SIDESTREAM:
        return "/watch", "/publish", "text/plain"
    with urlopen(Request(f"http://127.0.0.1:{server.port}/streams", method="POST")) as response:
        url = json.load(response)["url"]
    return url, f"{url}/events", "application/x-ndjson"


class Watchers:
    """All who watch one stream, and how many events they have received in all."""

    def __init__(self) -> None:
        self.received = 0
        self.begun = 0
        self.news = asyncio.Event()
        self.counters: list[Counter] = []
        self._connections: list[Connection] = []

    async def open(self, port: int, path: str, count: int) -> None:
        """Until `count` more of them have the beginning of their answer."""
        expected = self.begun + count
        for _ in range(count):
            self.counters.append(Watcher(self))
            self._connections.append(await connect(port, path, self.counters[-1]))
        while self.begun < expected:
            await self.changed()

    async def changed(self) -> None:
        self.news.clear()
        await self.news.wait()

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


class Watcher(Counter):
    """One of them."""

    def __init__(self, all: Watchers) -> None:
        super().__init__()
        self._all = all
        self._begun = False

    def __call__(self, data: bytes) -> None:
        before = self.events
        super().__call__(data)
        self._all.received += self.events - before
        self._all.begun += not self._begun
        self._begun = True
        self._all.news.set()


def fanout(watchers: int = 1000, events: int = 60) -> None:
    """Deliveries a second: one event to all watchers, the next when all have it."""

    async def client(server: Running) -> float:
        path, publish, content_type = _watch_path(server)
        all = Watchers()
        await all.open(server.port, path, watchers)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        begin = time.perf_counter()
        for number in range(events):
            body = json.dumps({"n": number, "pad": "x" * 150}, separators=(",", ":"))
            body = '{"data":' + body + "}" if server.peer is SIDESTREAM else body
            head = f"POST {publish} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            while all.received < (number + 1) * watchers:
                await all.changed()
            await reader.read(4096)  # the answer to the publisher, which came with or before the deliveries
        seconds = time.perf_counter() - begin
        writer.close()
        all.close()
        check(all.counters, events)
        return watchers * events / seconds

    def measure(peer: Peer) -> list[float]:
        with running(peer) as server:
            return [on_client_core(client(server))]

    table(f"one event to {watchers:,} watchers", "deliveries/s", in_turn(PEERS, ROUNDS, measure))


def idle(watchers: int = 5000) -> None:
    """KiB of the process for each watcher that waits."""

    async def client(server: Running) -> float:
        path, _, _ = _watch_path(server)
        all = Watchers()
        await all.open(server.port, path, 200)  # what the first ones cost once
        before = server.rss()
        await all.open(server.port, path, watchers)
        grown = server.rss() - before
        all.close()
        return grown / watchers / 1024

    def measure(peer: Peer) -> list[float]:
        with running(peer) as server:
            return [on_client_core(client(server))]

    table(f"memory of an idle watcher, {watchers:,} of them", "KiB", in_turn(PEERS, 1, measure))


def start() -> None:
    """Milliseconds from the start of the process to the first byte of a stream."""

    def measure(peer: Peer) -> list[float]:
        begin = time.perf_counter()
        with running(peer) as server, urlopen(f"http://127.0.0.1:{server.port}/bench?events=1") as response:
            response.read(1)
            return [(time.perf_counter() - begin) * 1000]

    configured = Peer("with upstream", env={"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "none"})
    table("process start to first byte", "ms", in_turn((SIDESTREAM, configured, BARE), 5, measure))


BENCHMARKS: dict[str, Callable[[], None]] = {"burst": burst, "paced": paced, "fanout": fanout, "idle": idle, "start": start}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHMARKS:
        BENCHMARKS[name]()

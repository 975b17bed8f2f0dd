"""Streams: a source that never waits, paced latency, one event to many watchers, the memory of an idle one, the start."""

import asyncio
import json
import re
import subprocess
import sys
import time
from urllib.request import Request, urlopen

from bench.harness import (
    BARE,
    PEERS,
    SIDESTREAM,
    Connection,
    Counter,
    Peer,
    Running,
    connect,
    free_port,
    in_turn,
    on_client_core,
    quantile,
    running,
    table,
    wait_for,
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
        received = sum(counter.events for counter in counters)
        if received != connections * events:
            raise SystemExit(f"{received} events instead of {connections * events}")
        for connection in made:
            connection.close()
        return received / seconds

    def measure(peer: Peer) -> float:
        with running(peer) as server:
            return float(on_client_core(client(server.port)))

    figures = in_turn(PEERS, ROUNDS, measure)
    table(f"a source that never waits, {connections} streams", "events/s", {name: [figure] for name, figure in figures.items()})


def paced(streams: int = 1000, rate: int = 20, seconds: int = 4) -> None:
    """Microseconds from an event's making to its arrival, many streams at a steady rate."""

    async def client(port: int) -> list[float]:
        latencies: list[float] = []
        made_at = re.compile(rb'"t":(\d+)')

        def arrived(data: bytes) -> None:
            now = time.monotonic_ns()
            latencies.extend((now - int(match)) / 1000 for match in made_at.findall(data))

        path = f"/bench?events={rate * seconds}&size=190&interval={1 / rate}"
        made: list[Connection] = []
        for _ in range(streams):
            made.append(await connect(port, path, arrived))
            await asyncio.sleep(1 / rate / streams * 10)  # spread over the interval, as real clients are
        await asyncio.gather(*(connection.ended for connection in made))
        if len(latencies) != streams * rate * seconds:
            raise SystemExit(f"{len(latencies)} events instead of {streams * rate * seconds}")
        return latencies

    rows: dict[str, list[float]] = {}
    for peer in PEERS:
        with running(peer) as server:
            latencies = on_client_core(client(server.port))
            rows[peer.name] = [quantile(latencies, 0.5), quantile(latencies, 0.99), server.cpu() / len(latencies) * 1e6]
    table(f"latency, {streams} streams of {rate} events/s", "µs", rows, ("median", "p99", "CPU an event"))


def _watch_path(server: Running) -> tuple[str, str, str]:
    """Where to watch and where to publish, and with which type of body."""
    if server.peer is not SIDESTREAM:
        return "/watch", "/publish", "text/plain"
    with urlopen(Request(f"http://127.0.0.1:{server.port}/streams", method="POST")) as response:
        url = json.load(response)["url"]
    return url, f"{url}/events", "application/x-ndjson"


async def _watchers(port: int, path: str, count: int, received: list[int], news: asyncio.Event) -> list[Connection]:
    """Open `count` watchers; each event that arrives at any of them counts up."""
    begun: list[int] = [0]

    def watcher() -> Counter:
        class Counting(Counter):
            def __call__(self, data: bytes) -> None:
                if not self.events and data.startswith(b"HTTP/1.1 200"):
                    begun[0] += 1
                before = self.events
                super().__call__(data)
                if self.events != before:
                    received[0] += self.events - before
                    news.set()

        return Counting()

    made = []
    for number in range(count):
        made.append(await connect(port, path, watcher()))
        if number % 100 == 99:
            await asyncio.sleep(0)
    while begun[0] < count:
        await asyncio.sleep(0.01)  # until every answer has begun
    return made


def fanout(watchers: int = 1000, events: int = 60) -> None:
    """Deliveries a second: one event to all watchers, the next when all have it."""

    async def client(server: Running) -> float:
        path, publish, content_type = _watch_path(server)
        received, news = [0], asyncio.Event()
        made = await _watchers(server.port, path, watchers, received, news)
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        begin = time.perf_counter()
        for number in range(events):
            body = json.dumps({"n": number, "pad": "x" * 150}, separators=(",", ":"))
            body = '{"data":' + body + "}" if server.peer is SIDESTREAM else body
            head = f"POST {publish} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {content_type}\r\n"
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
            while received[0] < (number + 1) * watchers:
                news.clear()
                await news.wait()
            await reader.read(4096)  # the answer to the publisher, which came with or before the deliveries
        seconds = time.perf_counter() - begin
        writer.close()
        for connection in made:
            connection.close()
        return received[0] / seconds

    def measure(peer: Peer) -> float:
        with running(peer) as server:
            return float(on_client_core(client(server)))

    figures = in_turn(PEERS, ROUNDS, measure)
    table(f"one event to {watchers:,} watchers", "deliveries/s", {name: [figure] for name, figure in figures.items()})


def idle(watchers: int = 5000) -> None:
    """KiB of the process for each watcher that waits."""

    async def client(server: Running) -> float:
        path, _, _ = _watch_path(server)
        warm = await _watchers(server.port, path, 200, [0], asyncio.Event())
        before = server.rss()
        made = await _watchers(server.port, path, watchers, [0], asyncio.Event())
        grown = server.rss() - before
        for connection in [*warm, *made]:
            connection.close()
        return grown / watchers / 1024

    rows = {}
    for peer in PEERS:
        with running(peer) as server:
            rows[peer.name] = [float(on_client_core(client(server)))]
    table(f"memory of an idle watcher, {watchers:,} of them", "KiB", rows)


def start() -> None:
    """Milliseconds from the start of the process to the first byte of a stream."""

    def measure(peer: Peer) -> float:
        port = free_port()
        begin = time.perf_counter()
        env = {"SIDESTREAM_PORT": str(port), "SIDESTREAM_LOG_LEVEL": "error", **peer.env}
        process = subprocess.Popen(peer.command(port), env={**_clean(), **env}, stdout=subprocess.DEVNULL)
        try:
            wait_for(port, process)
            with urlopen(f"http://127.0.0.1:{port}/bench?events=1") as response:
                response.read(1)
            return (time.perf_counter() - begin) * 1000
        finally:
            process.kill()
            process.wait()

    configured = Peer("with upstream", env={"OPENAI_BASE_URL": "http://127.0.0.1:9/v1", "OPENAI_API_KEY": "none"})
    figures = in_turn((SIDESTREAM, configured, BARE), 5, measure)
    table("process start to first byte", "ms", {name: [figure] for name, figure in figures.items()})


def _clean() -> dict[str, str]:
    import os

    return {name: value for name, value in os.environ.items() if not name.startswith(("SIDESTREAM_", "OPENAI_"))}


def main() -> None:
    burst()
    paced()
    fanout()
    idle()
    start()


if __name__ == "__main__":
    names = sys.argv[1:] or ["main"]
    for name in names:
        globals()[name]()

"""The streams' scenarios: what is asked of a server, and which figures come of it.

The load client has checked every event; with a wrong one there is no figure. Names of figures end with their unit. CPU is the
server's, for one event (delivery, stream): µs for one are seconds for a million.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from bench.harness import Running
from bench.load import SIZE, Figures, Measured, client, complete, events_path, get, load
from bench.servers import Server

PAD = SIZE - 50
"""Characters of padding in an event of `SIZE` bytes (docs/benchmarks.md, the load)."""

NO_WAIT = 1e-6
"""Seconds between events that are all due already: the source lets the loop run before each, so that each is sent by itself."""


def rate(server: Running, streams: int, events: int, interval: float = 0, at_once: int = 0) -> tuple[Figures, float]:
    """So many streams of so many events; what the client measured, and the seconds of CPU that it took."""
    before = server.cpu()
    request = get(events_path(events, interval))
    figures = complete(load(server.port, request=request, total=streams, at_once=at_once, events=events, pad=PAD, limit=60))
    return figures, server.cpu() - before


def burst(server: Running, streams: int = 50, events: int = 1500, interval: float = 0) -> Measured:
    """Sources that never wait, or with NO_WAIT those that let others run."""
    figures, cpu = rate(server, streams, events, interval)
    return {"events/s": figures.events / figures.seconds, "CPU µs": cpu / figures.events * 1e6, "RSS MiB": mebibytes(server)}


def fitting(server: Running, interval: float = 0, seconds: float = 0.7, streams: int = 50) -> int:
    """Events of a stream that fill so many seconds: servers differ by a factor of thirty."""
    figures, _ = rate(server, streams, 100, interval)
    return min(6000, max(200, round(figures.events / figures.seconds * seconds / streams)))


def short(server: Running, streams: int = 1500, events: int = 20) -> Measured:
    """Many short streams, opened at once."""
    figures, cpu = rate(server, streams, events)
    return {"events/s": figures.events / figures.seconds, "CPU µs": cpu / figures.events * 1e6, "RSS MiB": mebibytes(server)}


def connecting(server: Running, streams: int = 1000) -> Measured:
    """Streams of one event, 50 open at a time, each by a connection of its own."""
    figures, cpu = rate(server, streams, 1, at_once=50)
    return {"streams/s": streams / figures.seconds, "CPU µs": cpu / streams * 1e6, "RSS MiB": mebibytes(server)}


def opening(server: Running, streams: int = 1000) -> Measured:
    """Streams of one event that are all opened at once, from the first connection to the end of the last."""
    figures, cpu = rate(server, streams, 1)
    assert figures.first is not None
    times = {"first p50 ms": figures.first.p50 / 1e3, "first max ms": figures.first.max / 1e3}
    return {**times, "CPU µs": cpu / streams * 1e6, "RSS MiB": mebibytes(server)}


def paced(server: Running, streams: int = 1000, rate: int = 20, seconds: float = 1.0, spread: float = 0.8) -> Measured:
    """Streams at a steady rate, opened in `spread` seconds; the time from an event's making to its arrival, once all are open.

    They would go on for long. The client leaves when they have been measured, which not every server notices: it has to end.
    """
    request = get(events_path(100_000, 1 / rate))
    asked = {"request": request, "total": streams, "events": 100_000, "pad": PAD, "spread": spread, "limit": 15}
    with client(server.port, led=1, **asked) as running:
        running.ready()
        time.sleep(0.2)
        first, before, begin = running.mark(), server.cpu(), time.perf_counter()
        time.sleep(seconds)
        arrived, cpu, took = running.count() - first, server.cpu() - before, time.perf_counter() - begin
        rss = mebibytes(server)
        latency = running.end().latency
    assert latency is not None
    figures = {"p50 µs": latency.p50, "p99 µs": latency.p99, "events/s": arrived / took}
    return {**figures, "CPU µs": cpu / arrived * 1e6, "RSS MiB": rss}


@contextmanager
def watched(server: Running, peer: Server, watchers: int = 1000) -> Iterator[Callable[[int], Measured]]:
    """All watch one stream. Call it to publish so many events, each when all have the last one.

    `KiB a watcher`: by how much the process grew while all but the first hundred came, who then waited.
    """
    watch = peer.watch(server.port)
    head = f"POST {watch.publish} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {watch.content_type}\r\n"
    request = get(watch.path)
    with client(server.port, led=1, request=request, total=100, opening=100, pad=PAD) as few:  # what the first ones cost once
        few.ready()
        rss = server.rss()
        asked = {"request": request, "total": watchers, "opening": 100, "pad": PAD, "led": 1}
        with client(server.port, **asked, publish=head, prefix=watch.prefix, suffix=watch.suffix) as all:
            all.ready()
            grown = (server.rss() - rss) / watchers / 1024
            few.end()

            def publish(events: int) -> Measured:
                before = server.cpu()
                seconds = all.publish(events)
                rate = watchers * events / seconds
                cpu = (server.cpu() - before) / watchers / events * 1e6
                return {"deliveries/s": rate, "CPU µs": cpu, "KiB a watcher": grown, "RSS MiB": mebibytes(server)}

            yield publish


def idle(server: Running, streams: int = 5000) -> Measured:
    """Each with a stream of its own that has sent one event and waits for the next."""
    request = get(events_path(2, 3600))
    with client(server.port, led=1, request=request, total=100, events=2, pad=PAD) as few:
        few.ready()
        rss = server.rss()
        with client(server.port, led=1, request=request, total=streams, opening=100, events=2, pad=PAD) as all:
            all.ready()
            grown = (server.rss() - rss) / streams / 1024
    return {"KiB a stream": grown, "RSS MiB": mebibytes(server)}


def mebibytes(server: Running) -> float:
    return server.rss() / (1 << 20)

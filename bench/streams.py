"""The streams' scenarios: what is asked of a server, and which figures come of it.

Each function takes a server that runs and returns figures by name: rates a second, `µs` of its CPU for one event (delivery,
stream), times in µs, memory in KiB. The load client has checked every event; with a wrong one there is no figure.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from bench.harness import Running
from bench.load import SIZE, WrongEvents, client, complete, events_path, get, load
from bench.servers import Server

Measured = Mapping[str, float]

PAD = SIZE - 50
"""Characters of padding in an event of `SIZE` bytes (docs/benchmarks.md, the load)."""


def burst(server: Running, streams: int = 50, events: int = 4000) -> Measured:
    """Sources that never wait."""
    path = get(events_path(events))
    before = server.cpu()
    figures = complete(load(server.port, request=path, total=streams, events=events, pad=PAD))
    return {"events/s": figures.events / figures.seconds, "CPU µs": (server.cpu() - before) / figures.events * 1e6}


def paced(server: Running, streams: int = 1000, rate: int = 20, seconds: float = 2.0, spread: float = 1.0) -> Measured:
    """Streams at a steady rate, once all are open: the time from an event's making to its arrival.

    They are opened in `spread` seconds, and end as long after the `seconds` in which they are measured.
    """
    events = round((spread + seconds + 0.3) * rate)
    request = get(events_path(events, 1 / rate))
    with client(server.port, led=1, request=request, total=streams, events=events, pad=PAD, spread=spread) as running:
        running.ready()
        time.sleep(0.2)
        first, before, begin = running.mark(), server.cpu(), time.perf_counter()
        time.sleep(seconds)
        last, cpu, took = running.count(), server.cpu() - before, time.perf_counter() - begin
        figures, _ = running.wait()
    assert figures.latency is not None
    return {
        "p50 µs": figures.latency.p50,
        "p99 µs": figures.latency.p99,
        "events/s": (last - first) / took,
        "CPU µs": cpu / (last - first) * 1e6,
    }


@contextmanager
def watched(server: Running, peer: Server, watchers: int = 1000) -> Iterator[Callable[[int], Measured]]:
    """All watch one stream. Call it to publish so many events, each when all have the last one."""
    watch = peer.watch(server.port)
    head = f"POST {watch.publish} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: {watch.content_type}\r\n"
    asked = {"request": get(watch.path), "total": watchers, "opening": 100, "pad": PAD, "led": 1}
    with client(server.port, **asked, publish=head, prefix=watch.prefix, suffix=watch.suffix) as running:
        running.ready()

        def publish(events: int) -> Measured:
            before = server.cpu()
            seconds = running.publish(events)
            return {"deliveries/s": watchers * events / seconds, "CPU µs": (server.cpu() - before) / watchers / events * 1e6}

        yield publish
        figures = running.end()
    if figures.events % watchers:
        raise WrongEvents(f"{figures.events} deliveries to {watchers} watchers")


def opening(server: Running, streams: int = 1000) -> Measured:
    """Streams of one event that are all opened at once, from the first connection to the end of the last."""
    before = server.cpu()
    figures = complete(load(server.port, request=get(events_path(1)), total=streams, events=1, pad=PAD))
    assert figures.first is not None
    cpu = (server.cpu() - before) / streams * 1e6
    return {"p50 ms": figures.first.p50 / 1e3, "last ms": figures.first.max / 1e3, "CPU µs": cpu}

"""The chat's scenarios: what is between a client and an upstream, at full speed and with a thousand slow answers.

The upstream is the server of `bench/native`, on the client's core. It takes its orders from the prompt, so that every proxy
passes them on: `load <chunks> <µs between two> <the client's number> `.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.harness import Running
from bench.load import Measured, WrongEvents, client, complete, load, post
from bench.streams import mebibytes


@dataclass(frozen=True, slots=True)
class Way:
    """Where a client asks, and what it says beside its prompt."""

    path: str
    members: Mapping[str, Any]
    prompt: str = "messages"

    def request(self, chunks: int, every: float = 0) -> str:
        """every: seconds between two chunks; with 0 the upstream writes as fast as they are taken."""
        text = f"load {chunks} {round(every * 1e6)} {{id}} "
        prompt: Any = [{"role": "user", "content": text}] if self.prompt == "messages" else text
        return post(self.path, {"model": "test", self.prompt: prompt, **self.members})


OPENAI = Way("/v1/chat/completions", {"stream": True})
TYPED = Way("/chat", {})
PLAIN = Way("/chat", {"format": "plain"})
RESPONSES = Way("/v1/responses", {"stream": True, "store": False}, "input")


def upstream_at(port: int) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}


def chunks(server: Running, way: Way, streams: int = 10, chunks: int = 1500) -> Measured:
    """A fast upstream: all chunks through as fast as they go."""
    before = server.cpu()
    request = way.request(chunks)
    figures = complete(load(server.port, kind="texts", request=request, total=streams, events=chunks, limit=30))
    cpu = (server.cpu() - before) / figures.events * 1e6
    return {"chunks/s": figures.events / figures.seconds, "CPU µs": cpu, "RSS MiB": mebibytes(server)}


def fitting(server: Running, way: Way, seconds: float = 0.7, streams: int = 10) -> int:
    """Chunks of an answer that fill so many seconds. What is loaded late is there afterwards."""
    chunks(server, way, streams, 10)
    return min(10_000, max(50, round(chunks(server, way, streams, 100)["chunks/s"] * seconds / streams)))


def slow(server: Running, way: Way, streams: int = 1000, chunks: int = 30, every: float = 0.1) -> Measured:
    """A thousand slow answers. The upstream writes the first chunk at once, so the time to it is what the way through adds.

    `sustained` are the answers that came whole and without a gap of ten intervals.
    """
    before = server.cpu()
    asked = {"request": way.request(chunks, every), "total": streams, "events": chunks, "spread": 1.5, "stall": 10 * every}
    figures = load(server.port, kind="texts", **asked, limit=15)
    cpu = (server.cpu() - before) / max(1, figures.events) * 1e6
    assert figures.first is not None
    assert figures.latency is not None
    return {
        "first p50 ms": figures.first.p50 / 1e3,
        "first p99 ms": figures.first.p99 / 1e3,
        "each p50 ms": figures.latency.p50 / 1e3,
        "each p99 ms": figures.latency.p99 / 1e3,
        "sustained": figures.finished - figures.stalled,
        "CPU µs": cpu,
        "RSS MiB": mebibytes(server),
    }


def leaving(server: Running, upstream: Running, way: Way, streams: int = 1000, leave: int = 50) -> Measured:
    """The time from a client's leaving to the upstream's noticing, beside a thousand answers of 5 chunks a second."""
    upstream.lines(streams, 0)  # of the round before
    request = way.request(1000, 0.2)
    with client(server.port, kind="texts", request=request, total=streams, spread=1.5, leave=leave, limit=20) as running:
        _, told = running.wait()
    if not told:
        raise WrongEvents(f"saturated: not all of {streams:,} answers had begun after 20 s")
    left = {int(number): int(at) for _, number, at in map(str.split, told)}
    closed = {int(number): int(at) for _, number, at in map(str.split, upstream.lines(streams, 3))}
    took = sorted((closed[number] - at) / 1e6 for number, at in left.items() if closed.get(number, 0) >= at)
    if len(took) < leave:
        raise WrongEvents(f"{leave - len(took)} of {leave} answers were not closed at the upstream")
    return {"p50 ms": took[len(took) // 2], "p99 ms": took[(len(took) - 1) * 99 // 100], "max ms": took[-1]}

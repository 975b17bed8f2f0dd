"""The chat's scenarios: what is between a client and an upstream, at full speed and with a thousand slow answers.

The upstream is the server of `bench/native`, on the client's core. It takes its orders from the prompt, so that every proxy
passes them on: `load <chunks> <µs between two> <the client's number> `.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.harness import Running
from bench.load import complete, load, post

Measured = Mapping[str, float]


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


def chunks(server: Running, way: Way, streams: int = 10, chunks: int = 3000) -> Measured:
    """A fast upstream: all chunks through as fast as they go."""
    before = server.cpu()
    figures = complete(load(server.port, kind="texts", request=way.request(chunks), total=streams, events=chunks))
    return {"chunks/s": figures.events / figures.seconds, "CPU µs": (server.cpu() - before) / figures.events * 1e6}

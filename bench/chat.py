"""Chat: chunks a second from a fast upstream, and the time that the way through adds to them.

The upstream and the client share the second core; what is between them has the first: the sidecar in each of its formats, a
minimal FastAPI proxy, or nothing but the openai SDK. The upstream sends each chunk in an HTTP chunk of its own, as model servers do.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

from bench.harness import SIDESTREAM, Connection, Peer, Running, free_port, on_client_core, pin, quantile, running, table

STREAMS, CHUNKS, ROUNDS = 10, 1500, 3
PACED = 150
"""Chunks of a paced answer."""
INTERVAL = 0.01
"""Seconds between them."""

FASTAPI = Peer("FastAPI proxy", "bench.peers.fastapi_proxy:app")
DIRECT = "SDK client"
MESSAGES: Any = {"model": "test", "messages": [{"role": "user", "content": "Hello"}]}
TEXT = re.compile(rb'"content": ?"(\d+)"')


@dataclass(frozen=True, slots=True)
class Way:
    """A format of a peer: what a client asks for."""

    name: str
    peer: Peer
    path: str
    body: Mapping[str, Any]


WAYS = (
    Way("typed", SIDESTREAM, "/chat", MESSAGES),
    Way("plain", SIDESTREAM, "/chat", {**MESSAGES, "format": "plain"}),
    Way("/v1", SIDESTREAM, "/v1/chat/completions", {**MESSAGES, "stream": True}),
    Way(FASTAPI.name, FASTAPI, "/v1/chat/completions", {**MESSAGES, "stream": True}),
)


def chunk(text: str, finish_reason: str | None = None) -> bytes:
    """One chunk of an answer in the shape that OpenAI's have, in an HTTP chunk."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "logprobs": None, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-C2mLmIIOqTx5kQhLqWZyMlS0", "object": "chat.completion.chunk", "created": 1700000000, "model": "test"}
    return http_chunk(b"data: " + json.dumps({**head, "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n")


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
END = chunk("", "stop") + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The upstream. max_tokens: how many chunks; negative: paced, each holding the time at which it is sent."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            length = re.search(rb"(?i)content-length: (\d+)", head)
            count = json.loads(await reader.readexactly(int(length[1]) if length else 0))["max_tokens"]
            writer.write(HEAD)
            if count == PACED:
                for _ in range(count):
                    writer.write(chunk(str(time.monotonic_ns())))
                    await asyncio.sleep(INTERVAL)
            else:
                for number in range(0, count, 50):
                    writer.write(b"".join(map(_numbered, range(number, min(number + 50, count)))))
                    await writer.drain()
            writer.write(END)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


_CHUNKS = [chunk(str(number)) for number in range(CHUNKS)]
_numbered = _CHUNKS.__getitem__


class Post(Connection):
    """One POST whose body is handed on as it arrives."""

    def __init__(self, way: Way, max_tokens: int, on_data: Callable[[bytes], None]) -> None:
        super().__init__(way.path, on_data)
        body = json.dumps({**way.body, "max_tokens": max_tokens}).encode()
        head = f"POST {way.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        self._request = head.encode() + body


@dataclass(slots=True)
class Figures:
    """chunks: received. seconds: that took. first, added: microseconds, of each answer and of each chunk."""

    chunks: int
    seconds: float
    first: list[float]
    added: list[float]


class Texts:
    """The texts of one answer as they arrive, wherever the bytes are cut."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._tail = b""
        self._begin = time.monotonic_ns()
        self._any = False

    def __call__(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._tail + data
        end = data.rfind(b"\n\n") + 1
        self._tail = data[end:]
        texts = TEXT.findall(data, 0, end)
        if texts and not self._any:
            self._any = True
            self._figures.first.append((now - self._begin) / 1000)
        self._figures.chunks += len(texts)
        if texts and len(texts[0]) > 10:
            self._figures.added += [(now - int(text)) / 1000 for text in texts]


async def through(way: Way, port: int, streams: int, max_tokens: int) -> Figures:
    """Ask for `streams` answers at once, and read them."""
    loop, figures = asyncio.get_running_loop(), Figures(0, 0, [], [])
    begin = time.perf_counter()
    made = []
    for _ in range(streams):
        _, connection = await loop.create_connection(lambda: Post(way, max_tokens, Texts(figures)), "127.0.0.1", port)
        made.append(connection)
    await asyncio.gather(*(connection.ended for connection in made))
    figures.seconds = time.perf_counter() - begin
    for connection in made:
        connection.close()
    return checked(figures, streams * max_tokens)


async def direct(streams: int, max_tokens: int, base_url: str) -> Figures:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.peers.sdk_client", str(streams), str(max_tokens)),
        env={**os.environ, **upstream_at(base_url)},
        preexec_fn=lambda: pin(0),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return checked(Figures(**json.loads(output)), streams * max_tokens)


def checked(figures: Figures, expected: int) -> Figures:
    if figures.chunks != expected:
        raise SystemExit(f"{figures.chunks} chunks instead of {expected}")
    return figures


def upstream_at(url: str) -> dict[str, str]:
    return {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}


@asynccontextmanager
async def upstream(port: int) -> AsyncIterator[None]:
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        yield


def measure(ways: Sequence[Way], rounds: int = ROUNDS) -> dict[str, list[tuple[Figures, Figures]]]:
    """Each way's rounds, the peers in turn: at full speed, and paced."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    figures: dict[str, list[tuple[Figures, Figures]]] = {way.name: [] for way in ways} | {DIRECT: []}

    async def proxied(server: Running) -> None:
        async with upstream(port):
            for way in (way for way in ways if way.peer is server.peer):
                await through(way, server.port, STREAMS, 1)  # the SDK is loaded, the connections are there
                fast = await through(way, server.port, STREAMS, CHUNKS)
                figures[way.name].append((fast, await through(way, server.port, STREAMS, PACED)))

    async def unproxied() -> None:
        async with upstream(port):
            figures[DIRECT].append((await direct(STREAMS, CHUNKS, url), await direct(STREAMS, PACED, url)))

    for _ in range(rounds):
        for peer in {way.peer.name: way.peer for way in ways}.values():
            with running(peer, **upstream_at(url)) as server:
                on_client_core(proxied(server))
        on_client_core(unproxied())
    return figures


def main() -> None:
    """Print the tables."""
    figures = measure(WAYS)
    base = median(fast.chunks / fast.seconds for fast, _ in figures[DIRECT])
    speed, added = {}, {}
    for name, rounds in figures.items():
        rate = median(fast.chunks / fast.seconds for fast, _ in rounds)
        speed[name] = [rate, rate / base]
        first = [time for _, paced in rounds for time in paced.first]
        each = [time for _, paced in rounds for time in paced.added]
        added[name] = [median(first), median(each), quantile(each, 0.99)]
    table(f"a fast upstream, {STREAMS} streams", "chunks/s", speed, ("", "to the SDK"))
    table(f"from the upstream's sending, {STREAMS} streams of {1 / INTERVAL:g} chunks/s", "µs", added, ("first", "median", "p99"))


if __name__ == "__main__":
    main()

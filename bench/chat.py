"""Chat: chunks a second from a fast upstream, and the time that the way through adds to them.

The upstream and the client share the second core; what is between them has the first: the sidecar in each of its formats, a
minimal FastAPI proxy, or nothing but the openai SDK. The upstream sends each chunk in an HTTP chunk of its own.
"""

import asyncio
import json
import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from statistics import median
from typing import Any

from bench.harness import SIDESTREAM, Connection, Peer, Running, free_port, on_client_core, pin, quantile, running, table

STREAMS, CHUNKS, ROUNDS = 10, 1000, 3
PACED = 100
"""Chunks of a paced answer."""
INTERVAL = 0.01
"""Seconds between them."""
ALONE = 40
"""Answers that are asked for one after another."""

FASTAPI = Peer("FastAPI proxy", "bench.peers.fastapi_proxy:app")
DIRECT = "SDK client"
ASKED: Any = {"model": "test", "messages": [{"role": "user", "content": "Hello"}]}
RESPONSE: Any = {"model": "test", "input": "Hello", "stream": True, "store": False}
TEXT = re.compile(rb'"(?:content|delta)": ?"(\d+)"')


@dataclass(frozen=True, slots=True)
class Way:
    """A way through a peer: where a client asks, and for what."""

    name: str
    peer: Peer
    path: str
    body: Mapping[str, Any]


WAYS = (
    Way("typed", SIDESTREAM, "/chat", ASKED),
    Way("plain", SIDESTREAM, "/chat", {**ASKED, "format": "plain"}),
    Way("/v1", SIDESTREAM, "/v1/chat/completions", {**ASKED, "stream": True}),
    Way("responses", SIDESTREAM, "/v1/responses", RESPONSE),
    Way("responses, kept", SIDESTREAM, "/v1/responses", {**RESPONSE, "store": True}),
    Way(FASTAPI.name, FASTAPI, "/v1/chat/completions", {**ASKED, "stream": True}),
)


@dataclass(slots=True)
class Figures:
    """chunks: received. seconds: that took. first: µs from asking to the first chunk. added: µs from a chunk's sending on."""

    chunks: int = 0
    seconds: float = 0
    first: list[float] = field(default_factory=list)
    added: list[float] = field(default_factory=list)


# -- the upstream


def chunk(text: str, finish_reason: str | None = None) -> bytes:
    """One chunk of an answer in the shape that OpenAI's have, in an HTTP chunk."""
    choice = {"index": 0, "delta": {"content": text} if text else {}, "logprobs": None, "finish_reason": finish_reason}
    head = {
        "id": "chatcmpl-C2mLmIIOqTx5kQhLqWZyM",
        "object": "chat.completion.chunk",
        "created": 1700000000,
        "model": "test",
    }
    return http_chunk(b"data: " + json.dumps({**head, "choices": [choice]}, separators=(",", ":")).encode() + b"\n\n")


def http_chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
NUMBERED = [chunk(str(number)) for number in range(CHUNKS)]
END = chunk("", "stop") + http_chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serve one connection: `max_tokens` numbered chunks at once, or PACED ones that hold the time at which they are sent."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            assert length is not None
            count = json.loads(await reader.readexactly(int(length[1])))["max_tokens"]
            writer.write(HEAD)
            if count == PACED:
                for _ in range(count):
                    writer.write(chunk(str(time.monotonic_ns())))
                    await asyncio.sleep(INTERVAL)
            else:
                for number in range(0, count, 50):
                    writer.write(b"".join(NUMBERED[number : min(number + 50, count)]))
                    await writer.drain()
            writer.write(END)
    except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
        pass  # the client is gone, or all has been measured
    finally:
        writer.close()


@asynccontextmanager
async def upstream(port: int) -> AsyncIterator[None]:
    server = await asyncio.start_server(answer, "127.0.0.1", port)
    async with server:
        yield


def upstream_at(port: int) -> dict[str, str]:
    return {"OPENAI_BASE_URL": f"http://127.0.0.1:{port}/v1", "OPENAI_API_KEY": "none"}


# -- the clients


class Post(Connection):
    """One POST whose body is handed on as it arrives."""

    def __init__(self, way: Way, max_tokens: int, on_data: Callable[[bytes], None]) -> None:
        super().__init__(way.path, on_data)
        body = json.dumps({**way.body, "max_tokens": max_tokens}).encode()
        head = f"POST {way.path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        self._request = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Texts:
    """The texts of one answer as they arrive, wherever the bytes are cut: times, or numbers that have to be in order."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._tail = b""
        self._begin = time.monotonic_ns()
        self._next = 0

    def __call__(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._tail + data
        end = data.rfind(b"\n\n") + 1
        self._tail = data[end:]
        texts = TEXT.findall(data, 0, end)
        if not texts:
            return
        if not self._next:
            self._figures.first.append((now - self._begin) / 1000)
        if len(texts[0]) > 10:
            self._figures.added += [(now - int(text)) / 1000 for text in texts]
        elif int(texts[0]) != self._next:
            raise SystemExit(f"chunk {texts[0]!r} came instead of {self._next}")
        self._next += len(texts)
        self._figures.chunks += len(texts)


async def through(way: Way, port: int, streams: int, max_tokens: int, times: int = 1) -> Figures:
    """Ask for `streams` answers at once, `times` times."""
    loop, figures = asyncio.get_running_loop(), Figures()
    begin = time.perf_counter()
    for _ in range(times):
        made = []
        for _ in range(streams):
            _, connection = await loop.create_connection(lambda: Post(way, max_tokens, Texts(figures)), "127.0.0.1", port)
            made.append(connection)
        await asyncio.gather(*(connection.ended for connection in made))
        for connection in made:
            connection.close()
    figures.seconds = time.perf_counter() - begin
    return checked(figures, streams * max_tokens * times)


async def direct(process: asyncio.subprocess.Process, streams: int, max_tokens: int, times: int = 1) -> Figures:
    """The same by the SDK client."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"%d %d %d\n" % (streams, max_tokens, times))
    return checked(Figures(**json.loads(await process.stdout.readline())), streams * max_tokens * times)


def checked(figures: Figures, expected: int) -> Figures:
    if figures.chunks != expected:
        raise SystemExit(f"{figures.chunks} chunks instead of {expected}")
    return figures


# -- the figures

Ask = Callable[..., Awaitable[Figures]]
Round = tuple[Figures, Figures, Figures]
"""At full speed, paced, and one after another."""


async def one_round(ask: Ask) -> Round:
    await ask(STREAMS, 1)  # what is loaded only when it is needed is there, and so are the connections
    return await ask(STREAMS, CHUNKS), await ask(STREAMS, PACED), await ask(1, 1, ALONE)


async def rounds_through(ways: Sequence[Way], server: Running, port: int) -> dict[str, Round]:
    async with upstream(port):
        return {way.name: await one_round(partial(through, way, server.port)) for way in ways}


async def round_of_the_sdk(port: int) -> Round:
    async with upstream(port):
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.peers.sdk_client"),
            env={**os.environ, **upstream_at(port)},
            preexec_fn=lambda: pin(0),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 24,
        )
        try:
            return await one_round(partial(direct, process))
        finally:
            process.terminate()
            await process.wait()


def measure() -> dict[str, list[Round]]:
    """Each way's rounds, the peers in turn."""
    port = free_port()
    figures: dict[str, list[Round]] = defaultdict(list)
    for _ in range(ROUNDS):
        for peer in (SIDESTREAM, FASTAPI):
            with running(peer, **upstream_at(port)) as server:
                ways = [way for way in WAYS if way.peer is peer]
                for name, figure in on_client_core(rounds_through(ways, server, port)).items():
                    figures[name].append(figure)
        figures[DIRECT].append(on_client_core(round_of_the_sdk(port)))
    return figures


def main() -> None:
    """Print the tables."""
    speed, times = {}, {}
    for name, rounds in measure().items():
        speed[name] = [median(fast.chunks / fast.seconds for fast, _, _ in rounds)]
        first = [microseconds for _, _, alone in rounds for microseconds in alone.first]
        added = [microseconds for _, paced, _ in rounds for microseconds in paced.added]
        times[name] = [median(first), median(added), quantile(added, 0.99)]
    for row in speed.values():
        row.append(row[0] / speed[DIRECT][0])
    table(f"chat: a fast upstream, {STREAMS} streams", "chunks/s", speed, ("", "to the SDK"))
    columns = ("first chunk", "each, median", "each, p99")
    table(
        f"chat: from asking and from sending to receiving, {STREAMS} streams of {1 / INTERVAL:g} chunks/s", "µs", times, columns
    )


if __name__ == "__main__":
    main()

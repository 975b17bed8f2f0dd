"""How things are measured: a server as its own process on one core, a client on the other, several rounds, the peers in turn.

A figure is only worth something beside another one of the same run: these machines are noisy, ratios hold. What a client
receives is counted, and a run that delivers fewer events, or more, fails.
"""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, cast

import uvloop

ROOT = Path(__file__).parents[1]
CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0]


@dataclass(frozen=True, slots=True)
class Peer:
    """A server to measure. module: an ASGI app for uvicorn, or None for `python app.py`."""

    name: str
    module: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)

    def command(self, port: int) -> list[str]:
        if self.module is None:
            return [sys.executable, "app.py"]
        return [sys.executable, "-m", "uvicorn", self.module, "--port", str(port), "--log-level", "error"]


SIDESTREAM = Peer("sidestream")
BARE = Peer("bare ASGI", "bench.peers.bare:app")
SSE_STARLETTE = Peer("sse-starlette", "bench.peers.sse_starlette:app")
PEERS = (SIDESTREAM, BARE, SSE_STARLETTE)


@dataclass(frozen=True, slots=True)
class Running:
    peer: Peer
    port: int
    pid: int

    def rss(self) -> int:
        """Bytes of memory that the process has resident."""
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def cpu(self) -> float:
        """Seconds of processor time that the process has used."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(peer: Peer, **env: str) -> Iterator[Running]:
    """Start a peer on the first core, wait until it takes connections, and end it. env: beside the peer's own."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SIDESTREAM_", "OPENAI_"))}
    settings = {"SIDESTREAM_PORT": str(port), "SIDESTREAM_LOG_LEVEL": "error", "SIDESTREAM_DRAIN": "0", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        peer.command(port),
        cwd=ROOT,
        env={**clean, **settings, **peer.env, **env},
        preexec_fn=lambda: pin(0),  # safe: this process has one thread
        stdout=subprocess.DEVNULL,
    )
    try:
        wait_for(port, process)
        yield Running(peer, port, process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def pin(core: int) -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {CORES[core % len(CORES)]})


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def wait_for(port: int, process: "subprocess.Popen[bytes]", seconds: float = 20) -> None:
    """Until the port takes connections: the one thing here that is tried again and again, once a millisecond."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the server did not start: {process.args!r}") from None
            time.sleep(0.001)


class Connection(asyncio.Protocol):
    """One GET whose body is handed on as it arrives. Chunk sizes are left in it: no event of ours can look like one."""

    def __init__(self, path: str, on_data: Callable[[bytes], None], headers: str = "") -> None:
        self._request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n{headers}\r\n".encode()
        self._on_data = on_data
        self.transport: asyncio.Transport | None = None
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._on_data(data)
        if data.endswith(b"0\r\n\r\n") and not self.ended.done():
            self.ended.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()


async def connect(port: int, path: str, on_data: Callable[[bytes], None], headers: str = "") -> Connection:
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(path, on_data, headers), "127.0.0.1", port)
    return connection


class Counter:
    """Counts the events of one connection by their `data:` lines, wherever the bytes are cut. in_order: each read ended with
    the number that as many events end with."""

    MARK = b'data: {"n":'

    def __init__(self) -> None:
        self.events = 0
        self.in_order = True
        self._tail = b""

    def __call__(self, data: bytes) -> None:
        data = self._tail + data
        end = data.rfind(b"\n\n")
        if end < 0:
            self._tail = data
            return
        last = data.rfind(self.MARK, 0, end)
        if last >= 0:
            self.events += data.count(self.MARK, 0, end)
            self.in_order &= data.startswith(b"%d," % (self.events - 1), last + len(self.MARK))
        self._tail = data[end:]


def check(counters: Sequence[Counter], events: int) -> None:
    """End the benchmark unless every connection got this many events, in order."""
    wrong = [counter.events for counter in counters if counter.events != events or not counter.in_order]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(counters)} connections got other events than {events} in order: {wrong[:5]}…")


def on_client_core(work: Coroutine[Any, Any, Any]) -> Any:
    """Run the client's half on the other core."""
    pin(1)
    return uvloop.run(work)


def in_turn(peers: Sequence[Peer], rounds: int, measure: Callable[[Peer], Sequence[float]]) -> dict[str, list[float]]:
    """The medians of each peer's rounds, figure by figure, the peers taking turns."""
    figures: dict[str, list[Sequence[float]]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            figures[peer.name].append(measure(peer))
    return {name: [median(column) for column in zip(*values, strict=True)] for name, values in figures.items()}


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def table(title: str, unit: str, rows: Mapping[str, Sequence[float]], columns: Sequence[str] = ("",)) -> None:
    """Print figures, and beside the first column the ratio to the bare callable."""
    print(f"\n{title} ({unit})")
    base = rows.get(BARE.name)
    print(f"  {'':<16}" + "".join(f"{column:>14}" for column in columns) + (f"{'to bare':>12}" if base else ""))
    for name, figures in rows.items():
        ratio = f"{figures[0] / base[0]:>11.2f}x" if base else ""
        print(f"  {name:<16}" + "".join(f"{figure:>14,.1f}" for figure in figures) + ratio)

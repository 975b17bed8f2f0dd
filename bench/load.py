"""The load: the client and the server in `bench/native`, built with the machine's C compiler when they are first needed.

In:  a request, how many connections make it, and what each of them has to get. Out: `Figures`. A client that gets anything else
says what, and the run ends: `WrongEvents`.
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

from bench.harness import CLIENT_CORE, SERVER_CORE, Running, free_port, pinned, wait_for

SOURCES = Path(__file__).parent / "native"
SIZE = 190
"""Bytes of an event's data, as a model's chunk has them."""


Measured = Mapping[str, float]
"""Figures of one round, by names that end with their unit."""


class WrongEvents(Exception):
    """The server didn't send what it was asked for."""


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Of durations in µs."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True, slots=True)
class Figures:
    """What a client has measured.

    seconds: from the first connection to the end of the last. events: received, by all. finished: connections that have ended.
    stalled: those with a gap of more than `stall` seconds. cpu: seconds of the client's own. first: from connecting to the
    first event. latency: from an event's making to its arrival.
    """

    seconds: float
    events: int
    bytes: int
    connections: int
    finished: int
    stalled: int
    cpu: float
    first: Quantiles | None = None
    latency: Quantiles | None = None

    @classmethod
    def read(cls, line: str) -> "Figures":
        members = json.loads(line)
        for name in ("first", "latency"):
            if name in members:
                members[name] = Quantiles(**members[name])
        return cls(**members)


@cache
def built(name: str) -> str:
    """The path of a program of bench/native. Raises SystemExit without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise SystemExit("The load client is written in C, and this machine has no compiler for it: cc, gcc or clang.")
    directory = tempfile.TemporaryDirectory(prefix="bench-")
    _kept.append(directory)
    program = str(Path(directory.name) / name)
    subprocess.run([compiler, "-O2", "-std=gnu11", "-Wall", "-o", program, str(SOURCES / f"{name}.c")], check=True)
    return program


_kept: list[Any] = []
"""Removed when this process ends."""


# -- requests


def get(path: str) -> str:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n"


def post(path: str, body: dict[str, Any]) -> str:
    """{id} in it becomes the connection's number, in six digits."""
    text = json.dumps(body, separators=(",", ":"))
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(text.replace('{id}', '000000'))}\r\n\r\n{text}"


def events_path(events: int, interval: float = 0, size: int = SIZE) -> str:
    return f"/bench?events={events}&size={size}" + (f"&interval={interval}" if interval else "")


# -- the client


class Client:
    """A client that runs. `ask` is for one that is led (`led=1`)."""

    def __init__(self, port: int, **keys: Any) -> None:
        words = [f"{key}={value}" for key, value in keys.items()]
        self._process = subprocess.Popen(
            [built("client"), str(port), *words],
            preexec_fn=pinned(CLIENT_CORE),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def line(self) -> str:
        """The next line that it prints. Raises WrongEvents if it has given up."""
        line = _of(self._process.stdout).readline()
        if not line or line.startswith("{"):
            raise WrongEvents(_of(self._process.stderr).read().strip() or f"the client has ended too early: {line}")
        return line.strip()

    def ready(self) -> None:
        """Until all connections have the beginning of their answer."""
        line = _of(self._process.stdout).readline()
        if line.startswith("{"):
            figures = Figures.read(line)
            raise WrongEvents(f"saturated: not all of {figures.connections:,} were answered after {figures.seconds:.0f} s")
        if not line:
            raise WrongEvents(_of(self._process.stderr).read().strip())

    def tell(self, word: str) -> None:
        print(word, file=_of(self._process.stdin), flush=True)

    def mark(self) -> int:
        """How many events have arrived. The latencies begin anew."""
        self.tell("mark")
        return int(self.line())

    def count(self) -> int:
        """How many events have arrived."""
        self.tell("count")
        return int(self.line())

    def publish(self, events: int) -> float:
        """Publish so many more, each when all have the last one; the seconds that it took."""
        self.tell(f"publish {events}")
        return float(self.line())

    def end(self) -> Figures:
        """End it, if it is led. Its figures."""
        _of(self._process.stdin).close()
        return self.wait()[0]

    def wait(self) -> tuple[Figures, list[str]]:
        """When it has ended: its figures, and the lines that it has printed before them. Raises WrongEvents."""
        *told, last = _of(self._process.stdout).read().splitlines() or [""]
        errors = _of(self._process.stderr).read().strip()
        if self._process.wait() != 0:
            raise WrongEvents(errors)
        return Figures.read(last), told

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            _of(stream).close()


def _of(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


@contextmanager
def client(port: int, **keys: Any) -> Iterator[Client]:
    """keys: the members of `ask` in bench/native/events.h."""
    running = Client(port, **keys)
    try:
        yield running
    finally:
        running.kill()


def load(port: int, **keys: Any) -> Figures:
    """One load from beginning to end. Raises WrongEvents."""
    with client(port, **keys) as running:
        return running.end()


def complete(figures: Figures) -> Figures:
    """Raises WrongEvents unless all connections have ended."""
    if figures.finished != figures.connections:
        raise WrongEvents(f"{figures.connections - figures.finished} of {figures.connections} answers did not end in time")
    return figures


# -- the server


@contextmanager
def canned(core: int = SERVER_CORE) -> Iterator[Running]:
    """The server of bench/native, which also is the chat's upstream (then on the client's core)."""
    port = free_port()
    process = subprocess.Popen([built("server"), str(port)], preexec_fn=pinned(core), stdout=subprocess.PIPE)
    try:
        wait_for(port, process)
        yield Running(port, process.pid, process.stdout)
    finally:
        process.kill()
        process.communicate()

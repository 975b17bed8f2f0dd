"""The servers that are measured, on sensible production settings: how each is started, and what it needs of the machine.

A peer's program is one file in `bench/peers`. It reads the parameters of `GET /bench` and writes its events to the byte; where
it can, it also serves `GET /watch` and `POST /publish`: one event to all who watch.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.request import Request, urlopen

from bench.harness import Running, running

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Watch:
    """Where a stream is watched by many, where its events are posted as which type, and what stands around one in the body."""

    path: str
    publish: str
    content_type: str = "text/plain"
    prefix: str = ""
    suffix: str = ""


@dataclass(frozen=True, slots=True)
class Server:
    """command: of a port. env: beside the environment. watch: opens a stream that many watch. about: a line for the report."""

    name: str
    command: Callable[[int], list[str]]
    env: Mapping[str, str] = field(default_factory=dict)
    directory: Path = ROOT
    watch: Callable[[int], Watch] = lambda port: Watch("/watch", "/publish")
    about: str = ""

    @contextmanager
    def run(self, **env: str) -> Iterator[Running]:
        with running(self.command, self.directory, {"PYTHONPATH": str(self.directory), **self.env, **env}) as server:
            yield server


def published_stream(port: int) -> Watch:
    with urlopen(Request(f"http://127.0.0.1:{port}/streams", method="POST")) as response:
        url = json.load(response)["url"]
    return Watch(url, f"{url}/events", "application/x-ndjson", '{"data":', "}")


def uvicorn(module: str, python: str = sys.executable) -> Callable[[int], list[str]]:
    options = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "error")
    return lambda port: [python, "-m", "uvicorn", module, "--port", str(port), *options]


def sidestream(directory: Path = ROOT, name: str = "Sidestream") -> Server:
    """The whole service, by its own server. directory: a checkout of it."""
    return Server(
        name,
        lambda port: ["env", f"SIDESTREAM_PORT={port}", sys.executable, "app.py"],
        {"SIDESTREAM_LOG_LEVEL": "error", "SIDESTREAM_DRAIN": "0"},
        directory,
        published_stream,
    )


SIDESTREAM = sidestream()
BARE = Server("bare ASGI", uvicorn("bench.peers.bare:app"), about="one ASGI callable, one send for each event")
RAW_PROXY = Server(
    "raw proxy", uvicorn("bench.peers.raw_proxy:app"), about="the bytes of httpx2 as they come, by one ASGI callable"
)

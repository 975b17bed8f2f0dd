"""The hot paths of this tree beside those of another state of it, each as a ratio to a bare callable in the same round.

    python -m bench quick [--base COMMIT or DIRECTORY] [--only NAME,NAME] [--seconds 18] [--threshold 0.1]

The other state is the last release, the newest tag, unless given. The CPU time of the server is compared, which other load
on the machine disturbs less than a rate; rates and times stand beside it. Exit status 1 if a path costs more than it did, by
more than the threshold.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from statistics import median

from bench import chat, streams
from bench.harness import CLIENT_CORE, Others, Running
from bench.load import WrongEvents, canned
from bench.servers import BARE, RAW_PROXY, ROOT, Server, sidestream

Measured = Mapping[str, float]
Measure = Callable[[], Measured]


@dataclass(frozen=True, slots=True)
class HotPath:
    """open: of a server that runs, what is called for each round; it loads what is loaded late, and holds its clients
    meanwhile. bare: what both stand beside. upstream: whether the servers need one."""

    about: str
    open: Callable[[Running, Server], AbstractContextManager[Measure]]
    bare: Server = BARE
    upstream: bool = False


@contextmanager
def burst(running: Running, server: Server) -> Iterator[Measure]:
    streams.burst(running, events=100)
    yield lambda: streams.burst(running, events=1500)


@contextmanager
def fanout(running: Running, server: Server) -> Iterator[Measure]:
    with streams.watched(running, server) as publish:
        publish(2)
        yield lambda: publish(20)


@contextmanager
def paced(running: Running, server: Server) -> Iterator[Measure]:
    streams.burst(running, events=100)
    yield lambda: streams.paced(running, streams=500, seconds=0.8, spread=0.4)


@contextmanager
def opening(running: Running, server: Server) -> Iterator[Measure]:
    streams.opening(running)
    yield lambda: streams.opening(running)


@contextmanager
def chunks(running: Running, server: Server) -> Iterator[Measure]:
    way = chat.OPENAI if server is RAW_PROXY else chat.TYPED
    chat.chunks(running, way, chunks=10)
    yield lambda: chat.chunks(running, way, chunks=1500)


HOT_PATHS = {
    "burst": HotPath("50 sources that never wait; CPU an event", burst),
    "fanout": HotPath("one event to 1,000 watchers; CPU a delivery", fanout),
    "paced": HotPath("500 streams of 20 events/s; CPU an event", paced),
    "opening": HotPath("1,000 streams opened at once; CPU of a whole life", opening),
    "chunks": HotPath("10 chats from a fast upstream; CPU a chunk", chunks, RAW_PROXY, upstream=True),
}

LAUNCHES = 2
"""So often all servers are started anew: a process is a little faster or slower for as long as it lives."""


@contextmanager
def checkout(base: str) -> Iterator[Path]:
    """A directory with this state of the project: itself if it is one, otherwise a worktree of a commit, removed afterwards."""
    if Path(base, "app.py").is_file():
        yield Path(base).resolve()
        return
    with tempfile.TemporaryDirectory(prefix="bench-base-") as directory:
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", directory, base], check=True)
        try:
            yield Path(directory)
        finally:
            subprocess.run([*git, "remove", "--force", directory], check=True)


def last_release() -> str:
    """The newest tag. Raises SystemExit without one."""
    found = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--tags", "--abbrev=0"], capture_output=True, text=True, check=False
    )
    if found.returncode != 0:
        raise SystemExit("There is no tag to compare with: say BASE=<commit or directory>.")
    return found.stdout.strip()


def measure(path: HotPath, servers: Sequence[Server], seconds: float) -> list[list[Measured]]:
    """The rounds of each server, as many as the seconds allow. They are short, and the servers take turns: a machine's speed
    varies from second to second."""
    measured: list[list[Measured]] = [[] for _ in servers]
    for _ in range(LAUNCHES):
        with ExitStack() as stack:
            env = chat.upstream_at(stack.enter_context(canned(CLIENT_CORE)).port) if path.upstream else {}
            running = [stack.enter_context(server.run(**env)) for server in servers]
            rounds = [stack.enter_context(path.open(*both)) for both in zip(running, servers, strict=True)]
            end = time.monotonic() + seconds / LAUNCHES
            for number in count():
                begin = time.monotonic()
                for which in range(len(servers)):
                    turn = (number + which) % len(servers)
                    measured[turn].append(rounds[turn]())
                if time.monotonic() + (time.monotonic() - begin) / 2 > end:
                    break
    return measured


def change(bare: Sequence[Measured], base: Sequence[Measured], tree: Sequence[Measured]) -> tuple[float, float, float]:
    """CPU as ratios to the bare callable of the same round: medians of the base and of this tree, and the one to the other."""
    cpu = "CPU µs"
    before = median(one[cpu] / least[cpu] for one, least in zip(base, bare, strict=True))
    after = median(one[cpu] / least[cpu] for one, least in zip(tree, bare, strict=True))
    return before, after, after / before


def rows(figures: Sequence[Sequence[Measured]], names: Sequence[str]) -> Iterator[str]:
    """The medians of each server, a line each."""
    columns = list(figures[0][0])
    yield f"  {'':<12}" + "".join(f"{column:>14}" for column in columns)
    for name, rounds in zip(names, figures, strict=True):
        yield f"  {name:<12}" + "".join(f"{median(one[column] for one in rounds):>14,.1f}" for column in columns)


def main(arguments: Sequence[str]) -> int:
    """Exit status: 1 if a path has become slower, or a server sent other events than it was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench quick", description=__doc__.partition("\n")[0])
    parser.add_argument("--base", default="", metavar="COMMIT or DIRECTORY", help="the last release unless given")
    parser.add_argument("--only", default=",".join(HOT_PATHS), metavar="NAME,NAME", help=", ".join(HOT_PATHS))
    parser.add_argument("--seconds", type=float, default=18, help="for each path; 18")
    parser.add_argument("--threshold", type=float, default=0.1, help="a path may cost so much more; 0.1 is 10 %%")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.only.split(",")) - set(HOT_PATHS):
        parser.error(f"no hot path is called {', '.join(sorted(unknown))}; there are {', '.join(HOT_PATHS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # the worktree is removed even then
    slower = []
    with checkout(asked.base or last_release()) as directory:
        for name in asked.only.split(","):
            path = HOT_PATHS[name]
            print(f"\n{name}: {path.about}", flush=True)
            servers = (path.bare, sidestream(directory, "base"), sidestream(name="this tree"))
            others = Others()
            try:
                figures = measure(path, servers, asked.seconds)
            except WrongEvents as error:
                print(f"  {error}")
                slower.append(name)
                continue
            for line in rows(figures, [server.name for server in servers]):
                print(line)
            before, after, ratio = change(*figures)
            print(f"  CPU to bare: {before:.2f}x at the base, {after:.2f}x in this tree: {ratio - 1:+.1%}", end="", flush=True)
            print(f"   ({len(figures[0])} rounds; other processes used {others.share():.0%} of the machine)", flush=True)
            if ratio > 1 + asked.threshold:
                slower.append(name)
    print(f"\nslower, or wrong: {', '.join(slower) or 'none'}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

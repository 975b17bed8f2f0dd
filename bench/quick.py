"""The hot paths of this tree beside those of another state of it, each as a ratio to a bare callable in the same round.

    python -m bench quick [--base COMMIT or DIRECTORY] [--only NAME,NAME] [--seconds 16] [--threshold 0.1]

The other state is the last release, the newest tag, unless given. The CPU time of the server is compared, which other load
on the machine disturbs less than a rate; rates and times stand beside it. Exit status 1 if a path costs more than it did, by
more than the threshold.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from bench import streams
from bench.chat import OPENAI, TYPED, Way
from bench.load import Measured
from bench.rounds import Contender, Results, Scenario, Session, take_turns
from bench.scenarios import anew_each_round, chunks, each_round, watched
from bench.servers import BARE, RAW_PROXY, ROOT, SIDESTREAM, Server, sidestream


@dataclass(frozen=True, slots=True)
class HotPath:
    """bare: what both stand beside; the bare callable unless given."""

    about: str
    session: Session
    bare: Server = BARE
    way: Way = OPENAI
    upstream: bool = False


HOT_PATHS = {
    "burst": HotPath("50 sources that never wait; CPU an event", each_round(partial(streams.burst, events=1500))),
    "fanout": HotPath("one event to 1,000 watchers; CPU a delivery", watched(1000, 20)),
    "paced": HotPath(
        "500 streams of 20 events/s; CPU an event",
        anew_each_round(partial(streams.paced, streams=500, seconds=0.8, spread=0.4)),
    ),
    "opening": HotPath("1,000 streams opened at once; CPU of a whole life", each_round(streams.opening)),
    "chunks": HotPath("10 chats from a fast upstream; CPU a chunk", chunks(1500), RAW_PROXY, TYPED, upstream=True),
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


def change(bare: Sequence[Measured], base: Sequence[Measured], tree: Sequence[Measured]) -> tuple[float, float, float]:
    """CPU as ratios to the bare callable of the same round: medians of the base and of this tree, and the one to the other."""
    cpu = "CPU µs"
    before = median(one[cpu] / least[cpu] for one, least in zip(base, bare, strict=True))
    after = median(one[cpu] / least[cpu] for one, least in zip(tree, bare, strict=True))
    return before, after, after / before


def rows(results: Results) -> Iterator[str]:
    """The medians of each, a line each."""
    for number, name in enumerate(results.rounds):
        medians = results.medians(name)
        if not number:
            yield f"  {'':<12}" + "".join(f"{column:>15}" for column in medians)
        yield f"  {name:<12}" + "".join(f"{figure:>15,.1f}" for figure in medians.values())


def main(arguments: Sequence[str]) -> int:
    """Exit status: 1 if a path has become slower, or a server sent other events than it was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench quick", description=__doc__.partition("\n")[0])
    parser.add_argument("--base", default="", metavar="COMMIT or DIRECTORY", help="the last release unless given")
    parser.add_argument("--only", default=",".join(HOT_PATHS), metavar="NAME,NAME", help=", ".join(HOT_PATHS))
    parser.add_argument("--seconds", type=float, default=16, help="for each path; 16")
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
            base = Contender("base", sidestream(directory), path.way)
            tree = Contender("this tree", SIDESTREAM, path.way)
            bare = Contender(path.bare.name, path.bare)
            scenario = Scenario(path.session, (bare, base, tree), asked.seconds, path.upstream)
            results = take_turns(scenario, LAUNCHES)
            if results.failures:
                slower.append(name)
                print("\n".join(f"  {who}: {why}" for who, why in results.failures.items()))
                continue
            for line in rows(results):
                print(line)
            figures = [results.rounds[one.name] for one in scenario.contenders]
            before, after, ratio = change(*figures)
            print(f"  CPU to bare: {before:.2f}x at the base, {after:.2f}x in this tree: {ratio - 1:+.1%}", end="", flush=True)
            print(f"   ({len(figures[0])} rounds; other processes used {results.others:.0%} of the machine)", flush=True)
            if ratio > 1 + asked.threshold:
                slower.append(name)
    print(f"\nslower, or wrong: {', '.join(slower) or 'none'}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

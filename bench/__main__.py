"""Measure, beside other servers:  python -m bench [NAME …]

Each benchmark is a process of its own, so that none inherits another's core, caches or garbage. A benchmark that finds other
events than it asked for ends with an error, and so does this.
"""

import platform
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import version

from bench.harness import CORES


@dataclass(frozen=True, slots=True)
class Benchmark:
    """arguments: of `python -m`."""

    name: str
    arguments: tuple[str, ...]
    about: str


BENCHMARKS = (
    Benchmark("wire", ("bench.wire",), "events written and read a second, beside other parsers"),
    Benchmark("bridge", ("bench.bridge",), "progress from threads, and how late the event loop gets"),
    Benchmark("chat", ("bench.chat",), "chunks from an upstream, beside other ways through"),
    Benchmark("burst", ("bench.streams", "burst"), "a source that never waits, 50 streams"),
    Benchmark("paced", ("bench.streams", "paced"), "latency added to an event, 1,000 streams"),
    Benchmark("fanout", ("bench.streams", "fanout"), "one event to 1,000 watchers"),
    Benchmark("idle", ("bench.streams", "idle"), "memory of a watcher that waits"),
    Benchmark("store", ("bench.store",), "two processes and a Redis, beside one process alone"),
    Benchmark("start", ("bench.streams", "start"), "process start to first byte"),
)


def machine() -> str:
    """What the figures were taken on, in one line."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("uvicorn", "uvloop", "httptools", "orjson"))
    cores = f"{len(CORES)} core{'s' if len(CORES) > 1 else ''}"
    system = f"{platform.system()} {platform.release()} {platform.machine()}"
    return f"{cores}, {system}, Python {platform.python_version()}, {packages}"


def chosen(names: list[str]) -> list[Benchmark]:
    """The benchmarks of these names, all without any. Raises ValueError for a name that there isn't."""
    by_name = {benchmark.name: benchmark for benchmark in BENCHMARKS}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        there = "\n".join(f"    {benchmark.name:<8} {benchmark.about}" for benchmark in BENCHMARKS)
        raise ValueError(f"no benchmark is called {', '.join(unknown)}; there are\n{there}")
    return [by_name[name] for name in names] or list(BENCHMARKS)


def main(names: list[str]) -> int:
    """Run them one after the other; the exit status: 1 if one has failed."""
    try:
        benchmarks = chosen(names)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(machine(), flush=True)
    failed = 0
    for benchmark in benchmarks:
        print(f"\n== {benchmark.name}: {benchmark.about}", flush=True)
        failed += subprocess.run([sys.executable, "-m", *benchmark.arguments]).returncode != 0
    return min(failed, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

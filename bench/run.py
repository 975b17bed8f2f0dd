"""One run: every scenario, and all figures in one JSON file.

    python -m bench run [--only NAME,NAME] [--into FILE]

Only some scenarios replace theirs in the file and leave the others as they were. Exit status 1 if Sidestream has no figures in
one of them.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench import streams
from bench.harness import CORES
from bench.load import canned, complete, events_path, get, load
from bench.rounds import Results
from bench.scenarios import SCENARIOS, SELF
from bench.servers import LITELLM, NCHAN, PEERS_OF_STREAMS, ROOT, packages_of

RUN = ROOT / "docs" / "benchmarks" / "run.json"


def machine() -> dict[str, Any]:
    """What the figures were taken on."""
    model = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ""
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    own = packages_of(sys.executable, "uvicorn", "uvloop", "httptools", "orjson", "openai", "httpx2")
    peers = [server.version() for server in (*PEERS_OF_STREAMS, NCHAN, LITELLM)]
    return {
        "cores": len(CORES),
        "processor": model,
        "memory GiB": round(memory),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "Python": platform.python_version(),
        "Sidestream": own,
        "peers": ", ".join(version for version in peers if version),
    }


def state() -> str:
    """The commit, and whether the tree has changed since."""
    run = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"], capture_output=True, text=True)
    return run.stdout.strip() or "unknown"


def ceiling(events: int = 6000, connections: int = 50) -> dict[str, float]:
    """What the load client can take, of the same events out of one buffer. It waits for the server, so its CPU counts."""
    with canned() as server:
        load(server.port, request=get(events_path(10)), total=1, events=10, pad=streams.PAD)
        asked = {"request": get(events_path(events)), "total": connections, "events": events, "pad": streams.PAD}
        figures = max((complete(load(server.port, **asked)) for _ in range(3)), key=lambda one: one.events / one.seconds)
    return {"events/s": figures.events / figures.seconds, "events/s of CPU": figures.events / figures.cpu}


def as_json(results: Results) -> dict[str, Any]:
    return {
        "medians": {name: results.medians(name) for name in results.rounds},
        "rounds": results.rounds,
        "failures": results.failures,
        "others": round(results.others, 3),
    }


def write(into: Path, run: Mapping[str, Any]) -> None:
    into.parent.mkdir(parents=True, exist_ok=True)
    into.write_text(json.dumps(run, indent=1, ensure_ascii=False) + "\n")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench run", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", metavar="NAME,NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--into", type=Path, default=RUN, metavar="FILE", help="docs/benchmarks/run.json")
    asked = parser.parse_args(arguments)
    names = asked.only.split(",") if asked.only else list(SCENARIOS)
    if unknown := set(names) - set(SCENARIOS):
        parser.error(f"no scenario is called {', '.join(sorted(unknown))}; there are {', '.join(SCENARIOS)}")
    run: dict[str, Any] = {"scenarios": {}}
    if asked.only and asked.into.exists():
        run = json.loads(asked.into.read_text())
    run |= {"when": datetime.now(UTC).strftime("%Y-%m-%d"), "state": state(), "machine": machine(), "ceiling": ceiling()}
    print(f"the load client takes {run['ceiling']['events/s of CPU']:,.0f} events in a second of its CPU", flush=True)
    failed = []
    for name in names:
        begin = time.monotonic()
        results = SCENARIOS[name].run()
        run["scenarios"][name] = {**as_json(results), "state": run["state"]}
        write(asked.into, run)
        report(name, results, time.monotonic() - begin)
        if not any(key.startswith(SELF.name) for key in results.rounds):
            failed.append(name)
    run["scenarios"] = {name: run["scenarios"][name] for name in SCENARIOS if name in run["scenarios"]}
    write(asked.into, run)
    print(f"\nno figures of Sidestream: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def report(name: str, results: Results, seconds: float) -> None:
    """A scenario on the terminal."""
    print(f"\n{name}: {SCENARIOS[name].title} ({seconds:.0f} s; other processes used {results.others:.0%} of the machine)")
    for who in results.rounds:
        figures = "  ".join(f"{value:,.4g} {column}" for column, value in results.medians(who).items())
        print(f"  {who:<28} {figures}  ({len(results.rounds[who])} rounds)")
    for who, why in results.failures.items():
        print(f"  {who:<28} {why}", flush=True)

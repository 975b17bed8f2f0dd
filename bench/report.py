"""docs/benchmarks.md from a run:  python -m bench report [FILE]

In:  the JSON file of `bench.run`, and the page, whose text is written by hand. Out: the page with the blocks between
`<!-- bench NAME -->` and `<!-- end -->` made anew, and a plot of each scenario beside the file.
"""

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.plot import bars, number
from bench.run import RUN
from bench.scenarios import DIRECT, SCENARIOS, SELF, Entry
from bench.servers import ROOT

PAGES = (ROOT / "docs" / "benchmarks.md", ROOT / "README.md")
BLOCK = re.compile(r"(<!-- bench ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)
NOT_INSTALLED = "not installed"


def table(entry: Entry, scenario: Mapping[str, Any]) -> str:
    """Everybody's medians, in the order of the leading figure, with the ratio to the entry's base; and why some are missing."""
    medians: dict[str, dict[str, float]] = scenario["medians"]
    columns = list(dict.fromkeys(column for figures in medians.values() for column in figures))
    base = medians.get(entry.base, {}).get(entry.lead)
    names = sorted(medians, key=lambda name: rank(entry, medians[name]))
    heads = ["", *columns, *([f"{entry.lead} to {entry.base}"] if base else [])]
    lines = [row(heads), "|---|" + "---:|" * (len(heads) - 1)]
    for name in names:
        figures = medians[name]
        cells = [number(figures[column]) if column in figures else "" for column in columns]
        if base:
            cells.append(f"{figures[entry.lead] / base:.2f}" if entry.lead in figures else "")
        lines.append(row([f"**{name}**" if name.startswith(SELF.name) else name, *cells]))
    for name, why in scenario["failures"].items():
        lines.append(row([name, short(why), *[""] * (len(heads) - 2)]))
    return "\n".join(lines) + "\n"


def row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def rank(entry: Entry, figures: Mapping[str, float]) -> tuple[bool, float]:
    value = figures.get(entry.lead)
    return value is None, 0.0 if value is None else -value if entry.higher else value


def short(why: str) -> str:
    """The reason for a missing figure, as a cell of a table."""
    line = why.splitlines()[0] if why else ""
    return (line if len(line) <= 90 else line[:87] + "…").replace("|", "/")


def plot(entry: Entry, scenario: Mapping[str, Any]) -> str:
    """Those who have the leading figure, without the upstream itself, which is so far ahead that it hides the others."""
    medians: dict[str, dict[str, float]] = scenario["medians"]
    shown = [name for name in medians if entry.lead in medians[name] and name != DIRECT.name]
    names = sorted(shown, key=lambda name: rank(entry, medians[name]))
    better = "longer is better" if entry.higher else "shorter is better"
    return bars(entry.title, entry.lead, {name: medians[name][entry.lead] for name in names}, SELF.name, better)


def machine(run: Mapping[str, Any]) -> str:
    """What was measured, when and where."""
    about = run["machine"]
    ceiling = run["ceiling"]["events/s of CPU"]
    states = " and ".join(f"`{state}`" for state in dict.fromkeys(scenario["state"] for scenario in run["scenarios"].values()))
    others = max(scenario["others"] for scenario in run["scenarios"].values())
    return (
        f"Measured {run['when']} on the state {states}: {about['cores']} cores of {about['processor']}, "
        f"{about['memory GiB']} GiB, {about['system']}, Python {about['Python']}. Sidestream and the bare callable "
        f"run on {about['Sidestream']}. Peers: {about['peers']}. The load client takes {number(ceiling)} events in a second "
        f"of its CPU. Other processes used at most {others:.0%} of the machine during a scenario.\n"
    )


def summary(run: Mapping[str, Any]) -> str:
    """One row for each scenario: Sidestream, the base, and the ratio of the two."""
    lines = [row(["", "Sidestream", "beside", "", "ratio"]), "|---|---:|---|---:|---:|"]
    for name, scenario in run["scenarios"].items():
        entry, medians = SCENARIOS[name], scenario["medians"]
        own = [figures[entry.lead] for who, figures in medians.items() if who.startswith(SELF.name) and entry.lead in figures]
        base = medians.get(entry.base, {}).get(entry.lead)
        if not own or not base or entry.base.startswith(SELF.name):
            continue
        figures = [f"{number(own[0])} {entry.lead}", entry.base, number(base), f"{own[0] / base:.2f}"]
        lines.append(row([entry.title, *figures]))
    return "\n".join(lines) + "\n"


def blocks(run: Mapping[str, Any]) -> dict[str, str]:
    """What stands between the marks, by name."""
    made = {"machine": machine(run), "summary": summary(run)}
    for name, scenario in run["scenarios"].items():
        picture = f"![{SCENARIOS[name].title}](benchmarks/{name}.svg)\n\n"
        made[name] = "\n" + (picture if scenario["medians"] else "") + table(SCENARIOS[name], scenario) + "\n"
    return made


def filled(page: str, made: Mapping[str, str]) -> str:
    """The page with these blocks. Raises ValueError if it has a block that the run has nothing for."""

    def block(match: re.Match[str]) -> str:
        if match[2] not in made:
            raise ValueError(f"the page has a block {match[2]!r}, of which the run has no figures")
        return match[1] + made[match[2]] + match[3]

    return BLOCK.sub(block, page)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench report", description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", default=RUN, metavar="FILE", help="docs/benchmarks/run.json")
    run = json.loads(parser.parse_args(arguments).run.read_text())
    for page in PAGES:
        page.write_text(filled(page.read_text(), blocks(run)))
    for name, scenario in run["scenarios"].items():
        if scenario["medians"]:
            (RUN.parent / f"{name}.svg").write_text(plot(SCENARIOS[name], scenario))
    return 0

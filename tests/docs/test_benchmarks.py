"""docs/benchmarks.md can't drift: its bytes are what the service sends, its tables are the run's, its links are followed."""

import json
import re
from pathlib import Path

import pytest

from app import Sidestream
from bench.report import PAGES, blocks, filled, plot
from bench.run import RUN
from bench.scenarios import SCENARIOS
from sidecar.settings import Settings
from tests.support.app import EVENT_STREAM, ask

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "benchmarks.md").read_text()
VARYING = re.compile(rb'(?<="stream":")[\w-]{22}|(?<="t":)\d+')


async def test_the_service_sends_the_bytes_that_the_page_shows() -> None:
    (shown,) = re.findall(r"^```event-stream\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    answer = await ask(Sidestream(Settings()), "/bench?events=2&size=60", headers=EVENT_STREAM)
    assert VARYING.sub(b"", answer.body) == VARYING.sub(b"", shown.encode())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_tables_are_those_of_the_run(page: Path) -> None:
    run = json.loads(RUN.read_text())
    assert filled(page.read_text(), blocks(run)) == page.read_text()


def test_the_plots_are_those_of_the_run() -> None:
    run = json.loads(RUN.read_text())
    made = {f"{name}.svg": plot(SCENARIOS[name], scenario) for name, scenario in run["scenarios"].items()}
    assert {path.name: path.read_text() for path in RUN.parent.glob("*.svg")} == made


def test_the_page_shows_every_scenario() -> None:
    assert set(SCENARIOS) <= set(re.findall(r"<!-- bench ([\w-]+) -->", PAGE))


def test_the_links_lead_somewhere() -> None:
    links = re.findall(r"\]\((\.\./[^)]+|benchmarks/[^)]+)\)", PAGE)
    assert links
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []

"""Tables and plots of a run: who leads is first, ratios are to the base, and who is missing is said."""

import pytest

from bench.report import blocks, filled, plot, short, table
from bench.rounds import Results
from bench.run import as_json
from bench.scenarios import SCENARIOS, Entry

FASTER = Entry("Burst", Results, "events/s", higher=True)
SOONER = Entry("Latency", Results, "p50 µs")
RUN = as_json(
    Results(
        {
            "bare ASGI": [{"events/s": 100_000, "p50 µs": 30.0}, {"events/s": 110_000, "p50 µs": 31.0}],
            "Sidestream": [{"events/s": 300_000, "p50 µs": 45.0}, {"events/s": 330_000, "p50 µs": 46.0}],
            "Go": [{"events/s": 105_000}],
        },
        {"Node": "node is not installed (nodejs)\nor so | not"},
    )
)


def test_a_table_has_medians_in_the_order_of_the_leading_figure_and_ratios_to_the_base() -> None:
    assert table(FASTER, RUN).splitlines() == [
        "|  | events/s | p50 µs | events/s to bare ASGI |",
        "|---|---:|---:|---:|",
        "| **Sidestream** | 315,000 | 45.5 | 3.00 |",
        "| bare ASGI | 105,000 | 30.5 | 1.00 |",
        "| Go | 105,000 |  | 1.00 |",
        "| Node | node is not installed (nodejs) |  |  |",
    ]


def test_where_less_is_better_the_least_is_first_and_who_lacks_the_figure_is_last() -> None:
    rows = [line.split(" | ")[0] for line in table(SOONER, RUN).splitlines()[2:]]
    assert rows == ["| bare ASGI", "| **Sidestream**", "| Go", "| Node"]


def test_without_the_base_there_is_no_ratio() -> None:
    alone = {"medians": {"Sidestream": {"events/s": 1.0}}, "failures": {}}
    assert table(FASTER, alone).splitlines()[0] == "|  | events/s |"


def test_a_plot_has_the_order_of_the_table_and_leaves_out_who_lacks_the_figure() -> None:
    made = plot(SOONER, RUN)
    assert made.index(">bare ASGI<") < made.index(">Sidestream<")
    assert ">Go<" not in made
    assert "shorter is better" in made
    assert "longer is better" in plot(FASTER, RUN)


def test_a_reason_fits_into_a_cell() -> None:
    assert short("x" * 100) == "x" * 87 + "…"
    assert short("a | b\nc") == "a / b"


def test_blocks_of_a_page_are_made_anew_and_the_rest_is_left() -> None:
    page = "before\n<!-- bench a -->\nold\n<!-- end -->\nbetween\n<!-- bench b-1 -->\n<!-- end -->\nafter\n"
    once = filled(page, {"a": "new\n", "b-1": "more\n"})
    assert once == "before\n<!-- bench a -->\nnew\n<!-- end -->\nbetween\n<!-- bench b-1 -->\nmore\n<!-- end -->\nafter\n"
    assert filled(once, {"a": "new\n", "b-1": "more\n"}) == once


def test_a_block_that_the_run_has_nothing_for_is_named() -> None:
    with pytest.raises(ValueError, match="'nope'"):
        filled("<!-- bench nope -->\n<!-- end -->", {})


def test_the_summary_compares_what_leads() -> None:
    name = "burst"
    about = dict.fromkeys(("cores", "processor", "memory GiB", "system", "Python", "Sidestream", "peers"), "?")
    run = {
        "when": "",
        "state": "",
        "machine": about,
        "ceiling": {"events/s of CPU": 4e6},
        "scenarios": {name: {**RUN, "state": "abc"}},
    }
    made = blocks(run)
    assert made["summary"].splitlines()[2:] == [f"| {SCENARIOS[name].title} | 315,000 events/s | bare ASGI | 105,000 | 3.00 |"]
    assert "4,000,000 events" in made["machine"]

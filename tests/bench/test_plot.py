"""Bars as SVG: well-formed, as long as their figures say, and readable without colour."""

from xml.etree import ElementTree

import pytest

from bench.plot import bars, number

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        *((0, "0"), (0.0312, "0.031"), (0.5, "0.500"), (3.14159, "3.14"), (27.63, "27.6"), (999.4, "999")),
        *((1234, "1,230"), (301_499, "301,000"), (4_638_793, "4,640,000")),
    ],
)
def test_a_number_has_the_digits_that_count(value: float, written: str) -> None:
    assert number(value) == written


def test_each_name_has_a_bar_as_long_as_its_figure_and_the_figure_in_words() -> None:
    tree = ElementTree.fromstring(
        bars('A "title" & more', "events/s", {"Sidestream": 300, "<bare>": 100}, "Sidestream", "longer")
    )
    widths = [float(bar.get("width", 0)) for bar in tree.iter(f"{SVG}rect")]
    words = [text.text for text in tree.iter(f"{SVG}text")]
    assert widths[0] == pytest.approx(3 * widths[1], abs=0.2)
    assert words == ['A "title" & more', "events/s; longer", "Sidestream", "300", "<bare>", "100"]


def test_what_is_ours_differs_by_more_than_colour() -> None:
    made = bars("", "", {"Sidestream, typed": 1, "bare": 1}, "Sidestream", "")
    own = [text.text for text in ElementTree.fromstring(made).iter(f"{SVG}text") if "own" in text.get("class", "")]
    assert own == ["Sidestream, typed", "1"]
    assert "font-weight: 600" in made
    assert "prefers-color-scheme: dark" in made


def test_figures_of_nothing_are_drawn_too() -> None:
    ElementTree.fromstring(bars("", "", {"a": 0}, "", ""))
    ElementTree.fromstring(bars("", "", {}, "", ""))

"""Kinds: what a signature says of its parameters, what is refused, and where kinds come from."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from handlers.jobs.kinds import Between, Kind, OnProgress, checksum, kind, load, steps
from sse.errors import Problem


@kind
def sample(
    on_progress: OnProgress,
    pages: Annotated[int, Between(1, 10)],
    scale: float = 1.0,
    colour: Literal["red", "blue"] = "red",
    draft: bool = False,
    title: str = "",
    tags: list[str] = [],  # noqa: B006
    extra: dict[str, Any] = {},  # noqa: B006
    other: Any = None,
) -> None:
    """A sample.

    With two paragraphs.
    """


def test_a_kind_is_described_by_its_signature_and_docstring() -> None:
    assert sample.describe() == {
        "kind": "sample",
        "description": "A sample.\n\nWith two paragraphs.",
        "params": {
            "pages": {"expected": "an integer from 1 to 10"},
            "scale": {"expected": "a number", "default": 1.0},
            "colour": {"expected": "one of red, blue", "default": "red"},
            "draft": {"expected": "true or false", "default": False},
            "title": {"expected": "a text", "default": ""},
            "tags": {"expected": "a list", "default": []},
            "extra": {"expected": "an object", "default": {}},
            "other": {"expected": "any JSON", "default": None},
        },
    }


@pytest.mark.parametrize(
    "params",
    [
        {"pages": 1},
        {"pages": 10, "scale": 2, "colour": "blue", "draft": True, "title": "Größe", "tags": [1], "extra": {"a": 1}},
        {"pages": 5, "scale": 2.5, "other": [None]},
    ],
    ids=["the least", "all", "any JSON"],
)
def test_good_parameters_pass(params: Mapping[str, Any]) -> None:
    sample.check(params)


@pytest.mark.parametrize(
    ("params", "name"),
    [
        ({}, "pages"),
        ({"pages": 0}, "pages"),
        ({"pages": 11}, "pages"),
        ({"pages": "5"}, "pages"),
        ({"pages": 5.0}, "pages"),
        ({"pages": True}, "pages"),
        ({"pages": None}, "pages"),
        ({"pages": 1, "scale": "1"}, "scale"),
        ({"pages": 1, "scale": True}, "scale"),
        ({"pages": 1, "colour": "green"}, "colour"),
        ({"pages": 1, "colour": ["red"]}, "colour"),
        ({"pages": 1, "draft": 1}, "draft"),
        ({"pages": 1, "title": 1}, "title"),
        ({"pages": 1, "tags": {}}, "tags"),
        ({"pages": 1, "extra": []}, "extra"),
        ({"pages": 1, "unknown": 1}, "unknown"),
        ({"pages": 1, "on_progress": 1}, "on_progress"),
    ],
    ids=str,
)
def test_a_bad_parameter_is_named(params: Mapping[str, Any], name: str) -> None:
    with pytest.raises(Problem) as raised:
        sample.check(params)
    assert (raised.value.status, raised.value.members) == (422, {"parameter": f"params.{name}"})
    assert raised.value.detail.startswith(f"params.{name} ")


def test_a_kind_can_still_be_called() -> None:
    reported: list[Any] = []
    result = checksum(lambda step, details: reported.append((step, details)), mebibytes=2)
    assert result["hexdigest"] == "5647f05ec18958947d32874eeb788fa396a05d0bab7c1b71f112ceb7e9b31eee"
    assert reported == [("digest", {"progress": 50.0, "mebibytes": 1}), ("digest", {"progress": 100.0, "mebibytes": 2})]


# -- modules


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty module that can be imported as `kinds_of_a_test`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "kinds_of_a_test", raising=False)
    return tmp_path / "kinds_of_a_test.py"


def test_two_kinds_are_built_in() -> None:
    assert load(()) == {"steps": steps, "checksum": checksum}


def test_a_module_adds_its_kinds(module: Path) -> None:
    module.write_text("from handlers.jobs.kinds import kind\n@kind\ndef mine(on_progress): 'Mine.'\n")
    kinds = load(("kinds_of_a_test",))
    assert list(kinds) == ["steps", "checksum", "mine"]
    assert isinstance(kinds["mine"], Kind)


def test_a_module_without_kinds_is_refused(module: Path) -> None:
    module.write_text("def mine(on_progress): 'No kind: it lacks the decorator.'\n")
    with pytest.raises(ValueError, match=r"^kinds_of_a_test: no kinds of jobs in this module"):
        load(("kinds_of_a_test",))


def test_a_module_that_is_missing_is_refused() -> None:
    with pytest.raises(ImportError, match="no_such_module"):
        load(("no_such_module",))

"""Functions: what a signature says of its parameters, what is refused, and where functions come from."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union

import pytest

from sidecar.functions import Between, Function, expected, function, load
from sse.errors import Problem
from sse.threads import OnProgress, Threads


@function
def sample(
    on_progress: OnProgress,
    pages: Annotated[int, Between(1, 10)],
    scale: float = 1.0,
    colour: Literal["red", "blue"] = "red",
    draft: bool = False,
    title: str | None = None,
    tags: list[str] = [],  # noqa: B006
    extra: dict[str, Any] = {},  # noqa: B006
    other: Any = None,
) -> None:
    """A sample.

    With two paragraphs.
    """


# -- what a function is told by


def test_a_function_is_told_by_its_name_docstring_and_signature() -> None:
    assert (sample.name, sample.description, sample.timeout) == ("sample", "A sample.\n\nWith two paragraphs.", None)
    assert sample.parameters == {
        "type": "object",
        "properties": {
            "pages": {"type": "integer", "minimum": 1, "maximum": 10},
            "scale": {"type": "number", "default": 1.0},
            "colour": {"type": "string", "enum": ["red", "blue"], "default": "red"},
            "draft": {"type": "boolean", "default": False},
            "title": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
            "extra": {"type": "object", "default": {}},
            "other": {"default": None},
        },
        "required": ["pages"],
    }


def test_a_decorator_with_arguments_says_more() -> None:
    given = {"type": "object", "properties": {"x": {"type": "integer"}}}

    @function(name="other", timeout=5, parameters=given)
    def mine(x: str) -> None:
        """Mine."""

    assert (mine.name, mine.description, mine.timeout, mine.parameters) == ("other", "Mine.", 5, given)


def test_a_function_can_still_be_called() -> None:
    @function
    def add(a: int, b: int = 1) -> int:
        return a + b

    assert (add(1), add(1, b=2)) == (2, 3)


ANNOTATIONS = {
    "int": (int, {"type": "integer"}, "an integer"),
    "float": (float, {"type": "number"}, "a number"),
    "bool": (bool, {"type": "boolean"}, "true or false"),
    "str": (str, {"type": "string"}, "a text"),
    "list": (list, {"type": "array"}, "a list"),
    "dict": (dict, {"type": "object"}, "an object"),
    "dict of": (dict[str, int], {"type": "object"}, "an object"),
    "list of": (list[int], {"type": "array", "items": {"type": "integer"}}, "a list, each item an integer"),
    "list of bounded": (
        list[Annotated[float, Between(0, 1)]],
        {"type": "array", "items": {"type": "number", "minimum": 0, "maximum": 1}},
        "a list, each item a number from 0 to 1",
    ),
    "bounds": (
        Annotated[float, "a share", Between(0, 0.5)],
        {"type": "number", "minimum": 0, "maximum": 0.5},
        "a number from 0 to 0.5",
    ),
    "texts": (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}, "one of a, b"),
    "numbers": (Literal[1, 2], {"type": "integer", "enum": [1, 2]}, "one of 1, 2"),
    "mixed": (Literal["a", 1], {"enum": ["a", 1]}, "one of a, 1"),
    "or none": (int | None, {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "an integer or null"),
    "optional": (Optional[int], {"anyOf": [{"type": "integer"}, {"type": "null"}]}, "an integer or null"),  # noqa: UP045
    "union": (Union[int, str], {"anyOf": [{"type": "integer"}, {"type": "string"}]}, "an integer or a text"),  # noqa: UP007
    "any": (Any, {}, "any JSON"),
    "a class": (Path, {}, "any JSON"),
    "in quotes": ("int", {"type": "integer"}, "an integer"),
}


@pytest.mark.parametrize(("annotation", "schema", "words"), ANNOTATIONS.values(), ids=ANNOTATIONS.keys())
def test_an_annotation_becomes_a_schema_and_words(annotation: Any, schema: Mapping[str, Any], words: str) -> None:
    def take(x) -> None:  # type: ignore[no-untyped-def]
        """Take."""

    take.__annotations__["x"] = annotation
    parameters = function(take).parameters
    assert parameters["properties"] == {"x": schema}
    assert expected(schema) == words


def test_a_default_is_told_as_json() -> None:
    @function
    def take(where: Path = Path("/tmp"), items: tuple[int, ...] = (1, 2)) -> None:
        """Take."""

    assert take.parameters["properties"] == {"where": {"default": "/tmp"}, "items": {"default": [1, 2]}}


def test_only_what_can_be_given_by_name_is_a_parameter() -> None:
    @function
    def take(*numbers: int, a: int = 0, **others: str) -> None:
        """Take."""

    assert list(take.parameters["properties"]) == ["a"]
    take.check({"a": 1, "anything": "x"})


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize("call", [generator, async_generator])
def test_a_generator_is_no_function(call: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=f"^{call.__name__} is a generator"):
        function(call)


# -- what arguments are refused


@pytest.mark.parametrize(
    "arguments",
    [
        {"pages": 1},
        {"pages": 10, "scale": 2, "colour": "blue", "draft": True, "title": "Größe", "tags": ["a"], "extra": {"a": 1}},
        {"pages": 5, "scale": 2.5, "other": [None], "title": None, "tags": []},
    ],
    ids=["the least", "all", "any JSON"],
)
def test_good_arguments_pass(arguments: Mapping[str, Any]) -> None:
    sample.check(arguments)


NAMES = "pages, scale, colour, draft, title, tags, extra, other"
INTEGER = "must be an integer from 1 to 10."
BAD = [
    ({}, "pages", "is missing: it must be an integer from 1 to 10."),
    ({"pages": 0}, "pages", INTEGER),
    ({"pages": 11}, "pages", INTEGER),
    ({"pages": 10**400}, "pages", INTEGER),
    ({"pages": "5"}, "pages", INTEGER),
    ({"pages": 5.0}, "pages", INTEGER),
    ({"pages": True}, "pages", INTEGER),
    ({"pages": None}, "pages", INTEGER),
    ({"pages": 1, "scale": "1"}, "scale", "must be a number."),
    ({"pages": 1, "scale": True}, "scale", "must be a number."),
    ({"pages": 1, "colour": "green"}, "colour", "must be one of red, blue."),
    ({"pages": 1, "colour": ["red"]}, "colour", "must be one of red, blue."),
    ({"pages": 1, "draft": 1}, "draft", "must be true or false."),
    ({"pages": 1, "title": 1}, "title", "must be a text or null."),
    ({"pages": 1, "tags": {}}, "tags", "must be a list, each item a text."),
    ({"pages": 1, "tags": ["a", 1]}, "tags", "must be a list, each item a text."),
    ({"pages": 1, "extra": []}, "extra", "must be an object."),
    ({"pages": 1, "unknown": 1}, "unknown", f"is no parameter of sample, which has: {NAMES}."),
    ({"pages": 1, "on_progress": 1}, "on_progress", f"is no parameter of sample, which has: {NAMES}."),
    ({"pages": 1, "x" * 5000: 1}, "x" * 100, f"is no parameter of sample, which has: {NAMES}."),
]


@pytest.mark.parametrize(("arguments", "name", "wrong"), BAD, ids=lambda value: str(value)[:40])
def test_a_bad_argument_is_named_with_what_would_be_right(arguments: Mapping[str, Any], name: str, wrong: str) -> None:
    with pytest.raises(Problem) as raised:
        sample.check(arguments, "params.")
    assert (raised.value.status, raised.value.members) == (422, {"parameter": f"params.{name}"})
    assert raised.value.detail == f"params.{name} {wrong}"


GIVEN: Mapping[str, tuple[Mapping[str, Any], dict[str, Any], dict[str, Any]]] = {
    "several types": ({"properties": {"x": {"type": ["integer", "null"]}}}, {"x": None}, {"x": "1"}),
    "one bound": ({"properties": {"x": {"minimum": 0}}}, {"x": 10**30}, {"x": -1}),
    "an unknown type": ({"properties": {"x": {"type": "date"}}}, {"x": "today"}, {"y": 1}),
    "unknown keywords": ({"properties": {"x": {"type": "string", "pattern": "a+"}}}, {"x": "b"}, {"x": 1}),
    "open": ({"properties": {}, "additionalProperties": True, "required": ["y"]}, {"y": 1}, {"x": 1}),
    "required and not described": ({"required": ["x"], "additionalProperties": {}}, {"x": 1}, {}),
    "nothing": ({"type": "object"}, {}, {"x": 1}),
    "an object inside": (
        {"properties": {"x": {"type": "object", "properties": {"y": {"type": "string"}}}}},
        {"x": {"y": 1}},  # Limit: not looked into
        {"x": []},
    ),
}


@pytest.mark.parametrize(("schema", "good", "bad"), GIVEN.values(), ids=GIVEN.keys())
def test_a_schema_that_is_given_is_checked_as_far_as_it_is_known(
    schema: Mapping[str, Any], good: dict[str, Any], bad: dict[str, Any]
) -> None:
    @function(parameters=schema)
    def take(**arguments: Any) -> None:
        """Take."""

    take.check(good)
    with pytest.raises(Problem):
        take.check(bad)


# -- modules


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty module that can be imported as `functions_of_a_test`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "functions_of_a_test", raising=False)
    return tmp_path / "functions_of_a_test.py"


MINE = "from sidecar.functions import function\n@function\ndef mine(): 'Mine.'\n"


def loaded() -> dict[str, Function]:
    return load("SIDESTREAM_X", ("functions_of_a_test",))


def test_the_functions_of_a_module_are_found_by_name(module: Path) -> None:
    module.write_text(MINE + "@function(name='second')\ndef other(): ...\nnothing = 1\n")
    assert [(name, one.name) for name, one in loaded().items()] == [("mine", "mine"), ("second", "second")]


def test_of_two_with_one_name_the_later_counts(module: Path) -> None:
    module.write_text("from sidecar.functions import function\n@function\ndef steps(): 'Mine.'\n")
    assert load("SIDESTREAM_X", ("handlers.jobs.builtin", "functions_of_a_test"))["steps"].description == "Mine."


def test_what_pretends_to_be_something_else_is_left_alone(module: Path) -> None:
    lies = "class Lies:\n    @property\n    def __class__(self): raise RuntimeError('outside of a request')\nlies = Lies()\n"
    module.write_text(MINE + lies)
    assert list(loaded()) == ["mine"]


HERE = r" \(.*functions_of_a_test\.py, line {}\)$"
IMPORTS = {
    "an error": ("\n1 / 0", "ZeroDivisionError: division by zero" + HERE.format(2)),
    "a missing import": ("import no_such_package", "ModuleNotFoundError: No module named 'no_such_package'" + HERE.format(1)),
    "no Python": ("def", r"SyntaxError: invalid syntax \(functions_of_a_test.py, line 1\)$"),
    "sys.exit": ("import sys\nsys.exit(3)", "SystemExit: 3" + HERE.format(2)),
    "an interrupt": ("raise KeyboardInterrupt", "KeyboardInterrupt" + HERE.format(1)),
    "a cancellation": ("import asyncio\nraise asyncio.CancelledError", "CancelledError" + HERE.format(2)),
    "lines and escapes": (
        r"raise ValueError('one\ntwo\r\x1b[31m\x9b\u202e')",
        r"ValueError: one two  \[31m  " + HERE.format(1),
    ),
    "no text": ("class E(Exception):\n    def __str__(self): 1 / 0\nraise E", "E" + HERE.format(3)),
    "a generator": (
        "from sidecar.functions import function\n@function\ndef mine():\n    yield 1",
        "TypeError: mine is a generator: a function returns its result, and reports with on_progress",
    ),
}


@pytest.mark.parametrize(("source", "why"), IMPORTS.values(), ids=IMPORTS.keys())
def test_a_module_that_can_t_be_imported_is_refused_with_one_line(module: Path, source: str, why: str) -> None:
    module.write_text(source)
    with pytest.raises(ValueError, match=f"^SIDESTREAM_X: functions_of_a_test can't be imported: {why}") as raised:
        loaded()
    assert "\n" not in str(raised.value)
    assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", ["no_such_module", "handlers.jobs.no_such", "handlers.no.such"])
def test_a_module_that_is_missing_is_refused(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"^SIDESTREAM_X: {name} can't be imported: ModuleNotFoundError: No module named"
    ) as raised:
        load("SIDESTREAM_X", (name,))
    assert "line" not in str(raised.value)


@pytest.mark.parametrize("source", ["", "def mine(): 'It lacks the decorator.'\n"], ids=["empty", "without a decorator"])
def test_a_module_without_functions_is_refused(module: Path, source: str) -> None:
    module.write_text(source)
    with pytest.raises(ValueError, match=r"^SIDESTREAM_X: there are no functions in functions_of_a_test"):
        loaded()


# -- running


async def test_a_function_reports_only_if_it_takes_on_progress() -> None:
    @function
    def reports(on_progress: OnProgress, x: int) -> int:
        on_progress("half", {"progress": 50})
        return x

    @function
    async def silent(x: int) -> int:
        await asyncio.sleep(0)
        return x

    threads = Threads(1, 1)
    for own, items in ((reports, 2), (silent, 1)):
        run = threads.run(own.call, {"x": 1}, own.timeout)
        assert len([item async for item in run]) == items

"""Any value becomes JSON, and no odd one costs the rest."""

import json
import sys
from collections import OrderedDict, UserDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from sse.errors import MissingExtra
from sse.wire.payload import CIRCULAR, MAX_DEPTH, TOO_DEEP, dumps, to_ascii


class Colour(Enum):
    RED = "red"
    ODD = 2**70


class Name(StrEnum):
    ANNA = "anna"


class Number(IntEnum):
    ONE = 1


class Pair(NamedTuple):
    left: int
    right: int


@dataclass
class Point:
    x: Any
    _hidden: int = 1


@dataclass(slots=True)
class Unset:
    x: int = field(init=False)


class Model(BaseModel):
    name: str
    value: Any = None


class Text(str):
    """A str that isn't one for orjson's keys."""


class Raises:
    def __str__(self) -> str:
        raise KeyError("no text")


class RaisingModel:
    def model_dump(self) -> dict[str, Any]:
        raise RuntimeError("no dump")


class RaisingList(list[int]):
    def __iter__(self) -> Iterator[int]:
        raise RuntimeError("no items")


class Endless:
    def model_dump(self) -> Any:
        return Endless()


class NoZone(tzinfo):
    utcoffset = dst = tzname = None  # type: ignore[assignment]


def _circle() -> list[Any]:
    circle: list[Any] = [1]
    circle += [circle, {"again": circle}]
    return circle


def _nested(levels: int) -> Any:
    value: Any = "end"
    for _ in range(levels):
        value = [value]
    return value


JSON = [
    ("text", "é\u2028\r\n\0", "é\u2028\r\n\0"),
    ("plain values", [None, True, 1, 1.5, (2, "a")], [None, True, 1, 1.5, [2, "a"]]),
    ("NaN and infinities", [float("nan"), float("inf"), -float("inf")], [None, None, None]),
    ("integers of 64 bits", [2**64 - 1, -(2**63)], [2**64 - 1, -(2**63)]),
    ("integers over 64 bits", [2**64, -(2**63) - 1, 10**4000], [2**64, -(2**63) - 1, 10**4000]),
    ("an integer that Python doesn't write", [1, 10**5000], [1, "<int>"]),
    ("datetime", datetime(2024, 1, 2, 3, 4, 5, 6), "2024-01-02T03:04:05.000006"),
    ("date and time", [date(2024, 1, 2), time(3)], ["2024-01-02", "03:00:00"]),
    ("datetime with an offset", datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=1))), "2024-01-02T00:00:00+01:00"),
    ("time with an offset", time(3, tzinfo=timezone(timedelta(hours=1))), "03:00:00+01:00"),
    ("datetime in a zone that has no offset", [1, datetime(2024, 1, 2, tzinfo=NoZone())], [1, "<datetime>"]),
    ("timedelta", timedelta(seconds=1), "0:00:01"),
    ("enums", [Colour.RED, Name.ANNA, Number.ONE], ["red", "anna", 1]),
    ("an enum of a long integer", Colour.ODD, 2**70),
    ("dataclass", Point(Point(1)), {"x": {"x": 1}}),
    ("dataclass with an odd value", Point({1: Point("\ud800")}), {"x": {"1": {"x": "\ufffd"}}}),
    ("dataclass with an empty slot", [1, Unset()], [1, "<Unset>"]),
    ("a dataclass itself, not an instance", [2**70, Point], [2**70, str(Point)]),
    ("pydantic model", Model(name="a", value={"b": Decimal("1.10")}), {"name": "a", "value": {"b": "1.10"}}),
    ("pydantic model with an odd value", Model(name="a", value={1: "\ud800"}), {"name": "a", "value": {"1": "\ufffd"}}),
    ("a pydantic model itself, not an instance", Model, str(Model)),
    ("named tuple", Pair(1, 2), [1, 2]),
    ("mappings", [OrderedDict(a=1), UserDict(a=2), MappingProxyType({"a": 3})], [{"a": 1}, {"a": 2}, {"a": 3}]),
    ("sets are sorted", [{3, 1, 2}, frozenset("cab")], [[1, 2, 3], ["a", "b", "c"]]),
    ("sets without an order of their own", {"b", 2, "a", 1, None}, [None, 1, 2, "a", "b"]),
    ("other collections", [deque([1, 2]), range(3), {"a": 1}.values()], [[1, 2], [0, 1, 2], [1]]),
    ("bytes that are text", [b"\xc3\xa9", bytearray(b"a"), memoryview(b"b")], ["é", "a", "b"]),
    ("bytes that aren't", b"\xff\xfe", "//4="),
    ("exception", ValueError("no"), {"type": "ValueError", "message": "no"}),
    ("UUID", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ("Decimal, Path, complex", [Decimal("0.10"), Path("/a"), 1j], ["0.10", "/a", "1j"]),
    ("a path that isn't UTF-8", Path("/a\udcff"), "/a\ufffd"),
    ("keys that are no text", {2: "a", None: "b", True: "c"}, {"2": "a", "null": "b", "true": "c"}),
    ("keys that are objects", {date(2024, 1, 2): 1, Colour.RED: 2, (1, "a"): 3, UUID(int=1): 4, 2**70: 5},
     {"2024-01-02": 1, "red": 2, '[1,"a"]': 3, str(UUID(int=1)): 4, str(2**70): 5}),
    ("keys that are a kind of text", {Text("a"): 1, Name.ANNA: 2}, {"a": 1, "anna": 2}),
    ("lone surrogates", ["a\ud83d", {"\udc00b": 1}], ["a\ufffd", {"\ufffdb": 1}]),
    ("surrogates in pairs, and one too many", "\ud83d\ude00\ud83d", "\U0001f600\ufffd"),
    ("circle", _circle(), [1, CIRCULAR, {"again": CIRCULAR}]),
    ("the same thing twice is no circle", [[shared := [2**70], shared], shared], [[[2**70], [2**70]], [2**70]]),
    ("an object that can't be looked at", [1, Raises(), RaisingModel()], [1, "<Raises>", "<RaisingModel>"]),
    ("a list that can't be looked at", [1, 2**70, RaisingList([1])], [1, 2**70, "<RaisingList>"]),
    ("JSON made elsewhere", orjson.Fragment(b'{"a":\r\n1}'), {"a": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), [case[1:] for case in JSON], ids=[case[0] for case in JSON])
def test_value_becomes_json(value: Any, expected: Any) -> None:
    written = dumps(value)
    assert json.loads(written) == expected
    assert b"\n" not in written
    assert b"\r" not in written


def test_text_is_written_as_utf8_without_escapes() -> None:
    assert dumps({"é": "\U0001f600\u2028"}) == '{"é":"\U0001f600\u2028"}'.encode()


def test_one_odd_value_leaves_the_others_as_they_are() -> None:
    ordinary = [datetime(2024, 1, 2, 3, 4, 5, 6), UUID(int=1), Point(1), {"a"}, b"a", Colour.RED, float("nan"), None]
    assert json.loads(dumps([ordinary, "\ud800"])) == [json.loads(dumps(ordinary)), "\ufffd"]


@pytest.mark.parametrize("levels", [MAX_DEPTH + 1, 300, 100_000])
def test_nesting_ends_somewhere(levels: int) -> None:
    written = dumps([_nested(levels), 2**70])
    assert written.startswith(b"[" * MAX_DEPTH + b'"' + TOO_DEEP.encode())


def test_nesting_of_dictionaries_and_objects_ends_somewhere() -> None:
    assert dumps(Endless()) == b'"%b"' % TOO_DEEP.encode()
    circle = Point(None)
    circle.x = {"a": circle}
    assert dumps(circle) == b'{"x":{"a":"%b"}}' % CIRCULAR.encode()


def test_deep_stack_of_the_caller_is_survived() -> None:
    def deeper(frames: int) -> bytes:
        return deeper(frames - 1) if frames else dumps([_nested(90), 2**70])

    here = 0
    frame = sys._getframe()
    while frame.f_back is not None:
        here, frame = here + 1, frame.f_back
    written = json.loads(deeper(sys.getrecursionlimit() - here - 120))
    assert written[1] == 2**70


texts = st.text(st.integers(0, 0x10FFFF).map(chr) | st.integers(0xD800, 0xDFFF).map(chr), max_size=5)
leaves = (st.none(), st.integers(), st.floats(), texts, st.binary(), st.dates())
values = st.recursive(
    st.one_of(leaves),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_anything_becomes_one_line_of_json(value: Any) -> None:
    written = dumps(value)
    json.loads(written)
    written.decode()
    assert not set(b"\r\n") & set(written)


ASCII = [
    ("text", "Grüße", "Grusse"),
    ("lists, tuples and keys", {"é": ["ü", ("ß", {"ñ": "ø"})]}, {"e": ["u", ("ss", {"n": "o"})]}),
    ("what is no text stays", [1, 2**70, 1.5, True, None, UUID(int=1)], [1, 2**70, 1.5, True, None, UUID(int=1)]),
    ("objects that hold text", [Model(name="é"), Point("ü"), {"ø"}, Path("ñ"), "ß".encode()],
     [{"name": "e", "value": None}, {"x": "u"}, ["o"], "n", "ss"]),
    ("enum and exception", [Colour.RED, ValueError("é")], ["red", {"type": "ValueError", "message": "e"}]),
    ("keys that are no text", {1: "é", None: 2}, {"1": "e", "null": 2}),
    ("lone surrogates", "a\ud800b", "ab"),
    ("circle", _circle(), [1, CIRCULAR, {"again": CIRCULAR}]),
]  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), [case[1:] for case in ASCII], ids=[case[0] for case in ASCII])
def test_value_becomes_ascii(value: Any, expected: Any) -> None:
    pytest.importorskip("anyascii")
    assert to_ascii(value) == expected
    assert dumps(to_ascii(value)).isascii()


def test_missing_anyascii_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyascii", None)
    with pytest.raises(MissingExtra, match=r"pip install 'sidestream\[ascii\]'"):
        to_ascii("é")

"""Whatever a handler reasonably yields becomes JSON; what has no JSON form is refused."""

import json
from asyncio import CancelledError
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

from sse.errors import Unwritable
from sse.wire.payload import dumps, fragment


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


class Kind(float):
    """A float that isn't one for orjson, as numpy's are."""


class Raises:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


class Raising(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


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


def circle() -> list[Any]:
    """Two ways lead round, so that to go all ways would take for ever."""
    circle: list[Any] = [1]
    circle += [circle, {"again": circle}]
    return circle


def ring() -> Point:
    point = Point(None)
    point.x = {"a": point}
    return point


def nested(levels: int) -> Any:
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
    ("datetime", datetime(2024, 1, 2, 3, 4, 5, 6), "2024-01-02T03:04:05.000006"),
    ("date and time", [date(2024, 1, 2), time(3)], ["2024-01-02", "03:00:00"]),
    ("datetime with an offset", datetime(2024, 1, 2, tzinfo=timezone(timedelta(hours=1))), "2024-01-02T00:00:00+01:00"),
    ("time with an offset", time(3, tzinfo=timezone(timedelta(hours=1))), "03:00:00+01:00"),
    ("timedelta", timedelta(seconds=1), "0:00:01"),
    ("kinds of numbers", [Kind(1.5), Number.ONE, Kind("nan")], [1.5, 1, None]),
    ("enums", [Colour.RED, Name.ANNA, Number.ONE], ["red", "anna", 1]),
    ("an enum of a long integer", Colour.ODD, 2**70),
    ("dataclass", Point(Point(1)), {"x": {"x": 1}}),
    ("dataclass with an odd value", Point({1: Point("\ud800")}), {"x": {"1": {"x": "\ufffd"}}}),
    ("a dataclass itself, not an instance", [2**70, Point], [2**70, str(Point)]),
    ("pydantic model", Model(name="a", value={"b": Decimal("1.10")}), {"name": "a", "value": {"b": "1.10"}}),
    ("pydantic model with an odd value", Model(name="a", value={1: "\ud800"}), {"name": "a", "value": {"1": "\ufffd"}}),
    ("a pydantic model itself, not an instance", Model, str(Model)),
    ("named tuple", Pair(1, 2), [1, 2]),
    ("mappings", [OrderedDict(a=1), UserDict(a=2), MappingProxyType({"a": 3})], [{"a": 1}, {"a": 2}, {"a": 3}]),
    ("other collections", [deque([1, 2]), range(3), {"a": 1}.values(), {1}], [[1, 2], [0, 1, 2], [1], [1]]),
    ("bytes that are text", [b"\xc3\xa9", bytearray(b"a"), memoryview(b"b")], ["é", "a", "b"]),
    ("exception", ValueError("no"), {"type": "ValueError", "message": "no"}),
    ("UUID", UUID(int=1), "00000000-0000-0000-0000-000000000001"),
    ("Decimal, Path, complex", [Decimal("0.10"), Path("/a"), 1j], ["0.10", "/a", "1j"]),
    ("a path that isn't UTF-8", Path("/a\udcff"), "/a\ufffd"),
    ("keys that are no text", {2: "a", None: "b", True: "c"}, {"2": "a", "null": "b", "true": "c"}),
    ("keys that are objects", {date(2024, 1, 2): 1, Colour.RED: 2, UUID(int=1): 3, 1.5: 4},
     {"2024-01-02": 1, "red": 2, str(UUID(int=1)): 3, "1.5": 4}),
    ("keys that are a kind of text", {Text("a"): 1, Name.ANNA: 2}, {"a": 1, "anna": 2}),
    ("lone surrogates", ["a\ud83d", {"\udc00b": 1}], ["a\ufffd", {"\ufffdb": 1}]),
    ("surrogates in pairs, and one too many", "\ud83d\ude00\ud83d", "\U0001f600\ufffd"),
    ("the same thing twice is no circle", [[shared := [2**70], shared], shared], [[[2**70], [2**70]], [2**70]]),
    ("JSON made elsewhere", orjson.Fragment(b'{"a":\r\n1}'), {"a": 1}),
    ("JSON made elsewhere, and an odd value", [orjson.Fragment(b'{"a":\r\n1}'), 2**70], [{"a": 1}, 2**70]),
    ("as deep as orjson goes", nested(254), nested(254)),
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


REFUSED = [
    ("a list that holds itself", circle(), "Recursion limit reached"),
    ("a dataclass that holds itself", ring(), "maximum recursion depth exceeded"),
    ("an object whose form is like itself", Endless(), "maximum recursion depth exceeded"),
    ("255 levels", nested(255), "Recursion limit reached"),
    ("100,000 levels", nested(100_000), "maximum recursion depth exceeded"),
    ("255 levels and an odd value", [nested(254), 2**70], "Recursion limit reached"),
    ("bytes that are no text", b"\xff\xfe", "'utf-8' codec can't decode byte 0xff"),
    ("a key that is a list", {(1, "a"): 3}, "Dict key must a type serializable"),
    ("a key over 64 bits", {2**70: 5}, "Dict integer key must be within 64-bit range"),
    ("an integer that Python doesn't write", 10**5000, "Exceeds the limit"),
    ("a datetime in a zone that has no offset", datetime(2024, 1, 2, tzinfo=NoZone()), "TypeError"),
    ("a dataclass with an empty slot", Unset(), "object has no attribute 'x'"),
    ("an object without a text", Raises(KeyError("no text")), "KeyError: 'no text'"),
    ("an object that would end the process", Raises(SystemExit(1)), "SystemExit: 1"),
    ("an object that would interrupt the loop", Raises(KeyboardInterrupt("now")), "KeyboardInterrupt: now"),
    ("an object that would cancel its reader", Raises(CancelledError("now")), "CancelledError: now"),
    ("an object that raises what can't be shown", Raises(Raising()), "Raising (its message can't be shown"),
    ("a model that can't be dumped", RaisingModel(), "RuntimeError: no dump"),
    ("a list that can't be iterated", [2**70, RaisingList([1])], "RuntimeError: no items"),
]


@pytest.mark.parametrize(("value", "why"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_what_has_no_json_form_is_refused_with_the_reason(value: Any, why: str) -> None:
    for inside in (value, {"a": [1, value]}):
        with pytest.raises(Unwritable) as raised:
            dumps(inside)
        assert str(raised.value).startswith(f"this {type(inside).__name__} has no JSON form: ")
        assert why in str(raised.value) or "recursion" in str(raised.value).lower()
        assert raised.value.__cause__ is not None


def test_a_fragment_is_the_values_json_or_the_reason_why_there_is_none() -> None:
    assert dumps({"a": fragment({1: date(2026, 1, 2)}), "b": 1}) == b'{"a":{"1":"2026-01-02"},"b":1}'
    assert str(fragment(b"\xff")).startswith("this bytes has no JSON form: ")


texts = st.text(st.integers(0, 0x10FFFF).map(chr) | st.integers(0xD800, 0xDFFF).map(chr), max_size=5)
leaves = (st.none(), st.integers(), st.floats(), texts, st.text().map(str.encode), st.dates())
values = st.recursive(
    st.one_of(leaves),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts | st.integers(-(2**63), 2**64 - 1), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None)
@given(values)
def test_anything_becomes_one_line_of_json(value: Any) -> None:
    written = dumps(value)
    json.loads(written)
    written.decode()
    assert not set(b"\r\n") & set(written)

"""A JSON document as it comes in: what it says, what it weighs, and what is refused before anything is made of it."""

import json
import sys
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.wire.document import MAX_LEVELS, MAX_VALUES, loads, too_many, values

TEXTS = st.text(st.sampled_from('a"\\,[]{}: \n\x00é€😀')) | st.text()
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner),
    max_leaves=60,
)


def count(value: Any) -> int:
    """How many values and names there are."""
    if isinstance(value, dict):
        return 1 + len(value) + sum(map(count, value.values()))
    return 1 + (sum(map(count, value)) if isinstance(value, list) else 0)


def size(value: Any) -> int:
    """Bytes that a value takes, with the collector's header and the allocator's rounding up."""
    if isinstance(value, dict):
        own = sys.getsizeof(value) + 16 + sum(size(name) + size(item) for name, item in value.items())
    elif isinstance(value, list):
        own = sys.getsizeof(value) + 16 + sum(map(size, value))
    else:
        own = sys.getsizeof(value)
        own += len(value.encode()) if isinstance(value, str) and not value.isascii() else 0
    return own + 15


@given(JSON, st.booleans())
def test_a_document_says_what_was_written_and_its_values_are_never_counted_short(value: Any, ascii: bool) -> None:
    document = json.dumps(value, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    weighed: list[int] = []
    try:
        expected = orjson.loads(document)
    except orjson.JSONDecodeError:  # a surrogate that stands alone
        return
    read = loads(document, weighed.append)
    assert read == json.loads(document)
    assert count(read) == count(expected) <= values(document)
    assert size(read) <= weighed[0] + 64


@pytest.mark.parametrize(
    "document",
    [
        b"[" + b"[]," * 49_000 + b"[]]",
        b"[" + b"{}," * 49_000 + b"{}]",
        b"[" + b'{"a":1},' * 20_000 + b"{}]",
        b"[" + b",".join(b'{"%d":1}' % number for number in range(20_000)) + b"]",
        b"[" + b"12345678," * 90_000 + b"1]",
        b"[" + b"1.5," * 90_000 + b"1]",
        b"[" + b'"ab",' * 90_000 + b"1]",
        b"[" + '"é",'.encode() * 90_000 + b"1]",
        b"[" + '"€a",'.encode() * 90_000 + b"1]",
        b"{" + b",".join(b'"%x":1' % number for number in range(40_000)) + b"}",
        ('["' + "x" * 1_000_000 + '😀"]').encode(),
        b'["' + b"x" * 1_000_000 + b'\\ud83d\\ude00"]',
        ('["' + "x" * 1_000_000 + 'é"]').encode(),
        ('["' + "€" * 300_000 + '"]').encode(),
        b"[" + b",".join([b"[" * 200 + b"]" * 200] * 400) + b"]",
    ],
    ids=lambda document: document[:12].decode("utf-8", "replace"),
)
def test_the_weight_is_what_it_takes_at_the_most(document: bytes) -> None:
    weighed: list[int] = []
    value = loads(document, weighed.append)
    assert size(value) <= weighed[0] <= 10 * size(value)


def test_the_weight_is_told_before_anything_is_made() -> None:
    class TooMuch(Exception):
        pass

    def refuse(weight: int) -> None:
        raise TooMuch

    with pytest.raises(TooMuch):
        loads(b"no JSON at all", refuse)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"NaN", "is not JSON"),
        (b'"\xff"', "is not JSON"),
        (b'"\\ud800"', "is not JSON"),
        (b"[" * (MAX_LEVELS + 1) + b"]" * (MAX_LEVELS + 1), "levels"),
        (b"[" * 1025 + b"]" * 1025, "is not JSON"),
        (b"[" + b"[]," * MAX_VALUES + b"1]", "values"),
        (b'["a' + b'","a' * MAX_VALUES + b'"]', "values"),
        (b'["' + b'","' * MAX_VALUES + b'"]', "values"),
        (b'["\\"' + b'","\\"' * MAX_VALUES + b'"]', "values"),
        (b"[" + b"9" * 5000 + b"]", "is not JSON"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[:12].decode("latin-1"),
)
def test_what_is_refused(document: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        loads(document)


@pytest.mark.parametrize(
    "text",
    ["1,2,3\n" * 100_000, '[{"a": [1]}]' * 50_000, '"' * 200_000, '\\"' * 200_000, "\\" * 200_001],
    ids=["a table", "code", "quotes", "quotes escaped", "backslashes"],
)
def test_what_stands_in_a_text_is_no_value(text: str) -> None:
    document = json.dumps({"prompt": text}).encode()
    assert loads(document) == {"prompt": text}
    assert values(document) <= 4


@pytest.mark.parametrize("levels", [1, MAX_LEVELS])
def test_levels_that_can_be_written_again(levels: int) -> None:
    value: Any = loads(b"[" * levels + b"]" * levels)
    for _ in range(levels - 1):
        (value,) = value
    assert value == []


@pytest.mark.parametrize(
    "number",
    [2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**30 + 1, -(10**30) - 1, int("9" * 300)],
    ids=lambda number: str(number)[:24],
)
def test_an_integer_keeps_all_its_digits(number: int) -> None:
    assert loads(b'{"id": [%d, "%d", 0.5]}' % (number, number)) == {"id": [number, str(number), 0.5]}


@pytest.mark.parametrize("text", ["0.1234567890123456789012", "1e300", "12345678901234567890.5"])
def test_other_numbers_are_what_they_are_to_everybody(text: str) -> None:
    assert loads(text.encode()) == float(text)


def test_integers_keep_their_digits_among_many_values_too() -> None:
    document = b"[" + b"1," * 2000 + b"123456789012345678901234567890,0.12345678901234567890123]"
    assert loads(document)[-2:] == [123456789012345678901234567890, 0.12345678901234567890123]


@pytest.mark.parametrize(
    ("document", "more"),
    [
        (b"[" + b"1," * MAX_VALUES + b"1]", True),
        (b"[" + b"1," * 1000 + b"1]", False),
        (b'["' + b"," * MAX_VALUES + b'"]', False),
    ],
    ids=["more", "fewer", "commas in a text"],
)
def test_whether_there_are_too_many_values_is_known_without_reading_them(document: bytes, more: bool) -> None:
    assert too_many(document) is more

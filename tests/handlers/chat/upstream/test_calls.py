"""Tool calls, assembled from the fragments of several dialects."""

from typing import Any

import pytest

from handlers.chat.items import Call, CallBegun, CallDelta
from handlers.chat.upstream.calls import Calls


def fragment(index: int | None = 0, id: str | None = None, name: str | None = None, arguments: Any = None) -> dict[str, Any]:
    return {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}


ONE = [("a", "f", "{}")]
TWO = [("a", "f", '{"x":1}'), ("b", "g", '{"y":2}')]

CASES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, str]]]] = {
    "whole": ([fragment(0, "a", "f", "{}")], ONE),
    "as OpenAI does": (
        [
            fragment(0, "a", "f", ""),
            fragment(0, None, None, '{"x"'),
            fragment(0, None, None, ":1}"),
            fragment(1, "b", "g", ""),
            fragment(1, None, None, '{"y":2}'),
        ],
        TWO,
    ),
    "id and name repeated": (
        [fragment(0, "a", "f", '{"x"'), fragment(0, "a", "f", ":1}"), fragment(1, "b", "g", '{"y":2}')],
        TWO,
    ),
    "every index 0": (
        [fragment(0, "a", "f", '{"x"'), fragment(0, None, None, ":1}"), fragment(0, "b", "g", '{"y":2}')],
        TWO,
    ),
    "no index": (
        [fragment(None, "a", "f", '{"x":'), fragment(None, None, None, "1}"), fragment(None, "b", "g", '{"y":2}')],
        TWO,
    ),
    "mixed up": (
        [
            fragment(0, "a", "f", '{"x"'),
            fragment(1, "b", "g", '{"y"'),
            fragment(0, None, None, ":1}"),
            fragment(1, None, None, ":2}"),
        ],
        TWO,
    ),
    "empty ids": ([fragment(0, "a", "f", "{"), fragment(0, "", "", "}")], ONE),
    "name in pieces": (
        [fragment(0, "a", "get_"), fragment(0, None, "time"), fragment(0, None, None, "{}")],
        [("a", "get_time", "{}")],
    ),
    "arguments as an object": ([fragment(0, "a", "f", {"x": 1})], [("a", "f", '{"x":1}')]),
    "no arguments": ([fragment(0, "a", "f")], [("a", "f", "")]),
    "no ids at all": (
        [fragment(0, None, "f", "{}"), fragment(1, None, "g", "{}")],
        [("made_0", "f", "{}"), ("made_1", "g", "{}")],
    ),
    "no ids, every index 0": (
        [fragment(0, None, "f", "{}"), fragment(0, None, "g", "{}")],
        [("made_0", "f", "{}"), ("made_1", "g", "{}")],
    ),
    "no function": ([{"index": 0, "id": "a"}, fragment(0, None, "f", "{}")], ONE),
    "function null": ([{"index": 0, "id": "a", "function": None}, fragment(0, None, "f", "{}")], ONE),
}


@pytest.mark.parametrize(("fragments", "expected"), CASES.values(), ids=CASES.keys())
def test_fragments_become_calls(fragments: list[dict[str, Any]], expected: list[tuple[str, str, str]]) -> None:
    calls = Calls("made_")
    deltas = [delta for one in fragments for delta in calls.feed([one])] + calls.end()
    assert [(call.id, call.name, call.arguments) for call in calls.whole()] == expected
    begun = [delta for delta in deltas if isinstance(delta, CallBegun)]
    assert [(delta.index, delta.id, delta.name) for delta in begun] == [
        (index, id, name) for index, (id, name, _) in enumerate(expected)
    ]
    for call in calls.whole():
        pieces = [delta.arguments for delta in deltas if isinstance(delta, CallDelta) and delta.index == call.index]
        assert "".join(pieces) == call.arguments


def test_a_call_goes_back_to_the_model_in_its_own_shape() -> None:
    call = Call(0, "a", "f", "{}")
    assert call.message() == {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}

"""Objects that come in pieces."""

import time
from typing import Any

import pytest

from handlers.chat.fields import MANY, Fields, Numbered, Pieces

SIGNED = {"type": "reasoning.text", "signature": "c2ln", "index": 0}

CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "texts": ([{"a": "x"}, {"a": "y", "b": "z"}], {"a": "xy", "b": "z"}),
    "halves of a surrogate pair": ([{"a": "\ud83d"}, {"a": "\ude00"}], {"a": "😀"}),
    "null": ([{"a": None}, {"a": "x"}, {"a": None}], {"a": "x"}),
    "names": ([{"type": "t", "id": "i"}, {"type": "t", "id": "i"}], {"type": "t", "id": "i"}),
    "signatures": ([{"thought_signature": "s"}, {"thought_signature": "s"}], {"thought_signature": "s"}),
    "numbers and flags": ([{"a": 1, "b": True}, {"a": 2, "b": False}], {"a": 2, "b": False}),
    "types that change": ([{"a": "x"}, {"a": {"b": 1}}], {"a": {"b": 1}}),
    "objects": ([{"a": {"b": "x"}}, {"a": {"b": "y", "c": 1}}], {"a": {"b": "xy", "c": 1}}),
    "entries with an index": (
        [
            {"a": [{"type": "reasoning.text", "text": "h", "index": 0, "format": "f"}]},
            {"a": [{"type": "reasoning.text", "text": "m", "index": 0, "format": "f"}]},
            {"a": [SIGNED, {"type": "reasoning.encrypted", "data": "x", "index": 1}]},
        ],
        {
            "a": [
                {"type": "reasoning.text", "text": "hm", "index": 0, "format": "f", "signature": "c2ln"},
                {"type": "reasoning.encrypted", "data": "x", "index": 1},
            ]
        },
    ),
    "entries without": (
        [{"a": [{"type": "thinking", "thinking": "h"}]}, {"a": [{"type": "thinking", "thinking": "m", "signature": "s"}]}],
        {"a": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
    ),
    "what is signed has ended": (
        [{"a": [{"type": "thinking", "thinking": "h", "signature": "s"}]}, {"a": [{"type": "thinking", "thinking": "m"}]}],
        {"a": [{"type": "thinking", "thinking": "h", "signature": "s"}, {"type": "thinking", "thinking": "m"}]},
    ),
    "parts in parts": (
        [{"a": [{"type": "thinking", "thinking": [{"type": "text", "text": t}]}]} for t in "hm"],
        {"a": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}]},
    ),
    "what comes together is not one": (
        [{"a": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]}],
        {"a": [{"type": "text", "text": "x"}, {"type": "text", "text": "y"}]},
    ),
    "whole entries": ([{"a": [{"url": "x"}]}, {"a": [{"url": "y"}]}], {"a": [{"url": "x"}, {"url": "y"}]}),
    "what is no object": ([{"a": ["x"]}, {"a": ["x", 1, None]}], {"a": ["x", "x", 1, None]}),
}


@pytest.mark.parametrize(("fragments", "whole"), CASES.values(), ids=CASES.keys())
def test_fragments_become_a_whole(fragments: list[dict[str, Any]], whole: dict[str, Any]) -> None:
    fields = Fields()
    for fragment in fragments:
        fields.add(fragment)
    assert fields.whole() == whole


def test_the_entries_of_several_messages_are_numbered_on() -> None:
    numbered = Numbered()
    pieces: list[dict[str, Any]] = [
        {"details": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]},
        {"details": [{"index": 1, "text": "c"}], "n": 1},
    ]
    assert [numbered.fields(piece) for piece in pieces] == pieces
    numbered.end()
    second: dict[str, Any] = {
        "reasoning": "b",
        "details": [{"index": 0, "text": "c"}, "x", {"text": "y"}],
        "other": [{"index": 0}],
    }
    assert numbered.fields(second) == {**second, "details": [{"index": 2, "text": "c"}, "x", {"text": "y"}]}
    numbered.end()
    assert numbered.fields({"details": [{"index": 0}]}) == {"details": [{"index": 3}]}


def test_twice_as_many_pieces_take_twice_as_long() -> None:
    def seconds(count: int) -> float:
        fields = Fields()
        began = time.thread_time()
        for _ in range(count):
            fields.add({"reasoning": "x" * 20, "details": [{"index": 0, "text": "x" * 20}]})
        fields.whole()
        return time.thread_time() - began

    small = min(seconds(2_000) for _ in range(3))
    assert min(seconds(16_000) for _ in range(3)) < 30 * small


@pytest.mark.parametrize(("fragments", "whole"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("most", [1, 2, 3])
def test_it_makes_no_difference_when_pieces_are_put_together(
    fragments: list[dict[str, Any]], whole: dict[str, Any], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("handlers.chat.fields.MANY", most)
    fields = Fields()
    for fragment in fragments:
        fields.add(fragment)
    assert fields.whole() == whole


def test_half_a_surrogate_pair_waits_for_the_other_half() -> None:
    """Wherever the pieces were put together before."""
    pieces, halves = Pieces(), ("\ud83d", "\ude00")
    for number in range(3 * MANY):
        pieces.add(halves[number % 2])
    assert pieces.whole() == "\U0001f600" * (3 * MANY // 2)


def test_many_pieces_take_little_more_than_their_text() -> None:
    pieces = Pieces()
    most = 0.0
    for number in range(1, 50_001):
        pieces.add("word")
        if number % 1000 == 0:
            most = max(most, pieces.size / (4 * number))
    assert most < 3
    assert pieces.whole() == "word" * 50_000

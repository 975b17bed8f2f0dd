"""Tool calls, assembled from the fragments of many dialects."""

import time
from typing import Any

import pytest

from handlers.chat.items import Call, CallBegun, CallDelta, UpstreamFailed
from handlers.chat.upstream.calls import MAX_ID, Calls


def fragment(index: Any = 0, id: Any = None, name: Any = None, arguments: Any = None, **fields: Any) -> dict[str, Any]:
    return {"index": index, "id": id, "function": {"name": name, "arguments": arguments}, **fields}


X, Y = '{"x":1}', '{"y":2}'
X1, X2 = '{"x"', ":1}"
ONE = [("a", "f", X)]
MADE = [("made_0", "f", X)]
TWO = [("a", "f", X), ("b", "g", Y)]
TWICE = [("a", "f", X), ("b", "f", Y)]

CASES: dict[str, tuple[list[dict[str, Any]], list[tuple[str, str, str]]]] = {
    "whole": ([fragment(0, "a", "f", X)], ONE),
    "as OpenAI does": (
        [
            fragment(0, "a", "f", ""),
            fragment(0, None, None, X1),
            fragment(0, None, None, X2),
            fragment(1, "b", "g", ""),
            fragment(1, None, None, Y),
        ],
        TWO,
    ),
    "mixed up": (
        [
            fragment(0, "a", "f", X1),
            fragment(1, "b", "g", '{"y"'),
            fragment(0, None, None, X2),
            fragment(1, None, None, ":2}"),
        ],
        TWO,
    ),
    "mixed up, without an index": (
        [fragment(None, "a", "f", X1), fragment(None, "b", "g", Y), fragment(None, "a", None, X2)],
        TWO,
    ),
    "mixed up, every index 0": ([fragment(0, "a", "f", X1), fragment(0, "b", "g", Y), fragment(0, "a", None, X2)], TWO),
    # -- what is repeated
    "id and name in every piece": ([fragment(0, "a", "f", X1), fragment(0, "a", "f", X2), fragment(1, "b", "g", Y)], TWO),
    "name in every piece, with new ids": ([fragment(0, "a", "f", X1), fragment(0, "z", "f", X2)], ONE),
    "name in every piece, nothing in the first": ([fragment(0, "a", "f", ""), fragment(0, "z", "f", X)], ONE),
    "id and name again at the end, with nothing": ([fragment(0, "a", "f", X), fragment(0, "a", "f", "")], ONE),
    "everything, and every piece counted": ([fragment(0, "a", "f", X1), fragment(1, "a", "f", X2)], ONE),
    "the whole again at the end, then a call": (
        [fragment(0, "a", "f", X), fragment(0, "a", "f", ""), fragment(1, "b", "g", Y)],
        TWO,
    ),
    # -- what changes
    "a new id in every piece": ([fragment(0, "a", "f", ""), fragment(0, "y", None, X1), fragment(0, "z", "", X2)], ONE),
    "a new index in every piece": ([fragment(0, "a", "f", ""), fragment(1, None, None, X1), fragment(2, None, None, X2)], ONE),
    "a new id and index in every piece": (
        [fragment(0, "a", "f", ""), fragment(1, "y", None, X1), fragment(2, "z", "", X2)],
        ONE,
    ),
    "an index in the first piece alone": ([fragment(0, "a", "f", ""), fragment(None, None, None, X)], ONE),
    "an index from 1": ([fragment(1, "a", "f", ""), fragment(1, None, None, X)], ONE),
    # -- what comes late
    "an id": ([fragment(0, None, "f", ""), fragment(0, "a", None, X)], ONE),
    "an id, after the arguments began": ([fragment(0, None, "f", X1), fragment(0, "a", None, X2)], MADE),
    "a name": ([fragment(0, "a", None, ""), fragment(0, None, "f", X)], ONE),
    "a name, after all arguments": ([fragment(0, "a", None, X), fragment(0, None, "f", "")], ONE),
    "a name, of the second call": (
        [fragment(0, "a", "f", X), fragment(1, "b", None, '{"y"'), fragment(1, None, "g", ":2}")],
        TWO,
    ),
    "a name, of the second call at the same index": (
        [fragment(0, "a", "f", X), fragment(0, "b", None, Y), fragment(0, "b", "g", "")],
        TWO,
    ),
    "name in pieces": (
        [fragment(0, "a", "get_"), fragment(0, None, "time"), fragment(0, None, None, X)],
        [("a", "get_time", X)],
    ),
    # -- where one ends and the next begins
    "every index 0": ([fragment(0, "a", "f", X1), fragment(0, None, None, X2), fragment(0, "b", "g", Y)], TWO),
    "every index 0, the same tool": ([fragment(0, "a", "f", X), fragment(0, "b", "f", Y)], TWICE),
    "every index 0, in pieces": (
        [fragment(0, "a", "f", ""), fragment(0, None, None, X), fragment(0, "b", "f", ""), fragment(0, None, None, Y)],
        TWICE,
    ),
    "every index 0, without ids, in pieces": (
        [fragment(0, "", "f", ""), fragment(0, "", None, X), fragment(0, "", "f", ""), fragment(0, "", None, Y)],
        [("made_0", "f", X), ("made_1", "f", Y)],
    ),
    "every index 0, no arguments": ([fragment(0, "a", "f"), fragment(0, "b", "f")], [("a", "f", "{}"), ("b", "f", "{}")]),
    "every index 0, no arguments, without ids": (
        [fragment(0, "", "f", "{}"), fragment(0, "", "f", "{}")],
        [("made_0", "f", "{}"), ("made_1", "f", "{}")],
    ),
    "no index": ([fragment(None, "a", "f", X1), fragment(None, None, None, X2), fragment(None, "b", "g", Y)], TWO),
    "no ids": ([fragment(0, None, "f", X), fragment(1, None, "f", Y)], [("made_0", "f", X), ("made_1", "f", Y)]),
    "no ids, another tool": ([fragment(0, None, "f", X), fragment(0, None, "g", Y)], [("made_0", "f", X), ("made_1", "g", Y)]),
    "nothing but names": (
        [fragment(None, None, "f", X), fragment(None, None, "f", Y)],
        [("made_0", "f", X), ("made_1", "f", Y)],
    ),
    "another tool before the first is complete": (
        [fragment(0, "a", "f", X1), fragment(0, "b", "g", Y)],
        [("a", "f", X1), ("b", "g", Y)],
    ),
    "a ghost at the end": ([fragment(0, "a", "f", X), fragment(1, "", "", "")], ONE),
    "a ghost with an id": ([fragment(0, "a", "f", X), fragment(1, "b", "", "")], ONE),
    # -- ids
    "the same id at two indexes": ([fragment(0, "a", "f", X), fragment(1, "a", "f", Y)], [("a", "f", X), ("a_2", "f", Y)]),
    "the same id at one index": ([fragment(0, "a", "f", X), fragment(0, "a", "f", Y)], [("a", "f", X), ("a_2", "f", Y)]),
    "the same id, mixed up": (
        [fragment(0, "a", "f", ""), fragment(1, "a", "f", ""), fragment(0, None, None, X), fragment(1, None, None, Y)],
        [("a", "f", X), ("a_2", "f", Y)],
    ),
    "an id that another was given": (
        [fragment(0, "a", "f", X), fragment(1, "a", "f", Y), fragment(2, "a_2", "f", Y)],
        [("a", "f", X), ("a_2", "f", Y), ("a_2_3", "f", Y)],
    ),
    "empty ids": ([fragment(0, "a", "f", X1), fragment(0, "", "", X2)], ONE),
    # -- arguments
    "an object": ([fragment(0, "a", "f", {"x": 1})], ONE),
    "none": ([fragment(0, "a", "f")], [("a", "f", "{}")]),
    "blanks": ([fragment(0, "a", "f", " ")], [("a", "f", "{}")]),
    "null first": ([fragment(0, "a", "f", None), fragment(0, None, None, X)], ONE),
    "{} first": ([fragment(0, "a", "f", "{}"), fragment(0, None, None, X1), fragment(0, None, None, X2)], ONE),
    "{} first, and a new id in every piece": (
        [fragment(0, "a", "f", "{}"), fragment(0, "b", None, X1), fragment(0, "c", None, X2)],
        ONE,
    ),
    "braces in a text": (
        [fragment(0, "a", "f", '{"x":"}{\\"'), fragment(0, "a", "f", '}"}'), fragment(0, "b", "g", Y)],
        [("a", "f", '{"x":"}{\\"}"}'), ("b", "g", Y)],
    ),
    # -- types
    "no function": ([{"index": 0, "id": "a"}, fragment(0, None, "f", X)], ONE),
    "function null": ([{"index": 0, "id": "a", "function": None}, fragment(0, None, "f", X)], ONE),
    "a level left out": ([{"index": 0, "id": "a", "name": "f", "arguments": X}], ONE),
    "a function that is a text": ([{"index": 0, "id": "a", "function": "f"}], []),
    "a name that is a number": ([fragment(0, "a", 5, "")], []),
    "arguments that are a number": ([fragment(0, "a", "f", 5)], [("a", "f", "5")]),
    "arguments that are a list": ([fragment(0, "a", "f", [1])], [("a", "f", "[1]")]),
    "an id that is a number": ([fragment(0, 7, "f", ""), fragment(0, None, None, X)], [("7", "f", X)]),
    "an id that is a list": ([fragment(0, [1], "f", X)], MADE),
    "an index that is an object": ([fragment({}, "a", "f", X)], ONE),
    "an index that is a text": ([fragment("0", "a", "f", X1), fragment("0", None, None, X2)], ONE),
}  # fmt: skip


@pytest.mark.parametrize(("fragments", "expected"), CASES.values(), ids=CASES.keys())
def test_fragments_become_calls(fragments: list[dict[str, Any]], expected: list[tuple[str, str, str]]) -> None:
    calls = Calls("made_")
    deltas = [delta for one in fragments for delta in calls.feed([one])] + calls.end()
    whole = calls.whole()
    assert [(call.id, call.name, call.arguments) for call in whole] == expected
    begun = sorted((delta.index, delta.id, delta.name) for delta in deltas if isinstance(delta, CallBegun))
    assert begun == [(call.index, call.id, call.name) for call in whole]
    for call in whole:
        pieces = [delta.arguments for delta in deltas if isinstance(delta, CallDelta) and delta.index == call.index]
        assert "".join(pieces) == call.arguments


@pytest.mark.parametrize("fragments", [fragments for fragments, _ in CASES.values()], ids=CASES.keys())
def test_it_makes_no_difference_whether_fragments_come_one_by_one(fragments: list[dict[str, Any]]) -> None:
    one_by_one, together = Calls("made_"), Calls("made_")
    for one in fragments:
        one_by_one.feed([one])
    together.feed(fragments)
    one_by_one.end()
    together.end()
    assert one_by_one.whole() == together.whole()


NAMES: dict[str, tuple[list[str], list[str], list[str]]] = {
    "two tools without arguments": (["now", "today"], ["now", "today"], ["now", "today"]),
    "one tool in pieces": (["get_", "time"], ["get_time"], ["get_time"]),
    "one tool in pieces that are tools": (["get", "time"], ["get", "time", "gettime"], ["get", "time"]),
    "the name so far, in every piece": (["get", "get_time"], ["get_time"], ["get_time"]),
    "nobody knows them": (["get", "_time"], [], ["get_time"]),
}


@pytest.mark.parametrize(("pieces", "tools", "names"), NAMES.values(), ids=NAMES.keys())
def test_which_tools_there_are_tells_where_a_name_ends(pieces: list[str], tools: list[str], names: list[str]) -> None:
    calls = Calls("made_", tools)
    calls.feed(fragment(0, None, piece, "") for piece in pieces)
    calls.end()
    assert [call.name for call in calls.whole()] == names


@pytest.mark.parametrize("fragments", [[fragment(0, "a", None, X)], [fragment(0, "a", "f", X), fragment(1, "b", "", Y)]])
def test_a_call_that_never_gets_a_name_is_a_failure(fragments: list[dict[str, Any]]) -> None:
    calls = Calls("made_")
    calls.feed(fragments)
    with pytest.raises(UpstreamFailed, match="without a name") as caught:
        calls.end()
    assert caught.value.code == "bad_chunk"


def test_ids_are_unique_in_the_answer() -> None:
    taken: set[str] = set()
    for expected in ("a", "a_2"):
        calls = Calls("made_", (), taken)
        calls.feed([fragment(0, "a", "f", X)])
        assert [call.id for call in calls.whole()] == [expected]


SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


@pytest.mark.parametrize(
    ("id", "told"), [("x" * MAX_ID, "x" * MAX_ID), ("x" * (MAX_ID + 1), "made_0")], ids=["long", "too long"]
)
def test_an_id_has_a_limit_since_it_is_repeated_with_each_piece(id: str, told: str) -> None:
    calls = Calls("made_")
    calls.feed([fragment(0, id, "f", '{"a"'), fragment(0, id, "", ": 1}")])
    assert [(call.id, call.arguments) for call in calls.whole()] == [(told, '{"a": 1}')]


def test_a_call_goes_back_to_the_model_as_it_came() -> None:
    calls = Calls("made_")
    calls.feed([fragment(0, "a", "f", X1, **SIGNED), fragment(0, None, None, X2, type="function")])
    [call] = calls.whole()
    assert call.message() == {"id": "a", "type": "function", "function": {"name": "f", "arguments": X}, **SIGNED}
    odd = Calls("made_")
    odd.feed([{"index": 0, "id": "a", "function": {"name": "f", "arguments": X, "odd": 1}}])
    assert odd.whole()[0].message()["function"] == {"name": "f", "arguments": X, "odd": 1}


def test_a_call_in_its_own_shape() -> None:
    assert Call(0, "a", "f", "{}").message() == {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}


@pytest.mark.parametrize(
    "pieces", [['{"a": "\\\\"}'], ['{"a": "\\', '""}'], ['{"a": "}\\"', '"}'], ['{"a": "\\\\\\', '""}'], ['{"a', '": {}', "}"]]
)
def test_a_call_is_complete_when_its_arguments_are_wherever_they_are_cut(pieces: list[str]) -> None:
    made = Calls("call_")
    for piece in pieces:
        made.feed([{"index": 0, "id": "a", "function": {"name": "f", "arguments": piece}}])
        assert len(made.whole()) == 1
    made.feed([{"index": 0, "id": "b", "function": {"name": "f", "arguments": "[1]"}}])
    assert [call.arguments for call in made.whole()] == ["".join(pieces), "[1]"]


KINDS = {
    "one call in many pieces": lambda n: [fragment(0, "a", "f", "{")] + [fragment(0, "a", "f", "x")] * n,
    "many calls": lambda n: [fragment(i, f"a{i}", "f", X) for i in range(n)],
    "many calls with one id": lambda n: [fragment(0, "a", "f", X)] * n,
    "many calls without a name": lambda n: [fragment(0, "a", "f", "{")] + [fragment(i, f"a{i}", "", "x") for i in range(n)],
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_twice_as_many_fragments_take_twice_as_long(kind: Any) -> None:
    def seconds(count: int) -> float:
        fragments, calls = kind(count), Calls("made_")
        began = time.thread_time()
        calls.feed(fragments)
        calls.end()
        calls.whole()
        return time.thread_time() - began

    seconds(100)
    small = min(seconds(2_000) for _ in range(3))
    assert min(seconds(16_000) for _ in range(3)) < 30 * small  # 8 times as many; 64 times as long if it were quadratic


def test_an_id_and_a_name_that_come_with_every_piece_are_charged_once() -> None:
    """Some upstreams put a signature of kilobytes into the id."""
    sizes = []
    for id, name in ((None, None), ("i" * MAX_ID, "f")):
        calls = Calls("made_")
        calls.feed([fragment(0, "i" * MAX_ID, "f", "{"), *[fragment(0, id, name, "word")] * 1000])
        sizes.append(calls.size)
    assert MAX_ID < sizes[0] == sizes[1]

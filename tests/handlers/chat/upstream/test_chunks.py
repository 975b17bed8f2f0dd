"""One chunk's JSON, in the shapes that servers give it."""

import json
from typing import Any

import pytest

from handlers.chat.items import Chunk, UpstreamFailed
from handlers.chat.texts import joined
from handlers.chat.upstream.chunks import MAX_LEVELS, from_whole, parse
from tests.support.upstream import chunk_object


def parsed(value: Any, **options: Any) -> Chunk:
    chunk = parse(json.dumps(value).encode(), **options)
    assert chunk is not None
    return chunk


def said(chunk: Chunk) -> dict[str, Any]:
    """What the chunk says, but for what it doesn't."""
    return {name: value for name, value in chunk._asdict().items() if value and name not in ("json", "value")}


def delta(**fields: Any) -> dict[str, Any]:
    return chunk_object(fields)


THINKING = [{"type": "thinking", "thinking": [{"type": "text", "text": "h"}, {"type": "text", "text": "m"}]}]
DETAILS = [{"type": "reasoning.text", "text": "hm", "index": 0}, {"type": "reasoning.encrypted", "data": "x", "index": 1}]
CALL = {"index": 0, "id": "a", "function": {"name": "f", "arguments": ""}}

DIALECTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "content": (delta(content="x"), {"text": "x"}),
    "content null": (delta(content=None), {}),
    "content and a role": (delta(role="assistant", content="x"), {"text": "x"}),
    "content and what is null or empty": (delta(content="x", refusal=None, reasoning="", tool_calls=[]), {"text": "x"}),
    "delta null": ({"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}, {"finish_reason": "stop"}),
    "no delta": ({"choices": [{"finish_reason": "stop"}]}, {"finish_reason": "stop"}),
    "no index": ({"choices": [{"delta": {"content": "x"}}]}, {"text": "x"}),
    "an index that counts up": ({"choices": [{"index": 7, "delta": {"content": "x"}}]}, {"text": "x"}),
    "an index that is null": ({"choices": [{"index": None, "delta": {"content": "x"}}]}, {"text": "x"}),
    "the first of two": ({"choices": [{"delta": {"content": "x"}}, {"index": 1, "delta": {"content": "y"}}]}, {"text": "x"}),
    "usage, no choice": ({"choices": [], "usage": {"total_tokens": 3}}, {"usage": {"total_tokens": 3}}),
    "usage alone": ({"usage": {"total_tokens": 3}}, {"usage": {"total_tokens": 3}}),
    "usage, one empty choice": ({"choices": [{}], "usage": {"total_tokens": 3}}, {"usage": {"total_tokens": 3}}),
    "usage, one null choice": ({"choices": [None], "usage": {"total_tokens": 3}}, {"usage": {"total_tokens": 3}}),
    "usage null": (chunk_object({"content": "x"}, usage=None), {"text": "x"}),
    "usage of another shape": (chunk_object({}, usage=["n/a"]), {"usage": ["n/a"]}),
    "error null": (chunk_object({"content": "x"}, error=None), {"text": "x"}),
    "finish_reason empty": (chunk_object({"content": "x"}, ""), {"text": "x"}),
    "finish_reason null, as a text": (chunk_object({"content": "x"}, "null"), {"text": "x"}),
    "finish_reason an object": (chunk_object({"content": "x"}, {"type": "stop"}), {"text": "x"}),  # type: ignore[arg-type]
    "parts": (
        delta(content=[{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "Hel"}, "lo"]),
        {"text": "Hello", "parts": [{"type": "reference", "reference_ids": [1]}, {"type": "text", "text": "Hel"}, "lo"]},
    ),
    "one part, no list": (delta(content={"text": "x"}), {"text": "x", "parts": [{"text": "x"}]}),
    "parts that think": (delta(content=THINKING), {"reasoning": "hm", "parts": THINKING}),
    "content a number": (delta(content=5), {}),
    "reasoning_content": (delta(reasoning_content="hm"), {"reasoning": "hm", "fields": {"reasoning_content": "hm"}}),
    "reasoning": (delta(reasoning="hm"), {"reasoning": "hm", "fields": {"reasoning": "hm"}}),
    "reasoning twice": (
        delta(reasoning_content="hm", reasoning="hm"),
        {"reasoning": "hm", "fields": {"reasoning_content": "hm", "reasoning": "hm"}},
    ),
    "reasoning in details alone": (
        delta(reasoning_details=DETAILS),
        {"reasoning": "hm", "fields": {"reasoning_details": DETAILS}},
    ),
    "reasoning an object": (delta(reasoning={"effort": 1}), {"fields": {"reasoning": {"effort": 1}}}),
    "refusal": (delta(refusal="no"), {"refusal": "no", "fields": {"refusal": "no"}}),
    "what nobody here knows": (delta(content="x", new={"a": 1}), {"text": "x", "fields": {"new": {"a": 1}}}),
    "tool_calls": (delta(tool_calls=[CALL]), {"fragments": [CALL]}),
    "tool_calls null": (delta(content="x", tool_calls=None), {"text": "x"}),
    "tool_calls, not in a list": (delta(tool_calls=CALL), {"fragments": [CALL]}),
    "tool_calls a text": (delta(tool_calls="calculate"), {}),
    "tool_calls with what is none": (delta(tool_calls=["x", CALL, None]), {"fragments": [CALL]}),
    "function_call": (delta(function_call={"name": "f"}), {"fragments": [{"function": {"name": "f"}}]}),
}  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), DIALECTS.values(), ids=DIALECTS.keys())
def test_dialect(value: dict[str, Any], expected: dict[str, Any]) -> None:
    chunk = parsed(value)
    assert said(chunk) == expected
    assert chunk.value == value


@pytest.mark.parametrize(("index", "text"), [(0, "x"), (None, "x"), (1, "")])
def test_where_several_choices_were_asked_for_the_first_one_counts(index: int | None, text: str) -> None:
    assert parsed({"choices": [{"index": index, "delta": {"content": "x"}}]}, several=True).text == text


@pytest.mark.parametrize(
    "data", [b"null", b"{}", b'{"type":"ping"}', b'{"object":"ping","choices":null}', b'{"message":"please wait"}']
)
def test_what_keeps_a_connection_alive_is_no_chunk(data: bytes) -> None:
    assert parse(data) is None


def test_without_choices_a_chunk_is_passed_on_all_the_same() -> None:
    filtered = {"choices": [], "id": "", "prompt_filter_results": [{"prompt_index": 0}]}
    assert said(parsed(filtered)) == {}


ERRORS: dict[str, Any] = {
    "error": {"error": {"message": "Slow down."}},
    "a text": {"error": "Slow down."},
    "twice": {"error": {"error": {"message": "Slow down."}}},
    "beside choices": {"choices": [{"delta": {}}], "error": {"message": "Slow down."}},
    "in a choice": {"choices": [{"delta": {}, "finish_reason": "error", "error": {"message": "Slow down."}}]},
    "error_message": {"choices": None, "error_type": "BadRequestError", "error_message": "Slow down."},
    "object: error": {"object": "error", "message": "Slow down.", "code": 400},
    "type: error": {"type": "error", "message": "Slow down."},
    "code and message": {"code": "Throttling", "message": "Slow down.", "request_id": "r"},
    "detail": {"detail": "Slow down."},
    "detail, a list": {"detail": [{"loc": ["body"], "msg": "Slow down.", "type": "x"}]},
    "a list": [{"error": {"code": 429, "message": "Slow down."}}],
    "errors": {"errors": [{"message": "Slow down."}]},
    "what the provider said": {"error": {"message": "Provider returned error", "metadata": {"raw": "Slow down."}}},
    "no success": {"success": False, "msg": "Slow down."},
}


@pytest.mark.parametrize("value", ERRORS.values(), ids=ERRORS.keys())
def test_what_says_error_is_one_and_keeps_its_sentence(value: Any) -> None:
    with pytest.raises(UpstreamFailed, match="Slow down") as caught:
        parsed(value)
    assert caught.value.code == "upstream_error"


def test_an_error_that_is_about_the_model_says_so() -> None:
    with pytest.raises(UpstreamFailed, match="llama9") as caught:
        parsed({"error": {"message": "The model `llama9` does not exist."}})
    assert caught.value.code == "model_not_found"


WRONG: dict[str, bytes] = {
    "a number": b"42",
    "a text": b'"x"',
    "a list": b"[{}]",
    "half of it": b'{"choices": [',
    "choices a text": b'{"choices": "none"}',
    "choices an object": b'{"choices": {"0": {"delta": {"content": "x"}}}}',
    "a choice a text": b'{"choices": ["x"]}',
    "a delta a text": b'{"choices": [{"delta": "x"}]}',
    "nested without end": b"[" * 100_000,
    "nested too deep": b'{"choices":[],"usage":' + b"[" * MAX_LEVELS + b"]" * MAX_LEVELS + b"}",
    "nested deeper than orjson goes": b'{"choices":[],"usage":' + b"[" * 1100 + b"]" * 1100 + b"}",
}


@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG.keys())
def test_no_chunk(data: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        parse(data)
    assert caught.value.code == "bad_chunk"


def test_what_is_no_json_is_shown() -> None:
    with pytest.raises(UpstreamFailed, match="Bad Gateway"):
        parse(b"<h1>Bad Gateway</h1>")


def test_as_deep_as_is_allowed() -> None:
    data = b'{"choices":[],"usage":' + b"[" * (MAX_LEVELS - 2) + b"1" + b"]" * (MAX_LEVELS - 2) + b"}"
    assert parse(data) is not None


def test_half_a_surrogate_pair_goes_through_as_it_came() -> None:
    halves = [json.dumps(chunk_object({"content": half})).encode() for half in ("\ud83d", "\ude00")]
    chunks = [chunk for half in halves if (chunk := parse(half))]
    assert [chunk.json for chunk in chunks] == halves
    assert joined(chunk.text for chunk in chunks) == "😀"


@pytest.mark.parametrize(
    ("number", "passed_on"), [(b"NaN", b"null"), (b"1e400", b"1e400")], ids=["NaN is written anew", "too large is not"]
)
def test_numbers_that_json_has_not(number: bytes, passed_on: bytes) -> None:
    chunk = parse(b'{"choices":[],"score":%b}' % number)
    assert chunk is not None
    assert (chunk.json, chunk.value["score"]) == (b'{"choices":[],"score":%b}' % passed_on, None)


MESSAGE = {"role": "assistant", "content": "Hi", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{}"}}]}
WHOLE = {"id": "x", "object": "chat.completion", "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]}


@pytest.mark.parametrize("how", ["a body", "an event"])
def test_a_whole_answer_is_a_chunk_that_says_all(how: str) -> None:
    chunk = from_whole(WHOLE) if how == "a body" else parsed(WHOLE)
    assert (chunk.text, chunk.finish_reason, chunk.value["object"]) == ("Hi", "stop", "chat.completion.chunk")
    assert chunk.fragments is not None
    assert [fragment["index"] for fragment in chunk.fragments] == [0]
    assert json.loads(chunk.json) == chunk.value
    assert "message" not in chunk.value["choices"][0]


def test_a_message_that_comes_after_deltas_repeats_them() -> None:
    assert parsed(WHOLE, first=False).text == ""

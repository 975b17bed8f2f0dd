"""Bodies as upstreams send them, without a socket."""

import json
from typing import Any

import pytest

from handlers.chat.items import Chunk, UpstreamFailed
from handlers.chat.texts import joined
from handlers.chat.upstream.chunks import ChunkReader
from tests.support.upstream import DONE, chunk, chunk_object, event, finish


def read(*parts: bytes) -> list[Chunk]:
    """The chunks of a whole body. Raises what is wrong with it."""
    reader = ChunkReader()
    chunks = [chunk for part in parts for chunk in reader.feed(part)]
    if reader.failure:
        raise reader.failure
    reader.end()
    return chunks


def data(json_text: str) -> bytes:
    return b"".join(b"data: %b\n" % line.encode() for line in json_text.split("\n")) + b"\n"


def test_a_chunk_keeps_its_bytes() -> None:
    odd = '{"z":1.50,  "choices":[{"delta":{"content":"h\\u00e9"}}],"unknown":{"a":[1e3]}}'
    [only, _] = read(data(odd), finish())
    assert only.json == odd.encode()
    assert only.text == "hé"


def test_chunks_come_out_wherever_the_body_is_cut() -> None:
    body = chunk("a") + chunk("é") + finish() + DONE
    whole = read(body)
    assert [c.text for c in whole] == ["a", "é", ""]
    for cut in range(1, len(body)):
        assert read(body[:cut], body[cut:]) == whole


A = b'data: {"choices":[{"delta":{"content":"a"}}]}'
SPELLINGS: dict[str, bytes] = {
    "one event": A + b"\n\n",
    "several": (A + b"\n\n") * 3,
    "without the blank": A.replace(b": {", b":{", 1) + b"\n\n",
    "two blanks": A.replace(b": {", b":  {", 1) + b"\n\n",
    "CR LF": A + b"\r\n\r\n",
    "CR": A + b"\r\r",
    "CR at the end of an event": A + b"\r\n\n",
    "a byte order mark": b"\xef\xbb\xbf" + A + b"\n\n",
    "comments between": b": ping\n\n" + A + b"\n\n: ping\n\n" + A + b"\n\n",
    "a comment inside": b": ping\n" + A + b"\n: ping\n\n" + A + b"\n\n",
    "other fields": b"event: x\nid: 1\n" + A + b"\nretry: 5\n\n",
    "three line feeds": A + b"\n\n\n" + A + b"\n\n",
    "two lines": A[:17] + b"\ndata: " + A[17:] + b"\n\n",
    "broken UTF-8": A.replace(b'"a"', b'"\xff\xc3("') + b"\n\n",
    "cut in the middle of a character": A.replace(b'"a"', '"é"'.encode()) + b"\n\n",
}


@pytest.mark.parametrize("body", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_however_an_event_is_spelt_and_cut_the_chunks_are_the_same(body: bytes) -> None:
    """What comes in whole events takes a shorter way than what doesn't."""
    end = finish() + DONE
    bit_by_bit = read(*(body[i : i + 1] for i in range(len(body))), end)
    assert bit_by_bit[0].text in ("a", "é", "\ufffd\ufffd(")
    assert read(body + end) == read(body, end) == bit_by_bit
    for cut in range(1, len(body)):
        assert read(body[:cut], body[cut:] + end) == bit_by_bit


DIALECTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "content null": (chunk_object({"content": None}), {"text": ""}),
    "content in parts, which is no text": (chunk_object({"content": [{"type": "text"}]}), {"text": ""}),
    "tool_calls null": (chunk_object({"content": "x", "tool_calls": None}), {"text": "x", "fragments": None}),
    "tool_calls empty": (chunk_object({"tool_calls": []}), {"fragments": None}),
    "delta null": ({"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}, {"finish_reason": "stop"}),
    "no delta": ({"choices": [{"finish_reason": "stop"}]}, {"text": "", "finish_reason": "stop"}),
    "no index": ({"choices": [{"delta": {"content": "x"}}]}, {"text": "x"}),
    "choices null": ({"choices": None}, {"text": ""}),
    "no choices": ({"object": "ping"}, {"text": ""}),
    "usage, no choice": ({"choices": [], "usage": {"total_tokens": 3}}, {"usage": {"total_tokens": 3}}),
    "usage, one empty choice": ({"choices": [{}], "usage": {"total_tokens": 3}}, {"usage": {"total_tokens": 3}}),
    "usage, one null choice": ({"choices": [None], "usage": {"total_tokens": 3}}, {"usage": {"total_tokens": 3}}),
    "usage null": (chunk_object({"content": "x"}, usage=None), {"usage": None}),
    "reasoning_content": (chunk_object({"reasoning_content": "hm", "content": None}), {"reasoning": "hm", "text": ""}),
    "reasoning": (chunk_object({"reasoning": "hm"}), {"reasoning": "hm"}),
    "reasoning, twice": (chunk_object({"reasoning_content": "hm", "reasoning": "hm"}), {"reasoning": "hm"}),
    "reasoning null": (chunk_object({"reasoning_content": None, "content": "x"}), {"reasoning": "", "text": "x"}),
    "refusal": (chunk_object({"refusal": "no"}), {"refusal": "no"}),
    "error null": (chunk_object({"content": "x"}, error=None), {"text": "x"}),
    "finish_reason empty": (chunk_object({"content": "x"}, ""), {"text": "x", "finish_reason": None}),
    "another choice's text": ({"choices": [{"index": 1, "delta": {"content": "x"}}]}, {"text": ""}),
}


@pytest.mark.parametrize(("value", "expected"), DIALECTS.values(), ids=DIALECTS.keys())
def test_dialect(value: dict[str, Any], expected: dict[str, Any]) -> None:
    first = read(event(value), finish())[0]
    assert {name: getattr(first, name) for name in expected} == expected
    assert first.value == value


def test_pretty_printed_json_becomes_one_line() -> None:
    pretty = json.dumps(chunk_object({"content": "a\nb"}), indent=2)
    [only, _] = read(data(pretty), finish())
    assert b"\n" not in only.json
    assert json.loads(only.json) == json.loads(pretty)


def test_half_a_surrogate_pair_goes_through_as_it_came() -> None:
    halves = [json.dumps(chunk_object({"content": half})) for half in ("\ud83d", "\ude00")]
    chunks = read(*map(data, halves), finish())
    assert [c.json.decode() for c in chunks[:2]] == halves
    assert joined(c.text for c in chunks) == "😀"


def test_nan_is_written_anew() -> None:
    [only, _] = read(data('{"choices":[],"score":NaN}'), finish())
    assert only.json == b'{"choices":[],"score":null}'


def test_a_number_too_large_for_a_double_goes_through_as_it_came() -> None:
    [only, _] = read(data('{"choices":[],"score":1e400}'), finish())
    assert only.json == b'{"choices":[],"score":1e400}'


def test_a_chunk_of_a_megabyte() -> None:
    text = "x" * (1 << 20)
    assert read(chunk(text), finish())[0].text == text


def test_what_follows_done_is_nobodys() -> None:
    assert [c.text for c in read(chunk("a"), DONE + data("not json"))] == ["a"]


@pytest.mark.parametrize("body", [chunk("a") + finish(), chunk("a") + DONE, DONE], ids=["finish_reason", "[DONE]", "only"])
def test_an_answer_is_whole_after(body: bytes) -> None:
    read(body)


FAILURES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "a comment": (b": hello\n\n", "not_a_stream"),
    "html": (b"<html>\n\n</html>", "not_a_stream"),
    "the middle": (chunk("a"), "cut"),
    "an event without its end": (chunk("a") + finish()[:-1], "cut"),
    "an error object": (event({"error": {"message": "overloaded", "code": 529}}), "upstream_error"),
    "an error text": (event({"error": "overloaded"}), "upstream_error"),
    "an error event": (b'event: error\ndata: {"message": "overloaded"}\n\n', "upstream_error"),
    "half a json": (data('{"choices": ['), "bad_chunk"),
    "pretty-printed json in one data line": (b'data: {\n  "choices": []\n}\n\n', "bad_chunk"),
    "a number": (data("42"), "bad_chunk"),
    "choices of a wrong type": (data('{"choices": "none"}'), "bad_chunk"),
    "nested without end": (data("[" * 100_000), "bad_chunk"),
}


@pytest.mark.parametrize(("body", "code"), FAILURES.values(), ids=FAILURES.keys())
def test_failure(body: bytes, code: str) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        read(*([body] if body else []))
    assert caught.value.code == code
    if code == "upstream_error":
        assert "overloaded" in caught.value.message


def test_what_came_before_a_failure_comes_out() -> None:
    reader = ChunkReader()
    assert [c.text for c in reader.feed(chunk("a") + chunk("b") + data("oops"))] == ["a", "b"]
    assert reader.failure is not None
    assert reader.failure.code == "bad_chunk"


def test_too_much_in_one_event_is_a_failure() -> None:
    reader = ChunkReader()
    reader.feed(b"data: ")
    for _ in range(17):
        reader.feed(b"x" * (1 << 20))
    assert reader.failure is not None
    assert reader.failure.code == "bad_chunk"

"""Bodies as upstreams send them, without a socket."""

import json

import pytest

from handlers.chat.items import Chunk, UpstreamFailed
from handlers.chat.upstream.body import MAX_WHOLE, Body
from tests.support.upstream import DONE, chunk, chunk_object, event, finish


def read(*parts: bytes) -> list[Chunk]:
    """The chunks of a whole body. Raises what is wrong with it."""
    body = Body()
    chunks: list[Chunk] = []
    for part in parts:
        if not body.done and not body.failure:
            chunks += body.feed(part)
    if not body.failure and not body.done:
        chunks += body.end()
    if body.failure:
        raise body.failure
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


def test_pretty_printed_json_becomes_one_line() -> None:
    pretty = json.dumps(chunk_object({"content": "a\nb"}), indent=2)
    [only, _] = read(data(pretty), finish())
    assert b"\n" not in only.json
    assert json.loads(only.json) == json.loads(pretty)


def test_a_chunk_of_a_megabyte() -> None:
    text = "x" * (1 << 20)
    assert read(chunk(text), finish())[0].text == text


def test_what_follows_done_is_nobodys() -> None:
    assert [c.text for c in read(chunk("a"), DONE + data("not json"))] == ["a"]


@pytest.mark.parametrize("body", [chunk("a") + finish(), chunk("a") + DONE], ids=["finish_reason", "[DONE]"])
def test_an_answer_is_whole_after(body: bytes) -> None:
    read(body)


FAILURES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "empty"),
    "blanks": (b"\r\n \n", "empty"),
    "[DONE] alone": (DONE, "empty"),
    "[DONE] before a choice": (event({"choices": [], "prompt_filter_results": []}) + DONE, "empty"),
    "a comment": (b": hello\n\n", "not_a_stream"),
    "html": (b"<html>\n\n</html>", "not_a_stream"),
    "json": (b'{"status": "idle"}', "not_a_stream"),
    "the middle": (chunk("a"), "cut"),
    "an event without its end": (chunk("a") + finish()[:-1], "cut"),
    "half an error": (chunk("a") + b'data: {"error": "overl', "cut"),
    "an error object": (event({"error": {"message": "overloaded", "code": 529}}), "upstream_error"),
    "an error object, and [DONE]": (event({"error": {"message": "overloaded"}}) + DONE, "upstream_error"),
    "an error without an end": (b'data: {"error": "overloaded"}', "upstream_error"),
    "an error event": (b'event: error\ndata: {"message": "overloaded"}\n\n', "upstream_error"),
    "an error event, a text": (b'event: error\ndata: "overloaded"\n\n', "upstream_error"),
    "an error event, no JSON": (b"event: error\ndata: overloaded\n\n", "upstream_error"),
    "an error field": (b'error: {"code": 400, "message": "overloaded"}\n\n' + DONE, "upstream_error"),
    "an error field, no JSON": (chunk("a") + b"error: overloaded\r\n\r\n", "upstream_error"),
    "an error between events": (chunk("a") + b'{"error": {"message": "overloaded"}}\n\n', "upstream_error"),
    "an error in the place of a stream": (b'{"error": {\n"message": "overloaded"}}', "upstream_error"),
    "a list of errors in its place": (b'[{"error": {"message": "overloaded"}}]', "upstream_error"),
    "half a json": (data('{"choices": ['), "bad_chunk"),
    "pretty-printed json in one data line": (b'data: {\n  "choices": []\n}\n\n', "bad_chunk"),
    "a number": (data("42"), "bad_chunk"),
    "a whole answer without a message": (b'{"choices": [{"text": "a"}]}', "bad_chunk"),
}


@pytest.mark.parametrize("cut", [False, True], ids=["at once", "byte by byte"])
@pytest.mark.parametrize(("body", "code"), FAILURES.values(), ids=FAILURES.keys())
def test_failure(body: bytes, code: str, cut: bool) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        read(*([body[i : i + 1] for i in range(len(body))] if cut else [body] if body else []))
    assert caught.value.code == code
    if code == "upstream_error":
        assert "overloaded" in caught.value.message


PIECES = [b'{ "id": "x",\n "choices": [ ] }', b'\n {"choices":[{"message":{"content":"a"},"error":null}]}', b"{}"]


@pytest.mark.parametrize("answer", [*PIECES, b'{"choices": [{"text": "a"}]}'])
def test_where_one_piece_was_asked_for_an_object_stays_as_it_is(answer: bytes) -> None:
    body = Body(one_piece=True)
    assert body.feed(answer[:5]) + body.feed(answer[5:]) + body.end() == []
    assert (body.failure, body.whole) == (None, answer)


NO_ANSWER: dict[str, tuple[bytes, str, str]] = {
    "an error": (b'{"error": {"message": "Slow down."}}', "upstream_error", "Slow down."),
    "an error in a choice": (b'{"choices": [{"error": {"message": "Slow down."}}]}', "upstream_error", "Slow down."),
    "a list": (b'[{"error": {"message": "Slow down."}}]', "upstream_error", "Slow down."),
    "a page": (b"<html>Slow down.</html>", "not_a_stream", "Slow down."),
    "nothing": (b" ", "empty", ""),
    "a stream that says error": (b'data: {"error": "Slow down."}\n\n', "upstream_error", "Slow down."),
    "a stream that was cut": (chunk("a"), "cut", ""),
}


@pytest.mark.parametrize(("answer", "code", "said"), NO_ANSWER.values(), ids=NO_ANSWER.keys())
def test_what_is_no_answer_in_one_piece(answer: bytes, code: str, said: str) -> None:
    body = Body(one_piece=True)
    body.feed(answer)
    body.end()
    assert body.failure is not None
    assert (body.failure.code, body.whole) == (code, None)
    assert said in body.failure.message


@pytest.mark.parametrize("end", [b"", DONE])
def test_without_any_choice_what_came_in_its_place_is_shown(end: bytes) -> None:
    refusal = {"choices": None, "base_resp": {"status_code": 1004, "status_msg": "login fail"}}
    with pytest.raises(UpstreamFailed, match="login fail"):
        read(event(refusal) + end)
    with pytest.raises(UpstreamFailed) as caught:
        read(chunk("a") + event({"choices": [], "usage": {"total_tokens": 3}}))
    assert "usage" not in caught.value.message


ALIVE = [
    b": wait\n\n",
    b"data:\n\n",
    b"data: \n\n",
    b"data: null\n\n",
    b'event: ping\ndata: {"type": "ping"}\n\n',
    b"event: ping\n\n",
]


@pytest.mark.parametrize("between", ALIVE)
def test_what_keeps_the_connection_alive_is_passed_over(between: bytes) -> None:
    body = between + chunk("a") + between + chunk("b") + between + finish() + between + DONE
    assert [c.text for c in read(body)] == ["a", "b", ""]
    assert [c.text for c in read(*(body[i : i + 1] for i in range(len(body))))] == ["a", "b", ""]


WHOLE = json.dumps({"id": "x", "choices": [{"message": {"content": "Hi"}}], "usage": {"total_tokens": 3}}, indent=1).encode()


@pytest.mark.parametrize("body", [WHOLE, b"\xef\xbb\xbf\r\n" + WHOLE, data(WHOLE.decode()) + DONE])
def test_a_whole_answer_in_the_place_of_a_stream(body: bytes) -> None:
    for parts in ([body], [body[i : i + 1] for i in range(len(body))]):
        [only] = read(*parts)
        assert (only.text, only.usage) == ("Hi", {"total_tokens": 3})


def test_what_is_no_stream_is_read_up_to_a_limit() -> None:
    body = Body()
    for _ in range(MAX_WHOLE // (1 << 20) + 1):
        assert body.feed(b"<p>" + b"x" * (1 << 20)) == []
    assert body.failure is not None
    assert body.failure.code == "not_a_stream"


def test_what_came_before_a_failure_comes_out() -> None:
    reader = Body()
    assert [c.text for c in reader.feed(chunk("a") + chunk("b") + data("oops"))] == ["a", "b"]
    assert reader.failure is not None
    assert reader.failure.code == "bad_chunk"


def test_too_much_in_one_event_is_a_failure() -> None:
    reader = Body()
    reader.feed(b"data: ")
    for _ in range(17):
        reader.feed(b"x" * (1 << 20))
    assert reader.failure is not None
    assert reader.failure.code == "bad_chunk"

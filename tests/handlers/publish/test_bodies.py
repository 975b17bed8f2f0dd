"""Bodies -> encoded events: the three media types, cut anywhere, and what is refused in each."""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from handlers.publish.bodies import MAX_LIST, READERS, RESERVED, EventStreamBody, JSONLines, Reader, from_json
from sse.errors import EventTooLong, Problem
from sse.stream import MAX_EVENT
from sse.wire.parser import Parser


def dispatched(events: Iterable[bytes]) -> list[tuple[str, str]]:
    """What a client would make of the events: (type, data)."""
    return [(event.type, event.data) for event in Parser().feed(b"".join(events))]


def read(reader: Reader, *chunks: bytes) -> list[bytes]:
    return [event for chunk in chunks for event in reader.feed(chunk)] + list(reader.end())


# -- JSON


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"data": "a text"}, ("message", "a text")),
        ({"event": "add", "data": {"größe": [1, None]}}, ("add", '{"größe":[1,null]}')),
        ({"data": 1.5}, ("message", "1.5")),
        ({"data": None}, ("message", "null")),
        ({}, ("message", "null")),
        ({"event": None, "data": ""}, ("message", "")),
        ({"event": "", "data": "x"}, ("message", "x")),
        ({"data": "two\nlines\r\nthree"}, ("message", "two\nlines\nthree")),
        ({"data": "x", "id": "7", "retry": 5}, ("message", "x")),
    ],
    ids=str,
)
def test_one_event_from_json(value: dict[str, Any], expected: tuple[str, str]) -> None:
    (event,) = from_json(value)
    assert dispatched([event]) == [expected]
    assert b"id:" not in event
    assert b"retry:" not in event


def test_a_list_is_its_events_in_order() -> None:
    assert dispatched(from_json([{"data": 1}, {"event": "b", "data": 2}])) == [("message", "1"), ("b", "2")]
    assert from_json([]) == []


@pytest.mark.parametrize(
    ("value", "parameter"),
    [
        ("text", "body"),
        (None, "body"),
        ({"event": 1}, "event"),
        ({"event": "a\nb"}, "event"),
        ({"event": "end"}, "event"),
        ({"dat": 1}, "dat"),
        ([{}, 7], "[1]"),
        ([{}, {"event": ["x"]}], "[1].event"),
        ([{"event": "gap"}], "[0].event"),
        ([{"type": "x"}], "[0].type"),
    ],
    ids=str,
)
def test_what_is_wrong_in_json_is_named(value: Any, parameter: str) -> None:
    with pytest.raises(Problem) as raised:
        from_json(value)
    assert (raised.value.status, raised.value.members) == (422, {"parameter": parameter})
    assert raised.value.detail.startswith(parameter)


@pytest.mark.parametrize("name", sorted(RESERVED))
@pytest.mark.parametrize("media_type", ["application/json", *READERS])
def test_names_that_the_stream_says_itself_are_refused(name: str, media_type: str) -> None:
    event = {"event": name, "data": "x"}
    with pytest.raises(Problem, match=f"{name} is reserved") as raised:
        if media_type == "application/json":
            from_json(event)
        else:
            body = f"event: {name}\ndata: x\n\n" if media_type == "text/event-stream" else json.dumps(event)
            read(READERS[media_type](), body.encode())
    assert raised.value.status == 422


def test_a_list_is_limited() -> None:
    assert len(from_json([{}] * MAX_LIST)) == MAX_LIST
    with pytest.raises(Problem) as raised:
        from_json([{}] * (MAX_LIST + 1))
    assert raised.value.status == 413


def largest(overhead: int) -> str:
    return "x" * (MAX_EVENT - overhead)


def test_an_event_is_limited_as_it_goes_out() -> None:
    overhead = len(b"data: \n\n")
    (event,) = from_json({"data": largest(overhead)})
    assert len(event) == MAX_EVENT
    with pytest.raises(EventTooLong, match="limit"):
        from_json({"data": largest(overhead - 1)})
    with pytest.raises(EventTooLong, match="limit"):
        from_json({"data": "\n" * (MAX_EVENT // 4)})  # each line costs another `data: `


# -- JSON lines

LINES = b'{"data": "a"}\r\n\n{"event": "b", "data": {"n": 2}}\n  \n{"data": "\xc3\xa9"}'
FROM_LINES = [("message", "a"), ("b", '{"n":2}'), ("message", "é")]


def test_json_lines_cut_anywhere() -> None:
    for cut in range(len(LINES) + 1):
        assert dispatched(read(JSONLines(), LINES[:cut], LINES[cut:])) == FROM_LINES
    assert dispatched(read(JSONLines(), *(bytes([byte]) for byte in LINES))) == FROM_LINES


def test_a_line_is_an_event_as_soon_as_it_ends() -> None:
    reader = JSONLines()
    assert dispatched(reader.feed(b'{"data": 1}\n{"data"')) == [("message", "1")]
    assert dispatched(reader.feed(b": 2}")) == []
    assert dispatched(reader.end()) == [("message", "2")]


@pytest.mark.parametrize(
    ("line", "status", "says"),
    [
        (b"{", 400, "Line 2 is not JSON"),
        (b'{"event": "error"}', 422, "line 2: event: the name error is reserved"),
        (b"[]", 422, "line 2 must be an object"),
        (b'{"x": 1}', 422, "line 2: x is not known here"),
        (b'{"data": %b%b}' % (b"[" * 254, b"]" * 254), 400, "Line 2 has more than 254 levels"),
        (b'{"data": [%b1]}' % (b"[]," * 100_000), 400, "Line 2 has more than 100000 values"),
    ],
)
def test_a_wrong_line_is_counted_and_those_before_it_are_events(line: bytes, status: int, says: str) -> None:
    reader, events = JSONLines(), []
    with pytest.raises(Problem) as raised:
        for event in reader.feed(b'{"data": 1}\n' + line + b"\n"):
            events.append(event)
    assert (raised.value.status, raised.value.detail.startswith(says)) == (status, True)
    assert dispatched(events) == [("message", "1")]


def test_a_line_is_limited_before_it_ends() -> None:
    reader = JSONLines()
    piece = b" " * (MAX_EVENT // 2)
    assert list(reader.feed(b'{"data": 1}\n')) != []
    assert list(reader.feed(piece)) == []
    assert list(reader.feed(piece)) == []
    with pytest.raises(EventTooLong, match="line 2 "):
        list(reader.feed(b" "))


# -- event streams

STREAM = "\ufeff: comment\nid: 7\nretry: 5\ndata: a\r\n\nevent: b\rdata: {\rdata:  é\r\rdata\n\nevent: unsaid\n\n".encode()
FROM_STREAM = [("message", "a"), ("b", "{\n é"), ("message", "")]


def test_an_event_stream_cut_anywhere() -> None:
    for cut in range(len(STREAM) + 1):
        assert dispatched(read(EventStreamBody(), STREAM[:cut], STREAM[cut:])) == FROM_STREAM


def test_ids_and_retry_of_an_event_stream_are_dropped() -> None:
    assert b"".join(read(EventStreamBody(), b"id: 7\nretry: 5\ndata: a\n\n")) == b"data: a\n\n"


def test_what_follows_the_last_empty_line_is_no_event() -> None:
    assert dispatched(read(EventStreamBody(), b"data: a\n\ndata: b\n")) == [("message", "a")]


def test_an_event_of_a_stream_is_limited_and_those_before_it_are_events() -> None:
    reader = EventStreamBody()
    assert dispatched(reader.feed(b"data: a\n\ndata: " + b"x" * MAX_EVENT)) == [("message", "a")]
    with pytest.raises(EventTooLong):
        list(reader.end())

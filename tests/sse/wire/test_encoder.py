"""The bytes of events, and that nothing in a field can become another field."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sse.wire.encoder import HEARTBEAT, encode, encode_json
from sse.wire.event import MAX_RECONNECTION_TIME, Comment, Event
from sse.wire.parser import Parser
from sse.wire.payload import dumps

ENCODED: list[tuple[str, Event | Comment, bytes]] = [
    ("data", Event("a"), b"data: a\n\n"),
    ("data as bytes", Event(b"a"), b"data: a\n\n"),
    ("UTF-8", Event("é"), b"data: \xc3\xa9\n\n"),
    ("all fields, in order", Event("a", "b", "c", 1), b"id: c\nevent: b\nretry: 1\ndata: a\n\n"),
    ("empty data", Event(""), b"data: \n\n"),
    ("data that begins with a space", Event(" a"), b"data:  a\n\n"),
    ("data lines, ended in all three ways", Event("a\r\nb\rc\nd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
    ("data that ends with LF", Event("a\n"), b"data: a\ndata: \n\n"),
    ("data lines in bytes", Event(b"{\r\n}"), b"data: {\ndata: }\n\n"),
    ("U+2028, U+0085, VT and FF end no line", Event("\u2028\x85\v\f"), b"data: \xe2\x80\xa8\xc2\x85\x0b\x0c\n\n"),
    ("id alone", Event(id="1"), b"id: 1\n\n"),
    ("empty id", Event(id=""), b"id: \n\n"),
    ("retry 0", Event(retry=0), b"retry: 0\n\n"),
    ("event alone", Event(event="a"), b"event: a\n\n"),
    ("nothing", Event(), b"\n"),
    ("comment", Comment("a"), b": a\n"),
    ("empty comment", Comment(), HEARTBEAT),
    ("comment lines", Comment("a\r\nb\rdata: c\n"), b": a\n: b\n: data: c\n: \n"),
]


@pytest.mark.parametrize(("event", "encoded"), [c[1:] for c in ENCODED], ids=[c[0] for c in ENCODED])
def test_event_encodes_to(event: Event | Comment, encoded: bytes) -> None:
    assert encode(event) == encoded


@pytest.mark.parametrize("event", [None, "add"])
def test_json_encodes_as_the_event_with_the_same_data(event: str | None) -> None:
    payload = dumps({"a": ["é", "\r\n"]})
    assert encode_json(payload, event) == encode(Event(payload, event))


def test_pretty_printed_json_arrives_whole() -> None:
    document = json.dumps({"a": 1, "b": [2]}, indent=2).replace("\n", "\r\n")
    (event,) = Parser().feed(encode(Event(document)))
    assert json.loads(event.data) == {"a": 1, "b": [2]}


# Characters that mean something on the wire come up often here.
scalar_values = st.integers(0, 0xD7FF) | st.integers(0xE000, 0x10FFFF)
texts = st.text(st.sampled_from("\r\n\0 :\ufeff\u2028dataéid") | scalar_values.map(chr), max_size=8)
events = st.builds(
    Event,
    data=texts | texts.map(str.encode) | st.none(),
    event=st.none() | texts.map(lambda text: text.translate({10: None, 13: None})).filter(bool),
    id=st.none() | texts.map(lambda text: text.translate({0: None, 10: None, 13: None})),
    retry=st.none() | st.integers(0, MAX_RECONNECTION_TIME),
)


def _arrives(event: Event, last_event_id: str) -> list[tuple[str, str, str]]:
    """What a client dispatches for the event."""
    if event.data is None:
        return []
    data = event.data.decode() if isinstance(event.data, bytes) else event.data
    data = data.replace("\r\n", "\n").replace("\r", "\n")
    return [(event.event or "message", data, last_event_id)]


@settings(max_examples=100, deadline=None)
@given(st.lists(events | st.builds(Comment, texts), max_size=4))
def test_what_is_encoded_is_what_is_dispatched(written: list[Event | Comment]) -> None:
    parser = Parser()
    last_event_id, reconnection_time = "", None
    for event in written:
        dispatched = parser.feed(encode(event))
        if isinstance(event, Comment):
            assert dispatched == []
            continue
        last_event_id = last_event_id if event.id is None else event.id
        reconnection_time = reconnection_time if event.retry is None else event.retry
        assert dispatched == _arrives(event, last_event_id)
        assert (parser.last_event_id, parser.reconnection_time) == (last_event_id, reconnection_time)


@settings(max_examples=150, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            "data": st.text(st.integers(0, 0x10FFFF).map(chr), max_size=8) | st.binary(max_size=8),
            "event": st.text(st.sampled_from("\r\n\0a: \ud800"), max_size=4),
            "id": st.text(st.sampled_from("\r\n\0a: \ud800"), max_size=4),
            "retry": st.integers(-2, 2**60),
        },
    )
)
def test_no_value_can_inject_a_field_or_an_event(fields: dict[str, Any]) -> None:
    try:
        encoded = encode(Event(**fields))
    except ValueError as error:
        assert str(error).partition(":")[0] in fields  # noqa: PT017
        return
    assert b"\r" not in encoded
    *lines, end, nothing = encoded.split(b"\n")
    assert (end, nothing) == (b"", b"")  # one empty line, and it is the last
    names = [line.partition(b": ")[0].decode() for line in lines]
    assert list(dict.fromkeys(names)) == [name for name in ("id", "event", "retry", "data") if name in fields]
    assert [name for name in names if name != "data"] == [name for name in dict.fromkeys(names) if name != "data"]

"""Events, cut anywhere, in bounded memory and linear time. The vectors have the cases of the standard."""

import tracemalloc
from collections.abc import Iterable
from itertools import pairwise
from time import thread_time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sse.errors import EventTooLong
from sse.wire.event import MAX_RECONNECTION_TIME, MessageEvent
from sse.wire.parser import Parser
from tests.support import reference


def test_cr_ending_a_chunk_dispatches_at_once() -> None:
    parser = Parser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\r") == [MessageEvent("message", "a", "")]
    assert parser.feed(b"\ndata: b\n\n") == [MessageEvent("message", "b", "")]


def test_last_event_id_moves_at_the_empty_line() -> None:
    parser = Parser()
    parser.feed(b"id: 1\ndata: a\n")
    assert parser.last_event_id == ""
    parser.feed(b"\n")
    assert parser.last_event_id == "1"


def test_reset_forgets_what_was_not_dispatched_and_keeps_what_a_reconnect_needs() -> None:
    parser = Parser()
    parser.feed(b"retry: 5\nid: 1\n\nid: 2\nevent: a\ndata: b\nda")
    parser.reset()
    assert (parser.last_event_id, parser.reconnection_time) == ("1", 5)
    assert parser.feed(b"\xef\xbb\xbfdata: c\n\n") == [MessageEvent("message", "c", "1")]
    assert parser.last_event_id == "1"


def test_reset_forgets_a_cr_that_ended_the_connection() -> None:
    parser = Parser()
    parser.feed(b"data: a\r\r")
    parser.reset()
    assert parser.feed(b"\ndata: b\n\n") == [MessageEvent("message", "b", "")]


def test_parser_can_begin_with_a_last_event_id() -> None:
    parser = Parser(last_event_id="7")
    assert parser.last_event_id == "7"
    assert parser.feed(b"data: a\n\nid\n\n") == [MessageEvent("message", "a", "7")]
    assert parser.last_event_id == ""


@pytest.mark.parametrize(
    ("digits", "milliseconds"),
    [
        pytest.param("9" * 5000, MAX_RECONNECTION_TIME, id="more digits than Python reads"),
        pytest.param("9" * 19, MAX_RECONNECTION_TIME, id="more than the largest"),
        pytest.param(str(MAX_RECONNECTION_TIME), MAX_RECONNECTION_TIME, id="the largest"),
        pytest.param("0" * 5000 + "7", 7, id="zeros without end in front"),
        pytest.param("0" * 5000, 0, id="zeros without end"),
    ],
)
def test_reconnection_time_of_any_length_is_read(digits: str, milliseconds: int) -> None:
    parser = Parser()
    parser.feed(b"retry: %b\n" % digits.encode())
    assert parser.reconnection_time == milliseconds


def _feed_all(parser: Parser, chunks: Iterable[bytes]) -> list[MessageEvent]:
    return [event for chunk in chunks for event in parser.feed(chunk)]


@pytest.mark.parametrize(
    "piece",
    [
        pytest.param(b"data: abcdefg\n", id="data lines that never end"),
        pytest.param(b"data\n", id="empty data lines that never end"),
        pytest.param(b"data: abcdefg", id="a data line that never ends"),
        pytest.param(b":abcdefg", id="a comment that never ends"),
        pytest.param(b"unknown", id="a name that never ends"),
        pytest.param(b"id: abc", id="an id that never ends"),
    ],
)
def test_event_over_the_limit_raises_and_goes_on_raising(piece: bytes) -> None:
    parser = Parser(limit=1000)
    with pytest.raises(EventTooLong, match="1000 bytes"):
        _feed_all(parser, [b"data: a\n\n", *[piece] * 1001])
    with pytest.raises(EventTooLong):
        parser.feed(b"\ndata: a\n\n")


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_events_before_the_one_over_the_limit_are_returned_first(size: int) -> None:
    body = b"data: a\n\ndata: b\n\ndata: %b\n\ndata: c\n\n" % (b"x" * 1000)
    parser, dispatched = Parser(limit=1000), []

    def feed_all() -> None:
        for start in [*range(0, len(body), size), len(body)]:
            dispatched.extend(parser.feed(body[start : start + size]))

    with pytest.raises(EventTooLong):
        feed_all()
    assert [event.data for event in dispatched] == ["a", "b"]


def test_parser_reads_on_after_too_long_an_event_only_on_a_new_connection() -> None:
    parser = Parser(limit=20)
    with pytest.raises(EventTooLong):
        parser.feed(b":" * 21)
    parser.reset()
    assert parser.feed(b"data: a\n\n") == [MessageEvent("message", "a", "")]


def test_limit_is_for_one_event_and_comments_do_not_count() -> None:
    parser = Parser(limit=20)
    for _ in range(100):
        assert parser.feed(b":0123456789012345678\ndata: 0123456789\n") == []
        assert len(parser.feed(b":\n\n")) == 1


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(st.sampled_from(["data: 0123456789", "data: 01234567890", "data", ":01234567890123456789", "id", ""])),
    size=st.integers(1, 30),
)
def test_limit_is_the_same_however_the_bytes_are_cut(lines: list[str], size: int) -> None:
    body = "".join(f"{line}\n" for line in lines).encode()

    def outcome(chunks: Iterable[bytes]) -> tuple[list[MessageEvent], bool]:
        parser, dispatched = Parser(limit=20), []
        try:
            for chunk in [*chunks, b""]:
                dispatched.extend(parser.feed(chunk))
        except EventTooLong:
            return dispatched, True
        return dispatched, False

    assert outcome([body]) == outcome(body[start : start + size] for start in range(0, len(body), size))


def test_event_of_exactly_the_limit_is_dispatched() -> None:
    (event,) = Parser(limit=20).feed(b"data: 0123456789\ndata: 01234567\n\n")
    assert len(event.data) + 1 == 20


def test_megabyte_byte_by_byte_comes_out_whole() -> None:
    parser = Parser()
    for _ in range(2**20):
        parser.feed(b"x")
    assert parser.feed(b"\ndata: %b" % (b"y" * 2**20)) == []
    (event,) = parser.feed(b"\n\n")
    assert event.data == "y" * 2**20


def _seconds_for_bytes(parser: Parser) -> float:
    start = thread_time()
    for _ in range(1000):
        parser.feed(b"x")
    return thread_time() - start


def test_byte_costs_the_same_however_much_is_held() -> None:
    empty, full = Parser(), Parser()
    full.feed(b"data: " + b"x" * 8 * 2**20)
    cost = min(_seconds_for_bytes(empty) for _ in range(5))
    # to copy or look through 8 MiB a byte would cost some hundred times as much
    assert min(_seconds_for_bytes(full) for _ in range(5)) < 20 * cost


def test_line_in_small_pieces_takes_its_own_memory_and_not_more() -> None:
    parser, piece = Parser(), b"xy"
    tracemalloc.start()
    try:
        for _ in range(20_000):
            parser.feed(piece)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 1.3 * 20_000 * len(piece)


# Mostly pieces that mean something on the wire, put together at random, and cut at random.
pieces = st.sampled_from(
    ["data", "id", "event", "retry", ":", ": ", " ", "\n", "\r", "\r\n", "\n\n", "12", "\0", "x", "é\U0001f600\u2028"]
)
fragments = st.sampled_from([b"\xef\xbb\xbf", b"\xef", b"\xbb", b"\xbf", b"\xe2\x80", b"\xff"])
bodies = st.lists(pieces.map(str.encode) | fragments | st.binary(max_size=4), max_size=40).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(body=bodies, cuts=st.lists(st.integers(0, 120), max_size=8))
@example(body=b"\xef\xbb\xbf\xef\xbb\xbfdata: a\r\r\n", cuts=[1, 2, 4])
def test_any_bytes_cut_anywhere_come_out_as_from_the_reference(body: bytes, cuts: list[int]) -> None:
    parser = Parser()
    bounds = [0, *sorted(cuts), len(body)]
    events = _feed_all(parser, [body[start:end] for start, end in pairwise(bounds)])
    expected = reference.parse(body)
    assert (events, parser.last_event_id) == (expected.events, expected.last_event_id)
    if expected.reconnection_time is None:
        assert parser.reconnection_time is None
    else:
        assert parser.reconnection_time == min(expected.reconnection_time, MAX_RECONNECTION_TIME)

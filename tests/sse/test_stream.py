"""A stream's life: one source, one end, whatever happens; and its two timers."""

import asyncio
import inspect
import json
import logging
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from itertools import count, product
from typing import Any

import pytest

from sse.budget import Budget, Charge
from sse.entries import record
from sse.errors import LONGEST_MESSAGE, SourceFailed
from sse.formats import Format, Written
from sse.ids import new_id
from sse.log import AHEAD, GATHER
from sse.stream import ENDS as TABLE
from sse.stream import MAX_EVENT, State, Stream, Trigger
from sse.wire.encoder import encode_json
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser
from sse.wire.payload import dumps
from tests.support.clock import idle, now
from tests.support.streams import Bare, Follower, Source, all_ready, for_ever, raising, stream_of, stubborn

pytestmark = pytest.mark.virtual_time


def written(stream: Stream) -> list[MessageEvent]:
    """What a watcher that comes now would receive."""
    follower = Follower(stream.log.first - 1)
    return Parser().feed(b"".join(all_ready(stream.log, follower)))


def terminals(stream: Stream) -> list[MessageEvent]:
    return [event for event in written(stream) if event.last_event_id == f"{stream.id}.end"]


# -- the state machine

ENDS = {
    Trigger.SOURCE_ENDED: State.DONE,
    Trigger.SOURCE_FAILED: State.FAILED,
    Trigger.DELETED: State.CANCELLED,
    Trigger.REPLACED: State.CANCELLED,
    Trigger.ABANDONED: State.CANCELLED,
    Trigger.SHUTTING_DOWN: State.CANCELLED,
}
TERMINALS = {
    Trigger.SOURCE_ENDED: ("message", "[DONE]"),
    Trigger.SOURCE_FAILED: ("error", '{"error":"no","code":"test","fatal":true}'),
    Trigger.DELETED: ("cancelled", '{"reason":"deleted"}'),
    Trigger.REPLACED: ("cancelled", '{"reason":"replaced"}'),
    Trigger.ABANDONED: ("cancelled", '{"reason":"abandoned"}'),
    Trigger.SHUTTING_DOWN: ("cancelled", '{"reason":"shutting_down"}'),
}


def end(stream: Stream, trigger: Trigger) -> bool:
    return stream.end(trigger, SourceFailed("no", "test") if trigger is Trigger.SOURCE_FAILED else None)


def test_the_table_has_a_row_for_every_trigger() -> None:
    assert TABLE == ENDS
    assert set(TABLE) == set(Trigger)


@pytest.mark.parametrize("trigger", Trigger)
async def test_a_running_stream_is_ended_by(trigger: Trigger) -> None:
    ended: list[Stream] = []
    stream = stream_of(None, Format(), linger=None, on_end=ended.append)
    assert (stream.state, stream.reason, stream.ended) == (State.RUNNING, None, None)

    assert end(stream, trigger)

    assert (stream.state, stream.reason) == (ENDS[trigger], trigger.value)
    assert stream.ended is not None
    assert stream.ended >= stream.created
    assert [(event.type, event.data) for event in written(stream)] == [TERMINALS[trigger]]
    assert len(terminals(stream)) == 1
    assert ended == [stream]


@pytest.mark.parametrize(("first", "second"), list(product(Trigger, Trigger)))
async def test_ended_is_ended(first: Trigger, second: Trigger) -> None:
    ended: list[Stream] = []
    stream = stream_of(None, Format(), linger=None, keep=100, on_end=ended.append)
    end(stream, first)
    before = (stream.state, stream.reason, stream.failure, stream.ended, written(stream))

    assert not end(stream, second)

    assert (stream.state, stream.reason, stream.failure, stream.ended, written(stream)) == before
    assert len(ended) == 1


# -- the run


async def test_a_source_that_ends_is_closed_and_its_stream_done() -> None:
    source = Source([1, 2])
    stream = stream_of(source, Format())
    stream.attach(Follower())

    await stream.closed()

    assert stream.state is State.DONE
    assert [(event.data, event.last_event_id) for event in written(stream)] == [
        ("1", f"{stream.id}.1"),
        ("2", f"{stream.id}.2"),
        ("[DONE]", f"{stream.id}.end"),
    ]
    assert (source.asked, source.closed) == (3, 1)


async def test_a_source_that_finds_no_room_fails_and_says_what_is_full() -> None:
    budget = Budget(100_000)
    kept = Charge(budget)

    async def growing() -> AsyncIterator[int]:
        for number in count(1):
            kept.claim(20_000)
            yield number

    stream = stream_of(growing(), Format(), budget=budget, kept=kept)
    await stream.closed()

    [event] = terminals(stream)
    assert json.loads(event.data) == {"error": "no room: memory", "code": "full", "fatal": True}
    assert stream.log.last == 3 + 1
    stream.discard()
    assert budget.used == 0


async def test_a_source_may_end_its_stream_with_a_code_of_its_own() -> None:
    source = Source([1, SourceFailed("the model is overloaded", "overloaded", retryable=True)])
    stream = stream_of(source, Format())

    await stream.closed()

    assert stream.state is State.FAILED
    assert stream.failure is not None
    assert stream.failure.retryable
    assert stream.failure.__traceback__ is None, "it would keep the source that failed"
    [event] = terminals(stream)
    assert event.type == "error"
    assert json.loads(event.data) == {"error": "the model is overloaded", "code": "overloaded", "fatal": True}
    assert source.closed == 1


async def test_any_other_error_is_logged_and_not_told(caplog: pytest.LogCaptureFixture) -> None:
    source = Source([1, KeyError("secret")])
    stream = stream_of(source, Format())

    await stream.closed()

    assert stream.state is State.FAILED
    [event] = terminals(stream)
    assert json.loads(event.data) == {"error": "internal error", "code": "internal", "fatal": True}
    [record] = caplog.records
    assert record.exc_info is not None
    assert record.levelno == logging.ERROR
    assert source.closed == 1


@pytest.mark.parametrize("trigger", [Trigger.DELETED, Trigger.ABANDONED, Trigger.SHUTTING_DOWN])
async def test_a_cancelled_source_has_its_finally_run(trigger: Trigger) -> None:
    happened: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await for_ever()
        except asyncio.CancelledError:
            happened.append("cancelled")
            raise
        finally:
            happened.append("closed")

    stream = stream_of(source(), Format(), linger=None)
    await idle()

    stream.end(trigger)
    assert happened == [], "the end is there before the source knows"
    assert [event.data for event in terminals(stream)] == [f'{{"reason":"{trigger.value}"}}']
    await stream.closed()

    assert happened == ["cancelled", "closed"]
    assert [event.data for event in written(stream)][:-1] == ["1"]


async def test_a_source_that_waits_for_a_watcher_is_closed_when_its_stream_is_cancelled() -> None:
    source = Source(range(1_000_000))
    stream = stream_of(source, Format())
    stream.attach(Follower())
    await idle()
    assert stream.log.waiting
    asked = source.asked

    stream.end(Trigger.DELETED)
    await stream.closed()

    assert (source.asked, source.closed) == (asked, 1)
    assert len(terminals(stream)) == 1


async def test_a_source_that_ignores_cancellation_writes_nothing_more() -> None:
    happened: list[str] = []
    stream = stream_of(stubborn(happened), Format(), linger=None)
    await asyncio.sleep(2.5)

    stream.end(Trigger.DELETED)
    await stream.closed()

    assert now() == 2.5
    assert happened == ["ignored", "closed"]
    assert [event.data for event in written(stream)] == ["1", "2", '{"reason":"deleted"}']


async def test_a_source_that_hangs_in_its_cleanup_holds_nobody() -> None:
    async def source() -> AsyncIterator[int]:
        try:
            yield 1
            await for_ever()
        finally:
            await asyncio.sleep(60)

    expired: list[float] = []
    stream = stream_of(source(), Format(), linger=None, keep=30, on_idle=lambda _: expired.append(now()))
    await idle()

    stream.end(Trigger.DELETED)
    assert len(terminals(stream)) == 1
    await stream.closed()

    assert now() == 60
    assert expired == [30]


async def test_a_stream_cancelled_before_its_first_step_starts_nothing_and_closes_all_the_same() -> None:
    source = Source([1, 2])
    stream = stream_of(source, Format())

    stream.end(Trigger.DELETED)
    await stream.closed()

    assert (source.asked, source.closed) == (0, 1)
    assert len(terminals(stream)) == 1


async def test_a_task_cancelled_from_outside_ends_its_stream_and_closes_its_source() -> None:
    before = asyncio.all_tasks()
    source = Source([1], for_ever)
    stream = stream_of(source, Format(), linger=None)
    [task] = asyncio.all_tasks() - before
    await idle()

    task.cancel()
    await stream.closed()

    assert (stream.state, stream.reason) == (State.CANCELLED, "shutting_down")
    assert len(terminals(stream)) == 1
    assert source.closed == 1


async def test_a_source_may_end_its_own_stream() -> None:
    stream: Stream

    async def source() -> AsyncIterator[int]:
        yield 1
        stream.end(Trigger.DELETED)
        await asyncio.sleep(1)  # it was not cancelled: it is the one that knows
        yield 2

    stream = stream_of(source(), Format(), linger=None)
    await stream.closed()

    assert now() == 1
    assert [event.data for event in written(stream)] == ["1", '{"reason":"deleted"}']


async def test_a_source_that_fails_to_close_is_logged_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    stream = stream_of(Source([1], on_close=raising(RuntimeError("no"))), Format())

    await stream.closed()

    assert stream.state is State.DONE
    assert ["failed to close" in record.message for record in caplog.records] == [True]


async def test_a_source_needs_no_aclose() -> None:
    stream = stream_of(Bare([1]), Format())

    await stream.closed()

    assert [event.data for event in written(stream)] == ["1", "[DONE]"]


async def test_waiting_for_the_close_of_a_stream_without_a_source_is_over_at_once() -> None:
    await stream_of(None, Format(), linger=None).closed()


async def test_a_source_that_never_waits_stops_so_far_ahead_of_its_watcher() -> None:
    stream = stream_of(Source(range(1_000_000)), Format())
    follower = Follower()
    stream.attach(follower)
    await idle()
    ahead = stream.log.size

    assert AHEAD <= ahead < AHEAD + 100
    assert stream.log.waiting
    stream.log.take(follower)
    await idle()
    assert stream.log.size >= 2 * AHEAD


async def test_a_source_that_never_waits_lets_others_run_while_nobody_watches() -> None:
    source = Source(range(10_000))
    stream = stream_of(source, Format(), linger=None)
    seen: set[int] = set()
    while stream.state is State.RUNNING:
        await asyncio.sleep(0)
        seen.add(source.asked)

    assert len(seen) >= stream.log.size // (AHEAD + 100)


# -- items


class Odd(Format):
    """Writes nothing for None, and can't write a string."""

    def item(self, item: Any) -> Written:
        if isinstance(item, str):
            raise ValueError(item)
        return b"" if item is None else super().item(item)


async def test_an_item_that_cannot_be_written_costs_itself_alone(caplog: pytest.LogCaptureFixture) -> None:
    stream = stream_of(None, Odd(), linger=None)

    for item in (1, "two", 3):
        stream.emit(item)

    assert [(event.type, event.data) for event in written(stream)] == [
        ("message", "1"),
        ("item_error", '{"error":"ValueError: two"}'),
        ("message", "3"),
    ]
    assert stream.state is State.RUNNING
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_an_item_that_has_no_json_form_is_told_with_the_reason() -> None:
    stream = stream_of(None, Format(), linger=None)
    circle: list[Any] = []
    circle.append(circle)

    stream.emit({"a": circle})

    [event] = written(stream)
    assert event.type == "item_error"
    assert json.loads(event.data)["error"].startswith("Unwritable: this dict has no JSON form: ")


async def test_an_item_for_which_nothing_is_written_gets_no_number() -> None:
    stream = stream_of(None, Odd(), linger=None)

    for item in (None, 1, None, 2):
        stream.emit(item)
    assert [event.last_event_id for event in written(stream)] == [f"{stream.id}.1", f"{stream.id}.2"]


@pytest.mark.parametrize(
    ("size", "kept"), [(MAX_EVENT - 10, True), (MAX_EVENT - 9, False)], ids=["at the limit", "over the limit"]
)
async def test_an_event_has_a_limit(size: int, kept: bool) -> None:
    stream = stream_of(None, Format(), linger=None)

    stream.emit("x" * size)  # `data: "…"` and two LF are ten bytes more
    stream.emit(2)

    first, second = written(stream)
    assert second.data == "2"
    if kept:
        assert first.data == json.dumps("x" * size)
    else:
        expected = f"an event of {MAX_EVENT + 1} bytes is over the limit of {MAX_EVENT}"
        assert (first.type, json.loads(first.data)) == ("item_error", {"error": expected})


async def test_an_error_longer_than_an_event_may_be_is_not_told_in_full() -> None:
    stream = stream_of(None, Odd(), linger=None)

    stream.emit("x" * MAX_EVENT)

    [event] = written(stream)
    assert event.type == "item_error"
    assert json.loads(event.data) == {"error": "ValueError: " + "x" * LONGEST_MESSAGE}


async def test_the_age_of_the_last_event_is_on_the_loops_clock() -> None:
    stream = stream_of(None, Format(), linger=None)
    assert stream.last_event is None

    await asyncio.sleep(3)
    stream.emit(1)

    assert stream.last_event == 3


class Several(Format):
    """Writes an event for each part of an item, and announces every end with events of its own. ids: whether they have any."""

    def __init__(self, *, ids: bool = True) -> None:
        self.ids = ids

    def item(self, item: Sequence[Any]) -> Written:
        return [encode_json(dumps(part)) if part is not None else b"" for part in item]

    def done(self) -> Written:
        return [b"data: last words\n\n", b"data: finish\n\n", b"data: [DONE]\n\n"]

    def cancelled(self, reason: str) -> Written:
        return (b"data: abort\n\n", b"data: [DONE]\n\n")

    def failed(self, failure: SourceFailed) -> Written:
        return [b"data: error\n\n", b"data: [DONE]\n\n"]


ITEMS = [[], [1], [2, 3, 4], [None], [5, None, 6]]


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "without ids"])
async def test_every_event_that_is_written_for_an_item_is_an_entry_with_a_number_of_its_own(ids: bool) -> None:
    stream = stream_of(None, Several(ids=ids), id="s", linger=None)

    for item in ITEMS:
        stream.emit(item)

    assert [event.data for event in written(stream)] == ["1", "2", "3", "4", "5", "6"]
    expected = [f"s.{number}" if ids else "" for number in range(1, 7)]
    assert [event.last_event_id for event in written(stream)] == expected
    assert stream.log.last == 6


async def test_a_source_whose_items_write_several_events_is_followed_like_any_other() -> None:
    source = Source([[1, 2, 3]] * 3000)
    stream = stream_of(source, Several(), id="s")
    follower = Follower()
    stream.attach(follower)
    await idle()
    assert stream.log.waiting
    assert stream.log.size < AHEAD + 100

    bodies = []
    while not stream.finished(follower):
        bodies.append(stream.take(follower))
        await idle()

    events = Parser().feed(b"".join(bodies))
    assert [event.last_event_id for event in events] == [*(f"s.{n}" for n in range(1, 9000 + 3)), "s.end"]


async def test_a_watcher_may_resume_between_two_events_of_one_item() -> None:
    stream = stream_of(None, Several(), id="s", linger=None)
    stream.emit([1, 2, 3])

    assert Parser().feed(stream.take(Follower(2)))[0].last_event_id == "s.3"


async def test_of_several_events_of_an_item_one_that_is_too_long_costs_itself_alone() -> None:
    stream = stream_of(None, Several(), linger=None)

    stream.emit([1, "x" * MAX_EVENT, 3])

    assert [event.type for event in written(stream)] == ["message", "item_error", "message"]


@pytest.mark.parametrize("ids", [True, False], ids=["ids", "without ids"])
@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (Trigger.SOURCE_ENDED, ["last words", "finish", "[DONE]"]),
        (Trigger.SOURCE_FAILED, ["error", "[DONE]"]),
        (Trigger.DELETED, ["abort", "[DONE]"]),
        (Trigger.ABANDONED, ["abort", "[DONE]"]),
        (Trigger.SHUTTING_DOWN, ["abort", "[DONE]"]),
    ],
)
async def test_of_several_events_of_an_end_the_last_one_is_the_terminal_event(
    trigger: Trigger, said: list[str], ids: bool
) -> None:
    stream = stream_of(None, Several(ids=ids), id="s", linger=None)
    stream.emit([1])
    stream.attach(follower := Follower(1))
    assert stream.take(follower) == b""

    end(stream, trigger)

    assert follower.woken == 1
    assert stream.log.last == 1 + len(said)
    expected = [*(f"s.{number}" for number in range(2, 1 + len(said))), "s.end"] if ids else [""] * len(said)
    assert [(event.data, event.last_event_id) for event in written(stream)[1:]] == list(zip(said, expected, strict=True))
    assert not stream.finished(follower)
    stream.take(follower)
    assert stream.finished(follower)


async def test_whoever_has_all_but_the_terminal_event_of_an_end_gets_that_alone() -> None:
    stream = stream_of(None, Several(), id="s", linger=None, keep=100)
    stream.end(Trigger.SOURCE_ENDED)

    assert Parser().feed(stream.take(Follower(2)))[0].last_event_id == "s.end"


class Silent(Format):
    """Says nothing at the end: `nothing` of it."""

    def __init__(self, nothing: Written) -> None:
        self.nothing = nothing

    def done(self) -> Written:
        return self.nothing

    def cancelled(self, reason: str) -> Written:
        return self.nothing

    def failed(self, failure: SourceFailed) -> Written:
        return self.nothing


@pytest.mark.parametrize("trigger", Trigger)
@pytest.mark.parametrize("nothing", [b"", [], [b""], [b"data: 1\n\n", b""]], ids=str)
async def test_an_end_for_which_nothing_is_written_comes_all_the_same(
    trigger: Trigger, nothing: Written, caplog: pytest.LogCaptureFixture
) -> None:
    stream = stream_of(None, Silent(nothing), linger=None)

    end(stream, trigger)

    assert stream.state is ENDS[trigger]
    [event] = written(stream)
    assert (event.type, json.loads(event.data)["code"]) == ("error", "internal")
    assert event.last_event_id == f"{stream.id}.end"
    assert [record.getMessage() for record in caplog.records] == ["the format plain has written no terminal event"]


class Broken(Format):
    """A format with a defect in everything it says at the end."""

    def done(self) -> bytes:
        raise RuntimeError("no")

    def failed(self, failure: SourceFailed) -> bytes:
        raise RuntimeError("no")

    def cancelled(self, reason: str) -> bytes:
        raise RuntimeError("no")


@pytest.mark.parametrize("trigger", Trigger)
async def test_a_format_that_cannot_say_the_end_does_not_keep_it_from_coming(
    trigger: Trigger, caplog: pytest.LogCaptureFixture
) -> None:
    stream = stream_of(Source([1], for_ever), Broken(), linger=None)
    await idle()

    end(stream, trigger)
    await stream.closed()

    assert stream.state is ENDS[trigger]
    assert stream.log.closed
    [event] = terminals(stream)
    assert (event.type, json.loads(event.data)["code"]) == ("error", "internal")
    assert len(caplog.records) == 1


# -- ids


class WithoutIds(Format):
    ids = False

    def opening(self, stream_id: str) -> bytes | None:
        return None


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        pytest.param(None, ["s.3", "s.4", "s.end"], id="of the stream"),
        pytest.param("", ["3", "4", "end"], id="bare numbers"),
        pytest.param("x-", ["x-3", "x-4", "x-end"], id="of its own"),
    ],
)
async def test_ids_are_a_prefix_and_a_number(ids: str | None, expected: list[str]) -> None:
    stream = stream_of(Source([1, 2]), Format(), id="s", ids=ids, start=2)

    await stream.closed()

    assert [event.last_event_id for event in written(stream)] == expected


async def test_a_format_may_go_without_ids() -> None:
    stream = stream_of(Source([1, 2, 3]), WithoutIds(), max_events=2)

    await stream.closed()

    assert [event.last_event_id for event in written(stream)] == ["", ""]
    assert stream.log.take(Follower()) == b'event: gap\ndata: {"first":1,"last":2}\n\n'


async def test_a_gap_has_the_id_of_the_last_event_missing() -> None:
    stream = stream_of(None, Format(), id="s", linger=None, max_events=2)
    for item in range(5):
        stream.emit(item)

    follower = Follower(1)
    assert stream.log.take(follower) == b'id: s.3\nevent: gap\ndata: {"first":2,"last":3}\n\n'


def test_stream_ids_are_22_url_safe_characters_and_never_the_same() -> None:
    ids = {new_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(len(id) == 22 and id.replace("-", "a").replace("_", "a").isalnum() for id in ids)


CONNECTED = b'event: connected\ndata: {"status":"ok","stream":"s"}\n\n'


@pytest.mark.parametrize(
    ("format", "retry", "newcomer", "expected"),
    [
        pytest.param(Format(), 2000, True, b"id: s.7\nretry: 2000\n" + CONNECTED, id="newcomer"),
        pytest.param(Format(), None, True, b"id: s.7\n" + CONNECTED, id="newcomer, no retry"),
        pytest.param(Format(), 0, False, b"id: s.7\nretry: 0\n\n", id="resumed"),
        pytest.param(Format(), None, False, b"id: s.7\n\n", id="resumed, no retry"),
        pytest.param(WithoutIds(), 2000, True, b":\n", id="without ids"),
        pytest.param(WithoutIds(), 2000, False, b":\n", id="without ids, resumed"),
    ],
)
async def test_the_preamble(format: Format, retry: int | None, newcomer: bool, expected: bytes) -> None:
    stream = stream_of(None, format, id="s", linger=None)

    assert stream.preamble(7, retry, newcomer=newcomer) == (expected,)


async def test_an_opening_goes_out_without_ids_too() -> None:
    class Opening(WithoutIds):
        def opening(self, stream_id: str) -> bytes | None:
            return Format().opening(stream_id)

    stream = stream_of(None, Opening(), id="s", linger=None)

    assert stream.preamble(0, 2000, newcomer=True) == (CONNECTED,)


# -- in ASCII


class Umlauts(Format):
    """Writes several events wherever that is possible, and none of them in ASCII."""

    name = "umlauts"
    ids = False
    headers = ((b"x-umlauts", b"yes"),)

    def opening(self, stream_id: str) -> bytes | None:
        return "data: ä\n\n".encode()

    def item(self, item: Any) -> Written:
        """None can't be written."""
        if item is None:
            raise ValueError(item)
        return [f"data: ö{item}\n\n".encode(), b"data: o\n\n"]

    def item_error(self, error: str) -> bytes:
        return "data: ü\n\n".encode()

    def gap(self, first: int, last: int) -> bytes:
        return "data: ß\n\n".encode()

    def done(self) -> Written:
        return ("data: Ä\n\n".encode(), b"data: [DONE]\n\n")

    def cancelled(self, reason: str) -> Written:
        return ["data: Ö\n\n".encode()]

    def failed(self, failure: SourceFailed) -> Written:
        return ["data: Ü\n\n".encode(), "data: é\n\n".encode()]


def after(stream: Stream, position: int = 0) -> bytes:
    """What a watcher with this position would be sent."""
    return b"".join(all_ready(stream.log, Follower(position)))


def said_at_an_end(trigger: Trigger) -> Callable[[Stream], bytes]:
    def say(stream: Stream) -> bytes:
        end(stream, trigger)
        return after(stream)

    return say


def said_of_an_item(item: Any) -> Callable[[Stream], bytes]:
    def say(stream: Stream) -> bytes:
        stream.emit(item)
        return after(stream)

    return say


async def test_a_large_opening_is_made_once_charged_and_goes_out_in_slices() -> None:
    made = []

    class Large(Format):
        def opening(self, stream_id: str) -> bytes | None:
            made.append(stream_id)
            return b"data: %b\n\n" % (b"x" * 100_000)

    stream = stream_of(None, Large(), id="s", linger=None)
    before = stream.kept.size
    first, other = stream.preamble(0, None, newcomer=True), stream.preamble(7, None, newcomer=True)
    assert b"".join(first) == b"id: s.0\ndata: %b\n\n" % (b"x" * 100_000)
    assert max(map(len, first)) <= GATHER + len(b"id: s.0\n")
    assert all(one is another for one, another in zip(first[1:], other[1:], strict=True))
    assert (made, stream.kept.size - before) == (["s"], 100_008)
    assert stream.preamble(7, None, newcomer=False) == (b"id: s.7\n\n",)


def said_of_a_gap(stream: Stream) -> bytes:
    stream.emit(1)
    stream.log.drop(1)
    return stream.log.take(Follower())


EVERYTHING: dict[str, Callable[[Stream], bytes]] = {
    "opening": lambda stream: b"".join(stream.preamble(0, None, newcomer=True)),
    "item": said_of_an_item(1),
    "item_error": said_of_an_item(None),
    "item_error of one too long": said_of_an_item("x" * MAX_EVENT),
    "gap": said_of_a_gap,
    "done": said_at_an_end(Trigger.SOURCE_ENDED),
    "cancelled": said_at_an_end(Trigger.DELETED),
    "failed": said_at_an_end(Trigger.SOURCE_FAILED),
    "apology": lambda stream: stream.apology(),
    "lost": lambda stream: bytes(record(stream.opening)["lost"], "utf-8"),
}


def test_no_method_of_a_format_is_left_out() -> None:
    methods = {name for name, _ in inspect.getmembers(Format, inspect.isfunction)}
    assert methods == {name.split()[0] for name in EVERYTHING}


@pytest.mark.parametrize("say", EVERYTHING.values(), ids=EVERYTHING)
async def test_whatever_a_stream_says_is_transliterated_where_asked(say: Callable[[Stream], bytes]) -> None:
    pytest.importorskip("anyascii")
    plain, ascii = (say(stream_of(None, Umlauts(), linger=None, ascii=asked)) for asked in (False, True))

    assert not plain.isascii()
    assert ascii.isascii()
    assert len(ascii.splitlines()) == len(plain.splitlines())


@pytest.mark.parametrize(
    ("item", "expected"), [({"Größe": ["€", 5]}, b'data: {"Grosse":["EUR",5]}\n\n'), ("ö", b'data: "o"\n\n')]
)
async def test_the_plain_format_in_ascii(item: Any, expected: bytes) -> None:
    pytest.importorskip("anyascii")
    stream = stream_of(None, WithoutIds(), linger=None, ascii=True)
    stream.emit(item)
    assert after(stream) == expected


async def test_a_failure_in_ascii() -> None:
    pytest.importorskip("anyascii")
    stream = stream_of(None, WithoutIds(), linger=None, ascii=True)
    stream.end(Trigger.SOURCE_FAILED, SourceFailed("Überlast", "overloaded"))
    assert after(stream) == b'event: error\ndata: {"error":"Uberlast","code":"overloaded","fatal":true}\n\n'


async def test_a_format_without_an_opening_has_none_in_ascii_either() -> None:
    pytest.importorskip("anyascii")
    assert stream_of(None, WithoutIds(), linger=None, ascii=True).preamble(0, None, newcomer=True) == (b":\n",)


async def test_without_the_extra_no_stream_in_ascii_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyascii", None)
    with pytest.raises(ModuleNotFoundError):
        stream_of(None, ascii=True)


# -- linger


@pytest.mark.parametrize("linger", [0, 10, 3600])
async def test_nobody_came_within_the_linger(linger: float) -> None:
    source = Source([1], for_ever)
    stream = stream_of(source, Format(), linger=linger)

    await stream.closed()

    assert now() == linger
    assert (stream.state, stream.reason, source.closed) == (State.CANCELLED, "abandoned", 1)


async def test_without_a_linger_the_work_goes_on_for_ever() -> None:
    stream = stream_of(Source([1], for_ever), Format(), linger=None)
    follower = Follower()
    stream.attach(follower)
    stream.detach(follower)

    await asyncio.sleep(1e6)

    assert stream.state is State.RUNNING
    stream.end(Trigger.DELETED)


async def test_a_watcher_that_comes_just_before_the_linger_is_over_keeps_the_work_going() -> None:
    stream = stream_of(Source([1], for_ever), Format(), linger=10)
    follower = Follower()

    await asyncio.sleep(9.75)
    stream.attach(follower)
    await asyncio.sleep(1e6)
    assert stream.state is State.RUNNING

    stream.detach(follower)
    left = now()
    await stream.closed()
    assert now() - left == 10
    assert stream.reason == "abandoned"


async def test_with_no_linger_a_watcher_attached_at_once_is_in_time() -> None:
    stream = stream_of(Source([1], for_ever), Format(), linger=0)
    follower = Follower()
    stream.attach(follower)

    await asyncio.sleep(100)
    assert stream.state is State.RUNNING

    stream.detach(follower)
    await stream.closed()
    assert now() == 100


async def test_the_linger_begins_when_the_last_watcher_leaves() -> None:
    stream = stream_of(Source([1], for_ever), Format(), linger=10)
    first, second = Follower(), Follower()
    stream.attach(first)
    stream.attach(second)

    stream.detach(first)
    await asyncio.sleep(50)
    assert stream.state is State.RUNNING
    stream.detach(second)
    await asyncio.sleep(9)
    stream.attach(first)
    stream.detach(first)
    await asyncio.sleep(9)
    assert stream.state is State.RUNNING, "it begins anew"
    await stream.closed()

    assert now() == 69


# -- keep


def kept(keep: float) -> tuple[Stream, list[float]]:
    """A stream that has ended, and when it expired."""
    expired: list[float] = []
    stream = stream_of(None, Format(), linger=5, keep=keep, on_idle=lambda _: expired.append(now()))
    stream.end(Trigger.SOURCE_ENDED)
    return stream, expired


@pytest.mark.parametrize("keep", [0, 30])
async def test_an_ended_stream_expires_after_its_keep(keep: float) -> None:
    _, expired = kept(keep)
    assert expired == []

    await asyncio.sleep(100)

    assert expired == [keep]


async def test_a_watched_stream_never_expires_and_goes_when_its_last_watcher_does() -> None:
    stream, expired = kept(30)
    first, second = Follower(), Follower()
    stream.attach(first)
    stream.attach(second)

    await asyncio.sleep(100)
    stream.detach(first)
    await idle()
    assert expired == []
    stream.detach(second)
    await asyncio.sleep(100)

    assert expired == [100]


async def test_a_watcher_of_an_ended_stream_does_not_shorten_its_keep() -> None:
    stream, expired = kept(30)
    follower = Follower()
    stream.attach(follower)

    await asyncio.sleep(10)
    stream.detach(follower)
    await asyncio.sleep(100)

    assert expired == [30]


async def test_an_end_stops_the_linger() -> None:
    stream, _ = kept(30)

    await asyncio.sleep(20)

    assert stream.reason == "source_ended"


async def test_a_generator_is_closed_where_it_stands() -> None:
    """The source is at a `yield`, not at an await: closing it is all that tells it."""
    closed: list[float] = []

    async def source() -> AsyncGenerator[int, None]:
        try:
            for number in range(1_000_000):
                yield number
        finally:
            closed.append(now())

    stream = stream_of(source(), Format(), linger=7)
    stream.attach(follower := Follower())
    await idle()
    stream.detach(follower)
    stream.end(Trigger.DELETED)
    await stream.closed()

    assert closed == [0]

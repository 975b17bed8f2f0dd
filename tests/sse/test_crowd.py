"""Watchers that have taken everything get one message, in one pass; one that can't take it at once costs the others nothing.

Each test runs twice: the message goes to the server's `send`, or as one framed chunk to its `write`.
"""

import asyncio
import json
import logging
from collections.abc import Iterator
from itertools import pairwise

import pytest

from sse.asgi import Message
from sse.crowd import AT_ONCE
from sse.formats import Format
from sse.log import GATHER
from sse.sender import Outcome, Pace
from sse.stream import Stream, Trigger
from tests.support.clock import idle, now
from tests.support.streams import Client, data, emit, published, stream_of

pytestmark = pytest.mark.virtual_time


@pytest.fixture(autouse=True, params=[False, True], ids=["send", "write"])
def chunks(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(Client, "chunks", request.param)


async def watching(stream: Stream, *clients: Client) -> list[asyncio.Task[None]]:
    """The tasks of clients that watch and have taken everything."""
    tasks = [client.watch(stream) for client in clients]
    await idle()
    return tasks


async def test_an_event_is_one_message_for_all_and_goes_out_in_the_turn_in_which_it_is_appended() -> None:
    stream, clients = published(), [Client() for _ in range(3)]
    tasks = await watching(stream, *clients)

    emit(stream, "a")

    assert [client.bodies[-1] for client in clients] == [b'id: s.1\ndata: "a"\n\n'] * 3
    assert len({id(client.written[-1] if client.written else client.sent[-1]) for client in clients}) == 1
    assert all(bool(client.written) == Client.chunks for client in clients)
    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)
    assert [client.outcomes for client in clients] == [[Outcome.COMPLETE]] * 3


async def test_what_follows_in_the_same_turn_travels_together() -> None:
    stream, clients = published(), [Client(), Client()]
    tasks = await watching(stream, *clients)

    emit(stream, 1, 2, 3)
    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)

    for client in clients:
        assert client.bodies[1:] == [
            b"id: s.1\ndata: 1\n\n",
            b"id: s.2\ndata: 2\n\nid: s.3\ndata: 3\n\nid: s.end\ndata: [DONE]\n\n",
        ]


async def test_one_that_cannot_take_it_at_once_leaves_catches_up_and_is_back() -> None:
    stream, clients, slow = published(), [Client(), Client()], Client()
    tasks = await watching(stream, *clients, slow)
    slow.stop_reading()
    for number in range(3):
        emit(stream, number)
        await idle()
    assert [data(client) for client in clients] == [["0", "1", "2"]] * 2
    assert (data(slow), slow.calls) == ([], 3)
    assert sorted(stream.log.last - watcher.position for watcher in stream.log.watchers) == [0, 0, 2]

    slow.go_on_reading()
    await idle()
    assert slow.bodies[1:] == [b"id: s.1\ndata: 0\n\n", b"id: s.2\ndata: 1\n\nid: s.3\ndata: 2\n\n"]
    emit(stream, 3)
    assert slow.sent[-1] == clients[0].sent[-1]

    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)
    assert len({client.body for client in (*clients, slow)}) == 1


async def test_each_knows_what_it_was_sent_also_one_that_came_later_or_left_for_a_while() -> None:
    stream, first, slow, late = published(), Client(), Client(), Client(from_now=True)
    tasks = await watching(stream, first, slow)
    emit(stream, 1)
    await idle()
    slow.stop_reading()
    emit(stream, 2)
    tasks += await watching(stream, late)
    slow.go_on_reading()
    await asyncio.sleep(15)  # a heartbeat
    emit(stream, 3)
    live = {watcher.sent for watcher in stream.log.watchers}  # type: ignore[attr-defined]
    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)

    for client in (first, slow, late):
        assert client.bodies.count(b":\n") == 1
        [watcher] = client.watchers
        assert watcher.sent == len(client.body)
        assert watcher.sent - len(client.bodies[-1]) in live
    assert [client.watchers[0].events for client in (first, slow, late)] == [4, 4, 2]


async def test_the_heartbeat_of_all_comes_when_nothing_was_sent_for_the_interval() -> None:
    stream, first, late = published(), Client(), Client()
    tasks = await watching(stream, first)
    await asyncio.sleep(5)
    tasks += await watching(stream, late)
    emit(stream, 1)
    await asyncio.sleep(14.5)
    assert b":\n" not in first.bodies + late.bodies

    await asyncio.sleep(0.5)
    assert first.sent[-1] == late.sent[-1]
    assert late.bodies[-1] == b":\n"
    await asyncio.sleep(15)
    assert late.bodies[-2:] == [b":\n"] * 2
    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)


async def test_one_with_another_heartbeat_has_its_own() -> None:
    stream, clients = published(), [Client(pace=Pace(heartbeat=seconds)) for seconds in (4, 6)]
    tasks = await watching(stream, *clients)
    await asyncio.sleep(13)

    assert [client.bodies.count(b":\n") for client in clients] == [3, 2]
    emit(stream, 1)
    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)
    assert [data(client) for client in clients] == [["1", "[DONE]"]] * 2


async def test_one_that_does_not_take_a_heartbeat_has_stalled_and_the_others_go_on() -> None:
    stream, stalled, reader = published(), Client(), Client()
    tasks = await watching(stream, stalled, reader)
    stalled.stop_reading()
    await tasks[0]

    assert (stalled.outcomes, now(), len(stalled.aborted)) == ([Outcome.STALLED], 45, 1)
    assert len(stream.log.watchers) == 1
    assert reader.bodies[1:3] == [b":\n"] * 2
    reader.disconnect()
    await tasks[1]


@pytest.mark.parametrize(
    ("error", "outcome"), [(OSError("gone"), Outcome.GONE), (RuntimeError("a defect"), Outcome.FAILED)], ids=["gone", "defect"]
)
async def test_a_send_that_fails_is_not_felt_by_the_others(error: Exception, outcome: Outcome) -> None:
    stream, failing, reader = published(), Client(), Client()
    tasks = await watching(stream, failing, reader)
    failing.raises = error
    emit(stream, 1)
    await tasks[0]
    stream.end(Trigger.SOURCE_ENDED)
    await tasks[1]

    assert (failing.outcomes, reader.outcomes) == ([outcome], [Outcome.COMPLETE])
    assert data(reader) == ["1", "[DONE]"]


async def test_one_that_leaves_while_an_event_is_given_out_costs_the_others_nothing() -> None:
    class Leaving(Client):
        def write(self, chunk: bytes) -> bool:
            if b"leave" in chunk:
                self.disconnect()
            return super().write(chunk)

        async def send(self, message: Message) -> None:
            if b"leave" in message.get("body", b""):
                self.disconnect()
            await super().send(message)

    stream, leaving, reader = published(), Leaving(), Client()
    tasks = await watching(stream, leaving, reader)
    emit(stream, "leave")
    await tasks[0]
    emit(stream, 2)
    stream.end(Trigger.SOURCE_ENDED)
    await tasks[1]

    assert leaving.outcomes == [Outcome.GONE]
    assert data(reader) == ['"leave"', "2", "[DONE]"]


async def test_when_the_last_has_left_nobody_is_given_anything_and_the_next_begins_where_it_stands() -> None:
    stream, first, second = published(), Client(), Client(from_now=True)
    [task] = await watching(stream, first)
    first.disconnect()
    await task
    emit(stream, 1, 2)
    await asyncio.sleep(100)
    assert len(first.bodies) == 1

    [task] = await watching(stream, second)
    emit(stream, 3)
    await asyncio.sleep(15)
    assert [data(second), second.bodies[-1]] == [["3"], b":\n"]
    stream.end(Trigger.SOURCE_ENDED)
    await task


async def test_events_that_are_lost_before_the_crowd_could_take_them_are_a_gap_for_all() -> None:
    stream, clients = published(max_events=2), [Client(), Client()]
    tasks = await watching(stream, *clients)
    emit(stream, 1, 2, 3, 4, 5)
    await idle()

    for client in clients:
        assert [(event.type, event.data) for event in client.events[1:]] == [
            ("message", "1"), ("gap", '{"first":2,"last":3}'), ("message", "4"), ("message", "5"),
        ]  # fmt: skip
    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)


async def test_a_gap_that_cannot_be_written_is_told_to_each() -> None:
    class WithoutGap(Format):
        def gap(self, first: int, last: int) -> bytes:
            raise ZeroDivisionError

    stream, clients = stream_of(None, WithoutGap(), id="s", linger=None, max_events=2), [Client(), Client()]
    tasks = await watching(stream, *clients)
    logging.getLogger("sse").setLevel(logging.CRITICAL)
    emit(stream, 1, 2, 3, 4, 5)
    await asyncio.gather(*tasks)

    assert [client.outcomes for client in clients] == [[Outcome.FAILED]] * 2
    assert [client.events[-1].type for client in clients] == ["error"] * 2


@pytest.fixture(autouse=True)
def _log_level() -> Iterator[None]:
    level = logging.getLogger("sse").level
    yield
    logging.getLogger("sse").setLevel(level)


async def test_under_another_server_each_is_sent_to_by_a_task_of_its_own() -> None:
    stream, clients = published(), [Client(), Client()]
    tasks = [client.watch(stream, ours=False) for client in clients]
    await idle()
    emit(stream, 1)
    assert [data(client) for client in clients] == [[], []]
    await idle()
    assert [data(client) for client in clients] == [["1"], ["1"]]
    await asyncio.sleep(15)
    assert [client.bodies[-1] for client in clients] == [b":\n"] * 2
    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)


async def test_a_thousand_watchers_that_come_and_go_all_get_what_is_theirs() -> None:
    stream, clients = published(), [Client() for _ in range(1000)]
    tasks = []
    for number, client in enumerate(clients):
        tasks.append(client.watch(stream))
        if number % 10 == 0:
            emit(stream, number)
        if number % 7 == 0:
            client.stop_reading()
        if number % 50 == 0:
            await idle()
            for each in clients[:number]:
                each.go_on_reading()
    for client in clients:
        client.go_on_reading()
    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)

    assert {tuple(data(client)) for client in clients} == {(*(str(number) for number in range(0, 1000, 10)), "[DONE]")}
    assert stream.log.watchers == {}


async def test_the_end_of_a_stream_takes_as_many_turns_of_the_loop_as_its_watchers_need() -> None:
    """5,000 requests that end in one turn hold up all others for half a second."""
    stream, clients = published(), [Client() for _ in range(5 * AT_ONCE)]
    tasks = await watching(stream, *clients)
    emit(stream, "a")
    told: list[int] = []

    stream.end(Trigger.SOURCE_ENDED)
    while not told or told[-1] < len(clients):
        told.append(sum(b"[DONE]" in client.bodies[-1] for client in clients))
        await asyncio.sleep(0)

    assert max(later - before for before, later in pairwise([0, *told])) == AT_ONCE
    await asyncio.gather(*tasks)
    assert [client.outcomes for client in clients] == [[Outcome.COMPLETE]] * len(clients)


async def test_a_large_event_goes_out_in_slices_and_one_that_leaves_in_the_middle_of_it_goes_on_there() -> None:
    class Slow(Client):
        """Takes no more after the first slice."""

        async def send(self, message: Message) -> None:
            await super().send(message)
            if len(message.get("body", b"")) == GATHER:
                self.stop_reading()

        def write(self, chunk: bytes) -> bool:
            written = super().write(chunk)
            if len(self.bodies[-1]) == GATHER:
                self.stop_reading()
            return written

    stream, reader, slow = published(), Client(), Slow()
    tasks = await watching(stream, reader, slow)
    emit(stream, "x" * GATHER * 3)
    await idle()
    emit(stream, 2)
    await idle()
    assert [len(body) for body in reader.bodies[1:4]] == [GATHER] * 3
    assert (len(data(reader)), len(slow.bodies)) == (2, 2)

    stream.end(Trigger.SOURCE_ENDED)
    while not tasks[1].done():
        slow.go_on_reading()
        await idle()
    assert slow.body == reader.body


async def test_one_that_was_alone_and_left_in_the_middle_of_a_large_event_gets_the_next_one_from_its_beginning() -> None:
    stream, client = published(), Client()
    (task,) = await watching(stream, client)
    emit(stream, "x" * GATHER * 3)
    client.stop_reading()
    await idle()
    client.go_on_reading()
    await idle()
    assert stream.log.last == next(iter(stream.log.watchers)).position

    emit(stream, "y" * GATHER * 3)
    await idle()
    stream.end(Trigger.SOURCE_ENDED)
    await task
    assert [json.loads(said) for said in data(client)[:2]] == ["x" * GATHER * 3, "y" * GATHER * 3]

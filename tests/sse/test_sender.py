"""Sending what a log has ready over one connection, and the heartbeat while nothing is."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sse.asgi import Message
from sse.formats import Format
from sse.log import GATHER
from sse.sender import Outcome, Pace, Sender
from sse.stream import Trigger
from sse.wire.event import MessageEvent
from tests.support.clock import counted_turns, idle, now
from tests.support.streams import Client, data, emit, published, stream_of

pytestmark = pytest.mark.virtual_time


# -- what is sent


async def test_events_go_out_as_they_come_until_the_end() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()

    emit(stream, "é", "b")
    await idle()
    assert b"".join(client.bodies[1:]) == 'id: s.1\ndata: "é"\n\nid: s.2\ndata: "b"\n\n'.encode()
    emit(stream, "c")
    await idle()
    stream.end(Trigger.SOURCE_ENDED)
    await task

    assert client.bodies[-2:] == [b'id: s.3\ndata: "c"\n\n', b"id: s.end\ndata: [DONE]\n\n"]
    assert client.complete
    assert client.outcomes == [Outcome.COMPLETE]
    assert stream.log.watchers == {}


async def test_the_watcher_knows_what_it_sent() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    emit(stream, 1, 2)
    stream.end(Trigger.SOURCE_ENDED)
    await task

    [watcher] = client.watchers
    assert (watcher.sent, watcher.position) == (len(client.body), 3)


async def test_a_laggard_is_told_its_gap_and_goes_on() -> None:
    stream, laggard, leader = published(max_events=10), Client(), Client()
    tasks = [laggard.watch(stream), leader.watch(stream)]
    await idle()
    laggard.stop_reading()
    for number in range(1, 31):
        emit(stream, number)
        await idle()
    laggard.go_on_reading()
    stream.end(Trigger.SOURCE_ENDED)
    await asyncio.gather(*tasks)

    assert data(leader) == [*map(str, range(1, 31)), "[DONE]"]
    assert data(laggard) == ["1", *map(str, range(22, 31)), "[DONE]"]
    [gap] = [event for event in laggard.events if event.type == "gap"]
    assert gap == MessageEvent("gap", '{"first":2,"last":21}', "s.21")
    assert laggard.complete
    assert leader.complete


async def test_several_watchers_of_one_stream_receive_the_same_bytes() -> None:
    stream = published()
    clients = [Client() for _ in range(5)]
    tasks = [client.watch(stream) for client in clients]
    await idle()
    for number in range(50):
        emit(stream, {"number": number, "text": "é" * number})
        if number % 7 == 0:
            await idle()
    stream.end(Trigger.DELETED)
    await asyncio.gather(*tasks)

    assert len({client.body for client in clients}) == 1
    assert len(clients[0].events) == 52


async def test_one_that_stalls_is_not_felt_by_the_others() -> None:
    async def source() -> AsyncIterator[str]:
        for _ in range(200):
            yield "x" * 1000

    stream, stalled, reader = stream_of(source(), Format()), Client(), Client()
    tasks = [stalled.watch(stream), reader.watch(stream)]
    stalled.stop_reading()
    await tasks[1]

    assert now() == 0
    assert reader.outcomes == [Outcome.COMPLETE]
    assert len(data(reader)) == 201
    stalled.disconnect()
    await tasks[0]


async def test_a_large_opening_goes_out_in_slices_as_the_client_takes_them() -> None:
    class Large(Format):
        def opening(self, stream_id: str) -> bytes | None:
            return b"data: %b\n\n" % (b"x" * 100_000)

    stream, client = stream_of(None, Large(), id="s", linger=None), Client()
    client.stop_reading()
    task = client.watch(stream)
    emit(stream, 1)
    await idle()
    assert sum(map(len, client.bodies)) <= GATHER + 100
    client.go_on_reading()
    stream.end(Trigger.SOURCE_ENDED)
    await task

    assert max(map(len, client.bodies)) <= GATHER + 100
    assert data(client) == ["x" * 100_000, "1", "[DONE]"]


async def test_what_is_ready_goes_out_in_messages_of_up_to_16_kib_and_others_have_their_turn() -> None:
    stream, client = published(keep=9), Client()
    emit(stream, *["x" * 1000] * 100)
    stream.end(Trigger.SOURCE_ENDED)
    async with counted_turns() as turns:
        await client.watch(stream)

    first, *sizes = map(len, client.bodies)
    assert max(first - len(client.bodies[0].partition(b"\n\n")[0] + b"\n\n"), *sizes) <= GATHER  # the opening comes on top
    assert len(client.bodies) == 7
    assert turns.made >= len(client.bodies)


async def test_an_event_of_2_mib_goes_out_in_slices_and_others_have_their_turn() -> None:
    stream, client = published(keep=9), Client()
    emit(stream, 1, "x" * ((2 << 20) - 100))
    stream.end(Trigger.SOURCE_ENDED)
    async with counted_turns() as turns:
        await client.watch(stream)

    assert max(map(len, client.bodies)) <= GATHER
    assert [len(event.data) for event in client.events[1:]] == [1, (2 << 20) - 98, len("[DONE]")]
    assert turns.made >= len(client.bodies) > 128


async def test_a_terminal_event_of_many_slices_ends_the_body_with_the_last() -> None:
    class Long(Format):
        def done(self) -> bytes:
            return b"data: %b\n\n" % (b"x" * 3 * GATHER)

    stream, client = published(format=Long(), keep=9), Client()
    stream.end(Trigger.SOURCE_ENDED)
    await client.watch(stream)

    assert client.complete
    assert client.outcomes == [Outcome.COMPLETE]
    assert len(client.events[-1].data) == 3 * GATHER


async def test_a_watcher_that_is_woken_while_it_sends_goes_on_with_that() -> None:
    """One that follows several logs may be idle on one of them meanwhile."""
    stream = published()
    client = Client()
    task = client.watch(stream)
    await idle()
    client.stop_reading()
    emit(stream, 1)
    await idle()
    [watcher] = stream.log.watchers

    watcher.wake()
    emit(stream, 2)
    await idle()
    assert client.calls == 3
    client.go_on_reading()
    await idle()
    assert data(client) == ["1", "2"]
    client.disconnect()
    await task


# -- the heartbeat


async def test_a_heartbeat_goes_out_when_nothing_was_sent_for_the_interval() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await asyncio.sleep(14.5)
    assert len(client.bodies) == 1
    await asyncio.sleep(1)
    assert client.bodies[1:] == [b":\n"]

    await asyncio.sleep(5)  # 20.5
    emit(stream, 1)
    await asyncio.sleep(14.75)  # 35.25: 14.75 after the event
    assert len(client.bodies) == 3
    await asyncio.sleep(0.5)
    assert client.bodies[3:] == [b":\n"]
    client.disconnect()
    await task


@pytest.mark.parametrize("last", [0.5, 7, 14.5])
async def test_a_heartbeat_goes_out_exactly_an_interval_after_the_last_event(last: float) -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await asyncio.sleep(last)
    emit(stream, 1)
    await idle()
    while not client.arrived.empty():
        client.arrived.get_nowait()

    await client.arrived.get()

    assert (now(), client.bodies[-1]) == (last + 15, b":\n")
    client.disconnect()
    await task


async def test_heartbeats_come_at_every_interval_and_disturb_no_event() -> None:
    stream, client = published(), Client(pace=Pace(heartbeat=2, send_timeout=5))
    task = client.watch(stream)
    await asyncio.sleep(21)

    assert client.bodies[1:] == [b":\n"] * 10
    emit(stream, "after")
    await idle()
    assert data(client) == ['"after"']
    assert [event.type for event in client.events] == ["connected", "message"]
    client.disconnect()
    await task


async def test_while_events_come_there_is_no_heartbeat() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    for number in range(100):
        await asyncio.sleep(10)
        emit(stream, number)
    await idle()

    assert b":\n" not in client.bodies
    assert len(data(client)) == 100
    client.disconnect()
    await task


async def test_the_interval_begins_when_a_send_that_took_long_has_ended() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()
    client.stop_reading()
    emit(stream, 1)
    await asyncio.sleep(20)
    client.go_on_reading()
    await asyncio.sleep(14.5)
    assert b":\n" not in client.bodies

    await asyncio.sleep(1)
    assert client.bodies[-1] == b":\n"
    client.disconnect()
    await task


@pytest.mark.parametrize("anyio_backend", [("asyncio", {"use_uvloop": True})], ids=["uvloop"])
async def test_a_heartbeat_never_goes_before_the_start(anyio_backend: Any) -> None:
    """Where the timer is due before the first send: uvloop runs timers first, so that after a long turn it can be."""

    class Slow(Client):
        async def send(self, message: Message) -> None:
            await asyncio.sleep(0)
            await super().send(message)

    client = Slow()
    watcher = Sender(published(), 0, client.send, Pace(heartbeat=0.001, send_timeout=30))
    begin: Message = {"type": "http.response.start", "status": 200, "headers": []}
    task = asyncio.create_task(watcher.follow(client.receive, begin, (b":first\n",)))
    await asyncio.sleep(0)  # it has begun, and its sender has not
    time.sleep(0.01)
    for _ in range(3):
        await client.arrived.get()

    assert client.sent[0] == begin
    assert client.bodies[:2] == [b":first\n", b":\n"]
    client.disconnect()
    assert await task is Outcome.GONE

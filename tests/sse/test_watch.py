"""The event stream response, over a server written by hand: what is sent, and every way in which a connection ends."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from sse.asgi import Message, Receive, Scope, Send
from sse.errors import SourceFailed
from sse.formats import Plain
from sse.http import ALWAYS, Request
from sse.log import GATHER
from sse.sender import Outcome, Pace, Sender
from sse.state import State, Trigger
from sse.stream import Stream
from sse.watch import CONNECTION, EventStream, watch
from sse.wire.event import MessageEvent
from tests.support.asgi import Connection, communicator, http_scope
from tests.support.clock import VIRTUAL_TIME, Backend, idle, now

PACE = Pace(heartbeat=15, send_timeout=30, retry=2000)


@pytest.fixture
def anyio_backend() -> Backend:
    return VIRTUAL_TIME


class Server(Connection):
    """A connection on which a stream is followed. outcomes: how it ended. opened, aborted: when our server was told."""

    def __init__(self, **watching: Any) -> None:
        super().__init__()
        self.outcomes: list[Outcome] = []
        self.aborted: list[float] = []
        self.opened: list[float] = []
        self.watching = {"pace": PACE, "done": self._done, **watching}

    def _done(self, watcher: Sender, outcome: Outcome) -> None:
        self.outcomes.append(outcome)

    def follow(self, stream: Stream, *, method: str = "GET") -> asyncio.Task[None]:
        own = {"open": lambda: self.opened.append(now()), "abort": lambda: self.aborted.append(now())}
        scope = http_scope(method=method, extensions={CONNECTION: own})
        response = EventStream(stream, **self.watching)
        return asyncio.create_task(response(Request(scope, self.receive), self.send))


def published(**settings: Any) -> Stream:
    """A stream that the test emits into."""
    return Stream(None, Plain(), id="s", **{"linger": None, **settings})


def emit(stream: Stream, *items: Any) -> None:
    for item in items:
        stream.emit(item)


def data(connection: Connection) -> list[str]:
    """The data of the messages received; those without a name alone."""
    return [event.data for event in connection.events if event.type == "message"]


# -- what is sent


async def test_the_headers_and_a_first_body_message_go_out_before_the_first_event() -> None:
    server = Server(headers=((b"location", b"/streams/s"),))
    task = server.follow(published())
    await idle()

    assert server.sent == [
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [
                (b"content-type", b"text/event-stream"),
                *ALWAYS,
                (b"x-accel-buffering", b"no"),
                (b"location", b"/streams/s"),
            ],
        },
        {
            "type": "http.response.body",
            "body": b'id: s.0\nretry: 2000\nevent: connected\ndata: {"status":"ok","stream":"s"}\n\n',
            "more_body": True,
        },
    ]
    assert server.opened == [0]
    server.disconnect()
    await task


async def test_events_go_out_as_they_come_until_the_end() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    await idle()

    emit(stream, "é", "b")
    await idle()
    assert b"".join(server.bodies[1:]) == 'id: s.1\ndata: "é"\n\nid: s.2\ndata: "b"\n\n'.encode()
    emit(stream, "c")
    await idle()
    stream.end(Trigger.SOURCE_ENDED)
    await task

    assert server.bodies[-2:] == [b'id: s.3\ndata: "c"\n\n', b"id: s.end\ndata: [DONE]\n\n"]
    assert server.complete
    assert server.outcomes == [Outcome.COMPLETE]
    assert stream.log.watchers == {}


async def test_the_watcher_knows_what_it_sent() -> None:
    stream = published()
    watchers: list[Sender] = []
    server = Server(done=lambda watcher, _: watchers.append(watcher))
    task = server.follow(stream)
    emit(stream, 1, 2)
    stream.end(Trigger.SOURCE_ENDED)
    await task

    [watcher] = watchers
    assert (watcher.sent, watcher.position) == (len(server.body), 3)


@pytest.mark.parametrize(
    ("watching", "expected"),
    [
        pytest.param({}, ["s.3", "s.4", "s.5", "s.6"], id="newcomer: the oldest held"),
        pytest.param({"from_now": True}, ["s.6"], id="newcomer at the live end"),
        pytest.param({"after": 4}, ["s.5", "s.6"], id="resumed"),
        pytest.param({"after": 5}, ["s.6"], id="up to date"),
        pytest.param({"after": 3, "from_now": True}, ["s.4", "s.5", "s.6"], id="an id counts more than from=now"),
        pytest.param({"after": 1}, ["s.3", "s.4", "s.5", "s.6"], id="older than the log"),
    ],
)
async def test_where_a_watcher_begins(watching: dict[str, Any], expected: list[str]) -> None:
    stream, server = published(max_events=4), Server(**watching)
    emit(stream, 1, 2, 3, 4, 5)
    stream.log.drop(2)
    task = server.follow(stream)
    await idle()
    emit(stream, 6)
    await idle()

    ids = [event.last_event_id for event in server.events if event.type == "message"]
    assert ids == expected
    gaps = [json.loads(event.data) for event in server.events if event.type == "gap"]
    assert gaps == ([{"first": 2, "last": 2}] if watching == {"after": 1} else [])
    server.disconnect()
    await task


@pytest.mark.parametrize("newcomer", [True, False])
async def test_whether_to_greet_can_be_told(newcomer: bool) -> None:
    stream, server = published(), Server(after=0, newcomer=newcomer)
    stream.end(Trigger.SOURCE_ENDED)

    await server.follow(stream)

    assert ("connected" in [event.type for event in server.events]) is newcomer


@pytest.mark.parametrize("from_now", [True, False])
async def test_a_newcomer_to_an_ended_stream_receives_its_end(from_now: bool) -> None:
    stream, server = published(keep=100), Server(from_now=from_now)
    emit(stream, 1, 2)
    stream.end(Trigger.SOURCE_ENDED)

    await server.follow(stream)

    assert data(server) == (["[DONE]"] if from_now else ["1", "2", "[DONE]"])
    assert server.complete


async def test_a_laggard_is_told_its_gap_and_goes_on() -> None:
    stream, laggard, leader = published(max_events=10), Server(), Server()
    tasks = [laggard.follow(stream), leader.follow(stream)]
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
    servers = [Server() for _ in range(5)]
    tasks = [server.follow(stream) for server in servers]
    await idle()
    for number in range(50):
        emit(stream, {"number": number, "text": "é" * number})
        if number % 7 == 0:
            await idle()
    stream.end(Trigger.DELETED)
    await asyncio.gather(*tasks)

    assert len({server.body for server in servers}) == 1
    assert len(servers[0].events) == 52


async def test_one_that_stalls_is_not_felt_by_the_others() -> None:
    async def source() -> AsyncIterator[str]:
        for _ in range(200):
            yield "x" * 1000

    stream, stalled, reader = Stream(source(), Plain()), Server(), Server()
    tasks = [stalled.follow(stream), reader.follow(stream)]
    stalled.stop_reading()
    await tasks[1]

    assert now() == 0
    assert reader.outcomes == [Outcome.COMPLETE]
    assert len(data(reader)) == 201
    stalled.disconnect()
    await tasks[0]


async def test_what_is_ready_goes_out_in_messages_of_up_to_16_kib_and_others_have_their_turn() -> None:
    stream, server = published(keep=9), Server()
    emit(stream, *["x" * 1000] * 100)
    stream.end(Trigger.SOURCE_ENDED)
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count_turns())
    await server.follow(stream)
    counter.cancel()

    sizes = [len(body) for body in server.bodies[1:]]
    assert max(sizes) <= GATHER
    assert len(sizes) == 7
    assert turns >= len(sizes)


# -- the heartbeat


async def test_a_heartbeat_goes_out_when_nothing_was_sent_for_the_interval() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    await asyncio.sleep(14.5)
    assert len(server.bodies) == 1
    await asyncio.sleep(1)
    assert server.bodies[1:] == [b":\n"]

    await asyncio.sleep(5)  # 20.5
    emit(stream, 1)
    await asyncio.sleep(14.75)  # 35.25: 14.75 after the event
    assert len(server.bodies) == 3
    await asyncio.sleep(0.5)
    assert server.bodies[3:] == [b":\n"]
    server.disconnect()
    await task


@pytest.mark.parametrize("last", [0.5, 7, 14.5])
async def test_a_heartbeat_goes_out_exactly_an_interval_after_the_last_event(last: float) -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    await asyncio.sleep(last)
    emit(stream, 1)
    await idle()
    while not server.arrived.empty():
        server.arrived.get_nowait()

    await server.arrived.get()

    assert (now(), server.bodies[-1]) == (last + 15, b":\n")
    server.disconnect()
    await task


async def test_heartbeats_come_at_every_interval_and_disturb_no_event() -> None:
    stream, server = published(), Server(pace=Pace(heartbeat=2, send_timeout=5))
    task = server.follow(stream)
    await asyncio.sleep(21)

    assert server.bodies[1:] == [b":\n"] * 10
    emit(stream, "after")
    await idle()
    assert data(server) == ['"after"']
    assert [event.type for event in server.events] == ["connected", "message"]
    server.disconnect()
    await task


async def test_while_events_come_there_is_no_heartbeat() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    for number in range(100):
        await asyncio.sleep(10)
        emit(stream, number)
    await idle()

    assert b":\n" not in server.bodies
    assert len(data(server)) == 100
    server.disconnect()
    await task


async def test_the_interval_begins_when_a_send_that_took_long_has_ended() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    await idle()
    server.stop_reading()
    emit(stream, 1)
    await asyncio.sleep(20)
    server.go_on_reading()
    await asyncio.sleep(14.5)
    assert b":\n" not in server.bodies

    await asyncio.sleep(1)
    assert server.bodies[-1] == b":\n"
    server.disconnect()
    await task


async def test_a_heartbeat_never_goes_before_the_start() -> None:
    """Where the timer is due before the first send: uvloop runs timers first, so that after a long turn it can be."""
    server = Server()
    watcher = Sender(published(), 0, server.send, Pace(heartbeat=0, send_timeout=30))
    begin: Message = {"type": "http.response.start", "status": 200, "headers": []}
    task = asyncio.create_task(watcher.follow(server.receive, begin, b":first\n"))
    await asyncio.sleep(0)  # it has begun, and its sender has not
    for _ in range(2):
        watcher._timer.cancel()
        watcher._tick()
    watcher._timer.cancel()
    await idle()

    assert [message["type"] for message in server.sent][:2] == ["http.response.start", "http.response.body"]
    assert server.bodies[0] == b":first\n"
    server.disconnect()
    assert await task is Outcome.GONE


# -- the client goes


async def test_a_client_that_goes_while_nothing_happens_is_let_go_at_once() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    await asyncio.sleep(3)

    server.disconnect()
    await task

    assert now() == 3
    assert server.outcomes == [Outcome.GONE]
    assert stream.log.watchers == {}
    assert server.aborted == []


async def test_a_client_that_goes_in_the_middle_of_a_send_is_let_go_at_once() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    await idle()
    server.stop_reading()
    emit(stream, 1)
    await asyncio.sleep(3)
    assert server.calls == 3

    server.disconnect()
    await task
    server.go_on_reading()
    emit(stream, 2)
    await idle()

    assert now() == 3
    assert server.calls == 3, "nothing more is sent"
    assert server.outcomes == [Outcome.GONE]
    assert stream.log.watchers == {}


async def test_a_client_that_went_before_the_answer_began() -> None:
    stream, server = published(), Server()
    server.disconnect()

    await server.follow(stream)

    assert server.outcomes == [Outcome.GONE]
    assert stream.log.watchers == {}


@pytest.mark.parametrize("error", [OSError("gone"), ConnectionResetError("reset"), BrokenPipeError("pipe")])
async def test_a_send_that_says_the_client_is_gone(error: OSError, caplog: pytest.LogCaptureFixture) -> None:
    """On servers that follow the standard since 2.4; nothing may have come from `receive` yet."""
    stream, server = published(), Server()
    task = server.follow(stream)
    await idle()
    server.raises = error
    emit(stream, 1)
    await task
    calls = server.calls

    emit(stream, 2)
    await idle()

    assert server.outcomes == [Outcome.GONE]
    assert server.calls == calls
    assert stream.log.watchers == {}
    assert caplog.records == []


async def test_a_send_that_says_so_for_the_start() -> None:
    stream, server = published(), Server()
    server.raises = OSError("gone")

    await server.follow(stream)

    assert (server.outcomes, server.sent) == ([Outcome.GONE], [])


async def test_a_send_that_says_nothing_after_the_client_has_gone() -> None:
    """As uvicorn does: `receive` alone tells, and here it tells late."""
    late = asyncio.Event()

    class Late(Server):
        async def receive(self) -> Message:
            await late.wait()
            return await super().receive()

    stream, server = published(), Late()
    task = server.follow(stream)
    await idle()
    server.disconnect()
    emit(stream, *range(100))
    await idle()
    assert not task.done()
    assert len(server.bodies) == 1

    late.set()
    await task

    assert server.outcomes == [Outcome.GONE]


async def test_the_end_and_the_clients_going_at_once_are_complete() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    await idle()

    def both() -> None:
        stream.end(Trigger.SOURCE_ENDED)
        asyncio.get_running_loop().call_soon(server.disconnect)

    asyncio.get_running_loop().call_later(1, both)
    await task

    assert server.outcomes == [Outcome.COMPLETE]
    assert server.complete


# -- the client stalls


@pytest.mark.parametrize(
    ("heartbeat", "send_timeout", "begins"),
    [(15, 30, 0), (15, 30, 7), (15, 5, 3.5), (2, 30, 1.25), (30, 30, 29)],
)
async def test_a_send_that_stays_pending_is_given_up_at_exactly_the_send_timeout(
    heartbeat: float, send_timeout: float, begins: float
) -> None:
    stream, server = published(), Server(pace=Pace(heartbeat, send_timeout))
    task = server.follow(stream)
    await idle()
    await asyncio.sleep(begins)
    server.stop_reading()
    emit(stream, 1)
    await idle()
    calls = server.calls

    await task
    assert now() == pytest.approx(begins + send_timeout, abs=1e-6)
    server.go_on_reading()
    emit(stream, 2)
    await asyncio.sleep(100)

    assert server.outcomes == [Outcome.STALLED]
    assert server.aborted == [pytest.approx(begins + send_timeout, abs=1e-6)]
    assert server.calls == calls, "nothing more is sent"
    assert stream.log.watchers == {}


async def test_a_start_that_stays_pending_is_a_stall_too() -> None:
    server = Server()
    server.stop_reading()

    await server.follow(published())

    assert (server.outcomes, server.sent, now()) == ([Outcome.STALLED], [], 30)


async def test_a_client_that_reads_slowly_is_no_stall() -> None:
    stream, server = published(keep=1e9), Server()
    emit(stream, *["x" * GATHER] * 20)
    stream.end(Trigger.SOURCE_ENDED)
    server.stop_reading()
    task = server.follow(stream)
    while not task.done():
        await asyncio.sleep(29)
        server.go_on_reading()
        await server.arrived.get()
        server.stop_reading()
        await idle()

    assert server.outcomes == [Outcome.COMPLETE]
    assert len(data(server)) == 21
    assert b":\n" not in server.bodies


async def test_a_heartbeat_that_stays_pending_is_a_stall() -> None:
    server = Server()
    task = server.follow(published())
    await idle()
    server.stop_reading()

    await task

    assert (server.outcomes, now()) == ([Outcome.STALLED], 45)


async def test_a_stall_under_another_server_is_let_go_all_the_same() -> None:
    connection, stream = Connection(), published()
    outcomes: list[Outcome] = []
    response = EventStream(stream, pace=PACE, done=lambda _, outcome: outcomes.append(outcome))
    connection.stop_reading()

    await response(Request(http_scope(), connection.receive), connection.send)

    assert (outcomes, now()) == ([Outcome.STALLED], 30)
    assert stream.log.watchers == {}


async def test_a_client_that_reads_on_at_the_last_moment_is_one_or_the_other() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    await idle()
    server.stop_reading()
    stream.end(Trigger.SOURCE_ENDED)
    asyncio.get_running_loop().call_later(30, server.go_on_reading)

    await task

    assert server.outcomes in ([Outcome.COMPLETE], [Outcome.STALLED])
    assert len(server.aborted) == (server.outcomes == [Outcome.STALLED])


async def test_a_watcher_that_is_woken_while_it_sends_goes_on_with_that() -> None:
    """One that follows several logs may be idle on one of them meanwhile."""
    stream = published()
    server = Server()
    task = server.follow(stream)
    await idle()
    server.stop_reading()
    emit(stream, 1)
    await idle()
    [watcher] = stream.log.watchers

    watcher.wake()
    emit(stream, 2)
    await idle()
    assert server.calls == 3
    server.go_on_reading()
    await idle()
    assert data(server) == ["1", "2"]
    server.disconnect()
    await task


async def test_a_stalled_client_can_come_back_for_the_rest() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    emit(stream, 1)
    await idle()
    server.stop_reading()
    emit(stream, 2)
    await task

    again = Server(after=1)
    task = again.follow(stream)
    stream.end(Trigger.SOURCE_ENDED)
    await task

    assert data(server) + data(again) == ["1", "2", "[DONE]"]


# -- the server, and defects


async def test_a_request_that_the_server_cancels_leaves_nothing_behind() -> None:
    stream, server = published(), Server()
    task = server.follow(stream)
    await idle()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    emit(stream, 1)
    await asyncio.sleep(100)

    assert server.outcomes == [Outcome.DROPPED]
    assert stream.log.watchers == {}
    assert len(server.bodies) == 1


async def test_a_request_cancelled_in_the_middle_of_a_send_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    stream, server = published(), Server()
    server.stop_reading()
    task = server.follow(stream)
    await idle()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert server.outcomes == [Outcome.DROPPED]
    assert asyncio.all_tasks() == before


async def test_the_answer_has_not_returned_before_its_last_send_has() -> None:
    class Slow(Server):
        async def send(self, message: Message) -> None:
            try:
                await super().send(message)
            finally:
                await asyncio.sleep(1)

    stream, server = published(), Slow()
    server.stop_reading()
    task = server.follow(stream)
    await asyncio.sleep(3)
    server.disconnect()
    await task

    assert (now(), server.outcomes) == (4, [Outcome.GONE])


async def test_a_receive_that_fails_ends_the_answer() -> None:
    async def receive() -> Message:
        raise RuntimeError("no")

    stream, connection = published(), Connection()
    outcomes: list[Outcome] = []
    response = EventStream(stream, done=lambda _, outcome: outcomes.append(outcome))

    with pytest.raises(RuntimeError):
        await response(Request(http_scope(), receive), connection.send)

    assert outcomes == [Outcome.DROPPED]
    assert stream.log.watchers == {}


class WithoutGap(Plain):
    """A format with a defect."""

    def gap(self, first: int, last: int) -> bytes:
        raise ZeroDivisionError


class WithoutWords(WithoutGap):
    """A format with two."""

    def failed(self, failure: SourceFailed) -> bytes:
        raise ZeroDivisionError


def defective(format: Plain) -> Stream:
    """A stream that can't tell a gap to a watcher who resumes after number 0."""
    stream = Stream(None, format, id="s", linger=None, max_events=1)
    emit(stream, 1, 2)
    return stream


async def test_a_defect_is_told_as_an_event_and_ends_the_body(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(after=0)
    stream = defective(WithoutGap())

    await server.follow(stream)

    [event] = server.events
    assert event == MessageEvent("error", '{"error":"internal error","code":"internal","fatal":true}', "s.0")
    assert server.complete
    assert server.outcomes == [Outcome.FAILED]
    assert stream.state is State.RUNNING
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_a_defect_that_cannot_be_told_ends_the_answer_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(after=0)

    await server.follow(defective(WithoutWords()))

    assert server.outcomes == [Outcome.FAILED]
    assert server.events == []
    assert ["could not be told" in record.message for record in caplog.records] == [False, True]


async def test_a_client_that_does_not_take_the_news_of_a_defect_is_stalled() -> None:
    server, stream = Server(after=0), published()
    task = server.follow(stream)
    await idle()
    server.stop_reading()
    stream.log._gap = WithoutGap().gap
    emit(stream, 1)
    stream.log.clear()
    emit(stream, 2)

    await task

    assert (server.outcomes, now()) == ([Outcome.STALLED], 30)


async def test_a_send_with_a_defect_ends_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    stream, server = published(), Server()
    server.raises = RuntimeError("ASGI 'http.response.start' expected")

    await server.follow(stream)

    assert server.outcomes == [Outcome.FAILED]
    assert stream.log.watchers == {}
    assert len(caplog.records) == 2


async def test_head_is_answered_with_the_headers_and_watches_nothing() -> None:
    stream, head, get = published(), Server(headers=((b"a", b"b"),)), Server(headers=((b"a", b"b"),))

    await head.follow(stream, method="HEAD")
    assert stream.log.watchers == {}
    task = get.follow(stream)
    await idle()

    assert head.sent[0] == get.sent[0]
    assert (head.body, head.complete, head.outcomes) == (b"", True, [])
    get.disconnect()
    await task


# -- sse.watch.watch: a source for one connection


class Answer(Connection):
    """One request to an app that answers with the events of `source`."""

    def __init__(self, source: AsyncIterator[Any], **scope: Any) -> None:
        super().__init__()
        self.task = asyncio.create_task(watch(http_scope(**scope), self.receive, self.send, source, pace=PACE))


class Steps:
    """A source that notes what happens to it: yields 1 and 2, then does `then`."""

    def __init__(self, then: Callable[[], Awaitable[None]]) -> None:
        self.then = then
        self.happened: list[str] = []

    async def __call__(self) -> AsyncIterator[int]:
        self.happened.append("started")
        try:
            yield 1
            yield 2
            await self.then()
        finally:
            await asyncio.sleep(1)
            self.happened.append("closed")


async def end() -> None:
    pass


async def wait() -> None:
    await asyncio.Event().wait()


async def fail() -> None:
    raise SourceFailed("no", "test")


async def break_() -> None:
    raise KeyError("secret")


@pytest.mark.parametrize(
    ("then", "terminal"),
    [
        pytest.param(end, ("message", "[DONE]"), id="ends"),
        pytest.param(fail, ("error", '{"error":"no","code":"test","fatal":true}'), id="fails"),
        pytest.param(break_, ("error", '{"error":"internal error","code":"internal","fatal":true}'), id="breaks"),
    ],
)
async def test_an_answer_with_a_source_that(
    then: Callable[[], Awaitable[None]], terminal: tuple[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    source = Steps(then)
    answer = Answer(source())

    await answer.task

    assert source.happened == ["started", "closed"]
    assert [event.type for event in answer.events[:3]] == ["connected", "message", "message"]
    assert [(event.type, event.data) for event in answer.events[3:]] == [terminal]
    assert answer.events[-1].last_event_id.endswith(".end")
    assert answer.complete
    assert b"secret" not in answer.body
    assert len(caplog.records) == (then is break_)


async def test_the_source_is_closed_before_the_answer_returns_when_the_client_goes() -> None:
    source = Steps(wait)
    answer = Answer(source())
    await idle()

    answer.disconnect()
    await answer.task

    assert source.happened == ["started", "closed"]
    assert now() == 1


async def test_the_source_is_closed_before_the_answer_returns_when_the_server_cancels() -> None:
    source = Steps(wait)
    answer = Answer(source())
    await idle()

    answer.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer.task

    assert source.happened == ["started", "closed"]


async def test_a_source_that_ignores_cancellation_does_not_go_on() -> None:
    happened: list[str] = []

    async def source() -> AsyncIterator[int]:
        try:
            for number in range(1000):
                try:
                    await asyncio.sleep(1)
                except asyncio.CancelledError:
                    happened.append("ignored")
                yield number
        finally:
            happened.append("closed")

    answer = Answer(source())
    await asyncio.sleep(2.5)
    answer.disconnect()
    await answer.task

    assert (happened, now()) == (["ignored", "closed"], 2.5)
    assert data(answer) == ["0", "1"]


async def test_a_source_that_never_waits_is_held_by_its_one_watcher() -> None:
    taken = 0

    async def source() -> AsyncIterator[str]:
        nonlocal taken
        while True:
            taken += 1
            yield "x" * 1000

    answer = Answer(source())
    answer.stop_reading()
    await idle()
    assert taken < 20

    answer.disconnect()
    await answer.task
    assert taken < 20


@pytest.mark.parametrize(
    ("scope", "status"),
    [
        pytest.param({"method": "HEAD"}, 200, id="HEAD"),
        pytest.param({"headers": [(b"last-event-id", b"abc.end")]}, 204, id="back after the end"),
        pytest.param({"headers": [(b"last-event-id", b"abc.end")], "method": "HEAD"}, 204, id="HEAD after the end"),
    ],
)
async def test_an_answer_that_starts_nothing(scope: dict[str, Any], status: int) -> None:
    source = Steps(wait)
    answer = Answer(source(), **scope)

    await answer.task

    assert (answer.status, answer.body, answer.complete) == (status, b"", True)
    assert source.happened == []


async def test_an_id_that_is_not_the_end_gets_a_new_answer() -> None:
    answer = Answer(Steps(end)(), headers=[(b"last-event-id", b"abc.1")])

    await answer.task

    assert data(answer) == ["1", "2", "[DONE]"]


async def test_nothing_that_is_sent_back_can_forge_a_line() -> None:
    """What a client sent comes back in items and errors, as JSON in one data line."""
    evil = "x\r\nid: forged.end\r\n\r\nevent: forged\rdata: y\n\n\u2028\u0085"

    async def source() -> AsyncIterator[Any]:
        yield evil
        yield {evil: evil}
        raise SourceFailed(evil, "test")

    answer = Answer(source())
    await answer.task

    connected, text, mapping, error = answer.events
    assert [event.type for event in answer.events] == ["connected", "message", "message", "error"]
    stream_id = json.loads(connected.data)["stream"]
    assert [event.last_event_id for event in (text, mapping, error)] == [f"{stream_id}.{n}" for n in (1, 2, "end")]
    assert json.loads(text.data) == evil
    assert json.loads(mapping.data) == {evil: evil}
    assert json.loads(error.data)["error"] == evil
    assert b"\r" not in answer.body


async def test_through_asgirefs_communicator() -> None:
    source = Steps(wait)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await watch(scope, receive, send, source(), pace=PACE)

    client = communicator(app, http_scope())
    await client.send_input({"type": "http.request"})
    assert (await client.receive_output(60))["status"] == 200
    assert b"event: connected\n" in (await client.receive_output(60))["body"]
    assert b"data: 1\n\n" in (await client.receive_output(60))["body"]
    assert await client.receive_output(60) == {"type": "http.response.body", "body": b":\n", "more_body": True}
    assert now() == 15
    await client.send_input({"type": "http.disconnect"})
    await client.wait(60)

    assert client.output_queue.empty()
    assert source.happened == ["started", "closed"]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks can begin at once since Python 3.12")
@pytest.mark.parametrize("pause", [None, 1.0], ids=["a source that never waits", "one that does"])
async def test_an_eager_task_factory_changes_nothing(pause: float | None) -> None:
    async def source() -> AsyncIterator[int]:
        for number in range(3):
            if pause is not None:
                await asyncio.sleep(pause)
            yield number

    loop, connection = asyncio.get_running_loop(), Connection()
    loop.set_task_factory(vars(asyncio)["eager_task_factory"])
    await asyncio.wait_for(watch(http_scope(), connection.receive, connection.send, source()), 60)
    assert data(connection) == ["0", "1", "2", "[DONE]"]

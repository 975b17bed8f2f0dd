"""The event stream response: where a watcher begins, with which headers; and a source that lives as long as its connection."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from sse.asgi import Receive, Scope, Send
from sse.errors import SourceFailed
from sse.http import ALWAYS, Request
from sse.stream import Trigger
from sse.watch import head, watch
from tests.support.asgi import Connection, communicator, http_scope
from tests.support.clock import idle, now
from tests.support.streams import PACE, Client, Step, data, emit, for_ever, no_step, published, raising, stubborn

pytestmark = pytest.mark.virtual_time


# -- one watcher of a stream


async def test_the_headers_and_a_first_body_message_go_out_before_the_first_event() -> None:
    client = Client(headers=((b"location", b"/streams/s"),))
    task = client.watch(published())
    await idle()

    assert client.sent == [
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
    assert client.opened == [0]
    client.disconnect()
    await task


@pytest.mark.parametrize(
    ("watching", "expected"),
    [
        pytest.param({}, ["s.3", "s.4", "s.5", "s.6"], id="newcomer: the oldest held"),
        pytest.param({"from_now": True}, ["s.6"], id="newcomer at the live end"),
        pytest.param({"after": 4}, ["s.5", "s.6"], id="resumed"),
        pytest.param({"after": 5}, ["s.6"], id="up to date"),
        pytest.param({"after": 1}, ["s.3", "s.4", "s.5", "s.6"], id="older than the log"),
    ],
)
async def test_where_a_watcher_begins(watching: dict[str, Any], expected: list[str]) -> None:
    stream, client = published(max_events=4), Client(**watching)
    emit(stream, 1, 2, 3, 4, 5)
    stream.log.drop(2)
    task = client.watch(stream)
    await idle()
    emit(stream, 6)
    await idle()

    ids = [event.last_event_id for event in client.events if event.type == "message"]
    assert ids == expected
    gaps = [json.loads(event.data) for event in client.events if event.type == "gap"]
    assert gaps == ([{"first": 2, "last": 2}] if watching == {"after": 1} else [])
    client.disconnect()
    await task


@pytest.mark.parametrize("newcomer", [True, False])
async def test_whether_to_greet_can_be_told(newcomer: bool) -> None:
    stream, client = published(), Client(after=0, newcomer=newcomer)
    stream.end(Trigger.SOURCE_ENDED)

    await client.watch(stream)

    assert ("connected" in [event.type for event in client.events]) is newcomer


@pytest.mark.parametrize("from_now", [True, False])
async def test_a_newcomer_to_an_ended_stream_receives_its_end(from_now: bool) -> None:
    stream, client = published(keep=100), Client(from_now=from_now)
    emit(stream, 1, 2)
    stream.end(Trigger.SOURCE_ENDED)

    await client.watch(stream)

    assert data(client) == (["[DONE]"] if from_now else ["1", "2", "[DONE]"])
    assert client.complete


async def test_head_is_answered_with_the_headers_that_get_would_have_had() -> None:
    named = ((b"a", b"b"),)
    connection, get = Connection(), Client(headers=named)
    task = get.watch(published())
    await idle()

    await head(Request(http_scope(method="HEAD"), connection.receive), connection.send, named)

    assert connection.sent[0] == get.sent[0]
    assert (connection.body, connection.complete) == (b"", True)
    get.disconnect()
    await task


# -- a source for one connection


class Answer(Connection):
    """One request to an app that answers with the events of `source`."""

    def __init__(self, source: AsyncIterator[Any], **scope: Any) -> None:
        super().__init__()
        self.task = asyncio.create_task(watch(http_scope(**scope), self.receive, self.send, source, pace=PACE))


class Steps:
    """A source that notes what happens to it: yields 1 and 2, does `then`, and ends."""

    def __init__(self, then: Step) -> None:
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


@pytest.mark.parametrize(
    ("then", "terminal", "logged"),
    [
        pytest.param(no_step, ("message", "[DONE]"), 0, id="ends"),
        pytest.param(
            raising(SourceFailed("no", "test")), ("error", '{"error":"no","code":"test","fatal":true}'), 0, id="fails"
        ),
        pytest.param(
            raising(KeyError("secret")),
            ("error", '{"error":"internal error","code":"internal","fatal":true}'),
            1,
            id="has a defect",
        ),
    ],
)
async def test_an_answer_with_a_source_that(
    then: Step, terminal: tuple[str, str], logged: int, caplog: pytest.LogCaptureFixture
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
    assert len(caplog.records) == logged


async def test_the_source_is_closed_before_the_answer_returns_when_the_client_goes() -> None:
    source = Steps(for_ever)
    answer = Answer(source())
    await idle()

    answer.disconnect()
    await answer.task

    assert source.happened == ["started", "closed"]
    assert now() == 1


async def test_the_source_is_closed_before_the_answer_returns_when_the_server_cancels() -> None:
    source = Steps(for_ever)
    answer = Answer(source())
    await idle()

    answer.task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await answer.task

    assert source.happened == ["started", "closed"]


async def test_a_source_that_ignores_cancellation_does_not_go_on() -> None:
    happened: list[str] = []
    answer = Answer(stubborn(happened))
    await asyncio.sleep(2.5)
    answer.disconnect()
    await answer.task

    assert (happened, now()) == (["ignored", "closed"], 2.5)
    assert data(answer) == ["1", "2"]


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
    source = Steps(for_ever)
    answer = Answer(source(), **scope)

    await answer.task

    assert (answer.status, answer.body, answer.complete) == (status, b"", True)
    assert source.happened == []


async def test_an_id_that_is_not_the_end_gets_a_new_answer() -> None:
    answer = Answer(Steps(no_step)(), headers=[(b"last-event-id", b"abc.1")])

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
    source = Steps(for_ever)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await watch(scope, receive, send, source(), pace=PACE)

    client = communicator(app, http_scope())
    await client.send_input({"type": "http.request"})
    assert (await client.receive_output(60))["status"] == 200
    body = (await client.receive_output(60))["body"]
    assert b"event: connected\n" in body
    assert b"data: 1\n\n" in body
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

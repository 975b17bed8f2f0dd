"""Every way in which a watcher's connection ends, and that nothing is left of it."""

import asyncio
import sys

import pytest

from sse.asgi import Message
from sse.errors import SourceFailed
from sse.formats import Format
from sse.log import GATHER, Watcher
from sse.sender import Outcome, Pace, Sender
from sse.stream import Opening, State, Stream, Trigger
from sse.wire.event import MessageEvent
from tests.support.clock import idle, now
from tests.support.streams import Client, data, emit, published, stream_of

pytestmark = pytest.mark.virtual_time


# -- the client goes


async def test_a_client_that_goes_while_nothing_happens_is_let_go_at_once() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await asyncio.sleep(3)

    client.disconnect()
    await task

    assert now() == 3
    assert client.outcomes == [Outcome.GONE]
    assert stream.log.watchers == {}
    assert client.aborted == []


async def test_a_client_that_goes_in_the_middle_of_a_send_is_let_go_at_once() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()
    client.stop_reading()
    emit(stream, 1)
    await asyncio.sleep(3)
    assert client.calls == 3

    client.disconnect()
    await task
    client.go_on_reading()
    emit(stream, 2)
    await idle()

    assert now() == 3
    assert client.calls == 3, "nothing more is sent"
    assert client.outcomes == [Outcome.GONE]
    assert stream.log.watchers == {}


async def test_a_client_that_went_before_the_answer_began() -> None:
    stream, client = published(), Client()
    client.disconnect()

    await client.watch(stream)

    assert client.outcomes == [Outcome.GONE]
    assert stream.log.watchers == {}


@pytest.mark.parametrize("error", [OSError("gone"), ConnectionResetError("reset"), BrokenPipeError("pipe")])
async def test_a_send_that_says_the_client_is_gone(error: OSError, caplog: pytest.LogCaptureFixture) -> None:
    """On clients that follow the standard since 2.4; nothing may have come from `receive` yet."""
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()
    client.raises = error
    emit(stream, 1)
    await task
    calls = client.calls

    emit(stream, 2)
    await idle()

    assert client.outcomes == [Outcome.GONE]
    assert client.calls == calls
    assert stream.log.watchers == {}
    assert caplog.records == []


async def test_a_send_that_says_so_for_the_start() -> None:
    stream, client = published(), Client()
    client.raises = OSError("gone")

    await client.watch(stream)

    assert (client.outcomes, client.sent) == ([Outcome.GONE], [])


async def test_a_send_that_says_nothing_after_the_client_has_gone() -> None:
    """As uvicorn does: `receive` alone tells, and here it tells late."""
    late = asyncio.Event()

    class Late(Client):
        async def receive(self) -> Message:
            await late.wait()
            return await super().receive()

    stream, client = published(), Late()
    task = client.watch(stream)
    await idle()
    client.disconnect()
    emit(stream, *range(100))
    await idle()
    assert not task.done()
    assert len(client.bodies) == 1

    late.set()
    await task

    assert client.outcomes == [Outcome.GONE]


async def test_the_end_and_the_clients_going_at_once_are_complete() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()

    def both() -> None:
        stream.end(Trigger.SOURCE_ENDED)
        asyncio.get_running_loop().call_soon(client.disconnect)

    asyncio.get_running_loop().call_later(1, both)
    await task

    assert client.outcomes == [Outcome.COMPLETE]
    assert client.complete


# -- the client stalls


@pytest.mark.parametrize(
    ("heartbeat", "send_timeout", "begins"),
    [(15, 30, 0), (15, 30, 7), (15, 5, 3.5), (2, 30, 1.25), (30, 30, 29)],
)
async def test_a_send_that_stays_pending_is_given_up_at_exactly_the_send_timeout(
    heartbeat: float, send_timeout: float, begins: float
) -> None:
    stream, client = published(), Client(pace=Pace(heartbeat, send_timeout))
    task = client.watch(stream)
    await idle()
    await asyncio.sleep(begins)
    client.stop_reading()
    emit(stream, 1)
    await idle()
    calls = client.calls

    await task
    assert now() == pytest.approx(begins + send_timeout, abs=1e-6)
    client.go_on_reading()
    emit(stream, 2)
    await asyncio.sleep(100)

    assert client.outcomes == [Outcome.STALLED]
    assert client.aborted == [pytest.approx(begins + send_timeout, abs=1e-6)]
    assert client.calls == calls, "nothing more is sent"
    assert stream.log.watchers == {}


async def test_a_start_that_stays_pending_is_a_stall_too() -> None:
    client = Client()
    client.stop_reading()

    await client.watch(published())

    assert (client.outcomes, client.sent, now()) == ([Outcome.STALLED], [], 30)


async def test_a_client_that_reads_slowly_is_no_stall() -> None:
    stream, client = published(keep=1e9), Client()
    emit(stream, *["x" * GATHER] * 20)
    stream.end(Trigger.SOURCE_ENDED)
    client.stop_reading()
    task = client.watch(stream)
    while not task.done():
        await asyncio.sleep(29)
        client.go_on_reading()
        await client.arrived.get()
        client.stop_reading()
        await idle()

    assert client.outcomes == [Outcome.COMPLETE]
    assert len(data(client)) == 21
    assert b":\n" not in client.bodies


async def test_a_heartbeat_that_stays_pending_is_a_stall() -> None:
    client = Client()
    task = client.watch(published())
    await idle()
    client.stop_reading()

    await task

    assert (client.outcomes, now()) == ([Outcome.STALLED], 45)


async def test_a_stall_under_another_server_is_let_go_all_the_same() -> None:
    stream, client = published(), Client()
    client.stop_reading()

    await client.watch(stream, ours=False)

    assert (client.outcomes, client.aborted, now()) == ([Outcome.STALLED], [], 30)
    assert stream.log.watchers == {}


async def test_a_client_that_reads_on_at_the_last_moment_is_one_or_the_other() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()
    client.stop_reading()
    stream.end(Trigger.SOURCE_ENDED)
    asyncio.get_running_loop().call_later(30, client.go_on_reading)

    await task

    assert client.outcomes in ([Outcome.COMPLETE], [Outcome.STALLED])
    assert len(client.aborted) == (client.outcomes == [Outcome.STALLED])


async def test_a_stalled_client_can_come_back_for_the_rest() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    emit(stream, 1)
    await idle()
    client.stop_reading()
    emit(stream, 2)
    await task

    again = Client(after=1)
    task = again.watch(stream)
    stream.end(Trigger.SOURCE_ENDED)
    await task

    assert data(client) + data(again) == ["1", "2", "[DONE]"]


async def test_a_stall_in_the_middle_of_an_event_holds_a_slice_of_it() -> None:
    """When the event is dropped, nothing keeps it; and nothing that would be read as the rest of it goes out."""
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()
    client.stop_reading()
    emit(stream, "x" * 3 * GATHER)
    await idle()
    (event,) = stream.log._events
    held = sys.getrefcount(event)
    stream.log.drop_all()
    assert sys.getrefcount(event) == held - 1 == 2
    emit(stream, 2)
    client.go_on_reading()
    await task

    assert client.outcomes == [Outcome.STALLED]
    assert not client.complete
    assert len(client.bodies[-1]) == GATHER
    assert [event.type for event in client.events] == ["connected"], "what is cut off is none"
    assert len(client.aborted) == 1


async def test_a_defect_in_the_middle_of_an_event_is_told_to_the_log_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(Stream):
        def finished(self, watcher: Watcher) -> bool:
            if watcher.offset > GATHER:
                raise ValueError("a defect")
            return super().finished(watcher)

    stream, client = Failing(Opening(None, Format(), linger=None)), Client()
    task = client.watch(stream)
    emit(stream, "x" * 3 * GATHER)
    await task

    assert client.outcomes == [Outcome.FAILED]
    assert [event.type for event in client.events] == ["connected"]
    assert "a defect" in caplog.text


# -- the server, and defects


async def test_a_request_that_the_server_cancels_leaves_nothing_behind() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    emit(stream, 1)
    await asyncio.sleep(100)

    assert client.outcomes == [Outcome.DROPPED]
    assert stream.log.watchers == {}
    assert len(client.bodies) == 1


async def test_a_request_cancelled_in_the_middle_of_a_send_leaves_nothing_behind() -> None:
    before = asyncio.all_tasks()
    stream, client = published(), Client()
    client.stop_reading()
    task = client.watch(stream)
    await idle()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert client.outcomes == [Outcome.DROPPED]
    assert asyncio.all_tasks() == before


async def test_the_answer_has_not_returned_before_its_last_send_has() -> None:
    class Slow(Client):
        async def send(self, message: Message) -> None:
            try:
                await super().send(message)
            finally:
                await asyncio.sleep(1)

    stream, client = published(), Slow()
    client.stop_reading()
    task = client.watch(stream)
    await asyncio.sleep(3)
    client.disconnect()
    await task

    assert (now(), client.outcomes) == (4, [Outcome.GONE])


async def test_a_receive_that_fails_ends_the_answer() -> None:
    class Failing(Client):
        async def receive(self) -> Message:
            raise RuntimeError("no")

    stream, client = published(), Failing()

    with pytest.raises(RuntimeError):
        await client.watch(stream)

    assert client.outcomes == [Outcome.DROPPED]
    assert stream.log.watchers == {}


class WithoutGap(Format):
    """A format with a defect."""

    def gap(self, first: int, last: int) -> bytes:
        raise ZeroDivisionError


class WithoutWords(WithoutGap):
    """A format with two."""

    def failed(self, failure: SourceFailed) -> bytes:
        raise ZeroDivisionError


def defective(format: Format) -> Stream:
    """A stream that can't tell a gap to a watcher who resumes after number 0."""
    stream = stream_of(None, format, id="s", linger=None, max_events=1)
    emit(stream, 1, 2)
    return stream


async def test_a_defect_is_told_as_an_event_and_ends_the_body(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(after=0)
    stream = defective(WithoutGap())

    await client.watch(stream)

    [event] = client.events
    assert event == MessageEvent("error", '{"error":"internal error","code":"internal","fatal":true}', "s.0")
    assert client.complete
    assert client.outcomes == [Outcome.FAILED]
    assert stream.state is State.RUNNING
    assert [record.exc_info is not None for record in caplog.records] == [True]


async def test_a_defect_that_cannot_be_told_ends_the_answer_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(after=0)

    await client.watch(defective(WithoutWords()))

    assert client.outcomes == [Outcome.FAILED]
    assert client.events == []
    assert ["could not be told" in record.message for record in caplog.records] == [False, True]


async def test_a_client_that_does_not_take_the_news_of_a_defect_is_stalled() -> None:
    class One(Client):
        """Takes one message: the start."""

        async def send(self, message: Message) -> None:
            await super().send(message)
            self.stop_reading()

    client = One(after=0)

    await client.watch(defective(WithoutGap()))

    assert (client.outcomes, client.calls, now()) == ([Outcome.STALLED], 2, 30)


async def test_a_send_with_a_defect_ends_the_answer(caplog: pytest.LogCaptureFixture) -> None:
    stream, client = published(), Client()
    client.raises = RuntimeError("ASGI 'http.response.start' expected")

    await client.watch(stream)

    assert client.outcomes == [Outcome.FAILED]
    assert stream.log.watchers == {}
    assert len(caplog.records) == 2


# -- the server lets go


def let_go(stream: Stream) -> None:
    for watcher in list(stream.log.watchers):
        assert isinstance(watcher, Sender)
        watcher.drop()


async def test_one_that_is_dropped_gets_what_is_ready_and_its_body_ends() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()
    emit(stream, 1)
    let_go(stream)
    await task

    assert client.complete
    assert [event.data for event in client.events][-1:] == ["1"]
    assert client.outcomes == [Outcome.DROPPED]
    assert stream.state is State.RUNNING


async def test_one_that_is_dropped_in_the_middle_of_a_send_ends_after_it() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()
    client.stop_reading()
    emit(stream, 1)
    await idle()
    let_go(stream)
    emit(stream, 2)
    client.go_on_reading()
    await task

    assert client.complete
    assert [event.data for event in client.events][-2:] == ["1", "2"]
    assert client.outcomes == [Outcome.DROPPED]


async def test_one_that_is_dropped_in_the_middle_of_an_event_gets_the_rest_of_it() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()
    client.stop_reading()
    emit(stream, "x" * 3 * GATHER)
    await idle()
    let_go(stream)
    client.go_on_reading()
    await task

    assert client.complete
    assert len(client.events[-1].data) == 3 * GATHER + 2
    assert client.outcomes == [Outcome.DROPPED]


async def test_one_that_is_dropped_and_takes_nothing_has_stalled() -> None:
    stream, client = published(), Client()
    task = client.watch(stream)
    await idle()
    client.stop_reading()
    let_go(stream)
    await task

    assert client.outcomes == [Outcome.STALLED]

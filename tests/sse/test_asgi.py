"""Waiting for the client to go, work for as long as it is there, headers for any answer, the lifespan."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from sse.asgi import Attendance, Message, Receive, Scope, Send, attended, lifespan
from sse.errors import Disconnected
from sse.http import Request, text_response
from tests.support.asgi import communicator, http_scope
from tests.support.clock import idle, now

pytestmark = pytest.mark.virtual_time


async def nothing() -> Message:
    raise AssertionError("the body was asked for")


# -- waiting for the client to go


class Gate:
    """A `receive` that says what it is told to."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Message] = asyncio.Queue()
        self.cancelled = 0

    async def receive(self) -> Message:
        try:
            return await self.messages.get()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise

    def disconnect(self) -> None:
        self.messages.put_nowait({"type": "http.disconnect"})


async def until_gone(attendance: Attendance) -> tuple[bool, int]:
    """What it said, and how many cancellations it left on its task."""
    gone = await attendance.until_gone()
    task = asyncio.current_task()
    assert task is not None
    return gone, task.cancelling()


async def attending() -> tuple[Gate, Attendance, asyncio.Task[tuple[bool, int]]]:
    gate = Gate()
    attendance = Attendance(gate.receive)
    task = asyncio.create_task(until_gone(attendance))
    await idle()
    return gate, attendance, task


async def test_the_wait_ends_when_the_client_goes() -> None:
    gate, _, task = await attending()
    gate.messages.put_nowait({"type": "http.request", "body": b"unread"})
    await idle()
    assert not task.done()

    gate.disconnect()

    assert await task == (True, 0)


async def test_the_wait_ends_when_it_is_left_and_nobody_notices() -> None:
    gate, attendance, task = await attending()

    attendance.leave()
    attendance.leave()

    assert await task == (False, 0)
    assert gate.cancelled == 1


async def test_left_before_it_began() -> None:
    attendance = Attendance(nothing)
    attendance.leave()

    assert await until_gone(attendance) == (False, 0)


async def test_left_after_it_was_over() -> None:
    gate, attendance, task = await attending()
    gate.disconnect()
    await task

    attendance.leave()
    await idle()

    assert task.result() == (True, 0)


async def test_left_while_the_clients_going_is_on_its_way() -> None:
    gate, attendance, task = await attending()

    gate.disconnect()
    attendance.leave()

    assert await task == (False, 0)


async def cancel_then_leave(attendance: Attendance, task: asyncio.Task[Any]) -> None:
    task.cancel()
    attendance.leave()


async def leave_then_cancel(attendance: Attendance, task: asyncio.Task[Any]) -> None:
    attendance.leave()
    task.cancel()


async def cancel(attendance: Attendance, task: asyncio.Task[Any]) -> None:
    task.cancel()


@pytest.mark.parametrize("happens", [cancel, cancel_then_leave, leave_then_cancel])
async def test_a_cancellation_from_outside_goes_on_its_way(
    happens: Callable[[Attendance, asyncio.Task[Any]], Awaitable[None]],
) -> None:
    _, attendance, task = await attending()

    await happens(attendance, task)

    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_timeout_around_the_wait_is_a_timeout() -> None:
    attendance = Attendance(Gate().receive)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(3):
            await attendance.until_gone()

    assert now() == 3


async def test_a_task_that_swallowed_a_cancellation_before_can_wait_all_the_same() -> None:
    attendance = Attendance(Gate().receive)
    reached = asyncio.Event()

    async def stubborn() -> bool:
        try:
            reached.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            pass
        return await attendance.until_gone()

    task = asyncio.create_task(stubborn())
    await reached.wait()
    task.cancel()
    await idle()
    attendance.leave()

    assert await task is False


async def test_an_error_of_the_servers_goes_on_its_way() -> None:
    async def receive() -> Message:
        raise RuntimeError("no")

    attendance = Attendance(receive)
    with pytest.raises(RuntimeError):
        await attendance.until_gone()
    attendance.leave()  # cancels nobody


# -- work while the client is there


async def test_the_result_of_the_work_is_returned() -> None:
    gate = Gate()

    async def work() -> int:
        await asyncio.sleep(1)
        return 42

    assert await attended(gate.receive, work()) == 42
    assert gate.cancelled == 1


async def test_work_that_is_done_at_once() -> None:
    async def work() -> int:
        return 42

    assert await attended(Gate().receive, work()) == 42


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> int:
        raise KeyError("no")

    with pytest.raises(KeyError):
        await attended(Gate().receive, work())


async def test_a_client_that_goes_has_the_work_cancelled_and_awaited() -> None:
    gate = Gate()
    happened: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            happened.append("cancelled")
            await asyncio.sleep(3)
            happened.append("cleaned up")

    asyncio.get_running_loop().call_later(1, gate.disconnect)
    with pytest.raises(Disconnected):
        await attended(gate.receive, work())

    assert (happened, now()) == (["cancelled", "cleaned up"], 4)


async def test_work_that_fails_while_it_is_cancelled_counts_as_cancelled() -> None:
    gate = Gate()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("no")

    asyncio.get_running_loop().call_later(1, gate.disconnect)
    with pytest.raises(Disconnected):
        await attended(gate.receive, work())


async def test_a_result_that_is_ready_when_the_client_goes_wins() -> None:
    gate = Gate()
    finish = asyncio.Event()

    async def work() -> int:
        await finish.wait()
        return 42

    def both() -> None:
        finish.set()
        gate.disconnect()

    asyncio.get_running_loop().call_later(1, both)
    assert await attended(gate.receive, work()) == 42


async def test_work_that_will_not_be_cancelled_may_finish() -> None:
    gate = Gate()

    async def work() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await asyncio.sleep(1)
        return 42

    asyncio.get_running_loop().call_later(1, gate.disconnect)
    assert await attended(gate.receive, work()) == 42


async def test_a_cancelled_request_has_its_work_cancelled_and_awaited() -> None:
    happened: list[str] = []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(3)
            happened.append("cleaned up")

    task = asyncio.create_task(attended(Gate().receive, work()))
    await idle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (happened, now()) == (["cleaned up"], 3)


async def test_through_asgirefs_communicator() -> None:
    """The work is done under a server that isn't ours, and cancelled when the client goes."""
    outcomes: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        await request.body()
        try:
            result = await attended(receive, asyncio.sleep(request.number("s", 1, minimum=0, maximum=9), "slept"))
        except Disconnected:
            outcomes.append("gone")
            return
        outcomes.append("done")
        await text_response(result)(request, send)

    patient = communicator(app, http_scope(query=b"s=3"))
    await patient.send_input({"type": "http.request"})
    assert (await patient.receive_output(9))["status"] == 200
    assert (await patient.receive_output(9))["body"] == b"slept"
    await patient.wait(9)

    gone = communicator(app, http_scope(query=b"s=3"))
    await gone.send_input({"type": "http.request"})
    await gone.send_input({"type": "http.disconnect"})
    await gone.wait(9)

    assert outcomes == ["done", "gone"]
    assert gone.output_queue.empty()


# -- the lifespan


class Life:
    """An app's start and stop, and a server's lifespan messages for it."""

    def __init__(self, error: str | None = None) -> None:
        self.error = error
        self.happened: list[str] = []
        self.asked = iter(["lifespan.startup", "lifespan.other", "lifespan.shutdown"])
        self.said: list[Message] = []

    def start(self) -> None:
        self.happened.append("start")
        if self.error is not None:
            raise ValueError(self.error)

    async def stop(self) -> None:
        self.happened.append("stop")

    async def receive(self) -> Message:
        return {"type": next(self.asked)}

    async def send(self, message: Message) -> None:
        self.said.append(message)


async def test_a_lifespan_from_start_to_stop() -> None:
    life = Life()

    await lifespan(life.receive, life.send, life.start, life.stop)

    assert life.happened == ["start", "stop"]
    assert life.said == [{"type": "lifespan.startup.complete"}, {"type": "lifespan.shutdown.complete"}]


async def test_a_start_that_fails_says_why_and_ends() -> None:
    life = Life("SIDESTREAM_PORT: too large")

    await lifespan(life.receive, life.send, life.start, life.stop)

    assert life.happened == ["start"]
    assert life.said == [{"type": "lifespan.startup.failed", "message": "SIDESTREAM_PORT: too large"}]

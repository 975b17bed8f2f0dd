"""Work that runs in its caller's turn, as far as it doesn't wait."""

import asyncio
from collections.abc import Awaitable

import pytest

from sse.eager import begin


async def test_work_that_never_waits_is_over_at_once_and_needs_no_task() -> None:
    done = []

    async def work() -> None:
        done.append(asyncio.current_task())

    assert begin(work(), asyncio.get_running_loop()) is None
    assert done == [asyncio.current_task()]


async def test_work_that_waits_is_carried_on_by_a_task() -> None:
    loop = asyncio.get_running_loop()
    waits: list[Awaitable[object]] = [loop.create_future(), asyncio.sleep(0), asyncio.sleep(0.001)]
    done = []

    async def work() -> None:
        for wait in waits:
            done.append(await wait)

    task = begin(work(), loop)
    assert task is not None
    assert done == []
    first = waits[0]
    assert isinstance(first, asyncio.Future)
    first.set_result("first")
    await task
    assert done == ["first", None, None]


async def test_an_error_before_the_first_wait_is_the_callers() -> None:
    async def work() -> None:
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        begin(work(), asyncio.get_running_loop())


async def test_an_error_after_the_first_wait_is_the_tasks() -> None:
    async def work() -> None:
        await asyncio.sleep(0)
        raise OSError("gone")

    task = begin(work(), asyncio.get_running_loop())
    assert task is not None
    with pytest.raises(OSError, match="gone"):
        await task


async def test_what_it_waits_for_may_fail_and_it_goes_on() -> None:
    loop = asyncio.get_running_loop()
    future, done = loop.create_future(), []

    async def work() -> None:
        try:
            await future
        except OSError:
            await asyncio.sleep(0)
            done.append("went on")

    task = begin(work(), loop)
    assert task is not None
    future.set_exception(OSError())
    await task
    assert done == ["went on"]


@pytest.mark.parametrize("turns", [0, 1])
async def test_a_cancellation_reaches_it_before_the_task_has_begun_and_after(turns: int) -> None:
    loop = asyncio.get_running_loop()
    future, closed = loop.create_future(), []

    async def work() -> None:
        try:
            await future
        finally:
            closed.append(True)

    task = begin(work(), loop)
    assert task is not None
    for _ in range(turns):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,))
    del task
    assert closed == [True]

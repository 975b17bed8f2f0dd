"""One timer for many waits."""

import asyncio

import pytest

from handlers.chat.upstream.patience import Patience
from tests.support.clock import now
from tests.support.streams import for_ever

pytestmark = pytest.mark.virtual_time


def patience(deadline: float, timeout: float) -> Patience:
    return Patience(now() + deadline, timeout)


async def test_the_first_wait_ends_at_the_deadline() -> None:
    limit = patience(10, 60)
    with pytest.raises(TimeoutError), limit:
        await for_ever()
    assert now() == 10
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_later_wait_ends_a_timeout_after_the_renewal() -> None:
    limit = patience(10, 20)
    with limit:
        await asyncio.sleep(5)
    limit.renew()
    with pytest.raises(TimeoutError), limit:
        await for_ever()
    assert now() == 5 + 20


async def test_a_first_wait_that_may_be_long_does_not_lengthen_the_later_ones() -> None:
    limit = patience(60, 20)
    with limit:
        await asyncio.sleep(5)
    limit.renew()
    with pytest.raises(TimeoutError), limit:
        await for_ever()
    assert now() == 5 + 20


async def test_between_the_waits_no_time_runs_out() -> None:
    limit = patience(10, 10)
    with limit:
        await asyncio.sleep(5)
    await asyncio.sleep(30)
    limit.renew()
    with limit:
        await asyncio.sleep(0)
    limit.close()


async def test_what_comes_again_and_again_renews_it() -> None:
    limit = patience(10, 10)
    for _ in range(10):
        with limit:
            await asyncio.sleep(9)
        limit.renew()
    limit.close()


async def test_a_cancellation_by_somebody_else_stays_one() -> None:
    waiting = asyncio.Event()

    async def wait() -> None:
        with patience(60, 60) as _:
            waiting.set()
            await for_ever()

    task = asyncio.create_task(wait())
    await waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_cancellation_in_the_same_moment_wins() -> None:
    limit = patience(10, 60)

    async def wait() -> None:
        with limit:
            await for_ever()

    task = asyncio.create_task(wait())
    asyncio.get_running_loop().call_at(10, task.cancel)
    with pytest.raises(asyncio.CancelledError):
        await task
    limit.close()


async def test_an_error_in_the_wait_comes_out() -> None:
    limit = patience(60, 60)
    with pytest.raises(ValueError, match="broken"), limit:
        raise ValueError("broken")
    limit.close()

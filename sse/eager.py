"""Sending from the producer's own turn of the event loop, instead of in the next one.

In:  a coroutine that most often comes to its end without waiting. Out: None if it did, otherwise the task that carries it on.

An event that is sent at once does not wait behind everything else that is due: with 1,000 streams at a steady rate that was the
difference between 601 and 63 µs in the median. And no task is made where none is needed.

Limit: until its first wait the coroutine runs as part of whatever task is current, and in its context. That is sound for a
server's own `send`, which doesn't look; middleware that does (timeouts, cancel scopes) needs a task of its own from the start.
"""

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any


def begin(work: Coroutine[Any, Any, None], loop: asyncio.AbstractEventLoop) -> asyncio.Task[None] | None:
    """Run `work` until it waits or ends. Raises what it raises before that."""
    try:
        waiting = work.send(None)
    except StopIteration:
        return None
    return loop.create_task(_carry_on(work, waiting))


async def _carry_on(work: Coroutine[Any, Any, None], waiting: Any) -> None:
    """A coroutine that has been started can't be made a task, nor be awaited; but its steps can be made."""
    await _steps(work, waiting)


@coroutine
def _steps(work: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, Any, None]:
    """Wait for what `work` waits for, on its behalf, to its end."""
    while True:
        try:
            try:
                result = yield waiting
            except BaseException as error:
                waiting = work.throw(error)
            else:
                waiting = work.send(result)
        except StopIteration:
            return

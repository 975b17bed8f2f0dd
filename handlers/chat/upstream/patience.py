"""A time limit for many short waits of one task, such as for the next chunk of an answer.

    patience = Patience(deadline, timeout)
    with patience:                # each wait; TimeoutError once the deadline has passed
        data = await read()
    patience.renew()              # something came: `timeout` seconds from now
    patience.close()

One timer serves them all, and looks at the deadline only when it is due; `asyncio.timeout` would set a new one for each wait,
which takes as long as half a chunk. Between the waits the deadline has no effect: the upstream is not what is slow then.
"""

import asyncio
from types import TracebackType
from typing import Any


class Patience:
    """deadline: of the first wait, on the loop's clock. timeout: seconds after each `renew`. For one task at a time."""

    __slots__ = ("_cancelling", "_deadline", "_expired", "_loop", "_task", "_timeout", "_timer", "_waiting")

    def __init__(self, deadline: float, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._deadline = deadline
        self._timeout = timeout
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._waiting = False
        self._expired = False

    def renew(self) -> None:
        self._deadline = self._loop.time() + self._timeout

    def close(self) -> None:
        self._task = None  # it may keep an error, whose traceback leads here
        if self._timer is not None:
            self._timer.cancel()

    def __enter__(self) -> None:
        if self._task is None:
            self._task = asyncio.current_task()
            self._cancelling = self._task.cancelling() if self._task else 0
            self._look_later()
        self._waiting = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._waiting = False
        # As asyncio.timeout does: only if nobody else has cancelled the task is the cancellation ours to turn around.
        if self._expired and self._task is not None:
            self._expired = False
            if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
                raise TimeoutError from error

    def _look(self) -> None:
        if self._waiting and self._deadline <= self._loop.time() and self._task is not None:
            self._expired = True
            self._task.cancel()
        else:
            self._look_later()

    def _look_later(self) -> None:
        remaining = self._deadline - self._loop.time()
        # The next `renew` can only bring a deadline that is later than this.
        self._timer = self._loop.call_later(min(remaining, self._timeout) if remaining > 0 else self._timeout, self._look)

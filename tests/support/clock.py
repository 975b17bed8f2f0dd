"""An event loop whose time is virtual: when nothing is ready, it jumps to the next timer instead of waiting for it.

What a test times is exact, and half an hour takes no time. A test runs on it with `@pytest.mark.virtual_time`, all tests of a
module with `pytestmark = pytest.mark.virtual_time`.

Time begins at 0. Where nothing is ready and no timer is set, nothing can ever happen again: that is an error at once,
not a test that hangs. Limit: without threads, and without sockets that need time.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

Backend = tuple[str, dict[str, object]]


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._now = 0.0
        self.waiting: list[asyncio.Future[None]] = []
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def block(self, seconds: float) -> None:
        self._now += seconds

    def nothing_ready(self, timeout: float | None) -> None:
        """The loop would block for `timeout` seconds now (None: for ever)."""
        if self.waiting:
            for future in self.waiting:
                if not future.done():
                    future.set_result(None)
            self.waiting = []
        elif timeout is None:
            raise AssertionError("every task waits, and no timer is set: nothing can happen any more")
        else:
            self._now += timeout


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualTimeLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout != 0:
            self._loop.nothing_ready(timeout)
        return ready


VIRTUAL_TIME: Backend = ("asyncio", {"loop_factory": VirtualTimeLoop})


def virtual_loop() -> VirtualTimeLoop:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop), "the test needs the mark virtual_time"
    return loop


async def idle() -> None:
    """Return when everything else has run as far as it can without time going on."""
    loop = virtual_loop()
    future = loop.create_future()
    loop.waiting.append(future)
    await future


def block(seconds: float) -> None:
    """Let time go on while nothing else can run, as when something computes for so long."""
    virtual_loop().block(seconds)


def now() -> float:
    """Seconds since the loop was made."""
    return asyncio.get_running_loop().time()


@dataclass(slots=True)
class Turns:
    made: int = 0


@asynccontextmanager
async def counted_turns() -> AsyncIterator[Turns]:
    """How many turns the loop makes meanwhile, on any loop."""
    turns = Turns()

    async def count() -> None:
        while True:
            turns.made += 1
            await asyncio.sleep(0)

    counter = asyncio.create_task(count())
    try:
        yield turns
    finally:
        counter.cancel()

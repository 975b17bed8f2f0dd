"""Many async iterators become one: in goes a mapping of named sources, out come their items as they are ready.

    async with aclosing(merge({"a": first, "b": second})) as merged:
        async for record in merged:  # Item(source, value) ..., and for each source one Ended(source, error)

Each source has a task of its own, which iterates it and closes it, and holds at most one item: the next is asked for
when the last was taken. Items are taken in the order in which they became ready. So a source that never waits can't
crowd out the others: between two of its items every other has its turn. A source that fails is reported, and the others
go on.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)
FAILED_TO_CLOSE = "source %s failed to close"


@dataclass(frozen=True, slots=True)
class Item(Generic[T]):
    """A source yielded a value."""

    source: str
    value: T


@dataclass(frozen=True, slots=True)
class Ended:
    """The last record of a source: it came to its end, or failed with this error."""

    source: str
    error: BaseException | None = None


def merge(sources: Mapping[str, AsyncIterator[T]]) -> "Merge[T]":
    """All sources as one, which owns them; none is begun before it is iterated. The caller owes it an `aclose()`."""
    return Merge(sources)


class Merge(Generic[T]):
    """An async iterator, for one reader, of Item and Ended records; ends after the last Ended.

    Cancelled while it waits, it closes all sources, as an async generator would.
    """

    def __init__(self, sources: Mapping[str, AsyncIterator[T]]) -> None:
        self._open = dict(sources)  # not closed yet
        self._left = len(self._open)  # whose Ended wasn't read yet
        self._tasks: list[asyncio.Task[None]] | None = None  # None: not begun
        self._closed = False
        self._ready: deque[tuple[Item[T] | Ended, asyncio.Future[None] | None]] = deque()  # the future: it is taken
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> "Merge[T]":
        return self

    async def __anext__(self) -> Item[T] | Ended:
        if self._tasks is None and not self._closed:
            self._tasks = [self._begin(name, source) for name, source in self._open.items()]
        while not self._ready:
            if self._closed or not self._left:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            except asyncio.CancelledError:
                await self.aclose()
                raise
        record, taken = self._ready.popleft()
        if taken is None:
            self._left -= 1
        elif not taken.done():
            taken.set_result(None)
        return record

    async def aclose(self) -> None:
        """Cancel and await every task. A source that fails to close is logged and keeps no other from being closed."""
        if not self._closed:
            self._closed = True
            for task in self._tasks or ():
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._ready.clear()
        self._wake()
        for name in list(self._open):  # the tasks that never ran could not close theirs
            await self._close(name)

    def _begin(self, name: str, source: AsyncIterator[T]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._iterate(name, source), name=f"merge {name}")
        task.add_done_callback(partial(self._end, name))
        return task

    async def _iterate(self, name: str, source: AsyncIterator[T]) -> None:
        """The task of one source."""
        try:
            async for value in source:
                if self._closed:  # it swallowed the cancellation
                    return
                taken = asyncio.get_running_loop().create_future()
                self._ready.append((Item(name, value), taken))
                self._wake()
                await taken
        finally:
            await self._close(name)

    def _end(self, name: str, task: asyncio.Task[None]) -> None:
        error = RuntimeError("the source was cancelled") if task.cancelled() else task.exception()
        if self._closed:
            if not task.cancelled() and error is not None:
                log.error(FAILED_TO_CLOSE, name, exc_info=error)
            return
        self._ready.append((Ended(name, error), None))
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _close(self, name: str) -> None:
        aclose = getattr(self._open.pop(name, None), "aclose", None)
        if aclose is not None:
            try:
                await aclose()
            except Exception:
                log.exception(FAILED_TO_CLOSE, name)

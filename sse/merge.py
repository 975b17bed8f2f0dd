"""Many async generators become one. In: a mapping of named sources. Out: `(name, value)`, as the values are ready.

    async with aclosing(merge({"a": first(), "b": second()})) as merged:
        async for name, value in merged:
            ...

Each source has a task of its own, which iterates it and closes it, and holds at most one value: the next is asked for
when the last was taken. Values are taken in the order in which they became ready. So a source that never waits can't
crowd out the others: between two of its values every other has its turn.

A source that fails doesn't end the others. Its error is raised when all have ended.
Limit: of several errors the first source's is raised. To go on at once, a source has to handle its own.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


async def merge(sources: Mapping[str, AsyncGenerator[T, None]]) -> AsyncGenerator[tuple[str, T], None]:
    """All sources as one, which ends when all have ended. Closing it closes all of them, and awaits their tasks.

    Raises what a source raised. Limit: as with every async generator, closing one that was never iterated does nothing;
    no source has begun by then.
    """
    ready: asyncio.Queue[tuple[str, T, asyncio.Event] | None] = asyncio.Queue()  # None: a source has ended
    closing = False

    async def iterate(name: str, source: AsyncGenerator[T, None]) -> None:
        try:
            async with aclosing(source):
                async for value in source:
                    if closing:  # it swallowed its cancellation
                        return
                    taken = asyncio.Event()
                    ready.put_nowait((name, value, taken))
                    await taken.wait()
        except asyncio.CancelledError:
            if closing:
                raise
            raise RuntimeError(f"source {name} was cancelled") from None  # passed on, it would cancel the reader
        finally:
            ready.put_nowait(None)

    tasks = [asyncio.create_task(iterate(name, source), name=f"source {name}") for name, source in sources.items()]
    running = len(tasks)
    try:
        while running:
            if (item := await ready.get()) is None:
                running -= 1
                continue
            name, value, taken = item
            taken.set()
            yield name, value
        await asyncio.gather(*tasks)
    finally:
        closing = True
        left = [task for task in tasks if task.cancel()]
        for task, error in zip(left, await asyncio.gather(*left, return_exceptions=True), strict=True):
            if isinstance(error, Exception):
                log.error("%s failed to close", task.get_name(), exc_info=error)
        tasks.clear()  # the error that is raised holds them here, and they hold the error

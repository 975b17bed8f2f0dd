"""Many async iterators become one. In: a mapping of named sources. Out: their items, as they are ready.

    async with aclosing(merge({"a": first, "b": second})) as merged:
        async for record in merged:  # Item(source, value) ..., and for each source one Ended(source, error)

Each source has a task of its own, which iterates it and closes it, and holds at most one item: the next is asked for
when the last was taken. Items are taken in the order in which they became ready. So a source that never waits can't
crowd out the others: between two of its items every other has its turn. A source that fails is reported, and the others
go on.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")

log = logging.getLogger(__name__)


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


async def _close(name: str, source: AsyncIterator[T]) -> None:
    aclose = getattr(source, "aclose", None)
    try:
        if aclose is not None:
            await aclose()
    except Exception:
        log.exception("source %s failed to close", name)


async def merge(sources: Mapping[str, AsyncIterator[T]]) -> AsyncGenerator[Item[T] | Ended, None]:
    """All sources as one, which ends after the last Ended. Closing it closes all of them, and awaits their tasks.

    Limit: as with every async generator, closing one that was never iterated does nothing; no source has begun by then.
    """
    records: asyncio.Queue[tuple[Item[T] | Ended, asyncio.Future[None]]] = asyncio.Queue()
    closing = False

    async def put(record: Item[T] | Ended) -> None:
        taken = asyncio.get_running_loop().create_future()
        records.put_nowait((record, taken))
        await taken

    async def iterate(name: str, source: AsyncIterator[T]) -> None:
        error: BaseException | None = None
        try:
            async for value in source:
                if closing:  # it swallowed its cancellation
                    return
                await put(Item(name, value))
        except (Exception, asyncio.CancelledError) as failure:
            error = failure
            if closing and isinstance(failure, asyncio.CancelledError):
                raise
            if closing:
                log.error("source %s failed to close", name, exc_info=failure)
            elif isinstance(failure, asyncio.CancelledError):
                error = RuntimeError("the source was cancelled")
        finally:
            await _close(name, source)
        try:
            if not closing:
                await put(Ended(name, error))
        finally:
            error = None  # an error holds this function's variables, by its traceback

    tasks = [asyncio.create_task(iterate(name, source), name=f"merge {name}") for name, source in sources.items()]
    try:
        running = len(tasks)
        while running:
            record, taken = await records.get()
            running -= isinstance(record, Ended)
            if not taken.done():
                taken.set_result(None)
            yield record
    finally:
        closing = True
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

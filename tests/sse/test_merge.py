"""Many sources as one: order, errors, fairness, and that every source is closed however the merge ends."""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest

from sse.merge import Ended, Item, merge
from tests.support.clock import idle
from tests.support.streams import Bare, Source, for_ever, raising

pytestmark = pytest.mark.virtual_time


async def first(merged: AsyncGenerator[Item[int] | Ended, None]) -> Item[int] | Ended:
    """As a coroutine, to make a task of."""
    return await anext(merged)


async def until_from(merged: AsyncIterator[Item[int] | Ended], source: str) -> AsyncIterator[Item[int] | Ended]:
    """The records up to the first of this source."""
    async for record in merged:
        yield record
        if record.source == source:
            return


async def test_every_item_comes_with_its_name_and_each_source_ends_once() -> None:
    records = [record async for record in merge({"a": Source([1, 2]), "b": Source([3])})]
    assert [record for record in records if record.source == "a"] == [Item("a", 1), Item("a", 2), Ended("a")]
    assert [record for record in records if record.source == "b"] == [Item("b", 3), Ended("b")]


async def test_no_sources_end_at_once() -> None:
    nothing: dict[str, AsyncIterator[int]] = {}
    assert [record async for record in merge(nothing)] == []


async def test_a_source_that_fails_is_reported_and_the_others_go_on() -> None:
    error = ValueError("of the source")
    bad, good = Source([1, error]), Source([1, 2, 3, 4])
    records = [record async for record in merge({"bad": bad, "good": good})]
    assert Ended("bad", error) in records
    assert [record for record in records if record.source == "good"] == [
        *(Item("good", n) for n in (1, 2, 3, 4)),
        Ended("good"),
    ]
    assert (bad.closed, good.closed) == (1, 1)


async def test_a_source_that_cancels_itself_is_reported_as_failed() -> None:
    records = [record async for record in merge({"a": Source([asyncio.CancelledError()]), "b": Source([1])})]
    (ended,) = (record for record in records if isinstance(record, Ended) and record.source == "a")
    assert isinstance(ended.error, RuntimeError)
    assert Ended("b") in records


async def test_sources_that_never_wait_take_turns() -> None:
    sources = {name: Source(range(10)) for name in "abc"}
    async with aclosing(merge(sources)) as merged:
        names = [(await anext(merged)).source for _ in range(30)]
    assert names == ["a", "b", "c"] * 10


async def test_a_source_that_never_waits_does_not_crowd_out_one_that_does() -> None:
    turn = asyncio.Event()

    async def eager() -> AsyncGenerator[int, None]:
        number = 0
        while True:
            number += 1
            yield number
            if number == 100:
                turn.set()

    async def patient() -> AsyncGenerator[int, None]:
        await turn.wait()
        yield 0

    async with aclosing(merge({"eager": eager(), "patient": patient()})) as merged:
        until = [record async for record in until_from(merged, "patient")]
    assert len(until) <= 104  # one or two of the eager one's items may be under way


async def test_the_next_item_is_asked_for_only_when_the_last_is_taken() -> None:
    ahead, behind = Source([1, 2, 3]), Source([1], for_ever)
    async with aclosing(merge({"behind": behind, "ahead": ahead})) as merged:
        assert await anext(merged) == Item("behind", 1)
        await idle()  # by now the other one has had its turn, too
        assert ahead.asked == 1


async def test_nothing_is_asked_of_a_source_before_the_merge_is_iterated() -> None:
    source = Source([1])
    merged = merge({"a": source})
    await merged.aclose()
    assert (source.asked, source.closed) == (0, 0)
    assert [record async for record in merged] == []


async def test_closing_closes_every_source_and_awaits_every_task() -> None:
    sources = {"waiting": Source(then=for_ever), "holding": Source([1, 2]), "unread": Source([1])}
    before = asyncio.all_tasks()
    merged = merge(sources)
    assert await anext(merged) == Item("holding", 1)
    await merged.aclose()
    assert {name: source.closed for name, source in sources.items()} == {"waiting": 1, "holding": 1, "unread": 1}
    assert asyncio.all_tasks() == before
    assert [record async for record in merged] == []


async def test_generators_are_closed_by_the_task_that_iterates_them() -> None:
    tasks: list[asyncio.Task[object] | None] = []

    async def source() -> AsyncGenerator[int, None]:
        tasks.append(asyncio.current_task())
        try:
            yield 1
            await for_ever()
        finally:
            tasks.append(asyncio.current_task())

    merged = merge({"a": source()})
    await anext(merged)
    await merged.aclose()
    assert tasks[0] is tasks[1] is not asyncio.current_task()


async def test_cancelled_while_it_waits_it_closes_every_source() -> None:
    sources = {"a": Source(then=for_ever), "b": Source(then=for_ever)}
    reader = asyncio.create_task(first(merge(sources)))
    await idle()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert [source.closed for source in sources.values()] == [1, 1]


async def test_a_source_that_fails_to_close_is_logged_and_the_others_are_closed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    error = OSError("won't close")
    sources = {"bad": Source(then=for_ever, on_close=raising(error)), "good": Source([1], for_ever)}
    merged = merge(sources)
    assert await anext(merged) == Item("good", 1)
    await merged.aclose()
    assert [source.closed for source in sources.values()] == [1, 1]
    (record,) = caplog.records
    assert (record.getMessage(), record.exc_info and record.exc_info[1]) == ("source bad failed to close", error)


async def test_an_error_raised_on_cancellation_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    begun = asyncio.Event()

    async def source() -> AsyncGenerator[int, None]:
        try:
            begun.set()
            await for_ever()
            yield 1
        finally:
            raise OSError("won't close")

    reader = asyncio.create_task(first(merge({"bad": source()})))
    await begun.wait()
    reader.cancel()
    with caplog.at_level(logging.ERROR), pytest.raises(asyncio.CancelledError):
        await reader
    assert [record.getMessage() for record in caplog.records] == ["source bad failed to close"]


async def test_a_source_that_swallows_its_cancellation_is_closed_at_its_next_item() -> None:
    begun, closed = asyncio.Event(), asyncio.Event()

    async def stubborn() -> AsyncGenerator[int, None]:
        try:
            while True:
                begun.set()
                try:
                    await for_ever()
                except asyncio.CancelledError:
                    yield 1
        finally:
            closed.set()

    merged = merge({"a": stubborn()})
    reader = asyncio.create_task(first(merged))
    await begun.wait()
    reader.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reader
    assert closed.is_set()


async def test_a_source_without_aclose_is_fine() -> None:
    assert [record async for record in merge({"a": Bare()})] == [Ended("a")]

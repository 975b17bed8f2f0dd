"""Many sources as one: order, errors, fairness, and that every source is closed however the merge ends."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import pytest

from sse.merge import merge
from tests.support.clock import idle
from tests.support.streams import Source, for_ever, raising

pytestmark = pytest.mark.virtual_time


def merged_of(**sources: Source) -> AsyncGenerator[tuple[str, int], None]:
    """A merge of sources that only look like generators."""
    return merge(cast("dict[str, AsyncGenerator[int, None]]", sources))


async def first(merged: AsyncGenerator[tuple[str, int], None]) -> tuple[str, int]:
    """As a coroutine, to make a task of."""
    return await anext(merged)


async def all_of(merged: AsyncGenerator[tuple[str, int], None], said: list[tuple[str, int]]) -> None:
    async for record in merged:
        said.append(record)


async def test_every_value_comes_with_the_name_of_its_source() -> None:
    said = [record async for record in merged_of(a=Source([1, 2]), b=Source([3]))]
    assert sorted(said) == [("a", 1), ("a", 2), ("b", 3)]


async def test_no_sources_end_at_once() -> None:
    assert [record async for record in merged_of()] == []


async def test_the_error_of_a_source_is_raised_when_the_others_have_ended() -> None:
    error = ValueError("of the source")
    bad, good, said = Source([1, error]), Source([1, 2, 3, 4]), list[tuple[str, int]]()
    with pytest.raises(ValueError) as raised:
        await all_of(merged_of(bad=bad, good=good), said)
    assert raised.value is error
    assert sorted(said) == [("bad", 1), *(("good", n) for n in (1, 2, 3, 4))]
    assert (bad.closed, good.closed) == (1, 1)


async def test_a_source_that_cancels_itself_has_failed_and_its_reader_is_not_cancelled() -> None:
    said = list[tuple[str, int]]()
    with pytest.raises(RuntimeError, match="source a was cancelled"):
        await all_of(merged_of(a=Source([asyncio.CancelledError()]), b=Source([1])), said)
    assert said == [("b", 1)]


async def test_sources_that_never_wait_take_turns() -> None:
    sources = {name: Source(range(10)) for name in "abc"}
    async with aclosing(merged_of(**sources)) as merged:
        names = [(await anext(merged))[0] for _ in range(30)]
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
        before = 0
        while (await anext(merged))[0] != "patient":
            before += 1
    assert before <= 103  # one or two of the eager one's items may be under way


async def test_the_next_item_is_asked_for_only_when_the_last_is_taken() -> None:
    ahead, behind = Source([1, 2, 3]), Source([1], for_ever)
    async with aclosing(merged_of(behind=behind, ahead=ahead)) as merged:
        assert await anext(merged) == ("behind", 1)
        await idle()  # by now the other one has had its turn, too
        assert ahead.asked == 1


async def test_nothing_is_asked_of_a_source_before_the_merge_is_iterated() -> None:
    source = Source([1])
    merged = merged_of(a=source)
    await merged.aclose()
    assert (source.asked, source.closed) == (0, 0)
    assert [record async for record in merged] == []


async def test_closing_closes_every_source_and_awaits_every_task() -> None:
    sources = {"waiting": Source(then=for_ever), "holding": Source([1, 2]), "unread": Source([1])}
    before = asyncio.all_tasks()
    merged = merged_of(**sources)
    assert await anext(merged) == ("holding", 1)
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
    reader = asyncio.create_task(first(merged_of(**sources)))
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
    merged = merged_of(**sources)
    assert await anext(merged) == ("good", 1)
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

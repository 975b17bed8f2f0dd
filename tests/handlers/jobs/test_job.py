"""One job as a source: what its items are, what is superseded, and how it ends; blocking and async."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from handlers.jobs.job import BUFFER, Job
from handlers.jobs.kinds import Kind, OnProgress, kind
from sse.errors import Full, SourceFailed
from sse.threads import Bridge

LONG = 10.0  # seconds after which a wait in these tests has failed

Work = Callable[[OnProgress], Any]


def blocking(work: Work) -> Kind:
    @kind
    def blocking(on_progress: OnProgress) -> Any:
        return work(on_progress)

    return blocking


def asynchronous(work: Work) -> Kind:
    @kind
    async def asynchronous(on_progress: OnProgress) -> Any:
        await asyncio.sleep(0)
        return work(on_progress)

    return asynchronous


BOTH = pytest.mark.parametrize("make", [blocking, asynchronous])


@pytest.fixture
async def bridge() -> Bridge:
    return Bridge(1, 1)


async def read(job: Job) -> list[dict[str, Any]]:
    async with aclosing(job):
        return [item async for item in job]


@BOTH
async def test_progress_then_the_result(make: Callable[[Work], Kind], bridge: Bridge) -> None:
    def work(on_progress: OnProgress) -> str:
        on_progress("load", {"progress": 20, "message": "loading", "file": "Größe.csv"})
        on_progress("count", {"rows": [1, 2]})
        return "fertig"

    job = Job(make(work), {}, bridge)
    assert (job.progress, job.step, job.details, job.result) == (0, None, {}, None)
    loading = {"progress": 20, "message": "loading", "file": "Größe.csv"}
    assert await read(job) == [
        {"status": "running", "progress": 20, "step": "load", "message": "loading", "details": loading},
        {"status": "running", "progress": 20, "step": "count", "message": None, "details": {"rows": [1, 2]}},
        {"status": "completed", "progress": 100, "result": "fertig"},
    ]
    assert (job.progress, job.step, job.result) == (100, "count", "fertig")
    assert job.started is not None
    assert job.created <= job.started


@pytest.mark.parametrize(
    ("said", "shown"),
    [(0, 0), (12.5, 12.5), (100, 100), (101, 100), (-1, 0), ("50", 7), (None, 7), (float("nan"), 7), (float("inf"), 7)],
    ids=str,
)
async def test_progress_is_a_number_from_0_to_100_or_stays_what_it_was(said: Any, shown: float, bridge: Bridge) -> None:
    def work(on_progress: OnProgress) -> None:
        on_progress("a", {"progress": 7})
        on_progress("b", {"progress": said})

    assert [item["progress"] for item in await read(Job(blocking(work), {}, bridge))] == [7, shown, 100]


@BOTH
async def test_what_the_work_raises_is_a_failure_with_its_text(
    make: Callable[[Work], Kind], bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    def work(on_progress: OnProgress) -> None:
        on_progress("a", {})
        raise LookupError("no such table")

    items = []
    async with aclosing(Job(make(work), {}, bridge)) as job:
        with pytest.raises(SourceFailed) as raised:
            async for item in job:
                items.append(item)
    assert (raised.value.message, raised.value.code) == ("LookupError: no such table", "job_failed")
    assert [item["step"] for item in items] == ["a"]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@BOTH
async def test_a_result_without_a_json_form_is_a_failure(make: Callable[[Work], Kind], bridge: Bridge) -> None:
    circle: list[Any] = []
    circle.append(circle)
    job = Job(make(lambda on_progress: circle), {}, bridge)
    with pytest.raises(SourceFailed) as raised:
        await read(job)
    assert raised.value.message.startswith("Unwritable: this list has no JSON form")
    assert (raised.value.code, job.result) == ("job_failed", None)


@BOTH
async def test_work_can_choose_its_own_code(
    make: Callable[[Work], Kind], bridge: Bridge, caplog: pytest.LogCaptureFixture
) -> None:
    def work(on_progress: OnProgress) -> None:
        raise SourceFailed("quota used up", "quota", retryable=True)

    with pytest.raises(SourceFailed) as raised:
        await read(Job(make(work), {}, bridge))
    assert (raised.value.code, raised.value.retryable, caplog.records) == ("quota", True, [])


@BOTH
async def test_work_that_raises_what_would_end_the_loop_or_the_task_fails(make: Callable[[Work], Kind], bridge: Bridge) -> None:
    def work(on_progress: OnProgress) -> None:
        raise asyncio.CancelledError

    with pytest.raises(SourceFailed) as raised:
        await read(Job(make(work), {}, bridge))
    assert raised.value.code == "job_failed"


@BOTH
async def test_progress_faster_than_its_reader_is_superseded_and_the_result_is_not(
    make: Callable[[Work], Kind], bridge: Bridge
) -> None:
    over = threading.Event()

    def work(on_progress: OnProgress) -> str:
        for number in range(1000):
            on_progress("count", {"progress": number / 10, "number": number})
        over.set()
        return "all"

    job = Job(make(work), {}, bridge)
    if make is blocking:
        assert await asyncio.to_thread(over.wait, LONG)
    *reports, completed = await read(job)
    assert [report["details"]["number"] for report in reports] == list(range(1000 - BUFFER, 1000))
    assert completed == {"status": "completed", "progress": 100, "result": "all"}


async def test_a_full_queue_is_told_at_once() -> None:
    gate = threading.Event()

    def work(on_progress: OnProgress) -> None:
        assert gate.wait(LONG)

    bridge = Bridge(1, 1)
    jobs = [Job(blocking(work), {}, bridge) for _ in range(2)]
    with pytest.raises(Full):
        Job(blocking(work), {}, bridge)
    Job(asynchronous(work), {}, bridge)  # needs no thread
    gate.set()
    for job in jobs:
        await read(job)


# -- closing


@BOTH
async def test_closed_before_it_was_read_it_is_never_called(make: Callable[[Work], Kind]) -> None:
    called = threading.Event()
    bridge = Bridge(1, 1)
    gate = threading.Event()
    busy = Job(blocking(lambda on_progress: gate.wait(LONG)), {}, bridge)
    job = Job(make(lambda on_progress: called.set()), {}, bridge)
    assert job.started is None
    await job.aclose()
    assert (await read(job), job.started) == ([], None)
    gate.set()
    await read(busy)
    assert not called.is_set()


async def test_closed_while_it_computes_the_thread_ends_at_its_next_report(bridge: Bridge) -> None:
    begun, gate, left = threading.Event(), threading.Event(), threading.Event()

    def work(on_progress: OnProgress) -> None:
        try:
            begun.set()
            assert gate.wait(LONG)
            on_progress("never", {})
        finally:
            left.set()

    job = Job(blocking(work), {}, bridge)
    reading = asyncio.ensure_future(read(job))
    assert await asyncio.to_thread(begun.wait, LONG)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert bridge.abandoned == 1
    gate.set()
    assert await asyncio.to_thread(left.wait, LONG)
    assert await read(Job(blocking(lambda on_progress: "next"), {}, bridge))  # its place is free again
    assert (bridge.abandoned, job.step) == (0, None)


@pytest.mark.parametrize("end", [None, ValueError("while it cleaned up")], ids=["quietly", "by an error"])
async def test_closed_while_it_awaits_an_async_function_has_ended(
    bridge: Bridge, end: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    @kind
    async def waits(on_progress: OnProgress) -> None:
        on_progress("begun", {})
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
            if end is not None:
                raise end

    reading = asyncio.ensure_future(read(Job(waits, {}, bridge)))
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert left.is_set()
    del reading
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_details_are_copied_when_they_are_said(bridge: Bridge) -> None:
    @kind
    async def reuses(on_progress: OnProgress) -> None:
        details: dict[str, Any] = {}
        for number in range(3):
            details["number"] = number
            on_progress("a", details)

    *reports, _ = await read(Job(reuses, {}, bridge))
    seen: list[Mapping[str, Any]] = [report["details"] for report in reports]
    assert seen == [{"number": 0}, {"number": 1}, {"number": 2}]

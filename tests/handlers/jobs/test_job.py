"""One job as a source: what its items are, what is superseded, and how it ends; blocking and async."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

import pytest

from handlers.jobs.job import Job
from sidecar.functions import function
from sse.budget import Budget, Charge
from sse.errors import SourceFailed
from sse.threads import OnProgress, Threads
from sse.wire.payload import dumps

LONG = 10.0  # seconds after which a wait in these tests has failed

Work = Callable[[OnProgress], Any]


def blocking(work: Work) -> Callable[..., Any]:
    return lambda on_progress: work(on_progress)


def asynchronous(work: Work) -> Callable[..., Any]:
    async def asynchronous(on_progress: OnProgress) -> Any:
        await asyncio.sleep(0)
        return work(on_progress)

    return asynchronous


BOTH = pytest.mark.parametrize("make", [blocking, asynchronous])
Make = Callable[[Work], Callable[..., Any]]


@pytest.fixture
async def threads() -> Threads:
    return Threads(1, 1)


def job_of(threads: Threads, call: Callable[..., Any]) -> Job:
    return Job(function(call), {}, threads, Charge(Budget()))


async def read(job: Job) -> list[Any]:
    """Its items, as a client reads them."""
    async with aclosing(job):
        return [as_read(item) async for item in job]


def as_read(value: Any) -> Any:
    return json.loads(dumps(value))


@BOTH
async def test_progress_then_the_result(make: Make, threads: Threads) -> None:
    def work(on_progress: OnProgress) -> str:
        on_progress("load", {"progress": 20, "message": "loading", "file": "Größe.csv"})
        on_progress("count", {"rows": [1, 2]})
        return "fertig"

    job = job_of(threads, make(work))
    assert (job.report, job.result) == ({"progress": 0, "step": None, "message": None, "details": {}}, None)
    loading = {"progress": 20, "message": "loading", "file": "Größe.csv"}
    assert await read(job) == [
        {"status": "running", "progress": 20, "step": "load", "message": "loading", "details": loading},
        {"status": "running", "progress": 20, "step": "count", "message": None, "details": {"rows": [1, 2]}},
        {"status": "completed", "progress": 100, "result": "fertig"},
    ]
    assert (job.report["progress"], job.report["step"], as_read(job.result)) == (100, "count", "fertig")
    assert job.created <= job.state()["started"]


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        (0, 0),
        (12.5, 12.5),
        (100, 100),
        (101, 100),
        (-1, 0),
        ("50", 7),
        (None, 7),
        (float("nan"), 7),
        (float("inf"), 7),
        (-float("inf"), 7),
        (10**400, 100),
        (-(10**400), 0),
    ],
    ids=lambda value: str(value)[:10],
)
async def test_progress_is_a_number_from_0_to_100_or_stays_what_it_was(said: Any, shown: float, threads: Threads) -> None:
    def work(on_progress: OnProgress) -> None:
        on_progress("a", {"progress": 7})
        on_progress("b", {"progress": said})

    assert [item["progress"] for item in await read(job_of(threads, work))] == [7, shown, 100]


@BOTH
async def test_what_the_work_raises_is_a_failure_with_its_text(
    make: Make, threads: Threads, caplog: pytest.LogCaptureFixture
) -> None:
    def work(on_progress: OnProgress) -> None:
        on_progress("a", {})
        raise LookupError("no such table")

    items = []
    async with aclosing(job_of(threads, make(work))) as job:
        with pytest.raises(SourceFailed) as raised:
            async for item in job:
                items.append(item)
    assert (raised.value.message, raised.value.code) == ("LookupError: no such table", "job_failed")
    assert items == [{"status": "running", "progress": 0, "step": "a", "message": None, "details": {}}]
    assert [record.levelname for record in caplog.records] == ["WARNING"]


@BOTH
async def test_work_can_choose_its_own_code(make: Make, threads: Threads, caplog: pytest.LogCaptureFixture) -> None:
    def work(on_progress: OnProgress) -> None:
        raise SourceFailed("quota used up", "quota", retryable=True)

    with pytest.raises(SourceFailed) as raised:
        await read(job_of(threads, make(work)))
    assert (raised.value.code, raised.value.retryable, caplog.records) == ("quota", True, [])


class Unspeakable(Exception):
    """Raises as soon as somebody wants to know what it says."""

    def __str__(self) -> str:
        raise SystemExit("from __str__")


@BOTH
@pytest.mark.parametrize(
    ("error", "text"),
    [
        (asyncio.CancelledError(), "RuntimeError: the function raised CancelledError"),
        (SystemExit(3), "RuntimeError: the function raised SystemExit: 3"),
        (KeyboardInterrupt(), "RuntimeError: the function raised KeyboardInterrupt"),
        (GeneratorExit(), "RuntimeError: the function raised GeneratorExit"),
        (Unspeakable(), "Unspeakable (its message can't be shown: SystemExit)"),
        (ValueError("x" * 10_000), "ValueError: " + "x" * 2000),
    ],
    ids=["cancelled", "exit", "interrupt", "generator", "unspeakable", "long"],
)
async def test_whatever_the_work_raises_is_a_failure(make: Make, threads: Threads, error: BaseException, text: str) -> None:
    def work(on_progress: OnProgress) -> None:
        raise error

    with pytest.raises(SourceFailed) as raised:
        await read(job_of(threads, make(work)))
    assert (raised.value.message, raised.value.code) == (text, "job_failed")


@BOTH
async def test_a_result_without_a_json_form_is_a_failure(make: Make, threads: Threads) -> None:
    circle: list[Any] = []
    circle.append(circle)
    job = job_of(threads, make(lambda on_progress: circle))
    with pytest.raises(SourceFailed) as raised:
        await read(job)
    assert raised.value.message.startswith("Unwritable: this list has no JSON form")
    assert (raised.value.code, job.result) == ("job_failed", None)


# -- closing


@BOTH
async def test_closed_before_it_was_read_it_is_never_called(make: Make, threads: Threads) -> None:
    called = threading.Event()
    gate = threading.Event()
    busy = job_of(threads, lambda on_progress: gate.wait(LONG))
    job = job_of(threads, make(lambda on_progress: called.set()))
    assert job.state()["started"] is None
    await job.aclose()
    assert (await read(job), job.state()["started"]) == ([], None)
    gate.set()
    await read(busy)
    assert not called.is_set()


async def test_closed_while_it_computes_the_thread_ends_at_its_next_report(threads: Threads) -> None:
    begun, gate, left = threading.Event(), threading.Event(), threading.Event()

    def work(on_progress: OnProgress) -> None:
        try:
            begun.set()
            assert gate.wait(LONG)
            on_progress("never", {})
        finally:
            left.set()

    job = job_of(threads, work)
    reading = asyncio.ensure_future(read(job))
    assert await asyncio.to_thread(begun.wait, LONG)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert threads.counts()["abandoned"] == 1
    gate.set()
    assert await asyncio.to_thread(left.wait, LONG)
    assert await read(job_of(threads, lambda on_progress: "next"))  # its place is free again
    assert (threads.counts()["abandoned"], job.report["step"]) == (0, None)


@pytest.mark.parametrize("end", [None, ValueError("while it cleaned up")], ids=["quietly", "by an error"])
async def test_closed_while_it_awaits_an_async_function_has_ended(
    threads: Threads, end: Exception | None, caplog: pytest.LogCaptureFixture
) -> None:
    begun, left = asyncio.Event(), asyncio.Event()

    async def waits(on_progress: OnProgress) -> None:
        on_progress("begun", {})
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            left.set()
            if end is not None:
                raise end

    reading = asyncio.ensure_future(read(job_of(threads, waits)))
    await begun.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert left.is_set()
    del reading
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_details_are_copied_when_they_are_said(threads: Threads) -> None:
    async def reuses(on_progress: OnProgress) -> None:
        details: dict[str, Any] = {}
        for number in range(3):
            details["number"] = number
            on_progress("a", details)

    *reports, _ = await read(job_of(threads, reuses))
    seen: list[Mapping[str, Any]] = [report["details"] for report in reports]
    assert seen == [{"number": 0}, {"number": 1}, {"number": 2}]

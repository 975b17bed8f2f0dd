"""Jobs over HTTP, in process: states, documents, progress streams, limits, and every way to cancel."""

import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from app import Sidestream
from sidecar.functions import Function, function
from sidecar.settings import Settings
from sse.stream import MAX_EVENT, Stream
from sse.testing import OpenedStream, open_stream
from sse.threads import OnProgress
from sse.wire.event import MessageEvent
from tests.support.app import EVENT_STREAM, HOST, JSON, Answer, ask
from tests.support.streams import open_in

LONG = 10.0  # seconds after which a wait in these tests has failed


class Gate:
    """Kinds that stop where a test wants: they report, wait in their thread, report again."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go = threading.Event()
        self.left = threading.Event()

    def work(self, on_progress: OnProgress) -> dict[str, Any]:
        try:
            on_progress("first", {"progress": 10})
            self.begun.set()
            assert self.go.wait(LONG)
            on_progress("second", {"progress": 20})
            return {"done": True}
        finally:
            self.left.set()

    async def wait_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, LONG)

    async def wait_left(self) -> None:
        assert await asyncio.to_thread(self.left.wait, LONG)


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
async def sidestream(gate: Gate) -> AsyncIterator[Sidestream]:
    sidestream = Sidestream(Settings(job_threads=1, job_queue=1))
    sidestream.start()

    @function
    def gated(on_progress: OnProgress) -> Any:
        return gate.work(on_progress)

    @function
    def fails(on_progress: OnProgress) -> None:
        raise LookupError("no such table")

    offer(sidestream, gated, fails)
    yield sidestream
    gate.go.set()
    await sidestream.stop()


def offer(sidestream: Sidestream, *functions: Function) -> None:
    """Add kinds of jobs."""
    assert sidestream.features is not None
    sidestream.features.jobs.kinds.update({own.name: own for own in functions})


async def create(sidestream: Sidestream, kind: str, **params: Any) -> dict[str, Any]:
    answer = await ask(sidestream, "/jobs", method="POST", json={"kind": kind, "params": params})
    assert answer.status == 202, answer.body
    document: dict[str, Any] = answer.json
    return document


async def state(sidestream: Sidestream, job: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = (await ask(sidestream, f"/jobs/{job['job_id']}")).json
    return document


async def progress(sidestream: Sidestream, job: dict[str, Any], **headers: str) -> Answer:
    """The whole of the job's stream."""
    return await ask(sidestream, job["progress"], headers=EVENT_STREAM | headers, timeout=LONG)


async def whole(sidestream: Sidestream, job: dict[str, Any]) -> list[MessageEvent]:
    """All of the job's events, from the first on: where it is watched as any stream is."""
    return (await ask(sidestream, f"/streams/{job['job_id']}", headers=EVENT_STREAM, timeout=LONG)).events


def watch(sidestream: Sidestream, job: dict[str, Any]) -> Any:
    return open_stream(sidestream, job["progress"], headers={"host": HOST, **EVENT_STREAM})


def stream_of(sidestream: Sidestream, job: dict[str, Any]) -> Stream:
    stream = sidestream.service.store.streams.get(job["job_id"])
    assert stream is not None
    return stream


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "sse.threads"]


async def no_thread_left() -> None:
    for thread in threads():
        await asyncio.to_thread(thread.join, LONG)
    assert threads() == []


# -- documents and states


async def test_a_job_without_a_body_counts_steps(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/jobs", method="POST")
    job = answer.json
    assert answer.status == 202
    assert answer.headers["location"] == f"/jobs/{job['job_id']}"
    assert job["status"] in ("pending", "running")
    assert (job["progress"], len(job["key"]), len(job)) == (f"/jobs/{job['job_id']}/progress", 22, 4)
    assert (await state(sidestream, job))["kind"] == "steps"


async def test_steps_tells_each_of_its_101_steps(sidestream: Sidestream) -> None:
    job = await create(sidestream, "steps", interval=0)
    connected, *reports, completed, done = await whole(sidestream, job)
    assert connected.type == "connected"
    assert [json.loads(report.data)["progress"] for report in reports] == list(range(101))
    first = json.loads(reports[0].data)
    assert set(first) == {"status", "progress", "step", "message", "details"}
    last = json.loads(reports[-1].data)
    assert (last["status"], last["progress"], last["message"]) == ("running", 100, "step 100 of 100")
    assert json.loads(completed.data) == {"status": "completed", "progress": 100, "result": {"steps": 101}}
    assert (done.data, done.last_event_id) == ("[DONE]", f"{job['job_id']}.end")


async def test_the_state_goes_from_pending_over_running_to_completed(sidestream: Sidestream, gate: Gate) -> None:
    first = await create(sidestream, "gated")
    await gate.wait_begun()
    second = await create(sidestream, "gated")  # waits for the one thread
    waiting = await state(sidestream, second)
    assert (waiting["status"], waiting["started"], waiting["ended"]) == ("pending", None, None)
    async with watch(sidestream, first) as watched:
        await watched.next()
        assert json.loads((await watched.next()).data)["step"] == "first"
    running = await state(sidestream, first)
    assert {name: running[name] for name in ("kind", "status", "progress", "step", "message", "details", "ended")} == {
        "kind": "gated",
        "status": "running",
        "progress": 10,
        "step": "first",
        "message": None,
        "details": {"progress": 10},
        "ended": None,
    }
    assert "result" not in running
    assert "error" not in running
    gate.go.set()
    for job in (first, second):
        assert (await progress(sidestream, job)).events[-1].data == "[DONE]"
        completed = await state(sidestream, job)
        assert (completed["status"], completed["progress"], completed["result"]) == ("completed", 100, {"done": True})
        assert completed["created"] <= completed["started"] <= completed["ended"]


async def test_a_job_that_raises_has_failed(sidestream: Sidestream, caplog: pytest.LogCaptureFixture) -> None:
    job = await create(sidestream, "fails")
    (_, error) = (await progress(sidestream, job)).events
    said = {"error": "LookupError: no such table", "code": "job_failed"}
    assert (error.type, json.loads(error.data)) == ("error", said | {"fatal": True})
    document = await state(sidestream, job)
    assert (document["status"], document["error"]) == ("failed", said)
    assert [record.levelname for record in caplog.records if record.name == "sidestream"] == ["WARNING"]


async def test_the_kinds_are_listed_with_their_parameters(sidestream: Sidestream) -> None:
    kinds = {document["kind"]: document for document in (await ask(sidestream, "/jobs")).json["kinds"]}
    assert list(kinds) == ["steps", "checksum", "gated", "fails"]
    assert kinds["checksum"]["params"]["algorithm"] == {"expected": "one of sha256, sha512, blake2b", "default": "sha256"}
    assert kinds["steps"]["params"]["count"] == {"expected": "an integer from 1 to 100000", "default": 100}


async def test_a_job_goes_on_without_watchers(sidestream: Sidestream, gate: Gate) -> None:
    job = await create(sidestream, "gated")
    async with watch(sidestream, job) as watched:
        await watched.next()
    gate.go.set()
    await stream_of(sidestream, job).closed()
    assert (await state(sidestream, job))["status"] == "completed"


# -- the progress stream


async def test_a_newcomer_begins_at_the_newest_event(sidestream: Sidestream) -> None:
    job = await create(sidestream, "steps", count=50, interval=0)
    stream = stream_of(sidestream, job)
    await stream.closed()
    connected, completed, done = (await progress(sidestream, job)).events
    assert (connected.type, json.loads(completed.data)["status"], done.data) == ("connected", "completed", "[DONE]")
    assert completed.last_event_id == f"{job['job_id']}.{stream.log.last - 1}"
    assert len(await whole(sidestream, job)) > 3


async def test_a_newcomer_to_a_running_job_sees_where_it_stands_at_once(sidestream: Sidestream, gate: Gate) -> None:
    job = await create(sidestream, "gated")
    async with watch(sidestream, job) as early:
        await early.next()
        assert json.loads((await early.next()).data)["step"] == "first"
        async with watch(sidestream, job) as late:
            assert (await late.next()).type == "connected"
            newest = await late.next()
            assert (json.loads(newest.data)["step"], newest.last_event_id) == ("first", f"{job['job_id']}.1")


async def test_it_is_resumed_where_it_was_left(sidestream: Sidestream) -> None:
    job = await create(sidestream, "steps", count=5, interval=0)
    await stream_of(sidestream, job).closed()
    answer = await progress(sidestream, job, **{"last-event-id": f"{job['job_id']}.2"})
    assert [event.last_event_id.rpartition(".")[2] for event in answer.events] == ["3", "4", "5", "6", "7", "end"]
    assert (await progress(sidestream, job, **{"last-event-id": f"{job['job_id']}.end"})).status == 204


async def test_a_slow_watcher_misses_progress_and_neither_the_result_nor_the_end(sidestream: Sidestream, gate: Gate) -> None:
    @function
    def fast(on_progress: OnProgress) -> str:
        assert gate.go.wait(LONG)
        for number in range(1, 5001):
            on_progress("count", {"number": number})
        return "all"

    offer(sidestream, fast)
    job = await create(sidestream, "fast")
    async with watch(sidestream, job) as watched:
        watched.stop_reading()
        gate.go.set()
        await no_thread_left()
        watched.go_on_reading()
        _, *reports, completed, done = [event async for event in watched]
    numbers = [json.loads(report.data)["details"]["number"] for report in reports]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 5000
    assert len(numbers) < 5000
    last = int(completed.last_event_id.rpartition(".")[2])
    assert [int(event.last_event_id.rpartition(".")[2]) for event in reports] == list(range(last - len(reports), last))
    assert json.loads(completed.data)["result"] == "all"
    assert done.data == "[DONE]"


VALUES = {
    "when": datetime(2024, 5, 17, 12, 30, tzinfo=UTC),
    "id": UUID("12345678-1234-5678-1234-567812345678"),
    "price": Decimal("19.90"),
    "nested": {"deep": [{"er": (1, 2)}]},
    "text": "Größe, мир, 世界, 😀",
}
AS_JSON = {
    "when": "2024-05-17T12:30:00+00:00",
    "id": "12345678-1234-5678-1234-567812345678",
    "price": "19.90",
    "nested": {"deep": [{"er": [1, 2]}]},
    "text": "Größe, мир, 世界, 😀",
}


async def test_what_python_knows_comes_out_as_json_in_details_and_results(sidestream: Sidestream) -> None:
    @function
    def values(on_progress: OnProgress) -> dict[str, Any]:
        on_progress("values", VALUES)
        return VALUES

    offer(sidestream, values)
    job = await create(sidestream, "values")
    _, report, completed, _ = await whole(sidestream, job)
    assert json.loads(report.data)["details"] == AS_JSON
    assert json.loads(completed.data)["result"] == AS_JSON
    document = await state(sidestream, job)
    assert (document["details"], document["result"]) == (AS_JSON, AS_JSON)


async def test_an_item_that_can_t_be_written_is_an_item_error_and_the_rest_goes_on(sidestream: Sidestream) -> None:
    @function
    async def large(on_progress: OnProgress) -> str:
        for size in (1, MAX_EVENT, 2):
            on_progress("text", {"text": "x" * size})
        return "fine"

    offer(sidestream, large)
    job = await create(sidestream, "large")
    events = await whole(sidestream, job)
    assert [event.type for event in events] == ["connected", "message", "item_error", "message", "message", "message"]
    assert "over the limit" in json.loads(events[2].data)["error"]
    assert [json.loads(event.data)["status"] for event in events[3:5]] == ["running", "completed"]


# -- whatever the work does, it is this job that fails, and nothing else


class Unspeakable(Exception):
    """Raises as soon as somebody wants to know what it says."""

    def __str__(self) -> str:
        raise SystemExit("from __str__")


RAISED = [
    (SystemExit(3), "RuntimeError: the function raised SystemExit: 3"),
    (KeyboardInterrupt(), "RuntimeError: the function raised KeyboardInterrupt"),
    (asyncio.CancelledError(), "RuntimeError: the function raised CancelledError"),
    (GeneratorExit(), "RuntimeError: the function raised GeneratorExit"),
    (Unspeakable(), "Unspeakable (its message can't be shown: SystemExit)"),
]


@pytest.mark.parametrize(("error", "said"), RAISED, ids=lambda value: "" if isinstance(value, str) else type(value).__name__)
@pytest.mark.parametrize("asynchronous", [True, False], ids=["in the loop", "in a thread"])
async def test_whatever_a_function_raises_fails_its_job(
    sidestream: Sidestream, error: BaseException, said: str, asynchronous: bool
) -> None:
    @function(name="raises")
    async def raises_in_the_loop() -> None:
        raise error

    @function(name="raises")
    def raises() -> None:
        raise error

    offer(sidestream, raises_in_the_loop if asynchronous else raises)
    job, other = await create(sidestream, "raises"), await create(sidestream, "steps", count=3, interval=0)
    assert json.loads((await whole(sidestream, job))[-1].data) == {"error": said, "code": "job_failed", "fatal": True}
    assert (await state(sidestream, job))["status"] == "failed"
    assert (await whole(sidestream, other))[-1].data == "[DONE]"


@pytest.mark.parametrize("asynchronous", [True, False], ids=["in the loop", "in a thread"])
async def test_a_generator_instead_of_a_result_fails_its_job(sidestream: Sidestream, asynchronous: bool) -> None:
    @function(name="returns")
    async def returns_in_the_loop() -> Any:
        return (number for number in range(3))

    @function(name="returns")
    def returns() -> Any:
        return (number for number in range(3))

    offer(sidestream, returns_in_the_loop if asynchronous else returns)
    job = await create(sidestream, "returns")
    error = json.loads((await whole(sidestream, job))[-1].data)
    assert error["error"] == "TypeError: the function returned a generator instead of a result"


class Exits:
    def __str__(self) -> str:
        raise SystemExit(3)


async def test_details_that_json_cannot_hold_are_an_item_error_and_the_rest_goes_on(sidestream: Sidestream) -> None:
    @function
    async def strange(on_progress: OnProgress) -> Any:
        on_progress("strange", {"value": Exits()})
        return {"nan": float("nan"), "half": "\ud83d", "big": 2**100}

    offer(sidestream, strange)
    job = await create(sidestream, "strange")
    _, report, completed, done = await whole(sidestream, job)
    assert (report.type, done.data) == ("item_error", "[DONE]")
    assert "SystemExit: 3" in json.loads(report.data)["error"]
    result = {"nan": None, "half": "\ufffd", "big": 2**100}
    assert json.loads(completed.data)["result"] == result
    document = await state(sidestream, job)
    assert (document["status"], document["result"]) == ("completed", result)
    assert "has no JSON form" in document["details"]


async def test_a_result_that_json_cannot_hold_fails_its_job(sidestream: Sidestream) -> None:
    @function
    async def strange() -> Any:
        return {"exits": Exits()}

    offer(sidestream, strange)
    job = await create(sidestream, "strange")
    said = json.loads((await whole(sidestream, job))[-1].data)
    assert (said["code"], said["error"].startswith("Unwritable: ")) == ("job_failed", True)
    document = await state(sidestream, job)
    assert (document["status"], "result" in document) == ("failed", False)


async def test_a_job_that_takes_longer_than_it_may_fails_with_a_code_of_its_own(sidestream: Sidestream) -> None:
    @function(timeout=0.05)
    async def slow() -> None:
        await asyncio.Event().wait()

    offer(sidestream, slow)
    job = await create(sidestream, "slow")
    said = {"error": "the function took longer than 0.05 s", "code": "timed_out"}
    assert json.loads((await whole(sidestream, job))[-1].data) == said | {"fatal": True}
    assert (await state(sidestream, job))["error"] == said


# -- what is refused


@pytest.mark.parametrize(
    ("body", "status", "parameter"),
    [
        ([], 400, None),
        ("steps", 400, None),
        ({"kind": "unknown"}, 422, "kind"),
        ({"kind": ["steps"]}, 422, "kind"),
        ({"kind": None}, 422, "kind"),
        ({"kind": "steps", "params": []}, 422, "params"),
        ({"kind": "steps", "params": None}, 422, "params"),
        ({"kind": "steps", "parms": {}}, 422, "parms"),
        ({"kind": "steps", "params": {"count": 0}}, 422, "params.count"),
        ({"kind": "steps", "params": {"count": "ten"}}, 422, "params.count"),
        ({"params": {"count": 100_001}}, 422, "params.count"),
        ({"kind": "checksum", "params": {"algorithm": "md5"}}, 422, "params.algorithm"),
        ({"kind": "checksum", "params": {"size": 1}}, 422, "params.size"),
    ],
    ids=str,
)
async def test_a_bad_request_names_what_is_wrong(sidestream: Sidestream, body: Any, status: int, parameter: str | None) -> None:
    answer = await ask(sidestream, "/jobs", method="POST", json=body)
    assert (answer.status, answer.json.get("parameter")) == (status, parameter)
    assert answer.headers["content-type"] == "application/problem+json"
    assert sidestream.service.store.streams == {}


async def test_a_full_queue_is_429_with_retry_after_and_opens_nothing(sidestream: Sidestream, gate: Gate) -> None:
    first = await create(sidestream, "gated")
    await gate.wait_begun()
    second = await create(sidestream, "gated")
    answer = await ask(sidestream, "/jobs", method="POST", json={"kind": "gated"})
    assert (answer.status, answer.headers["retry-after"]) == (429, "5")
    assert set(sidestream.service.store.streams) == {first["job_id"], second["job_id"]}
    await create(sidestream, "steps", interval=0)  # needs no thread
    await ask(sidestream, f"/jobs/{second['job_id']}", method="DELETE")
    await stream_of(sidestream, second).closed()
    await create(sidestream, "gated")  # its place is free at once


async def test_an_idempotency_key_names_the_same_job(sidestream: Sidestream) -> None:
    async def post(**params: Any) -> Answer:
        return await ask(sidestream, "/jobs?key=k", method="POST", json={"kind": "steps", "params": params})

    first, again, other = await post(count=3), await post(count=3), await post(count=4)
    assert (first.status, again.status, other.status) == (202, 202, 422)
    assert first.json["job_id"] == again.json["job_id"]


@pytest.mark.parametrize("path", ["/jobs/unknown", "/jobs/unknown/progress"])
async def test_an_unknown_job_is_404(sidestream: Sidestream, path: str) -> None:
    answer = await ask(sidestream, path, headers=JSON)
    assert (answer.status, answer.json["code"]) == (404, "stream_gone")
    if not path.endswith("progress"):
        assert (await ask(sidestream, path, method="DELETE")).status == 404


async def test_an_event_stream_client_of_an_unknown_job_is_told_and_told_to_stop(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/jobs/unknown/progress", headers=EVENT_STREAM)
    (event,) = answer.events
    assert (answer.status, event.type, json.loads(event.data)["code"]) == (200, "error", "stream_gone")
    headers = EVENT_STREAM | {"last-event-id": event.last_event_id}
    assert (await ask(sidestream, "/jobs/unknown/progress", headers=headers)).status == 204


async def test_a_stream_that_is_no_job_is_no_job(sidestream: Sidestream) -> None:
    stream = open_in(sidestream.service.store)
    for path in (f"/jobs/{stream.id}", f"/jobs/{stream.id}/progress"):
        assert (await ask(sidestream, path)).status == 404
    assert (await ask(sidestream, f"/jobs/{stream.id}", method="DELETE")).status == 404
    assert stream.ended is None


@pytest.mark.parametrize("module", ["no_such_module", "json", "handlers.jobs.no_such"])
def test_a_module_that_adds_no_kinds_refuses_the_start_with_one_line(module: str) -> None:
    with pytest.raises(ValueError, match=f"^SIDESTREAM_JOBS: .*{module}") as raised:
        Sidestream(Settings(jobs=(module,))).start()
    assert "\n" not in str(raised.value)


# -- cancelling


async def ended_once(watched: OpenedStream, last: tuple[str, str]) -> None:
    """The rest of the stream has one terminal event."""
    events = [event async for event in watched]
    assert [(event.type, event.data) for event in events if event.last_event_id.endswith(".end")] == [last]
    assert (events[-1].type, events[-1].data) == last
    assert watched.complete


CANCELLED = ("cancelled", '{"reason":"deleted"}')


async def delete(sidestream: Sidestream, job: dict[str, Any]) -> None:
    answer = await ask(sidestream, f"/jobs/{job['job_id']}", method="DELETE")
    assert (answer.status, answer.body) == (204, b"")


async def test_cancelled_while_its_thread_computes(
    sidestream: Sidestream, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    job = await create(sidestream, "gated")
    await gate.wait_begun()
    async with watch(sidestream, job) as watched:
        await delete(sidestream, job)
        await ended_once(watched, CANCELLED)
        assert (await state(sidestream, job))["status"] == "cancelled"
        gate.go.set()
        await gate.wait_left()
    await no_thread_left()
    assert caplog.records == []


async def test_cancelled_while_its_progress_waits_for_a_slow_watcher(
    sidestream: Sidestream, caplog: pytest.LogCaptureFixture
) -> None:
    @function
    def endless(on_progress: OnProgress) -> None:
        while True:
            on_progress("on", {"text": "x" * 1000})

    offer(sidestream, endless)
    job = await create(sidestream, "endless")
    stream = stream_of(sidestream, job)
    async with watch(sidestream, job) as watched:
        await watched.next()
        watched.stop_reading()
        async with asyncio.timeout(LONG):
            while not stream.log.waiting:
                await asyncio.sleep(0)  # the source runs as far as it may
        await delete(sidestream, job)
        watched.go_on_reading()
        await ended_once(watched, CANCELLED)
    await no_thread_left()
    assert caplog.records == []


async def test_cancelled_in_the_queue_it_is_never_called(
    sidestream: Sidestream, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    first = await create(sidestream, "gated")
    await gate.wait_begun()
    second = await create(sidestream, "gated")
    await delete(sidestream, second)
    document = await state(sidestream, second)
    assert (document["status"], document["started"]) == ("cancelled", None)
    async with watch(sidestream, second) as watched:
        await ended_once(watched, CANCELLED)
    gate.go.set()
    async with watch(sidestream, first) as watched:
        await ended_once(watched, ("message", "[DONE]"))
    await no_thread_left()
    assert (await state(sidestream, second))["started"] is None
    assert caplog.records == []


async def test_cancelled_when_its_thread_has_just_ended(
    sidestream: Sidestream, gate: Gate, caplog: pytest.LogCaptureFixture
) -> None:
    job = await create(sidestream, "gated")
    await gate.wait_begun()
    gate.go.set()
    for thread in threads():
        thread.join(LONG)  # the loop stands still: its result waits to be read
    assert sidestream.service.store.running
    await delete(sidestream, job)
    async with watch(sidestream, job) as watched:
        last = CANCELLED if (await state(sidestream, job))["status"] == "cancelled" else ("message", "[DONE]")
        await ended_once(watched, last)
    await no_thread_left()
    assert caplog.records == []


async def test_cancelled_after_its_end_it_stays_completed(sidestream: Sidestream) -> None:
    job = await create(sidestream, "steps", count=1, interval=0)
    await stream_of(sidestream, job).closed()
    await delete(sidestream, job)
    assert (await state(sidestream, job))["status"] == "completed"


async def test_an_async_job_is_cancelled_at_its_next_await(sidestream: Sidestream, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    job = await create(sidestream, "steps", interval=60)
    async with watch(sidestream, job) as watched:
        await watched.next()
        await watched.next()
        await delete(sidestream, job)
        await ended_once(watched, CANCELLED)
    await stream_of(sidestream, job).closed()
    assert caplog.records == []


# -- rights


async def test_reading_the_state_and_cancelling_take_the_key_or_a_token_and_watching_takes_neither() -> None:
    sidestream = Sidestream(Settings(token=("secret",)))
    bearer = {"authorization": "Bearer secret"}
    assert (await ask(sidestream, "/jobs", method="POST")).status == 401
    job = (await ask(sidestream, "/jobs", method="POST", headers=bearer)).json
    path, key = f"/jobs/{job['job_id']}", {"stream-key": job["key"]}
    assert [(await ask(sidestream, path, headers=headers)).status for headers in ({}, key, bearer)] == [401, 200, 200]
    async with watch(sidestream, job) as watched:
        assert watched.status == 200
    assert [(await ask(sidestream, path, method="DELETE", headers=headers)).status for headers in ({}, key)] == [401, 204]
    await sidestream.stop()

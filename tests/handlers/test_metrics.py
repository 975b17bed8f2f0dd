"""What /metrics shows of what has happened, whom it is for, and what it is without its extra."""

import asyncio
import builtins
import threading
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from app import Sidestream
from sidecar.counts import MODELS, Counts, Histogram, Operation
from sidecar.settings import Settings
from sse.asgi import Message
from sse.sender import Outcome
from sse.stream import State, Trigger
from sse.testing import open_stream
from tests.support.app import EVENT_STREAM, HOST, ask
from tests.support.asgi import http_scope
from tests.support.chatting import sidecar
from tests.support.clock import block, idle
from tests.support.streams import open_in
from tests.support.upstream import BREAK, chunk, error_reply, reply

Samples = dict[tuple[str, ...], float]


async def scrape(sidestream: Sidestream) -> Samples:
    """(name, then label values in order of the labels' names) -> value."""
    answer = await ask(sidestream, "/metrics")
    assert answer.status == 200
    return {
        (sample.name.removeprefix("sidestream_"), *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }


@pytest.fixture
def sidestream() -> Sidestream:
    return Sidestream(Settings(demo_interval=0))


async def test_names_have_our_prefix_and_counters_end_in_total(sidestream: Sidestream) -> None:
    await ask(sidestream, "/chat?prompt=hi")
    answer = await ask(sidestream, "/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    families = list(text_string_to_metric_families(answer.body.decode()))
    assert len(families) > 20
    for family in families:
        assert family.name.startswith(("sidestream_", "gen_ai_client_"))
        assert family.documentation
        assert not family.name.endswith(("_ms", "_kb", "_milliseconds"))
        if family.type == "counter":
            assert all(sample.name.endswith("_total") for sample in family.samples)


async def test_streams_are_counted_by_state_and_by_how_they_ended(sidestream: Sidestream) -> None:
    store = sidestream.service.store
    running, deleted, done = (open_in(store) for _ in range(3))
    await ask(sidestream, f"/streams/{deleted.id}", method="DELETE")
    await ask(sidestream, "/chat?prompt=hi")
    found = await scrape(sidestream)
    assert [found["streams", state.value] for state in State] == [2, 1, 1, 0]
    assert found["streams_ended_total", "deleted", "cancelled"] == 1
    assert found["streams_ended_total", "source_ended", "done"] == 1
    assert (running.state, done.state) == (State.RUNNING, State.RUNNING)


async def test_watchers_are_counted_while_they_watch_and_by_how_they_went(sidestream: Sidestream) -> None:
    stream = open_in(sidestream.service.store)
    async with open_stream(sidestream, f"/streams/{stream.id}", headers={"host": HOST}) as watching:
        stream.emit("one")
        while (await watching.next()).data != '"one"':
            pass
        during = await scrape(sidestream)
        assert (during["watchers",], during["events_sent_total",]) == (1, 1)
        assert during["sent_bytes_total",] == len(watching.raw)
    after = await scrape(sidestream)
    assert (after["watchers",], after["events_sent_total",]) == (0, 1)
    assert after["sent_bytes_total",] == during["sent_bytes_total",]
    assert [after["watchers_ended_total", outcome.value] for outcome in Outcome] == [0, 1, 0, 0, 0]


async def test_merged_watchers_are_counted_with_all_their_events(sidestream: Sidestream) -> None:
    streams = [open_in(sidestream.service.store) for _ in range(2)]
    for stream in streams:
        for number in range(2):
            stream.emit(number)
        stream.end(Trigger.DELETED)
    await ask(sidestream, f"/merge?streams={streams[0].id},{streams[1].id}")
    assert (await scrape(sidestream))["events_sent_total",] == 6


async def test_what_there_was_no_room_for_is_counted_and_what_went_for_it() -> None:
    sidestream = Sidestream(Settings(memory=1 << 20, max_watchers=1))
    store = sidestream.service.store
    ended, stream = open_in(store), open_in(store)
    ended.end(Trigger.DELETED)
    stream.kept.add(1 << 20)
    sidestream.service.store.watchers = 1
    assert (await ask(sidestream, "/streams", method="POST")).status == 503
    assert (await ask(sidestream, f"/streams/{stream.id}")).status == 503
    stream.kept.clear()
    found = await scrape(sidestream)
    assert (found["refused_total", "memory"], found["refused_total", "watchers"]) == (1, 1)
    assert (found["forgotten_total",], found["memory_bytes",]) == (1, store.budget.used)


async def test_requests_whose_client_goes_or_stops_reading_are_counted(sidestream: Sidestream) -> None:
    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        raise OSError("gone")

    for method in ("GET", "POST"):
        headers = [(b"host", HOST.encode())]
        await sidestream(http_scope("/streams", method=method, headers=headers), receive, send)
    assert (await scrape(sidestream))["unanswered_total",] == 2


async def test_resumes_and_gaps_are_counted_and_outlive_their_stream(sidestream: Sidestream) -> None:
    stream = open_in(sidestream.service.store)
    for number in range(5):
        stream.emit(number)
    stream.log.drop(3)
    await ask(sidestream, f"/streams/{stream.id}/close", method="POST")
    await ask(sidestream, f"/streams/{stream.id}", method="DELETE")
    await ask(sidestream, f"/streams/{stream.id}", headers={**EVENT_STREAM, "last-event-id": f"{stream.id}.1"})
    found = await scrape(sidestream)
    assert (found["resumes_total",], found["gaps_total",]) == (1, 1)
    sidestream.service.store.forget(stream)
    assert (await scrape(sidestream))["gaps_total",] == 1


async def test_failures_are_counted_by_code(sidestream: Sidestream) -> None:
    async def source() -> Any:
        yield 1
        raise RuntimeError("boom")

    await open_in(sidestream.service.store, source()).closed()
    found = await scrape(sidestream)
    assert (found["failures_total", "internal"], found["streams", "failed"]) == (1, 1)


async def test_requests_are_counted_by_status(sidestream: Sidestream) -> None:
    for path in ("/healthz", "/nothing", "/nothing", "/stream?count=x"):
        await ask(sidestream, path)
    found = await scrape(sidestream)
    assert [found["requests_total", status] for status in ("200", "404", "400")] == [1, 2, 1]


async def test_the_time_to_the_first_token_is_measured_for_every_stage(sidestream: Sidestream) -> None:
    await ask(sidestream, "/chat?prompt=hi")
    body = {"model": "demo", "messages": [{"role": "user", "content": "hi"}], "stream": True}
    await ask(sidestream, "/v1/chat/completions", method="POST", json=body)
    found = await scrape(sidestream)
    assert found["upstream_first_token_seconds_count",] == 2
    assert 0 <= found["upstream_first_token_seconds_sum",] < 1


async def test_what_is_measured_of_models_has_opentelemetrys_names(sidestream: Sidestream) -> None:
    await ask(sidestream, "/chat", method="POST", json={"prompt": "/tool calculate 1+2", "tools": ["calculate"], "model": "m"})
    await ask(
        sidestream, "/v1/chat/completions", method="POST", json={"messages": [{"role": "user", "content": "x"}], "model": "m"}
    )
    found = await scrape(sidestream)
    labels = ("chat", "demo", "m", "demo")
    assert found["gen_ai_client_operation_duration_seconds_count", "", *labels] == 3
    assert found["gen_ai_client_operation_time_to_first_chunk_seconds_count", *labels] == 3
    assert found["gen_ai_client_operation_time_per_output_chunk_seconds_count", *labels] > 2
    assert found["gen_ai_client_token_usage_count", "chat", "demo", "m", "demo", "input"] == 3
    assert found["gen_ai_client_token_usage_sum", "chat", "demo", "m", "demo", "output"] > 2


async def test_the_time_between_chunks_is_measured_of_an_answer_that_breaks_off_too() -> None:
    async with sidecar(reply(*[chunk("a")] * 3, BREAK)) as s:
        await s.post({"prompt": "x", "model": "m"})
        found = await scrape(s.app)
    name = "gen_ai_client_operation_time_per_output_chunk_seconds"
    assert found[f"{name}_count", "chat", "openai", "m", ""] == 2
    assert 0 <= found[f"{name}_sum", "chat", "openai", "m", ""] < 10


async def test_of_an_answer_that_is_passed_on_untouched_only_the_duration_is_measured() -> None:
    async with sidecar(reply(b'{"choices": [], "usage": {"prompt_tokens": 1}}', content_type="application/json")) as s:
        await s.post({"messages": [{"role": "user", "content": "x"}], "model": "m"}, "/v1/chat/completions")
        found = await scrape(s.app)
    assert found["gen_ai_client_operation_duration_seconds_count", "", "chat", "openai", "m", ""] == 1
    told = {key[0].removesuffix("_count") for key in found if key[0].startswith("gen_ai_") and key[0].endswith("_count")}
    assert told == {"gen_ai_client_operation_duration_seconds"}


async def test_a_request_to_a_model_that_fails_has_the_code_of_its_failure() -> None:
    async with sidecar(error_reply(401, {"error": {"message": "no"}}), reply(chunk("a"))) as s:
        for _ in range(2):
            await s.post({"prompt": "x"})
        found = await scrape(s.app)
    labels = ("chat", "openai", "")
    assert found["gen_ai_client_operation_duration_seconds_count", "refused", *labels, ""] == 1
    assert found["gen_ai_client_operation_duration_seconds_count", "cut", *labels, ""] == 1
    assert found["gen_ai_client_operation_time_to_first_chunk_seconds_count", *labels, ""] == 1


def test_models_that_clients_make_up_are_not_told_apart_for_ever() -> None:
    counts = Counts()
    for number in range(2 * MODELS):
        counts.asked("p", Operation(str(number)))
    (histograms,) = (found for found in counts.operations.values() if found)
    assert len(histograms) == MODELS
    assert {labels[2] for labels in histograms} > {"other", "0"}


def test_the_name_of_a_model_is_told_up_to_a_length() -> None:
    counts = Counts()
    for _ in range(2):
        counts.asked("p", Operation("m" * 1000))
    (histograms,) = (found for found in counts.operations.values() if found)
    assert {labels[2] for labels in histograms} == {"m" * 100}


async def test_jobs_that_hold_a_thread_and_those_that_wait_are_counted() -> None:
    sidestream = Sidestream(Settings(job_threads=1))
    sidestream.start()
    assert sidestream.features is not None
    release = threading.Event()
    runs = [sidestream.features.jobs.threads.run(release.wait, {"timeout": 10}) for _ in range(2)]
    before = await scrape(sidestream)
    await runs[0].aclose()
    after = await scrape(sidestream)
    release.set()
    await runs[1].aclose()
    assert [before["jobs", state] for state in ("running", "queued", "abandoned")] == [1, 1, 0]
    assert [after["jobs", state] for state in ("running", "queued", "abandoned")] == [0, 1, 1]


@pytest.mark.virtual_time
async def test_once_a_second_it_is_seen_how_late_the_event_loop_is(sidestream: Sidestream) -> None:
    sidestream.start()
    await asyncio.sleep(2.5)
    block(0.7)
    await idle()
    found = await scrape(sidestream)
    assert found["event_loop_lag_seconds_count",] == 3
    assert found["event_loop_lag_seconds_sum",] == pytest.approx(0.2)


@pytest.mark.virtual_time
async def test_the_timer_ends_with_the_application(sidestream: Sidestream) -> None:
    sidestream.start()
    await asyncio.sleep(2.5)
    await sidestream.stop()
    await asyncio.sleep(60)
    assert (await scrape(sidestream))["event_loop_lag_seconds_count",] == 2


async def test_limits_stand_beside_what_they_limit(sidestream: Sidestream) -> None:
    found = await scrape(sidestream)
    assert found["watchers_limit",] == sidestream.service.settings.max_watchers
    assert found["memory_bytes_limit",] == sidestream.service.settings.memory
    assert found["process_open_fds",] > 0
    assert found["process_start_time_seconds",] < time.time()


async def test_it_is_for_those_with_the_token() -> None:
    sidestream = Sidestream(Settings(token=("t",)))
    assert (await ask(sidestream, "/metrics")).status == 401
    assert (await ask(sidestream, "/metrics", headers={"authorization": "Bearer t"})).status == 200


async def test_without_the_extra_the_answer_names_it(sidestream: Sidestream, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def fake(name: str, *args: Any) -> Any:
        if name.startswith("prometheus_client"):
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", fake)
    answer = await ask(sidestream, "/metrics")
    assert (answer.status, answer.json["extra"]) == (501, "metrics")


async def test_two_services_have_registries_of_their_own(sidestream: Sidestream) -> None:
    other = Sidestream(Settings())
    await ask(sidestream, "/nothing")
    assert (await scrape(sidestream))["requests_total", "404"] == 1
    assert ("requests_total", "404") not in await scrape(other)


def test_a_histogram_counts_what_is_at_or_below_each_bound() -> None:
    histogram = Histogram(0.1, 1, 10)
    for value in (0.1, 0.2, 1, 5, 50):
        histogram.observe(value)
    assert histogram.buckets() == [("0.1", 1), ("1", 3), ("10", 4), ("+Inf", 5)]
    assert histogram.sum == pytest.approx(56.3)

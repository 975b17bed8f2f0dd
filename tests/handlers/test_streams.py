"""The state document, cancelling, and the list."""

import asyncio
from typing import Any

import pytest

from app import Sidestream
from handlers.streams import AT_ONCE
from sidecar.settings import Settings
from sse.errors import SourceFailed
from sse.stream import Stream, Trigger
from sse.testing import open_stream
from tests.support.app import EVENT_STREAM, HOST, JSON, ask
from tests.support.streams import emit, open_in


@pytest.fixture
def sidestream() -> Sidestream:
    return Sidestream(Settings(replay_events=16))


def opened(sidestream: Sidestream, **options: Any) -> Stream:
    return open_in(sidestream.service.store, **options)


async def state(sidestream: Sidestream, stream: Stream) -> dict[str, Any]:
    answer = await ask(sidestream, f"/streams/{stream.id}", headers=JSON)
    assert answer.status == 200
    document: dict[str, Any] = answer.json
    return document


async def test_the_state_of_a_stream_that_has_just_been_opened(sidestream: Sidestream) -> None:
    stream = opened(sidestream, metadata={"user": 7})
    document = await state(sidestream, stream)
    assert document.pop("age") >= 0
    assert document == {
        "stream_id": stream.id,
        "url": f"/streams/{stream.id}",
        "state": "running",
        "reason": None,
        "format": "plain",
        "events": 0,
        "bytes": 0,
        "oldest": None,
        "watchers": [],
        "resumes": 0,
        "gaps": 0,
        "created": stream.created,
        "ended": None,
        "last_event_age": None,
        "waits_for": "source",
        "metadata": {"user": 7},
    }


async def test_the_state_counts_what_was_said(sidestream: Sidestream) -> None:
    stream = opened(sidestream)
    for number in range(40):
        stream.emit(number)
    document = await state(sidestream, stream)
    assert (document["events"], document["oldest"], document["bytes"]) == (40, stream.log.first, stream.log.size)
    assert document["oldest"] > 20
    assert document["last_event_age"] >= 0


async def test_each_watcher_is_shown_with_its_lag(sidestream: Sidestream) -> None:
    stream = opened(sidestream)
    for number in range(3):
        stream.emit(number)
    headers = {"host": HOST, **EVENT_STREAM}
    async with open_stream(sidestream, f"/streams/{stream.id}", headers=headers) as watched:
        for _ in range(4):  # `connected` and the three
            await watched.next()
        watched.stop_reading()
        stream.emit(3)
        async with asyncio.timeout(5):
            while (await state(sidestream, stream))["watchers"] != [{"position": 4, "lag": 0}]:
                pass  # until it is handed to `send`, which waits; each look lets the sender go on
        stream.emit(4)
        stream.emit(5)
        assert (await state(sidestream, stream))["watchers"] == [{"position": 4, "lag": 2}]
        watched.go_on_reading()
        assert (await watched.next()).last_event_id == f"{stream.id}.4"


async def test_gaps_and_resumes_are_counted(sidestream: Sidestream) -> None:
    stream = opened(sidestream)
    for number in range(40):
        stream.emit(number)
    stream.end(Trigger.SOURCE_ENDED)
    await ask(sidestream, f"/streams/{stream.id}", headers=EVENT_STREAM | {"last-event-id": f"{stream.id}.1"})
    document = await state(sidestream, stream)
    assert (document["resumes"], document["gaps"]) == (1, 1)


@pytest.mark.parametrize(
    ("trigger", "failure", "expected"),
    [
        (Trigger.SOURCE_ENDED, None, {"state": "done", "reason": "source_ended"}),
        (Trigger.DELETED, None, {"state": "cancelled", "reason": "deleted"}),
        (Trigger.ABANDONED, None, {"state": "cancelled", "reason": "abandoned"}),
        (Trigger.SHUTTING_DOWN, None, {"state": "cancelled", "reason": "shutting_down"}),
        (
            Trigger.SOURCE_FAILED,
            SourceFailed("no luck", "unlucky"),
            {"state": "failed", "reason": "source_failed", "error": {"error": "no luck", "code": "unlucky"}},
        ),
    ],
    ids=str,
)
async def test_the_state_says_how_it_ended(
    sidestream: Sidestream, trigger: Trigger, failure: SourceFailed | None, expected: dict[str, Any]
) -> None:
    stream = opened(sidestream)
    stream.emit(1)
    stream.end(trigger, failure)
    document = await state(sidestream, stream)
    assert {name: document.get(name) for name in expected} == expected
    assert (document["events"], document["waits_for"], document["duration"] >= 0) == (1, "nothing", True)
    assert document["ended"] == stream.ended


async def test_an_opener_can_have_the_result_shown_while_it_grows(sidestream: Sidestream) -> None:
    words = ["so"]
    stream = opened(sidestream, result=lambda: {"text": " ".join(words)})
    (listed,) = (await ask(sidestream, "/streams")).json["streams"]
    assert "result" not in listed
    assert (await state(sidestream, stream))["result"] == {"text": "so"}
    words.append("far")
    assert (await state(sidestream, stream))["result"] == {"text": "so far"}


async def test_a_stream_waits_for_the_watcher_that_is_furthest_ahead(sidestream: Sidestream) -> None:
    async def endless() -> Any:
        while True:
            yield "x" * 1000

    stream = open_in(sidestream.service.store, endless())
    headers = {"host": HOST, **EVENT_STREAM}
    async with open_stream(sidestream, f"/streams/{stream.id}", headers=headers) as watched:
        await watched.next()
        watched.stop_reading()
        while not stream.log.waiting:
            await ask(sidestream, "/healthz")  # lets the source run as far as it may
        assert (await state(sidestream, stream))["waits_for"] == "watcher"
    stream.end(Trigger.DELETED)
    await stream.closed()


async def test_the_state_of_an_unknown_stream_is_404(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/streams/unknown", headers=JSON | EVENT_STREAM | {"accept": "application/json"})
    assert (answer.status, answer.json["code"]) == (404, "stream_gone")


async def test_the_state_is_never_said_to_hold_the_key(sidestream: Sidestream) -> None:
    stream = opened(sidestream)
    answer = await ask(sidestream, f"/streams/{stream.id}", headers=JSON)
    assert stream.key.encode() not in answer.body


# -- letting go of watchers


async def test_its_watchers_are_let_go_and_a_client_that_comes_back_misses_nothing(sidestream: Sidestream) -> None:
    stream, other = opened(sidestream), opened(sidestream)
    path = f"/streams/{stream.id}"
    async with (
        open_stream(sidestream, path, headers={"host": HOST}) as first,
        open_stream(sidestream, path, headers={"host": HOST}) as second,
        open_stream(sidestream, f"/streams/{other.id}", headers={"host": HOST}) as elsewhere,
    ):
        emit(stream, 1)
        for watched in (first, second):
            await watched.next()
            assert (await watched.next()).data == "1"
        assert (await ask(sidestream, f"{path}/watchers", method="DELETE")).status == 204
        await first.until(lambda: first.complete and second.complete, "end of both")
        assert not elsewhere.complete
    assert (stream.state, stream.log.watchers) == ("running", {})
    emit(stream, 2)
    async with open_stream(sidestream, path, headers={"host": HOST, "last-event-id": f"{stream.id}.1"}) as back:
        assert (await back.next()).data == "2"
    assert sidestream.service.counts.outcomes["dropped"] == 2
    stream.end(Trigger.DELETED)
    other.end(Trigger.DELETED)


async def test_letting_go_takes_the_streams_key_or_a_token() -> None:
    sidestream = Sidestream(Settings(token=("secret",), hosts=(HOST,)))
    stream = opened(sidestream)
    path = f"/streams/{stream.id}/watchers"
    assert (await ask(sidestream, path, method="DELETE")).status == 401
    assert (await ask(sidestream, path, method="DELETE", headers={"stream-key": stream.key})).status == 204
    stream.end(Trigger.DELETED)


# -- DELETE


async def test_delete_ends_it_once_and_again_is_no_error(sidestream: Sidestream) -> None:
    stream = opened(sidestream)
    first = await ask(sidestream, f"/streams/{stream.id}", method="DELETE")
    ended = stream.ended
    second = await ask(sidestream, f"/streams/{stream.id}", method="DELETE")
    assert (first.status, second.status, first.body) == (204, 204, b"")
    assert (stream.reason, stream.ended) == ("deleted", ended)
    events = (await ask(sidestream, f"/streams/{stream.id}", headers=EVENT_STREAM)).events
    assert [(event.type, event.data) for event in events[1:]] == [("cancelled", '{"reason":"deleted"}')]


async def test_delete_leaves_a_stream_that_was_done_as_it_was(sidestream: Sidestream) -> None:
    stream = opened(sidestream)
    stream.end(Trigger.SOURCE_ENDED)
    assert (await ask(sidestream, f"/streams/{stream.id}", method="DELETE")).status == 204
    assert stream.reason == "source_ended"


async def test_delete_reaches_its_watchers(sidestream: Sidestream) -> None:
    stream = opened(sidestream)
    headers = {"host": HOST, **EVENT_STREAM}
    async with open_stream(sidestream, f"/streams/{stream.id}", headers=headers) as watched:
        assert (await watched.next()).type == "connected"
        await ask(sidestream, f"/streams/{stream.id}", method="DELETE")
        assert (await watched.next()).last_event_id == f"{stream.id}.end"
        assert [event async for event in watched] == []
        assert watched.complete


async def test_delete_of_an_unknown_stream_is_404(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/streams/unknown", method="DELETE")
    assert (answer.status, answer.json["code"]) == (404, "stream_gone")


# -- the list


async def test_the_list_is_newest_first_and_holds_what_has_ended_too(sidestream: Sidestream) -> None:
    streams = [opened(sidestream) for _ in range(3)]
    streams[1].end(Trigger.DELETED)
    listed = (await ask(sidestream, "/streams")).json["streams"]
    assert [document["stream_id"] for document in listed] == [stream.id for stream in reversed(streams)]
    assert [document["state"] for document in listed] == ["running", "cancelled", "running"]
    limited = (await ask(sidestream, "/streams?limit=2")).json["streams"]
    assert [document["stream_id"] for document in limited] == [streams[2].id, streams[1].id]


async def test_a_long_list_leaves_turns_to_others(sidestream: Sidestream) -> None:
    for _ in range(1000):
        opened(sidestream)
    asking = asyncio.create_task(ask(sidestream, "/streams?limit=1000"))
    turns = 0
    while not asking.done():
        await asyncio.sleep(0)
        turns += 1
    assert len(asking.result().json["streams"]) == 1000
    assert turns >= 1000 / AT_ONCE


async def test_a_private_stream_is_not_listed(sidestream: Sidestream) -> None:
    headers = {"host": HOST, **EVENT_STREAM}
    async with open_stream(sidestream, "/stream?interval=3600", headers=headers) as watched:
        await watched.next()
        assert (await ask(sidestream, "/streams")).json == {"streams": []}


@pytest.mark.parametrize("limit", ["0", "10001", "x", "", "-1", "1.5"])
async def test_a_bad_limit_is_named(sidestream: Sidestream, limit: str) -> None:
    answer = await ask(sidestream, f"/streams?limit={limit}")
    assert (answer.status, answer.json["parameter"]) == (400, "limit")


async def test_a_list_is_charged_while_it_is_made() -> None:
    """Twenty-five clients that asked for a list of 5,000 took 1.5 GB where 64 MiB were allowed."""
    sidestream = Sidestream(Settings(memory=8 << 20))
    budget = sidestream.service.store.budget
    for _ in range(500):
        opened(sidestream, metadata="x" * 1000)
    before = budget.used
    asking = [asyncio.create_task(ask(sidestream, "/streams?limit=500")) for _ in range(20)]
    most = 0
    while not all(task.done() for task in asking):
        most = max(most, budget.used)
        await asyncio.sleep(0)
    assert most - before > 1 << 20
    assert {task.result().status for task in asking} == {200, 503}
    del asking
    assert budget.used == before

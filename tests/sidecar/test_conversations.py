"""Conversations: one answer at a time, found, joined, stopped and replaced by a key of the caller's."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app import Sidestream
from sidecar.settings import Settings
from sse.store import Backend
from sse.stream import State
from sse.testing import OpenedStream, open_stream
from tests.sidecar.test_backend import Process
from tests.support.app import EVENT_STREAM, HOST, JSON, Answer, Runs, ask
from tests.support.backends import Slow

HANGS = 3600.0
"""Seconds a word: the answer doesn't end while a test looks at it."""


def chat(prompt: str = "Hello", **body: Any) -> dict[str, Any]:
    return {"prompt": prompt, "format": "plain", "conversation": "c1", **body}


def app(interval: float = HANGS, **settings: Any) -> Sidestream:
    return Sidestream(Settings(demo_interval=interval, **settings))


@pytest.fixture
async def sidestream() -> AsyncIterator[Sidestream]:
    sidestream = app()
    yield sidestream
    await sidestream.stop()


def asking(app: Sidestream, body: Any, **headers: str) -> Any:
    return open_stream(app, "/chat", method="POST", json=body, headers={"host": HOST, **EVENT_STREAM, **headers})


async def started(app: Sidestream, body: Any, **headers: str) -> Answer:
    """An answer that runs on without a watcher."""
    return await ask(app, "/chat", method="POST", json=body, headers=JSON | headers)


async def connected(stream: OpenedStream) -> str:
    """The id of the stream that a newcomer follows."""
    return (await stream.next()).last_event_id.partition(".")[0]


async def test_the_answer_that_runs_is_found_by_the_key(sidestream: Sidestream) -> None:
    assert (await ask(sidestream, "/conversations/c1")).status == 404
    opened = await started(sidestream, chat())
    found = await ask(sidestream, "/conversations/c1", headers=JSON)
    assert (found.json["stream_id"], found.json["state"]) == (opened.json["stream_id"], "running")
    async with open_stream(sidestream, "/conversations/c1", headers={"host": HOST, **EVENT_STREAM}) as watched:
        assert await connected(watched) == opened.json["stream_id"]


async def test_it_is_resumed_by_the_key() -> None:
    sidestream = app(interval=0)
    whole = await ask(sidestream, "/chat", method="POST", json=chat())
    for position, event in enumerate(whole.events[:-1]):
        again = await ask(sidestream, "/conversations/c1", headers=EVENT_STREAM | {"last-event-id": event.last_event_id})
        assert [event.data for event in again.events] == [event.data for event in whole.events[position + 1 :]]
    assert (await ask(sidestream, "/conversations/c1", headers={"last-event-id": whole.last_event_id})).status == 204


async def test_it_is_stopped_by_the_key(sidestream: Sidestream) -> None:
    async with asking(sidestream, chat()) as watched:
        await connected(watched)
        assert (await ask(sidestream, "/conversations/c1", method="DELETE")).status == 204
        assert (await watched.next()).type == "cancelled"
    assert (await ask(sidestream, "/conversations/c1", headers=JSON)).json["reason"] == "deleted"
    assert (await ask(sidestream, "/conversations/c1", method="DELETE")).status == 204
    assert (await ask(sidestream, "/conversations/unknown", method="DELETE")).status == 404


async def test_while_one_runs_another_request_is_a_conflict(sidestream: Sidestream) -> None:
    opened = await started(sidestream, chat())
    second = await started(sidestream, chat("Something else"))
    assert (second.status, second.json["code"]) == (409, "conversation_busy")
    assert list(sidestream.service.store.running) == [opened.json["stream_id"]]
    assert (sidestream.service.store.busy, sidestream.service.store.watchers) == (1, 0)


async def test_the_same_request_again_joins_the_one_that_runs(sidestream: Sidestream) -> None:
    opened = await started(sidestream, chat())
    assert (await started(sidestream, chat())).json == opened.json
    async with asking(sidestream, chat()) as watched:
        assert await connected(watched) == opened.json["stream_id"]


async def test_where_it_is_asked_for_the_new_one_replaces_the_old_one(sidestream: Sidestream) -> None:
    async with asking(sidestream, chat()) as watched:
        old = await connected(watched)
        new = await started(sidestream, chat("Something else", replace=True))
        event = await watched.next()
        assert (event.type, event.data) == ("cancelled", '{"reason":"replaced"}')
    assert new.json["stream_id"] != old
    assert list(sidestream.service.store.running) == [new.json["stream_id"]]
    assert (await ask(sidestream, "/conversations/c1", headers=JSON)).json["stream_id"] == new.json["stream_id"]


async def test_after_the_end_the_next_one_takes_over_and_the_old_one_takes_nothing_along() -> None:
    sidestream = app(interval=0)
    streams = [await ask(sidestream, "/chat", method="POST", json=chat()) for _ in range(2)]
    first, second = (answer.headers["location"].rpartition("/")[2] for answer in streams)
    assert first != second, "the same words once more are asked again"
    store = sidestream.service.store
    store.forget(store.streams[first])
    assert (await ask(sidestream, "/conversations/c1", headers=JSON)).json["stream_id"] == second
    store.forget(store.streams[second])
    assert (await ask(sidestream, "/conversations/c1", headers=JSON)).status == 404


async def test_a_run_that_has_a_name_is_told_again_after_its_end() -> None:
    sidestream = app(interval=0)
    key = {"idempotency-key": "run-1"}
    whole = await ask(sidestream, "/chat", method="POST", json=chat(), headers=key)
    again = await ask(sidestream, "/chat", method="POST", json=chat(), headers=key)
    assert again.body == whole.body
    other = await ask(sidestream, "/chat", method="POST", json=chat(), headers={"idempotency-key": "run-2"})
    assert other.headers["location"] != whole.headers["location"]


@pytest.mark.parametrize("replaces", [False, True])
async def test_of_many_at_once_one_runs(replaces: bool) -> None:
    sidestream = Sidestream(Settings(demo_interval=HANGS), backend=Slow())
    bodies = [chat(f"Question {number}", replace=replaces) for number in range(8)]
    answers = await asyncio.gather(*(started(sidestream, body) for body in bodies))
    assert len(sidestream.service.store.running) == 1
    statuses = sorted(answer.status for answer in answers)
    assert statuses[0] == 202
    assert set(statuses) <= {202, 409}
    if not replaces:
        assert statuses == [202] + [409] * 7
    await sidestream.stop()


async def test_what_fails_to_open_leaves_the_conversation_free() -> None:
    sidestream = app(max_streams=1)
    other = await started(sidestream, chat(conversation="c2"))
    assert (await started(sidestream, chat())).status == 503
    assert (await ask(sidestream, "/conversations/c1", headers=JSON)).status == 404
    await ask(sidestream, f"/streams/{other.json['stream_id']}", method="DELETE")
    assert (await started(sidestream, chat())).status == 202
    await sidestream.stop()


async def test_the_same_key_of_another_user_is_another_conversation(sidestream: Sidestream) -> None:
    opened = [await started(sidestream, chat(), **{"x-forwarded-user": user}) for user in ("ann", "bob")]
    assert [answer.status for answer in opened] == [202, 202]
    for user, answer in zip(("ann", "bob"), opened, strict=True):
        found = await ask(sidestream, "/conversations/c1", headers=JSON | {"x-forwarded-user": user})
        assert found.json["stream_id"] == answer.json["stream_id"]
    assert (await ask(sidestream, "/conversations/c1", headers=JSON)).status == 404


async def test_finding_and_stopping_take_the_token() -> None:
    sidestream = app(token=("t",))
    await started(sidestream, chat(), authorization="Bearer t")
    for method in ("GET", "DELETE"):
        assert (await ask(sidestream, "/conversations/c1", method=method)).status == 401
    assert (await ask(sidestream, "/conversations/c1", method="DELETE", headers={"authorization": "Bearer t"})).status == 204


@pytest.mark.parametrize("key", ["", "x" * 257, 1])
async def test_a_key_that_can_not_be_used(sidestream: Sidestream, key: Any) -> None:
    answer = await started(sidestream, chat(conversation=key))
    assert (answer.status, answer.json["parameter"]) == (422, "conversation")


async def test_one_at_a_time_holds_for_all_processes() -> None:
    runs, keys, settings = Runs(), Backend(), Settings(token=("t",), demo_interval=HANGS)
    here, there = Process(runs, keys, settings), Process(runs, keys, settings)
    here.neighbour.other, there.neighbour.other = there.service.store, here.service.store
    token = {"authorization": "Bearer t"}
    opened = await started(there, chat(), **token)
    assert (await started(here, chat("Something else"), **token)).status == 409
    assert (await started(here, chat(), **token)).json["stream_id"] == opened.json["stream_id"]
    assert (await ask(here, "/conversations/c1", headers=JSON | token)).json["stream_id"] == opened.json["stream_id"]
    assert (await ask(here, "/conversations/c1", method="DELETE", headers=token)).status == 204
    assert there.service.store.streams[opened.json["stream_id"]].state is State.CANCELLED
    for process in (here, there):
        await process.neighbour.aclose()
        await process.stop()

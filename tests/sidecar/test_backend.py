"""The seam to other processes: a stream that runs elsewhere is watched, resumed, merged and cancelled like one that runs here.

The backend is a fake (`tests.support.backends.Neighbour`): two applications in this process, each of which finds what the other
one runs. Nothing of the application knows of it but through `Backend`.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest

from app import Sidestream
from sidecar.settings import Settings
from sse.store import Backend
from sse.stream import Stream, Trigger
from sse.testing import open_stream
from tests.support.app import EVENT_STREAM, HOST, JSON, Answer, Extended, Runs, ask
from tests.support.backends import Neighbour
from tests.support.streams import open_in

TOKEN = {"authorization": "Bearer t"}
SETTINGS = Settings(token=("t",), max_streams=4, max_watchers=3, demo_interval=0)


@pytest.fixture
def runs() -> Runs:
    return Runs()


class Process(Extended):
    """One of the two applications."""

    def __init__(self, runs: Runs, keys: Backend, settings: Settings = SETTINGS) -> None:
        self.neighbour = Neighbour(keys)
        super().__init__(settings, *runs.routes(), backend=self.neighbour)


@pytest.fixture
async def processes(runs: Runs) -> AsyncIterator[tuple[Process, Process]]:
    keys = Backend()
    here, there = Process(runs, keys), Process(runs, keys)
    here.neighbour.other, there.neighbour.other = there.service.store, here.service.store
    yield here, there
    for process in (here, there):
        await process.neighbour.aclose()
        await process.stop()


def numbered(process: Sidestream, count: int, **options: Any) -> Stream:
    """A stream that has said `count` things and waits."""
    stream = open_in(process.service.store, **options)
    for number in range(1, count + 1):
        stream.emit(number)
    return stream


def ids(answer: Answer) -> list[str]:
    return [event.last_event_id.rpartition(".")[2] for event in answer.events]


def watching(process: Sidestream, path: str, **headers: str) -> Any:
    return open_stream(process, path, headers={"host": HOST, **EVENT_STREAM, **headers})


Processes = tuple[Process, Process]


# -- watching


async def test_it_is_watched_from_its_first_event_to_its_last(processes: Processes) -> None:
    here, there = processes
    stream = numbered(there, 2)
    async with watching(here, f"/streams/{stream.id}") as watched:
        seen = [await watched.next() for _ in range(3)]
        stream.emit(3)
        stream.end(Trigger.SOURCE_ENDED)
        seen += [await watched.next() for _ in range(2)]
    assert [(event.type, event.data) for event in seen[1:]] == [
        ("message", "1"),
        ("message", "2"),
        ("message", "3"),
        ("message", "[DONE]"),
    ]
    assert [event.last_event_id for event in seen] == [f"{stream.id}.{n}" for n in (0, 1, 2, 3, "end")]
    assert watched.headers["location"] == f"/streams/{stream.id}"


@pytest.mark.parametrize(
    ("last", "expected"), [(None, ["0", "1", "2", "3", "end"]), ("1", ["2", "3", "end"]), ("3", ["end"]), ("9", ["end"])]
)
async def test_it_is_resumed(processes: Processes, last: str | None, expected: list[str]) -> None:
    here, there = processes
    stream = numbered(there, 3)
    stream.end(Trigger.SOURCE_ENDED)
    headers = EVENT_STREAM if last is None else EVENT_STREAM | {"last-event-id": f"{stream.id}.{last}"}
    assert ids(await ask(here, f"/streams/{stream.id}", headers=headers)) == expected
    assert here.neighbour.copies[stream.id].stream.resumes == (last is not None)


async def test_a_client_that_has_its_newest_event_is_not_ahead_of_it(processes: Processes) -> None:
    """It may have got that from the process that runs the stream, a moment ago."""
    here, there = processes
    stream = numbered(there, 3)
    for number in (3, 4):
        async with watching(here, f"/streams/{stream.id}", **{"last-event-id": f"{stream.id}.{number}"}) as watched:
            assert watched.status == 200
            stream.emit(number + 1)
            assert (await watched.next()).last_event_id == f"{stream.id}.{number + 1}"


async def test_whoever_opened_it_comes_back_to_another_process(processes: Processes, runs: Runs) -> None:
    here, there = processes
    path = "/numbers?count=3"
    opened = await ask(there, path, method="POST", body=b"one", headers=TOKEN | EVENT_STREAM)
    last = {"last-event-id": opened.last_event_id.replace(".end", ".2")}
    again = await ask(here, path, method="POST", body=b"one", headers=TOKEN | EVENT_STREAM | last)
    other = await ask(here, path, method="POST", body=b"two", headers=TOKEN | EVENT_STREAM | last)
    assert (ids(again)[-1], again.last_event_id) == ("end", opened.last_event_id)
    assert (other.status, runs.opened) == (409, 1)


async def test_its_watchers_count_where_they_watch_and_it_counts_where_it_runs(processes: Processes) -> None:
    here, there = processes
    stream = numbered(there, 1)
    async with watching(here, f"/streams/{stream.id}"), watching(here, f"/streams/{stream.id}"):
        assert [process.service.store.watchers for process in processes] == [2, 0]
        assert [process.service.store.busy for process in processes] == [0, 1]
    assert [process.service.store.watchers for process in processes] == [0, 0]


async def test_its_state_can_be_read(processes: Processes) -> None:
    here, there = processes
    stream = numbered(there, 2, metadata={"user": 1})
    async with watching(here, f"/streams/{stream.id}") as watched:
        for _ in range(3):
            await watched.next()
        document = (await ask(here, f"/streams/{stream.id}", headers=JSON)).json
    shown = ("stream_id", "state", "format", "events", "metadata")
    assert {name: document[name] for name in shown} == {
        "stream_id": stream.id,
        "state": "running",
        "format": "plain",
        "events": 2,
        "metadata": {"user": 1},
    }
    assert [watcher["lag"] for watcher in document["watchers"]] == [0]


async def test_it_is_merged_with_one_that_runs_here(processes: Processes) -> None:
    here, there = processes
    mine, theirs = numbered(here, 1), numbered(there, 1)
    for stream in (mine, theirs):
        stream.end(Trigger.SOURCE_ENDED)
    answer = await ask(here, f"/merge?streams={mine.id},{theirs.id}", headers=EVENT_STREAM)
    assert answer.last_event_id == "end-end"
    assert sum('"data":1}' in event.data for event in answer.events) == 2


# -- ending


@pytest.mark.parametrize("by", ["token", "key"])
async def test_it_is_cancelled_from_here(processes: Processes, by: str) -> None:
    here, there = processes
    stream = numbered(there, 1)
    headers = TOKEN if by == "token" else {"stream-key": stream.key}
    async with watching(here, f"/streams/{stream.id}") as watched:
        assert [(await watched.next()).type for _ in range(2)] == ["connected", "message"]
        answer = await ask(here, f"/streams/{stream.id}", method="DELETE", headers=headers)
        event = await watched.next()
    assert (answer.status, stream.reason) == (204, "deleted")
    assert (event.type, event.data, event.last_event_id) == ("cancelled", '{"reason":"deleted"}', f"{stream.id}.end")


async def test_another_key_cancels_nothing(processes: Processes) -> None:
    here, there = processes
    stream, mine = numbered(there, 1), numbered(here, 1)
    for headers in ({}, {"stream-key": mine.key}):
        assert (await ask(here, f"/streams/{stream.id}", method="DELETE", headers=headers)).status == 401
    assert stream.reason is None


async def test_what_runs_here_is_ended_here(processes: Processes) -> None:
    here, _ = processes
    stream = numbered(here, 1)
    assert (await ask(here, f"/streams/{stream.id}", method="DELETE", headers=TOKEN)).status == 204
    assert stream.reason == "deleted"


async def test_the_drain_of_the_process_that_runs_it_ends_it_everywhere(processes: Processes) -> None:
    here, there = processes
    stream = numbered(there, 0)
    async with watching(here, f"/streams/{stream.id}") as watched:
        await watched.next()
        await there.service.store.drain(0)
        assert (await watched.next()).data == '{"reason":"shutting_down"}'


# -- keys


async def test_a_key_opens_one_stream_whichever_process_is_asked(processes: Processes, runs: Runs) -> None:
    here, there = processes
    path, headers = "/numbers?count=3&interval=3600", TOKEN | JSON | {"idempotency-key": "k1"}
    first = await ask(there, path, headers=headers)
    again = await ask(here, path, headers=headers)
    other = await ask(here, "/numbers?count=4", headers=headers)
    assert (first.status, again.status, other.status) == (202, 202, 422)
    assert again.json == first.json, "its key, too"
    assert [len(process.service.store.streams) for process in processes] == [0, 1]


async def test_one_key_at_the_same_time_opens_one_stream(processes: Processes, runs: Runs) -> None:
    path, headers = "/numbers?count=3&interval=3600", TOKEN | JSON | {"idempotency-key": "k1"}
    answers = await asyncio.gather(*[ask(process, path, headers=headers) for process in processes * 5])
    opened = [answer.json["stream_id"] for answer in answers if answer.status == 202]
    assert len(set(opened)) == 1
    assert {answer.status for answer in answers} <= {202, 409}
    assert sum(len(process.service.store.streams) for process in processes) == 1


# -- looking up

ROWS: Mapping[str, tuple[str, str, Mapping[str, str], list[str]]] = {
    "by its path": ("GET", "/streams/unknown", {}, ["unknown"]),
    "by its path, with a last event ID": ("GET", "/streams/unknown", {"last-event-id": "other.1"}, ["unknown"]),
    "cancelled": ("DELETE", "/streams/unknown", TOKEN, ["unknown"]),
    "by the last event ID": ("GET", "/chat?prompt=x", TOKEN | {"last-event-id": "unknown.1"}, ["unknown"]),
    "by the query": ("GET", "/chat?prompt=x&last_event_id=unknown.1", TOKEN, ["unknown"]),
    "its end was seen": ("GET", "/chat?prompt=x", TOKEN | {"last-event-id": "unknown.end"}, []),
    "malformed": ("GET", "/chat?prompt=x", TOKEN | {"last-event-id": "unknown"}, []),
    "none": ("GET", "/chat?prompt=x", TOKEN | JSON, []),
    "a job": ("GET", "/jobs/unknown", TOKEN, ["unknown"]),
    "a job's progress": ("GET", "/jobs/unknown/progress", {"last-event-id": "unknown.1"}, ["unknown"]),
}


@pytest.mark.parametrize(("method", "path", "headers", "found"), ROWS.values(), ids=ROWS)
async def test_a_request_looks_its_stream_up_once(
    processes: Processes, method: str, path: str, headers: Mapping[str, str], found: list[str]
) -> None:
    here, _ = processes
    await ask(here, path, method=method, headers=headers)
    assert here.neighbour.found == found


REFUSED: Mapping[str, tuple[str, str, Mapping[str, str]]] = {
    "a last event ID without a token": ("GET", "/chat?prompt=x", {"last-event-id": "unknown.1"}),
    "a last event ID with a wrong token": ("GET", "/chat?prompt=x", {"authorization": "Bearer", "last-event-id": "unknown.1"}),
    "a conversation": ("DELETE", "/conversations/unknown", {}),
    "a response": ("GET", "/v1/responses/resp_unknown", {}),
    "neither a key nor a token": ("DELETE", "/streams/unknown", {}),
    "a page of another origin": ("GET", "/streams/unknown", {"origin": "https://elsewhere.example"}),
}


@pytest.mark.parametrize(("method", "path", "headers"), REFUSED.values(), ids=REFUSED)
async def test_a_request_without_the_right_looks_nothing_up(
    processes: Processes, method: str, path: str, headers: Mapping[str, str]
) -> None:
    here, _ = processes
    answer = await ask(here, path, method=method, headers=headers)
    assert answer.status in (401, 403)
    assert here.neighbour.found == []


async def test_what_is_here_is_not_looked_for_elsewhere(processes: Processes) -> None:
    here, _ = processes
    stream = numbered(here, 1)
    await ask(here, f"/streams/{stream.id}", headers=JSON)
    assert (here.neighbour.found, here.neighbour.begun) == ([], [stream.id])


async def test_what_is_private_to_a_connection_is_not_told(processes: Processes) -> None:
    here, _ = processes
    await ask(here, "/stream?count=1&interval=0", headers=TOKEN)
    assert here.neighbour.begun == []

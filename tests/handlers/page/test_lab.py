"""GET /lab/…: lessons byte for byte, events at a known pace and their judgement, and the state of the sidecar."""

import asyncio
import json
from typing import Any

import pytest

from app import Sidestream
from handlers.page import lab
from handlers.page.lessons import FILE, lessons
from sidecar.settings import Settings
from sse.testing import open_stream
from tests.support.app import HOST, ask
from tests.support.asgi import Connection, http_scope
from tests.support.streams import open_in

sidestream = pytest.fixture(lambda: Sidestream(Settings()))
PLAYED = [(name, last) for name, lesson in lessons().items() for last in lesson.plays if lesson.status == 200]

virtual_time = pytest.mark.virtual_time


@virtual_time
@pytest.mark.parametrize(("name", "last"), PLAYED, ids=[f"{name} after {last}" for name, last in PLAYED])
async def test_a_lesson_is_played_byte_for_byte_in_its_chunks(sidestream: Sidestream, name: str, last: str) -> None:
    play, connection = lessons()[name].plays[last], Connection()
    headers = [(b"host", HOST.encode()), *([] if last == "*" else [(b"last-event-id", last.encode())])]
    begin = asyncio.get_running_loop().time()
    await sidestream(http_scope(f"/lab/{name}", headers=headers), connection.receive, connection.send)
    assert (connection.status, connection.complete) == (200, True)
    assert connection.headers[b"content-type"] == lessons()[name].type.encode()
    assert connection.bodies == [b"", *(chunk for _, chunk in play), b""]
    assert asyncio.get_running_loop().time() - begin == pytest.approx(sum(pause for pause, _ in play))


def test_what_the_file_writes_are_the_bytes_that_it_means() -> None:
    assert [chunk for _, chunk in lessons()["utf8-cut"].plays["*"]][:2] == [b"data: 5 \xe2\x82", b"\xac\n\n"]
    assert lessons()["id-nul"].plays["*"][1][1] == b"id: 2\0\ndata: b\n\n"


def test_no_lesson_is_long_or_large() -> None:
    for name, lesson in lessons().items():
        for play in lesson.plays.values():
            assert sum(pause for pause, _ in play) <= 5, name
            assert sum(len(chunk) for _, chunk in play) <= 1000, name


def test_each_lesson_says_what_is_about_to_happen_and_what_to_look_at() -> None:
    for entry in json.loads(FILE.read_text())["lessons"]:
        assert entry["title"], entry["name"]
        assert entry["before"].endswith("."), entry["name"]
        assert entry["look"].endswith("."), entry["name"]


@pytest.mark.parametrize(
    ("path", "last", "status"),
    [("/lab/bom", "unknown", 204), ("/lab/reconnect", "r.end", 204), ("/lab/no-content", "", 204), ("/lab/nothing", "", 404)],
)
async def test_an_eventsource_that_comes_back_for_nothing_is_told_to_stop(
    sidestream: Sidestream, path: str, last: str, status: int
) -> None:
    assert (await ask(sidestream, path, headers={"last-event-id": last} if last else {})).status == status


async def test_head_plays_nothing(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/lab/bom", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")


async def test_lessons_need_no_token_and_take_no_watchers_place() -> None:
    guarded = Sidestream(Settings(token=("secret",), hosts=(HOST,), max_watchers=1))
    _seat = guarded.service.store.seat()
    assert (await ask(guarded, "/lab/id-nul")).status == 200
    assert (await ask(guarded, "/lab/state")).status == 401


async def test_only_so_many_lessons_are_played_at_once_and_one_that_is_left_makes_room(
    sidestream: Sidestream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "MAX_PLAYING", 1)
    async with open_stream(sidestream, "/lab/bom", headers={"host": HOST}) as stream:
        assert await anext(aiter(stream))
        assert (await ask(sidestream, "/lab/bom")).status == 503
    assert (await ask(sidestream, "/lab/no-content")).status == 204
    assert sidestream.features is not None
    assert sidestream.features.lab.playing == 0


async def test_of_those_who_ask_at_the_same_moment_only_so_many_are_let_in(
    sidestream: Sidestream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lab, "MAX_PLAYING", 2)
    answers = await asyncio.gather(*[ask(sidestream, "/lab/probe?count=1") for _ in range(20)])
    assert sorted(answer.status for answer in answers) == [200] * 2 + [503] * 18
    assert (await ask(sidestream, "/lab/bom", method="HEAD")).status == 200
    assert sidestream.features is not None
    assert sidestream.features.lab.playing == 0


async def test_a_page_of_another_origin_may_not_play_lessons(sidestream: Sidestream) -> None:
    assert (await ask(sidestream, "/lab/bom", headers={"origin": "https://elsewhere.example"})).status == 403


@virtual_time
async def test_the_probe_sends_events_at_its_pace_then_is_silent_then_sends_one_more(sidestream: Sidestream) -> None:
    path = "/lab/probe?count=3&interval=0.5&silence=20"
    answer = await ask(sidestream, path, headers={"last-event-id": "probe"}, timeout=60)
    documents = [json.loads(event.data) for event in answer.events]
    assert [document["number"] for document in documents] == [1, 2, 3, 4]
    assert documents[0]["seen"] == {"http_version": "1.1", "last_event_id": "probe"}
    assert answer.body.count(b": probe\n") == 4
    assert answer.headers["x-accel-buffering"] == "no"


async def test_a_plain_passage_lacks_the_header_that_turns_buffering_off(sidestream: Sidestream) -> None:
    assert "x-accel-buffering" not in (await ask(sidestream, "/lab/probe?count=1&plain=1")).headers


def passage(**other: Any) -> dict[str, Any]:
    arrivals = [[number, number / 10, number / 10 + 0.01] for number in range(1, 13)]
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-store, no-transform"}
    seen = {"http_version": "1.1", "last_event_id": "probe"}
    whole = {"status": 200, "headers": headers, "arrivals": arrivals, "comments": 12, "lasted": 1.3, "seen": seen}
    return {**whole, "events": 12, "silence": 0, **other}


async def test_what_was_measured_is_judged(sidestream: Sidestream) -> None:
    measured = {name: passage() for name in ("paced", "plain", "silent")}
    answer = await ask(sidestream, "/lab/probe", method="POST", json=measured)
    assert [finding["name"] for finding in answer.json["findings"]] == ["clear"]


@pytest.mark.parametrize("body", [None, {}, [], {"paced": {}}, {"paced": 1}, {"paced": passage(arrivals=[[1]])}])
async def test_what_is_no_measurement_is_refused(sidestream: Sidestream, body: Any) -> None:
    assert (await ask(sidestream, "/lab/probe", method="POST", json=body)).status in (400, 422)


@virtual_time
async def test_the_state_comes_at_once_and_at_each_difference_and_ends_with_the_drain(sidestream: Sidestream) -> None:
    async with open_stream(sidestream, "/lab/state", headers={"host": HOST}, timeout=20) as stream:
        events = aiter(stream)
        await anext(events)  # connected
        first = json.loads((await anext(events)).data)
        assert (first["upstream"], first["running"], first["watchers"], first["token"]) == ("demo", 0, 1, False)
        open_in(sidestream.service.store)
        assert json.loads((await anext(events)).data)["running"] == 1
        sidestream.service.store.draining = True
        async for _ in events:
            pass
        assert stream.complete

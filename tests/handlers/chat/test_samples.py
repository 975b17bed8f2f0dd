"""One recorded answer in every format that there is a route of."""

import json

import pytest

from app import Sidestream
from sidecar.settings import Settings
from tests.support.app import ask


@pytest.fixture
def sidestream(monkeypatch: pytest.MonkeyPatch) -> Sidestream:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return Sidestream(Settings())


async def named(sidestream: Sidestream) -> list[str]:
    names: list[str] = (await ask(sidestream, "/chat/formats")).json["formats"]
    return names


async def test_every_format_that_has_a_route_is_there(sidestream: Sidestream) -> None:
    assert {"plain", "typed", "openai"} <= set(await named(sidestream))


async def test_each_format_writes_the_answer_to_its_end(sidestream: Sidestream) -> None:
    for name in await named(sidestream):
        answer = await ask(sidestream, f"/chat/formats/{name}")
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream"), name
        assert len(answer.events) > 5, name
        assert b"(20)" in answer.body, name


async def test_they_differ_in_nothing_but_how_they_write_it(sidestream: Sidestream) -> None:
    typed = (await ask(sidestream, "/chat/formats/typed")).events
    openai = (await ask(sidestream, "/chat/formats/openai")).events
    ids = {json.loads(event.data)["chunk"]["id"] for event in typed if event.type == "chat_completion_chunk"}
    assert {json.loads(event.data)["id"] for event in openai if event.data != "[DONE]"} <= ids
    [done] = [event for event in typed if event.type == "tool_summary"]
    assert json.loads(done.data)["tool_summary"]["calls"][0]["result"] == 20
    assert (typed[-1].type, openai[-1].data) == ("done", "[DONE]")


async def test_it_is_the_same_answer_each_time_and_no_stream_is_left(sidestream: Sidestream) -> None:
    first, second = [await ask(sidestream, "/chat/formats/typed") for _ in range(2)]
    assert first.body == second.body
    assert (await ask(sidestream, "/streams")).json == {"streams": []}


async def test_another_format_is_a_404_that_names_those_that_there_are(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/chat/formats/morse")
    assert answer.status == 404
    assert "typed" in answer.json["detail"]

"""The FastAPI example, under a real uvicorn."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from examples import fastapi_app
from tests.support.servers import serving
from tests.support.sockets import Client, fetch

pytestmark = pytest.mark.e2e


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with serving(fastapi_app.app) as port:
        yield port


async def test_it_streams_events_to_their_end(port: int) -> None:
    async with Client(port) as client:
        answer = await client.get("/clock?count=3", {"Accept": "text/event-stream"})
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        connected, *ticks, done = await answer.events()
    assert connected.type == "connected"
    assert [json.loads(tick.data) for tick in ticks] == [{"tick": 1}, {"tick": 2}, {"tick": 3}]
    assert done.data == "[DONE]"


async def test_an_event_source_that_comes_back_after_the_end_is_told_to_stop(port: int) -> None:
    async with Client(port) as client:
        last = (await (await client.get("/clock?count=1")).events())[-1].last_event_id
    assert await fetch(port, "/clock?count=1", headers={"Last-Event-ID": last}) == (204, b"")


async def test_fastapi_still_checks_the_parameters(port: int) -> None:
    assert (await fetch(port, "/clock?count=x"))[0] == 422


async def test_a_client_that_leaves_closes_the_generator(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = asyncio.Event()

    async def ticks(count: int) -> AsyncIterator[dict[str, int]]:
        try:
            yield {"tick": 1}
            await asyncio.sleep(3600)
        finally:
            closed.set()

    monkeypatch.setattr(fastapi_app, "ticks", ticks)
    async with Client(port) as client:
        answer = await client.get("/clock")
        assert [(await answer.event()).type for _ in range(2)] == ["connected", "message"]
        client.reset()
    async with asyncio.timeout(5):
        await closed.wait()

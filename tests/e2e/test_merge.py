"""Merged streams over real sockets: resumed by a real client through a proxy that cuts, while others publish."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from sse.client import EventSource
from sse.wire.event import MessageEvent
from tests.support.cutting import cutting
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, complaints, get_json

COUNT = 60


@pytest.fixture
async def process() -> AsyncIterator[Server]:
    async with sidecar() as process:
        yield process


async def follow(url: str, connections: list[str]) -> list[MessageEvent]:
    """Every event, over as many connections as it takes; they are counted."""

    async def no_pause(seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    options: dict[str, Any] = {"sleep": no_pause, "headers": {"Connection": "close"}}
    async with asyncio.timeout(30), EventSource(url, on_change=lambda state, why: connections.append(why), **options) as source:
        return [event async for event in source]


async def test_cut_again_and_again_while_others_publish_each_event_comes_once_and_in_order(process: Server) -> None:
    async with httpx2.AsyncClient(base_url=process.url) as application:
        streams = [(await application.post("/streams")).json() for _ in range(3)]
        names = [stream["stream_id"] for stream in streams]

        async def publish(stream: dict[str, Any], pace: float) -> None:
            for number in range(1, COUNT + 1):
                body = {"event": "step", "data": {"n": number, "text": "Größe"}}
                assert (await application.post(f"{stream['url']}/events?first={number}", json=body)).status_code == 200
                await asyncio.sleep(pace)
            await application.post(f"{stream['url']}/close")

        async with cutting(process.port, after=1500) as proxy:
            reasons: list[str] = []
            following = asyncio.ensure_future(follow(f"{proxy}/merge?streams={','.join(names)}", reasons))
            await asyncio.gather(*(publish(stream, pace) for stream, pace in zip(streams, (0, 0.002, 0.005), strict=True)))
            events = await following
    assert reasons.count("open") > 5
    assert events[-1].last_event_id == "end-end-end"
    for name in names:
        own = [(event.type, payload["data"]) for event in events if (payload := json.loads(event.data))["stream"] == name]
        assert own == [*(("step", {"n": number, "text": "Größe"}) for number in range(1, COUNT + 1)), ("end", {})]
    assert complaints(process.stderr) == []


async def test_a_client_that_leaves_lets_go_of_the_streams_and_they_go_on(process: Server) -> None:
    async with httpx2.AsyncClient(base_url=process.url) as application:
        streams = [(await application.post("/streams")).json() for _ in range(2)]
        async with Client(process.port) as client:
            answer = await client.get("/merge?streams=" + ",".join(stream["stream_id"] for stream in streams))
            await application.post(f"{streams[1]['url']}/events", json={"data": "x"})
            assert (await answer.event()).last_event_id == "0-1"
            listed = (await get_json(process.port, "/streams"))["streams"]
            assert [len(document["watchers"]) for document in listed] == [1, 1]
            client.reset()
        async with asyncio.timeout(5):
            while any(document["watchers"] for document in (await get_json(process.port, "/streams"))["streams"]):
                pass
        assert [document["state"] for document in (await get_json(process.port, "/streams"))["streams"]] == ["running"] * 2
        for stream in streams:
            assert (await application.post(f"{stream['url']}/close")).status_code == 204

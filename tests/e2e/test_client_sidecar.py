"""EventSource against the sidecar itself, `python app.py`: directly, and through a proxy that cuts every connection."""

import asyncio
from typing import Any

import pytest

from sse.client import EventSource, ReadyState, until
from sse.wire.event import MessageEvent
from tests.support.cutting import cutting
from tests.support.servers import sidecar


async def no_pause(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.02))


async def follow(url: str, *ends: str, **options: Any) -> list[MessageEvent]:
    """Every event of the stream, up to its end: an end named here, or the 204 that its last event ID is answered."""
    async with asyncio.timeout(30):
        async with EventSource(url, sleep=no_pause, **options) as source:
            return [event async for event in until(source, *ends)]


@pytest.mark.parametrize(
    ("path", "body", "last"),
    [
        pytest.param("stream?count=5&interval=0", None, ("message", "[DONE]"), id="stream"),
        pytest.param("chat?prompt=hi", None, ("message", "[DONE]"), id="chat, GET"),
        pytest.param("chat", {"prompt": "hi"}, ("done", None), id="chat, POST"),
        pytest.param("merge", None, ("message", "[DONE]"), id="merge"),
    ],
)
async def test_a_stream_is_followed_to_its_end(path: str, body: Any, last: tuple[str, str | None]) -> None:
    method = "GET" if body is None else "POST"
    async with sidecar(SIDESTREAM_DEMO_INTERVAL="0.002") as server:
        events = await follow(f"{server.url}/{path}", method=method, json=body)
    assert len(events) > 2
    assert len({event.last_event_id for event in events}) == len(events)
    assert events[-1].last_event_id.endswith("end")
    assert (events[-1].type, events[-1].data if last[1] else None) == last


async def test_an_answer_in_openai_s_shape_is_followed_to_its_end() -> None:
    body = {"model": "demo", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    async with sidecar(SIDESTREAM_DEMO_INTERVAL="0.002") as server:
        complete = await follow(f"{server.url}/v1/chat/completions", method="POST", json=body)
        before_the_end = await follow(f"{server.url}/v1/chat/completions", "[DONE]", method="POST", json=body)
    assert complete[-1].data == "[DONE]"
    assert len(before_the_end) == len(complete) - 1


@pytest.mark.parametrize(("path", "after"), [("stream?count=8&interval=0.01", 150), ("chat?prompt=hi", 220)])
async def test_cut_again_and_again_nothing_is_lost_or_doubled(path: str, after: int) -> None:
    async with sidecar(SIDESTREAM_DEMO_INTERVAL="0.002") as server:
        whole, states = await follow(f"{server.url}/{path}"), list[ReadyState]()
        async with cutting(server.port, after) as proxy:
            options = {"headers": {"Connection": "close"}, "on_change": lambda state, why: states.append(state)}
            pieces = await follow(f"{proxy}/{path}", **options)
    assert states.count(ReadyState.OPEN) >= 3
    assert [event.data for event in pieces[1:]] == [event.data for event in whole[1:]]  # the first names the stream
    assert len({event.last_event_id for event in pieces}) == len(whole)

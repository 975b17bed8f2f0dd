"""A response that one process runs, at another one: read, streamed, cancelled, gone on from, deleted."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.support.redis import redis_server
from tests.support.responding import EVERYTHING, HELLO, LOOKUP
from tests.support.servers import sidecar
from tests.support.upstream import HANG, Script, Upstream, chunk, reply, serve


@asynccontextmanager
async def two(folder: Path, *scripts: Script) -> AsyncIterator[tuple[openai.AsyncOpenAI, openai.AsyncOpenAI, Upstream]]:
    """Two processes with one store and one upstream."""
    async with AsyncExitStack() as stack:
        redis = await stack.enter_async_context(redis_server(folder))
        upstream = await stack.enter_async_context(serve(*scripts))
        env = {"SIDESTREAM_STORE": redis.url, "OPENAI_BASE_URL": upstream.url, "OPENAI_API_KEY": "unused"}
        urls = [(await stack.enter_async_context(sidecar(SIDESTREAM_MODEL="test", **env))).url for _ in range(2)]
        clients = [openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="unused", max_retries=0) for url in urls]
        yield *[await stack.enter_async_context(client) for client in clients], upstream  # type: ignore[misc]


async def test_a_response_is_the_same_at_both(tmp_path: Path) -> None:
    async with two(tmp_path, EVERYTHING, HELLO) as (here, there, upstream):
        stream = await here.responses.create(model="test", input="Hi", tools=[LOOKUP], background=True, stream=True)
        events = [event async for event in stream]
        id = events[-1].response.id  # type: ignore[union-attr]
        assert await there.responses.retrieve(id) == await here.responses.retrieve(id)
        for after in (0, 9, len(events) - 2, len(events) - 1):
            again = await there.responses.retrieve(id, stream=True, starting_after=after)
            assert [event async for event in again] == events[after + 1 :]
        with pytest.raises(openai.BadRequestError):
            await there.responses.retrieve(id, stream=True, starting_after=len(events))
        outputs: list[Any] = [{"type": "function_call_output", "call_id": f"call_{n}", "output": "found"} for n in (1, 2)]
        following = await there.responses.create(model="test", input=outputs, previous_response_id=id)
        assert following.output_text == "Hello"
        assert [message["role"] for message in upstream.requests[1].body["messages"]] == ["user", "assistant", "tool", "tool"]
        listed = [item.type async for item in here.responses.input_items.list(following.id, order="asc")]
        assert listed[0] == "message"
        assert len(listed) == 7


async def test_what_runs_at_one_is_read_and_cancelled_at_the_other(tmp_path: Path) -> None:
    async with two(tmp_path, reply(chunk("Hel"), HANG)) as (here, there, upstream):
        stream = await here.responses.create(model="test", input="Hi", background=True, stream=True)
        events = [await anext(stream) for _ in range(6)]
        id = events[0].response.id  # type: ignore[union-attr]
        assert (await there.responses.retrieve(id)).output_text == "Hel"
        watching = await there.responses.retrieve(id, stream=True)
        assert [await anext(watching) for _ in range(6)] == events
        assert (await there.responses.cancel(id)).status == "cancelled"
        await upstream.wait_for(running=0)
        rest = [event async for event in stream]
        assert [event async for event in watching] == rest
        assert rest[-1].type == "response.incomplete"
        assert (await here.responses.cancel(id)).status == "cancelled"


@pytest.mark.parametrize("running", [True, False])
async def test_what_is_deleted_at_the_other_is_gone_at_both(running: bool, tmp_path: Path) -> None:
    async with two(tmp_path, reply(chunk("Hel"), HANG) if running else HELLO) as (here, there, upstream):
        stream = await here.responses.create(model="test", input="Hi", background=True, stream=True)
        events = [await anext(stream) for _ in range(6)] if running else [event async for event in stream]
        id = events[0].response.id  # type: ignore[union-attr]
        await there.responses.delete(id)
        await upstream.wait_for(running=0)
        if running:
            assert [event async for event in stream][-1].type == "response.incomplete"
        with pytest.raises(openai.NotFoundError):
            await there.responses.retrieve(id)
        with pytest.raises(openai.NotFoundError):
            async with asyncio.timeout(5):
                while True:  # until it has heard of it
                    await here.responses.retrieve(id)

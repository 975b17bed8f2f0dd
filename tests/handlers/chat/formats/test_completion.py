"""Answers in one piece."""

import asyncio
import json

import openai
import pytest

from handlers.chat.formats.completion import complete
from handlers.chat.upstream.failures import UpstreamFailed
from tests.support.chat import chat
from tests.support.upstream import DONE, HANG, call, chunk, finish, reply, serve, usage

CALLED = reply(chunk("Let me see. "), call("calculate", '{"expression": "6*7"}'), finish("tool_calls"), usage(1, 2), DONE)


async def test_without_the_sidecars_tools_it_is_the_upstreams_body() -> None:
    body = b'{"id": "x",\n "choices": []}'
    async with chat(reply(body, content_type="application/json")) as c:
        answer = await complete(c.answer(openai=True))
    assert answer.body == body


async def test_with_them_it_is_one_answer_that_the_sdk_reads() -> None:
    async with chat(CALLED, reply(chunk("42"), finish(), usage(3, 4), DONE)) as c:
        answer = await complete(c.answer({"tools": ["calculate"]}, openai=True))
    script = reply(answer.body, content_type=answer.headers["content-type"])
    async with serve(script) as server, openai.AsyncOpenAI(base_url=server.url, api_key="x") as client:
        completion = await client.chat.completions.create(model="m", messages=[])
    assert (completion.id, completion.object, completion.model) == ("chatcmpl-1", "chat.completion", "test")
    [choice] = completion.choices
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("Let me see. 42", None, "stop")
    assert completion.usage is not None
    assert completion.usage.total_tokens == 10


async def test_the_clients_calls_are_in_it() -> None:
    tools = ["calculate", {"type": "function", "function": {"name": "lookup"}}]
    async with chat(reply(call("lookup", "{}"), finish("tool_calls"), DONE)) as c:
        answer = await complete(c.answer({"tools": tools}, openai=True))
    [choice] = json.loads(answer.body)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["lookup"]


async def test_a_failure_in_a_later_stage_is_no_answer() -> None:
    async with chat(CALLED, reply(chunk("4"))) as c:
        with pytest.raises(UpstreamFailed) as caught:
            await complete(c.answer({"tools": ["calculate"]}, openai=True))
    assert (caught.value.code, caught.value.status) == ("cut", 502)


async def test_cancelling_closes_the_connection() -> None:
    async with chat(reply(chunk("a"), HANG)) as c:
        task = asyncio.create_task(complete(c.answer({"tools": ["calculate"]}, openai=True)))
        await c.upstream.wait_for(running=1)
        task.cancel()
        await c.upstream.wait_for(running=0)
        with pytest.raises(asyncio.CancelledError):
            await task

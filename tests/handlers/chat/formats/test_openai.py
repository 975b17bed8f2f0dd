"""The format of /v1, written by the engine in front of a real server, and read by the openai SDK."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from handlers.chat.formats.openai import OpenAI
from sse.errors import SourceFailed
from tests.support.chat import chat
from tests.support.formats import CLIENTS, FAILURE, TOOL, events, made
from tests.support.upstream import DONE, call, chunk, chunk_object, event, finish, reply, serve


@asynccontextmanager
async def sdk(written: bytes) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK, as a client of a server that answers with this."""
    async with serve(reply(written)) as server, openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
        yield client


async def read_by_sdk(written: bytes) -> list[Any]:
    async with sdk(written) as client:
        stream = await client.chat.completions.create(model="m", messages=[], stream=True)
        return [chunk async for chunk in stream]


async def test_it_passes_on_what_came() -> None:
    body = [chunk("Ünder"), chunk("way"), finish()]
    async with chat(reply(*body, DONE)) as c:
        assert await c.written({"stream": True}, OpenAI) == b"".join(body) + DONE


@pytest.mark.parametrize("asked", [True, False])
async def test_it_has_usage_only_where_it_was_asked_for(asked: bool) -> None:
    counts = {"total_tokens": 3}
    body = [
        chunk("a", usage=counts),
        finish(usage=counts),
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": None}], "usage": counts}),
        event({"choices": [], "usage": counts}),
    ]
    wanted = {"stream": True, "stream_options": {"include_usage": asked}}
    async with chat(reply(*body, DONE)) as c:
        written = await c.written(wanted, OpenAI)
    if asked:
        assert written == b"".join(body) + DONE
    else:
        assert [json.loads(event.data) for event in events(written)[:-1]] == [
            chunk_object({"content": "a"}),
            chunk_object({}, "stop"),
        ]


@pytest.mark.parametrize("asked", [True, False])
async def test_it_makes_one_answer_of_all_stages(asked: bool) -> None:
    async with chat(*TOOL) as c:
        written = await c.written({"stream": True, "tools": ["calculate"], "stream_options": {"include_usage": asked}}, OpenAI)
    chunks = await read_by_sdk(written)
    assert {chunk.id for chunk in chunks} == {"chatcmpl-1"}
    choices = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.delta.content or "" for choice in choices) == "Ünder way"
    assert [choice.delta.role for choice in choices if choice.delta.role] == ["assistant"]
    assert [choice.finish_reason for choice in choices if choice.finish_reason] == ["stop"]
    assert not any(choice.delta.tool_calls for choice in choices)
    totals = [chunk.usage.total_tokens for chunk in chunks if chunk.usage]
    assert totals == ([10] if asked else [])
    assert written.endswith(DONE)


async def test_it_shows_the_clients_calls_and_not_the_sidecars() -> None:
    both = reply(
        call("calculate", "{}"),
        call("lookup", '{"a": ', id="b", index=1),
        call("", "1}", id="b", index=1),
        finish("tool_calls"),
        DONE,
    )
    async with chat(both) as c:
        written = await c.written({"stream": True, "tools": ["calculate", CLIENTS]}, OpenAI)
    calls = [call for chunk in await read_by_sdk(written) for call in chunk.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.id, call.function.name, call.function.arguments) for call in calls] == [
        (0, "b", "lookup", '{"a": 1}')
    ]


@pytest.mark.parametrize(
    "ending",
    [made(OpenAI).failed(FAILURE), made(OpenAI).cancelled("deleted"), made(OpenAI).gap(1, 2), made(OpenAI).item_error("x")],
    ids=["failed", "cancelled", "gap", "item_error"],
)
async def test_the_sdk_raises_for_everything_but_success(ending: bytes) -> None:
    with pytest.raises(openai.APIError) as caught:
        await read_by_sdk(chunk("a") + ending)
    assert caught.value.code in ("cut", "cancelled", "gap", "item_error")
    assert DONE not in ending


def test_it_has_no_opening() -> None:
    assert made(OpenAI).opening("id") is None
    assert made(OpenAI).failed(SourceFailed("x", "internal")).startswith(b'data: {"error":')


# -- what a client has to hand back


def detail(text: str) -> dict[str, Any]:
    return {"reasoning_details": [{"type": "reasoning.text", "text": text, "index": 0}], "content": None}


SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}


async def test_one_answer_of_all_stages_holds_what_the_client_has_to_hand_back() -> None:
    lookup = {"index": 0, "id": "b", "function": {"name": "lookup", "arguments": ""}, **SIGNED}
    first = [event(chunk_object(detail("a"))), event(chunk_object(detail("b"))), call("calculate", '{"expression": "1"}')]
    second = [event(chunk_object(detail("c"))), event(chunk_object({"tool_calls": [lookup]}))]
    async with chat(reply(*first, DONE), reply(*second, DONE)) as c:
        written = await c.written({"stream": True, "tools": ["calculate", CLIENTS]}, OpenAI)
    async with sdk(written) as client, client.chat.completions.stream(model="m", messages=[]) as stream:
        message = (await stream.get_final_completion()).choices[0].message.to_dict()
    details = [
        {"type": "reasoning.text", "text": "ab", "index": 0},
        {"type": "reasoning.text", "text": "c", "index": 1},
    ]
    assert message["reasoning_details"] == details
    asked: Any = message["tool_calls"]
    assert (asked[0]["extra_content"], asked[0]["function"]["arguments"]) == (SIGNED["extra_content"], "{}")


async def test_the_head_of_one_answer_is_that_of_the_first_chunk_with_a_choice() -> None:
    filtered = event({"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": []})
    counted = event({**chunk_object({"content": "lo"}), "choices": [{"index": 1, "delta": {"content": "lo"}}]})
    async with chat(reply(filtered, chunk("Hel"), counted, finish(), DONE)) as c:
        written = await c.written({"stream": True, "tools": ["calculate"]}, OpenAI)
    chunks = await read_by_sdk(written)
    assert {(chunk.id, chunk.object, chunk.created, chunk.model) for chunk in chunks} == {
        ("chatcmpl-1", "chat.completion.chunk", 1700000000, "test")
    }
    assert [chunk.choices[0].index for chunk in chunks] == [0] * len(chunks)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello"

"""The three formats, written by the engine in front of a real server, and read back."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from handlers.chat.formats.openai import OpenAI
from handlers.chat.formats.typed import ChatPlain, Typed, format_for
from handlers.chat.items import StageBegun, StageDone
from handlers.chat.request import parse_request
from handlers.chat.upstream.chunks import Chunk
from handlers.chat.upstream.failures import UpstreamFailed
from sse.errors import SourceFailed
from sse.formats import Format, Transliterated
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser
from tests.support.chat import chat
from tests.support.streams import joined
from tests.support.upstream import DONE, call, chunk, chunk_object, event, finish, reply, serve, usage

FAILURE = UpstreamFailed("the answer — was cut", "cut")
TOOL = [
    reply(
        event(chunk_object({"role": "assistant", "content": ""})),
        chunk("Ünder "),
        call("calculate", '{"expression": "6*7"}'),
        finish("tool_calls"),
        usage(1, 2),
        DONE,
    ),
    reply(
        event(chunk_object({"role": "assistant", "content": ""}, id="chatcmpl-2")), chunk("way"), finish(), usage(3, 4), DONE
    ),
]
CLIENTS = {"type": "function", "function": {"name": "lookup", "parameters": {}}}


def events(written: bytes | None) -> list[MessageEvent]:
    return Parser().feed(written or b"")


def one(written: bytes | None) -> tuple[str, Any]:
    """The only event in there: its type and its JSON."""
    [found] = events(written)
    return found.type, json.loads(found.data)


def a_chunk(text: str) -> Chunk:
    value = chunk_object({"content": text})
    return Chunk(json.dumps(value).encode(), value, text)


@pytest.mark.parametrize(
    ("body", "openai", "name"), [({}, False, "typed"), ({"format": "plain"}, False, "plain"), ({}, True, "openai")]
)
def test_the_format_is_the_requests(body: dict[str, Any], openai: bool, name: str) -> None:
    request = parse_request({"messages": [{"role": "user", "content": "x"}], **body}, openai=openai)
    format: Format = format_for(request)
    assert (format.name, format.ids) == (name, name != "openai")


# -- typed


async def test_typed_events_of_an_answer_with_a_tool() -> None:
    async with chat(*TOOL) as c:
        written = await c.written({"tools": ["calculate"]})
    found = [(event.type, json.loads(event.data)) for event in events(written)]
    assert [(name, payload["stage_id"]) for name, payload in found] == [
        *[("chat_completion_chunk", 1)] * 5,
        ("tool_completion_chunk", 1),
        ("tool_summary", 1),
        ("done", 1),
        *[("chat_completion_chunk", 2)] * 4,
        ("done", 2),
    ]
    payloads = [payload for _, payload in found]
    assert payloads[1]["chunk"] == chunk_object({"content": "Ünder "})
    assert payloads[5]["tool_results"] == chunk_object(
        {"role": "tool", "tool_call_id": "call_1", "name": "calculate", "content": "42"}
    )
    [summary] = payloads[6]["tool_summary"]["calls"]
    assert summary.pop("duration_ms") >= 0
    assert summary == {"id": "call_1", "name": "calculate", "arguments": {"expression": "6*7"}, "ok": True, "result": 42}
    counts = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
    assert payloads[7] == {"stage_id": 1, "finish_reason": "tool_calls", "usage": counts, "final": False}
    assert (payloads[-1]["final"], payloads[-1]["finish_reason"]) == (True, "stop")


async def test_typed_shows_the_clients_calls_as_pending() -> None:
    async with chat(reply(call("lookup", '{"a": 1}'), finish("tool_calls"), DONE)) as c:
        *_, last = events(await c.written({"tools": [CLIENTS]}))
    assert json.loads(last.data)["pending"] == [{"id": "call_1", "name": "lookup", "arguments": '{"a": 1}'}]


def test_a_typed_chunk_goes_out_as_it_came() -> None:
    raw = b'{"choices": [],  "x":1.50}'
    assert Typed().item(Chunk(raw, {})) == b'event: chat_completion_chunk\ndata: {"stage_id":1,"chunk":%b}\n\n' % raw


def test_typed_ends() -> None:
    format = Typed()
    format.item(StageBegun(3))
    assert format.item(StageDone("stop", None, True, ())) == b""
    assert one(format.done()) == ("done", {"stage_id": 3, "finish_reason": "stop", "usage": None, "final": True})
    assert one(format.cancelled("deleted")) == ("cancel", {"stage_id": 3, "reason": "deleted"})
    error = {"stage_id": 3, "error": "the answer — was cut", "code": "cut", "retryable": True}
    assert one(format.failed(FAILURE)) == ("error", error)
    assert one(format.gap(2, 5)) == ("gap", {"stage_id": 3, "first": 2, "last": 5})
    assert one(format.item_error("too large")) == ("item_error", {"stage_id": 3, "error": "too large"})
    assert format.opening("id") is None


def test_typed_says_of_which_stage_it_is_before_any_has_begun() -> None:
    assert one(Typed().cancelled("deleted"))[1]["stage_id"] == 1


def test_typed_as_ascii() -> None:
    format = Transliterated(Typed())
    written = format.item(a_chunk("Ünïcode — 東京"))
    assert isinstance(written, bytes)
    assert written.isascii()
    assert one(written)[1]["chunk"]["choices"][0]["delta"]["content"].startswith("Unicode - ")
    escaped = Chunk(b'{"a":"\\u00fc"}', {"a": "ü"})
    assert one(joined(format.item(escaped)))[1]["chunk"] == {"a": "u"}
    assert joined(format.failed(FAILURE)).isascii()


# -- plain


async def test_plain_is_the_text_and_nothing_else() -> None:
    async with chat(*TOOL) as c:
        written = await c.written({"tools": ["calculate"], "format": "plain"})
    assert written == 'data: {"content":"Ünder "}\n\ndata: {"content":"way"}\n\ndata: [DONE]\n\n'.encode()


def test_plain_keeps_half_a_surrogate_pair_for_the_client_to_join() -> None:
    assert ChatPlain().item(a_chunk("\ud83d")) == b'data: {"content":"\\ud83d"}\n\n'


def test_plain_as_ascii() -> None:
    assert Transliterated(ChatPlain()).item(a_chunk("Ünder")) == b'data: {"content":"Under"}\n\n'


def test_plain_ends_as_plain_does() -> None:
    assert one(joined(ChatPlain().failed(FAILURE))) == ("error", {"error": FAILURE.message, "code": "cut", "fatal": True})
    assert one(ChatPlain().opening("id")) == ("connected", {"status": "ok", "stream": "id"})


# -- openai, read by the openai SDK


@asynccontextmanager
async def sdk(written: bytes) -> AsyncIterator[openai.AsyncOpenAI]:
    """The SDK, as a client of a server that answers with this."""
    async with serve(reply(written)) as server, openai.AsyncOpenAI(base_url=server.url, api_key="x", max_retries=0) as client:
        yield client


async def read_by_sdk(written: bytes) -> list[Any]:
    async with sdk(written) as client:
        stream = await client.chat.completions.create(model="m", messages=[], stream=True)
        return [chunk async for chunk in stream]


async def test_openai_passes_on_what_came() -> None:
    body = [chunk("Ünder"), chunk("way"), finish()]
    async with chat(reply(*body, DONE)) as c:
        assert await c.written({"stream": True}, openai=True, ascii=True) == b"".join(body) + DONE


@pytest.mark.parametrize("asked", [True, False])
async def test_openai_has_usage_only_where_it_was_asked_for(asked: bool) -> None:
    counts = {"total_tokens": 3}
    body = [
        chunk("a", usage=counts),
        finish(usage=counts),
        event({"choices": [{"index": 0, "delta": {}, "finish_reason": None}], "usage": counts}),
        event({"choices": [], "usage": counts}),
    ]
    wanted = {"stream": True, "stream_options": {"include_usage": asked}}
    async with chat(reply(*body, DONE)) as c:
        written = await c.written(wanted, openai=True)
    if asked:
        assert written == b"".join(body) + DONE
    else:
        assert [json.loads(event.data) for event in events(written)[:-1]] == [
            chunk_object({"content": "a"}),
            chunk_object({}, "stop"),
        ]


@pytest.mark.parametrize("asked", [True, False])
async def test_openai_makes_one_answer_of_all_stages(asked: bool) -> None:
    async with chat(*TOOL) as c:
        written = await c.written(
            {"stream": True, "tools": ["calculate"], "stream_options": {"include_usage": asked}}, openai=True
        )
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


async def test_openai_shows_the_clients_calls_and_not_the_sidecars() -> None:
    both = reply(
        call("calculate", "{}"),
        call("lookup", '{"a": ', id="b", index=1),
        call("", "1}", id="b", index=1),
        finish("tool_calls"),
        DONE,
    )
    async with chat(both) as c:
        written = await c.written({"stream": True, "tools": ["calculate", CLIENTS]}, openai=True)
    calls = [call for chunk in await read_by_sdk(written) for call in chunk.choices[0].delta.tool_calls or ()]
    assert [(call.index, call.id, call.function.name, call.function.arguments) for call in calls] == [
        (0, "b", "lookup", '{"a": 1}')
    ]


@pytest.mark.parametrize(
    "ending",
    [OpenAI().failed(FAILURE), OpenAI().cancelled("deleted"), OpenAI().gap(1, 2), OpenAI().item_error("x")],
    ids=["failed", "cancelled", "gap", "item_error"],
)
async def test_the_sdk_raises_for_everything_but_success(ending: bytes) -> None:
    with pytest.raises(openai.APIError) as caught:
        await read_by_sdk(chunk("a") + ending)
    assert caught.value.code in ("cut", "cancelled", "gap", "item_error")
    assert DONE not in ending


def test_openai_has_no_opening() -> None:
    assert OpenAI().opening("id") is None
    assert OpenAI().failed(SourceFailed("x", "internal")).startswith(b'data: {"error":')

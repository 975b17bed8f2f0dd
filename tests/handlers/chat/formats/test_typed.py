"""The typed format, written by the engine in front of a real server, and read back."""

import json
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel, ConfigDict, ValidationError

from handlers.chat.formats.typed import Typed
from handlers.chat.items import Chunk, StageBegun, StageDone
from sse.wire.event import MessageEvent
from tests.support.chat import chat
from tests.support.formats import CLIENTS, FAILURE, TOOL, events, made, one
from tests.support.upstream import DONE, call, chunk_object, event, finish, reply


async def test_events_of_an_answer_with_a_tool() -> None:
    async with chat(*TOOL) as c:
        written = await c.written({"tools": ["calculate"]})
    found = [(event.type, json.loads(event.data)) for event in events(written)]
    assert [(name, payload["stage_id"]) for name, payload in found] == [
        *[("chat_completion_chunk", "1")] * 5,
        ("tool_completion_chunk", "1"),
        ("tool_summary", "1"),
        ("done", "1"),
        *[("chat_completion_chunk", "2")] * 4,
        ("done", "2"),
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
    assert payloads[7] == {"stage_id": "1", "finish_reason": "tool_calls", "usage": counts, "final": False}
    assert (payloads[-1]["final"], payloads[-1]["finish_reason"]) == (True, "stop")


async def test_it_shows_the_clients_calls_as_pending() -> None:
    async with chat(reply(call("lookup", '{"a": 1}'), finish("tool_calls"), DONE)) as c:
        *_, last = events(await c.written({"tools": [CLIENTS]}))
    assert json.loads(last.data)["pending"] == [{"id": "call_1", "name": "lookup", "arguments": '{"a": 1}'}]


async def test_pending_calls_carry_what_the_upstream_sent_with_them() -> None:
    signed = {"index": 0, "id": "a", "function": {"name": "lookup", "arguments": ""}, "extra_content": {"x": 1}}
    async with chat(reply(event(chunk_object({"tool_calls": [signed]})), DONE)) as c:
        *_, last = events(await c.written({"tools": [CLIENTS]}))
    assert json.loads(last.data)["pending"] == [{"id": "a", "name": "lookup", "arguments": "{}", "extra_content": {"x": 1}}]


def test_a_chunk_goes_out_as_it_came() -> None:
    raw = b'{"choices": [],  "x":1.50}'
    format = made(Typed)
    format.item(StageBegun(1))
    assert format.item(Chunk(raw, {})) == b'event: chat_completion_chunk\ndata: {"stage_id":"1","chunk":%b}\n\n' % raw


def test_it_ends() -> None:
    format = made(Typed)
    format.item(StageBegun(3))
    assert format.item(StageDone("stop", None, True)) == b""
    assert one(format.done()) == ("done", {"stage_id": "3", "finish_reason": "stop", "usage": None, "final": True})
    assert one(format.cancelled("deleted")) == ("cancel", {"stage_id": "3", "reason": "deleted"})
    error = {"stage_id": "3", "error": "the answer — was cut", "code": "cut", "retryable": True}
    assert one(format.failed(FAILURE)) == ("error", error)
    assert one(format.gap(2, 5)) == ("gap", {"stage_id": "3", "first": 2, "last": 5})
    assert one(format.item_error("too large")) == ("item_error", {"stage_id": "3", "error": "too large"})
    assert format.opening("id") is None


def test_it_says_of_which_stage_it_is_before_any_has_begun() -> None:
    assert one(made(Typed).cancelled("deleted"))[1]["stage_id"] == "1"


class Event(BaseModel):
    """What a client with strict models takes: nothing is converted, nothing else may be there."""

    model_config = ConfigDict(strict=True, extra="forbid")

    stage_id: str


class ChunkEvent(Event):
    chunk: ChatCompletionChunk


class ToolChunkEvent(Event):
    tool_results: ChatCompletionChunk


class ToolCall(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    id: str
    name: str
    arguments: dict[str, Any] | str
    ok: bool
    duration_ms: float
    result: Any = None
    error: str | None = None


class ToolCalls(BaseModel):
    calls: list[ToolCall]


class SummaryEvent(Event):
    tool_summary: ToolCalls


class PendingCall(BaseModel):
    id: str
    name: str
    arguments: str


class DoneEvent(Event):
    finish_reason: str
    usage: dict[str, Any] | None
    final: bool
    pending: list[PendingCall] | None = None


class CancelEvent(Event):
    reason: Literal["deleted", "abandoned", "shutting_down"]


class ErrorEvent(Event):
    error: str
    code: str
    retryable: bool


MODELS: dict[str, type[Event]] = {
    "chat_completion_chunk": ChunkEvent,
    "tool_completion_chunk": ToolChunkEvent,
    "tool_summary": SummaryEvent,
    "done": DoneEvent,
    "cancel": CancelEvent,
    "error": ErrorEvent,
}


def check(event: MessageEvent) -> str:
    """The event's name, once its data is what a strict client takes. The SDK's models are lenient by themselves."""
    parsed = MODELS[event.type].model_validate_json(event.data)
    for chunk in (getattr(parsed, "chunk", None), getattr(parsed, "tool_results", None)):
        if chunk is not None:
            ChatCompletionChunk.model_validate(chunk.model_dump(exclude_unset=True), strict=True)
    return event.type


async def test_all_six_events_are_what_clients_with_strict_models_take() -> None:
    wrong = reply(call("calculate", "{"), call("lookup", "{}", id="b", index=1), finish("tool_calls"), DONE)
    async with chat(TOOL[0], wrong) as c:
        written = await c.written({"tools": ["calculate", CLIENTS]})
    ends = [made(Typed).cancelled("deleted"), made(Typed).failed(FAILURE)]
    names = [check(event) for event in events([written, *ends])]
    assert set(names) == MODELS.keys()
    assert names.count("done") == 2


@pytest.mark.parametrize("payload", [{"stage_id": 1, "reason": "deleted"}, {"stage_id": "1", "reason": "deleted", "more": 1}])
def test_the_models_are_strict(payload: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CancelEvent.model_validate_json(json.dumps(payload))


def test_the_page_for_client_writers_names_every_event_and_field() -> None:
    page = (Path(__file__).parents[4] / "docs" / "typed-events.md").read_text()
    for name, model in MODELS.items():
        [row] = [line for line in page.splitlines() if line.startswith(f"| `{name}`") and line.count("|") == 4][:1]
        assert set(re.findall(r"`(\w+)`", row.split("|")[2])) == model.model_fields.keys() - {"stage_id"}
    fields = set(re.findall(r"`(\w+)`", page.split("A call in `tool_summary`:")[1].split("## ")[0]))
    assert ToolCall.model_fields.keys() <= fields

"""AG-UI's events, each validated by the models of its Python package; tests/e2e/test_ag_ui.py has its own client."""

import json
import re
from collections.abc import Sequence
from typing import Any

import pytest
from ag_ui.core import Event, RunAgentInput
from pydantic import TypeAdapter

from handlers.chat.formats.ag_ui import AGUI
from handlers.chat.request import Offer
from sse.errors import Problem
from tests.support.app import JSON, Answer
from tests.support.chatting import Sidecar, sidecar
from tests.support.formats import TOOL
from tests.support.upstream import BREAK, DONE, HANG, call, chunk, chunk_object, event, finish, reply, usage

EVENTS: TypeAdapter[Any] = TypeAdapter(Event)
PICK = {"name": "pick", "description": "Pick one.", "parameters": {"type": "object"}}
THINKS = [event(chunk_object({"reasoning_content": thought})) for thought in ("Let me ", "think.")]

Said = dict[str, Any]


def user(content: Any = "Hello") -> Said:
    return {"id": "u1", "role": "user", "content": content}


def run(*messages: Said, run: str = "r1", **fields: Any) -> Said:
    """What the client sends."""
    given = {"threadId": "t1", "runId": run, "messages": [*messages] or [user()], "tools": [], "context": []}
    body = {**given, "forwardedProps": {}, "state": {}, **fields}
    RunAgentInput.model_validate(body)
    return body


def told(raw: bytes) -> list[Said]:
    """The events, each as the package's models have it."""
    lines = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: ")]
    for line in lines:
        EVENTS.validate_json(line)
    return [json.loads(line) for line in lines]


def kinds(said: Sequence[Said]) -> str:
    return " ".join(one["type"] for one in said)


async def post(s: Sidecar, body: Said) -> Answer:
    return await s.post(body, "/ag-ui", {"accept": "text/event-stream"})


# -- what is written


async def test_a_text_and_reasoning() -> None:
    async with sidecar(reply(*THINKS, chunk("Hel"), chunk("lo"), finish(), usage(1, 2), DONE)) as s:
        said = told((await post(s, run())).body)
    assert kinds(said) == (
        "RUN_STARTED STEP_STARTED REASONING_START REASONING_MESSAGE_START REASONING_MESSAGE_CONTENT REASONING_MESSAGE_CONTENT "
        "REASONING_MESSAGE_END REASONING_END TEXT_MESSAGE_START TEXT_MESSAGE_CONTENT TEXT_MESSAGE_CONTENT TEXT_MESSAGE_END "
        "STEP_FINISHED RUN_FINISHED"
    )
    assert said[0] == {"type": "RUN_STARTED", "threadId": "t1", "runId": "r1"}
    assert "".join(one["delta"] for one in said if one["type"] == "TEXT_MESSAGE_CONTENT") == "Hello"
    assert len({one["messageId"] for one in said if "messageId" in one}) == 2
    finished = said[-1]
    assert finished.pop("result").pop("durationMs") >= 0
    assert finished == {
        "type": "RUN_FINISHED",
        "threadId": "t1",
        "runId": "r1",
        "outcome": {"type": "success"},
        "usage": [{"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}],
    }


async def test_a_tool_of_the_sidecars_is_answered_by_it() -> None:
    async with sidecar(*TOOL) as s:
        said = told((await post(s, run(forwardedProps={"tools": ["calculate"]}))).body)
    calls = [one for one in said if one["type"].startswith("TOOL_CALL")]
    assert kinds(calls) == "TOOL_CALL_START TOOL_CALL_ARGS TOOL_CALL_END TOOL_CALL_RESULT"
    [text] = [one["messageId"] for one in said if one["type"] == "TEXT_MESSAGE_START"][:1]
    assert (calls[0]["toolCallName"], calls[0]["parentMessageId"]) == ("calculate", text)
    assert (calls[3]["content"], calls[3]["toolCallId"]) == ("42", calls[0]["toolCallId"])
    assert [one["stepName"] for one in said if one["type"] == "STEP_STARTED"] == ["stage 1", "stage 2"]
    assert said[-1]["outcome"] == {"type": "success"}
    assert said[-1]["usage"][0]["totalTokens"] == 10


async def test_a_tool_of_the_clients_is_pending() -> None:
    async with sidecar(reply(call("pick", '{"x": 1}'), finish("tool_calls"), DONE)) as s:
        said = told((await post(s, run(tools=[PICK]))).body)
        assert s.upstream.requests[0].body["tools"] == [{"type": "function", "function": PICK}]
    assert kinds(said[2:]) == "TOOL_CALL_START TOOL_CALL_ARGS TOOL_CALL_END STEP_FINISHED RUN_FINISHED"
    assert said[-1]["outcome"] == {"type": "success", "pendingToolCallIds": ["call_1"]}
    assert said[-1]["result"]["finishReason"] == "tool_calls"


async def test_what_else_the_upstream_sent_with_a_call_comes_back() -> None:
    signed = {"extra_content": {"google": {"thought_signature": "abc"}}}
    made = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "pick", "arguments": "{}"}, **signed}
    async with sidecar(reply(event(chunk_object({"tool_calls": [made]})), finish("tool_calls"), DONE)) as s:
        said = told((await post(s, run(tools=[PICK]))).body)
    [kept] = [one for one in said if one["type"] == "REASONING_ENCRYPTED_VALUE"]
    assert (kept["entityId"], json.loads(kept["encryptedValue"])) == ("call_1", signed)
    call = {**CALL, "id": "call_1", "encryptedValue": kept["encryptedValue"]}
    answered = {"id": "t", "role": "tool", "toolCallId": "call_1", "content": "red"}
    messages = AGUI(run({"id": "a", "role": "assistant", "toolCalls": [call]}, answered), Offer()).request.messages
    assert messages[0]["tool_calls"] == [{**CALL, "id": "call_1", **signed}]
    foreign = {**call, "encryptedValue": "not ours"}
    messages = AGUI(run({"id": "a", "role": "assistant", "toolCalls": [foreign]}, answered), Offer()).request.messages
    assert messages[0]["tool_calls"] == [{**CALL, "id": "call_1"}]


async def test_a_call_that_is_not_run_is_answered_all_the_same() -> None:
    async with sidecar(reply(call("calculate", "{}"), finish("tool_calls"), DONE), max_stages=1) as s:
        said = told((await post(s, run(forwardedProps={"tools": ["calculate"]}))).body)
    [result] = [one for one in said if one["type"] == "TOOL_CALL_RESULT"]
    assert result["content"] == '{"error":"This call was not run."}'


# -- how it ends otherwise


async def test_what_fails_ends_what_is_open() -> None:
    async with sidecar(reply(THINKS[0], chunk("Half"), call("pick", '{"x'), BREAK)) as s:
        said = told((await post(s, run(tools=[PICK]))).body)
    assert kinds(said[-4:]) == "TOOL_CALL_END TEXT_MESSAGE_END STEP_FINISHED RUN_ERROR"
    assert said[-1]["code"] == "broken"


@pytest.mark.parametrize("steps", [(), (THINKS[0],), (chunk("Half"), call("pick", '{"x'))])
async def test_a_stop_by_the_thread_ends_what_is_open(steps: Sequence[Any]) -> None:
    async with sidecar(reply(*steps, HANG)) as s, s.watching("/ag-ui", run(tools=[PICK])) as client:
        await client.next()
        assert (await s.post(None, "/ag-ui/t1/stop")).status == 204
        async for _ in client:
            pass
        said = told(client.raw)
        await s.upstream.wait_for(running=0)
    starts = [re.sub("_START(ED)?$", "", one["type"]) for one in said if re.search("_START(ED)?$", one["type"])]
    ends = [re.sub("_(END|FINISHED)$", "", one["type"]) for one in said if re.search("_(END|FINISHED)$", one["type"])]
    assert sorted(starts) == sorted(ends)
    assert (said[-1]["outcome"], said[-1]["result"]["reason"]) == ({"type": "cancelled"}, "deleted")


# -- the same run again


async def test_the_same_run_is_joined_while_it_runs_and_told_again_afterwards() -> None:
    async with sidecar(reply(chunk("Hello"), HANG)) as s, s.watching("/ag-ui", run()) as first:
        while b"Hello" not in first.raw:
            await first.next()
        async with s.watching("/ag-ui", run(user("the client has more messages by now"))) as second:
            while b"Hello" not in second.raw:
                await second.next()
            assert (await post(s, run(run="r2"))).status == 409
            await s.post(None, "/ag-ui/t1/stop")
            async for _ in first:
                pass
            async for _ in second:
                pass
        assert told(second.raw) == told(first.raw) == told((await post(s, run())).body)
        assert s.asked == 1
        assert (await s.get("/conversations/t1", JSON)).json["format"] == "ag-ui"


async def test_after_a_gap_a_run_begins_and_what_is_open() -> None:
    words = [chunk(f"w{number} ") for number in range(12)]
    async with sidecar(reply(*words, finish(), DONE), replay_events=6) as s:
        await post(s, run())
        said = told((await post(s, run())).body)
    assert kinds(said[:5]) == "RUN_STARTED CUSTOM STEP_STARTED TEXT_MESSAGE_START TEXT_MESSAGE_CONTENT"
    assert (said[1]["name"], said[1]["value"]["first"]) == ("gap", 1)
    assert kinds(said[-3:]) == "TEXT_MESSAGE_END STEP_FINISHED RUN_FINISHED"


# -- what is read

CALL = {"id": "c1", "type": "function", "function": {"name": "pick", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([user()], [{"role": "user", "content": "Hello"}]),
        ([{"id": "d", "role": "developer", "content": "Be kind."}], [{"role": "system", "content": "Be kind."}]),
        (
            [
                user(
                    [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image", "source": {"type": "data", "value": "AA==", "mimeType": "image/png"}},
                        {"type": "image", "source": {"type": "url", "value": "https://example.com/a.png"}},
                    ]
                )
            ],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
                        {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                    ],
                }
            ],
        ),
        (
            [
                {"id": "a", "role": "assistant", "content": "I pick.", "toolCalls": [CALL, {**CALL, "id": "c2"}]},
                {"id": "t", "role": "tool", "toolCallId": "c1", "content": [{"type": "text", "text": "red"}]},
                {"id": "r", "role": "reasoning", "content": "hm"},
                {"id": "v", "role": "activity", "activityType": "plan", "content": {}},
                {"id": "b", "role": "assistant", "toolCalls": [{**CALL, "id": "c3"}]},
            ],
            [
                {"role": "assistant", "content": "I pick.", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": "red"},
            ],
        ),
        (
            [
                {"id": "a", "role": "assistant", "toolCalls": [CALL]},
                {"id": "t", "role": "tool", "toolCallId": "c1", "content": "", "error": "no"},
            ],
            [
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "c1", "content": '{"error":"no"}'},
            ],
        ),
    ],
)
def test_messages_of_the_client_become_messages_of_a_chat(given: list[Said], expected: list[Said]) -> None:
    assert [*AGUI(run(*given), Offer()).request.messages] == expected


def test_the_thread_is_the_conversation_and_what_is_forwarded_is_the_requests_own() -> None:
    props = {"model": "m", "tools": ["calculate"], "temperature": 0.5, "replace": True}
    request = AGUI(run(tools=[PICK], forwardedProps=props), Offer(["calculate"])).request
    assert request.conversation is not None
    assert (request.conversation.key, request.conversation.run, request.conversation.replace) == ("t1", "r1", True)
    assert (request.model, request.own_tools, request.parameters["temperature"]) == ("m", ("calculate",), 0.5)
    assert request.client_tools == ({"type": "function", "function": PICK},)


def test_the_context_stands_behind_the_operators_system_message() -> None:
    body = run(context=[{"description": "The user's name", "value": "Ann"}])
    assert [message["content"] for message in AGUI(body, Offer(system="Be kind.")).request.messages] == [
        "Be kind.",
        "The user's name: Ann",
        "Hello",
    ]


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        ([], 400, None),
        ({"runId": "r"}, 422, "threadId"),
        ({"threadId": "t", "runId": ""}, 422, "runId"),
        (run() | {"messages": "Hello"}, 422, "messages"),
        (run() | {"messages": []}, 422, "messages"),
        (run() | {"forwardedProps": 1}, 422, "forwardedProps"),
        (run() | {"messages": [{"role": "robot"}]}, 422, "messages[0].role"),
        (run(user([{"type": "audio", "source": {"type": "url", "value": "u"}}])), 422, "messages[0].content"),
        (run() | {"threadId": "x" * 257}, 422, "conversation"),
    ],
)
def test_bodies_that_can_not_be_used(body: Any, status: int, place: str | None) -> None:
    with pytest.raises(Problem) as raised:
        AGUI(body, Offer())
    assert (raised.value.status, raised.value.members.get("parameter")) == (status, place)

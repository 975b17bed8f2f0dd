"""The AI SDK's UI messages, as Python sees them; tests/e2e/test_use_chat.py has the real clients."""

import json
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import pytest

from handlers.chat import items
from handlers.chat.formats.ui_messages import UIMessages
from handlers.chat.request import Offer
from sse.errors import Problem
from sse.testing import open_stream
from tests.support.app import HOST, JSON, Answer
from tests.support.chat import chat, encoded
from tests.support.chatting import Sidecar, sidecar
from tests.support.formats import FAILURE, TOOL, events
from tests.support.upstream import BREAK, DONE, HANG, call, chunk, chunk_object, error_reply, event, finish, reply, usage

Part = dict[str, Any]
PICK = {"type": "function", "function": {"name": "pick", "parameters": {}}}


def text(words: str) -> Part:
    return {"type": "text", "text": words}


def user(*parts: Part) -> Part:
    return {"id": "u1", "role": "user", "parts": [*parts] or [text("Hello")]}


def assistant(*parts: Part) -> Part:
    return {"id": "a1", "role": "assistant", "parts": [*parts]}


def tool(state: str, *, id: str = "call_1", **fields: Any) -> Part:
    return {"type": "tool-pick", "toolCallId": id, "state": state, "input": {"x": 1}, **fields}


def asked(*messages: Part, **body: Any) -> Part:
    return {"id": "c1", "trigger": "submit-message", "messages": [*messages] or [user()], **body}


def parts(answer: Answer) -> list[Part]:
    """What is told, less the times; all but the end, which is [DONE]."""
    *said, done = answer.events
    assert done.data == "[DONE]"
    return [without_times(json.loads(one.data)) for one in said]


def without_times(part: Part) -> Part:
    times = ("durationMs", "firstTokenMs")
    metadata = {name: value for name, value in (part.get("messageMetadata") or {}).items() if name not in times}
    return part | ({"messageMetadata": metadata} if metadata else {})


def kinds(said: Sequence[Part]) -> str:
    return " ".join(part["type"] for part in said)


async def post(s: Sidecar, body: Part, **headers: str) -> Answer:
    return await s.post(body, "/ui/chat", headers)


# -- what is written


async def test_a_text() -> None:
    async with sidecar(reply(chunk("Hel"), chunk("lo"), finish(), usage(1, 2), DONE)) as s:
        answer = await post(s, asked())
    assert answer.headers["x-vercel-ai-ui-message-stream"] == "v1"
    said = parts(answer)
    assert said[0]["messageId"].startswith("msg-")
    assert said[1:] == [
        {"type": "start-step"},
        {"type": "text-start", "id": "1"},
        {"type": "text-delta", "id": "1", "delta": "Hel"},
        {"type": "text-delta", "id": "1", "delta": "lo"},
        {"type": "text-end", "id": "1"},
        {"type": "finish-step"},
        {
            "type": "finish",
            "finishReason": "stop",
            "messageMetadata": {"state": "done", "usage": {"inputTokens": 1, "outputTokens": 2, "totalTokens": 3}},
        },
    ]


async def test_the_times_are_milliseconds_since_the_request() -> None:
    async with sidecar(reply(chunk("Hello"), finish(), DONE)) as s:
        metadata = json.loads((await post(s, asked())).events[-2].data)["messageMetadata"]
    assert 0 <= metadata["firstTokenMs"] <= metadata["durationMs"] < 5000


async def test_reasoning_stands_before_the_text_and_tokens_are_counted_in_detail() -> None:
    details = {
        "prompt_tokens": 5,
        "completion_tokens": 7,
        "total_tokens": 12,
        "completion_tokens_details": {"reasoning_tokens": 4},
        "prompt_tokens_details": {"cached_tokens": 3},
    }
    thinks = [event(chunk_object({"reasoning_content": thought})) for thought in ("Let me ", "think.")]
    counted = event({**chunk_object({}), "choices": [], "usage": details})
    async with sidecar(reply(*thinks, chunk("So: 42"), finish(), counted, DONE)) as s:
        said = parts(await post(s, asked()))
    assert kinds(said[2:-2]) == "reasoning-start reasoning-delta reasoning-delta reasoning-end text-start text-delta text-end"
    assert said[-1]["messageMetadata"]["usage"] == {
        "inputTokens": 5,
        "outputTokens": 7,
        "totalTokens": 12,
        "reasoningTokens": 4,
        "cachedInputTokens": 3,
    }


async def test_a_tool_of_the_sidecars_runs_between_two_steps() -> None:
    async with sidecar(*TOOL) as s:
        said = parts(await post(s, asked(tools=["calculate"])))
    assert kinds(said) == (
        "start start-step text-start text-delta text-end tool-input-start tool-input-delta tool-input-available "
        "tool-output-available finish-step start-step text-start text-delta text-end finish-step finish"
    )
    whose = {"toolCallId": "call_1", "dynamic": True, "providerExecuted": True}
    assert said[5] == {"type": "tool-input-start", "toolName": "calculate", **whose}
    assert said[7] == {"type": "tool-input-available", "toolName": "calculate", "input": {"expression": "6*7"}, **whose}
    assert said[8] == {"type": "tool-output-available", "output": 42, **whose}
    assert said[-1]["messageMetadata"]["usage"]["totalTokens"] == 10


async def test_a_tool_that_fails_says_why() -> None:
    async with sidecar(reply(call("calculate", '{"expression": "1/0"}'), finish("tool_calls"), DONE), TOOL[1]) as s:
        said = parts(await post(s, asked(tools=["calculate"])))
    [error] = [part for part in said if part["type"] == "tool-output-error"]
    assert "zero" in error["errorText"]


async def test_a_tool_of_the_clients_is_left_to_the_client() -> None:
    async with sidecar(reply(call("pick", '{"x": 1}'), finish("tool_calls"), DONE)) as s:
        said = parts(await post(s, asked(tools=["calculate", PICK])))
        assert len(s.upstream.requests[0].body["tools"]) == 2
    assert kinds(said[2:]) == "tool-input-start tool-input-delta tool-input-available finish-step finish"
    assert said[4] == {"type": "tool-input-available", "toolCallId": "call_1", "toolName": "pick", "input": {"x": 1}}
    assert said[-1]["finishReason"] == "tool-calls"


async def test_what_else_the_upstream_sent_with_a_call_is_kept_by_the_client() -> None:
    signed = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "pick", "arguments": "{}"}, **SIGNED}
    script = reply(event(chunk_object({"tool_calls": [signed]})), finish("tool_calls"), DONE)
    async with sidecar(script) as s:
        [part] = [part for part in parts(await post(s, asked(tools=[PICK]))) if part["type"] == "tool-input-available"]
    assert part["providerMetadata"] == {"sidestream": SIGNED}


async def test_arguments_that_are_not_json_are_an_error_of_the_call() -> None:
    async with sidecar(reply(call("pick", '{"x": '), finish("length"), DONE)) as s:
        said = parts(await post(s, asked(tools=[PICK])))
    assert (said[4]["type"], said[4]["input"], said[-1]["finishReason"]) == ("tool-input-error", '{"x": ', "length")


async def test_a_call_that_is_not_run_is_closed() -> None:
    async with sidecar(reply(call("calculate", '{"expression": "6*7"}'), finish("tool_calls"), DONE), max_stages=1) as s:
        said = parts(await post(s, asked(tools=["calculate"])))
    assert kinds(said[-3:]) == "tool-output-error finish-step finish"


@pytest.mark.parametrize(
    ("reason", "told"),
    [("stop", "stop"), ("content_filter", "content-filter"), ("length", "length"), ("eos", "other")],
)
async def test_finish_reasons_have_the_clients_names(reason: str, told: str) -> None:
    async with sidecar(reply(chunk("a"), finish(reason), DONE)) as s:
        assert parts(await post(s, asked()))[-1]["finishReason"] == told


# -- how it ends otherwise


async def test_what_fails_closes_what_is_open_and_says_so() -> None:
    async with sidecar(reply(chunk("Half"), BREAK)) as s:
        said = parts(await post(s, asked()))
    assert kinds(said[2:]) == "text-start text-delta text-end message-metadata error"
    assert said[-2]["messageMetadata"] == {"state": "failed", "code": "broken", "retryable": True}
    assert said[-1]["errorText"]


async def test_what_is_stopped_closes_what_is_open_and_says_so() -> None:
    pieces = [chunk("a"), call("calculate", '{"expr')]
    async with sidecar(reply(*pieces, HANG)) as s, s.watching("/ui/chat", asked(tools=["calculate"])) as client:
        while b"inputTextDelta" not in client.raw:
            await client.next()
        assert (await s.post(None, "/ui/chat/c1/stop")).status == 204
        async for _ in client:
            pass
        said = [json.loads(line[6:]) for line in client.raw.decode().splitlines() if line.startswith("data: {")]
        await s.upstream.wait_for(running=0)
        assert (await s.post(None, "/ui/chat/c1/stop")).status == 204, "twice means the same"
    assert kinds(said[2:]) == (
        "text-start text-delta text-end tool-input-start tool-input-delta tool-input-error message-metadata abort"
    )
    assert without_times(said[-2])["messageMetadata"] == {"state": "cancelled", "reason": "deleted"}
    assert (said[-3]["input"], said[-1]["reason"]) == ('{"expr', "deleted")


async def test_a_call_that_the_sidecar_was_running_is_closed_too() -> None:
    body = asked(tools=["calculate"])
    async with chat(*TOOL) as upstream, aclosing(upstream.answer(body, UIMessages)) as answer:
        async for item in answer:
            if b"tool-input-available" in encoded(answer.format.item(item)):
                break
        said = [json.loads(one.data) for one in events(answer.format.failed(FAILURE))[:-1]]
    assert kinds(said) == "tool-output-error message-metadata error"


# -- coming back


async def test_a_page_that_comes_back_gets_the_whole_answer_again() -> None:
    async with sidecar(*TOOL) as s:
        whole = await post(s, asked(tools=["calculate"]))
        again = await s.get("/ui/chat/c1/stream")
        assert (again.status, again.body) == (200, whole.body)
        assert again.headers["x-vercel-ai-ui-message-stream"] == "v1"
        assert (await s.get("/ui/chat/c1/stream?running=1")).status == 204
        assert (await s.get("/ui/chat/c2/stream")).status == 204
        last = whole.events[4].last_event_id
        rest = await s.get("/ui/chat/c1/stream", {"last-event-id": last})
        assert [one.data for one in rest.events] == [one.data for one in whole.events[5:]]
        assert (await s.get("/ui/chat/c1/stream", {"last-event-id": whole.last_event_id})).status == 204


async def test_while_it_runs_it_is_told_from_its_beginning_and_live() -> None:
    async with sidecar(reply(chunk("Hello"), HANG)) as s, s.watching("/ui/chat", asked()) as first:
        one = [(await first.next()).data for _ in range(4)]
        async with open_stream(s.app, "/ui/chat/c1/stream?running=1", headers={"host": HOST}) as second:
            assert [(await second.next()).data for _ in range(4)] == one
            await s.post(None, "/ui/chat/c1/stop")
            assert [one.data async for one in first] == [one.data async for one in second]


async def test_an_answer_in_another_format_is_not_told() -> None:
    async with sidecar(reply(chunk("Hello"), HANG)) as s:
        await s.post({"prompt": "Hello", "conversation": "c1"}, "/chat", JSON)
        answer = await s.get("/ui/chat/c1/stream")
        assert (answer.status, answer.headers["content-type"]) == (409, "text/plain")
        assert (await post(s, asked())).status == 409
        assert (await s.post(None, "/ui/chat/c1/stop")).status == 204
        await s.upstream.wait_for(running=0)


async def test_what_goes_on_with_a_message_keeps_its_id_and_tells_those_who_come_back_its_earlier_parts() -> None:
    earlier = assistant(
        {"type": "step-start"},
        {"type": "reasoning", "text": "hm"},
        text("I pick."),
        {"type": "dynamic-tool", "toolName": "calculate", "toolCallId": "k", "state": "output-error", "errorText": "no"},
        tool("output-available", output="red"),
        {"type": "data-note", "id": "n", "data": 1},
    )
    async with sidecar(reply(chunk("Red."), finish(), DONE)) as s:
        posted = parts(await post(s, asked(user(), {**earlier, "metadata": {"mine": 1}}, tools=["calculate", PICK])))
        back = parts(await s.get("/ui/chat/c1/stream"))
    assert posted[0] == {"type": "start", "messageId": "a1", "messageMetadata": {"mine": 1, "state": "streaming"}}
    assert kinds(posted[:3]) == "start start-step text-start"
    assert back[-len(posted) :] == posted
    told = back[: -len(posted)]
    assert kinds(told) == (
        "start start-step reasoning-start reasoning-delta reasoning-end text-start text-delta text-end tool-input-start "
        "tool-input-delta tool-output-error tool-input-start tool-input-delta tool-output-available data-note"
    )
    assert [part for part in told if part.get("toolCallId") == "call_1"] == [
        {"type": "tool-input-start", "toolCallId": "call_1", "toolName": "pick", "providerExecuted": False},
        {"type": "tool-input-delta", "toolCallId": "call_1", "inputTextDelta": '{"x":1}'},
        {"type": "tool-output-available", "toolCallId": "call_1", "output": "red"},
    ]


async def test_after_a_gap_what_is_open_begins_once_more() -> None:
    words = [chunk(f"w{number} ") for number in range(10)]
    script = reply(call("pick", '{"x": 1}'), *words, finish(), DONE)
    async with sidecar(script, replay_events=8) as s:
        await post(s, asked(tools=[PICK]))
        back = await s.get("/ui/chat/c1/stream")
    said, held = parts(back), int(back.events[4].last_event_id.partition(".")[2])
    assert kinds(said[:5]) == "start data-gap tool-input-start text-start text-delta"
    assert said[1]["data"] == {"first": 1, "last": held - 1}
    assert said[4]["id"] == said[3]["id"]


# -- what is read


def messages(*given: Part, **body: Any) -> list[Part]:
    return [*UIMessages(asked(*given, **body), Offer()).request.messages]


CALL = {"id": "call_1", "type": "function", "function": {"name": "pick", "arguments": '{"x":1}'}}
SIGNED = {"extra_content": {"google": {"thought_signature": "abc"}}}
IMAGE = {"type": "file", "mediaType": "image/png", "url": "data:image/png;base64,AA=="}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([user(text("Hel"), text("lo"))], [{"role": "user", "content": "Hello"}]),
        (
            [{**user(), "role": "system"}, user()],
            [{"role": "system", "content": "Hello"}, {"role": "user", "content": "Hello"}],
        ),
        (
            [user(text("What is this?"), IMAGE, {"type": "data-place", "data": 1})],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "What is this?"},
                        {"type": "image_url", "image_url": {"url": IMAGE["url"]}},
                    ],
                }
            ],
        ),
        (
            [assistant({"type": "step-start"}, {"type": "reasoning", "text": "hm"}, text("Yes."))],
            [{"role": "assistant", "content": "Yes."}],
        ),
        (
            [assistant(text("I pick."), tool("output-available", output={"colour": "red"}), text("Red."))],
            [
                {"role": "assistant", "content": "I pick.", "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": '{"colour":"red"}'},
                {"role": "assistant", "content": "Red."},
            ],
        ),
        (
            [assistant(tool("output-error", errorText="no"), tool("input-available", id="call_2"))],
            [
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call_1", "content": '{"error":"no"}'},
            ],
        ),
        (
            [assistant(tool("output-available", output="red", callProviderMetadata={"sidestream": SIGNED, "other": {}}))],
            [
                {"role": "assistant", "content": None, "tool_calls": [{**CALL, **SIGNED}]},
                {"role": "tool", "tool_call_id": "call_1", "content": "red"},
            ],
        ),
        ([user(), assistant(tool("input-streaming"))], [{"role": "user", "content": "Hello"}]),
    ],
)
def test_messages_of_the_client_become_messages_of_a_chat(given: list[Part], expected: list[Part]) -> None:
    assert messages(*given) == expected


def test_what_the_application_adds_to_the_body_is_the_requests_own() -> None:
    body = asked(tools=["calculate", PICK], model="m", temperature=0.5, linger=60, replace=True)
    request = UIMessages(body, Offer(["calculate"])).request
    assert (request.model, request.linger, request.own_tools, request.client_tools) == ("m", 60, ("calculate",), (PICK,))
    assert (request.parameters["temperature"], set(body) & set(request.parameters)) == (0.5, {"temperature"})
    assert request.conversation is not None
    assert (request.conversation.key, request.conversation.replace) == ("c1", True)


def test_the_operators_system_message_stands_before_messages_that_have_none() -> None:
    def roles(*given: Part) -> list[str]:
        return [message["role"] for message in UIMessages(asked(*given), Offer(system="Be kind.")).request.messages]

    assert roles(user()) == ["system", "user"]
    assert roles({**user(), "role": "system"}, user()) == ["system", "user"]


@pytest.mark.parametrize(
    ("body", "status", "place"),
    [
        ([], 400, None),
        ({"id": "c1"}, 422, "messages"),
        (asked(user(), "Hello"), 422, "messages[1].role"),  # type: ignore[arg-type]
        (asked({"role": "tool", "parts": []}), 422, "messages[0].role"),
        (asked({"role": "user", "content": "Hello"}), 422, "messages[0].parts"),
        (asked(user({"text": "Hello"})), 422, "messages[0].parts"),
        (asked(user({**IMAGE, "mediaType": "video/mp4"})), 422, "messages"),
        (asked(assistant()), 422, "messages"),
        (asked() | {"id": 7}, 422, "conversation"),
    ],
)
def test_bodies_that_can_not_be_used(body: Any, status: int, place: str | None) -> None:
    with pytest.raises(Problem) as raised:
        UIMessages(body, Offer())
    assert (raised.value.status, raised.value.members.get("parameter")) == (status, place)


async def test_errors_are_texts_which_the_client_shows() -> None:
    async with sidecar(error_reply(503, {"error": {"message": "busy"}}, retry_after="60")) as s:
        wrong = await post(s, {"id": "c1"})
        assert (wrong.status, wrong.headers["content-type"]) == (422, "text/plain")
        assert wrong.body.startswith(b"messages: ")
        refused = parts(await post(s, asked()))
    assert kinds(refused) == "start start-step message-metadata error"
    assert "busy" in refused[-1]["errorText"]


@pytest.mark.parametrize(
    "arguments", ["[" * 5000 + "]" * 5000, '{"a": ' + "[" * 300 + "]" * 300 + "}", "[" + "[]," * 60_000 + "[]]"]
)
def test_arguments_that_are_too_much_are_an_error_of_the_call(arguments: str) -> None:
    format = UIMessages({"messages": [{"role": "user", "parts": [{"type": "text", "text": "x"}]}]}, Offer({}))
    format.item(items.CallBegun(0, "c", "f"))
    (event,) = format.item(items.CallEnded(items.Call(0, "c", "f", arguments)))
    assert b'"type":"tool-input-error"' in bytes(event)

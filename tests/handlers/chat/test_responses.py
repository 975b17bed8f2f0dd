"""The Responses API in process, in front of a real upstream: what a request asks of the model, the routes, what is refused."""

import asyncio
import json
import time
from typing import Any

import pytest

from app import Sidestream
from handlers.chat import engine, responses
from handlers.chat.items import CODES
from handlers.chat.responses import _items
from sidecar.settings import Settings
from sse.testing import open_stream
from tests.handlers.chat.test_routes import BEGUN, FAILURES, LONG
from tests.support import clock
from tests.support.app import HOST, JSON, Answer, ask
from tests.support.chat import KEY
from tests.support.chatting import Sidecar, demo, sidecar
from tests.support.responding import EVERYTHING, HELLO, LOOKUP, RESPONSES, kinds, payloads
from tests.support.upstream import DONE, HANG, call, chunk, finish, reply

SLOW = reply(chunk("Hel"), HANG)
BACKGROUND = {"input": "Hi", "background": True}


async def create(s: Sidecar, **body: Any) -> Any:
    """The object that a request is answered with."""
    answer = await s.post({"input": "Hi", **body}, RESPONSES)
    assert answer.status == 200, answer.body
    return answer.json


async def replayed(s: Sidecar, id: str, query: str = "") -> Answer:
    return await s.get(f"{RESPONSES}/{id}?stream=true{query}")


async def running(s: Sidecar) -> None:
    """Wait until an answer has begun: the upstream's status is known."""
    async with asyncio.timeout(5):
        while not s.app.service.store.running:
            await asyncio.sleep(0)


# -- what a request asks of the model


async def asked(s: Sidecar, **body: Any) -> Any:
    await create(s, **body)
    return s.upstream.requests[-1].body


CALL = {"type": "function_call", "call_id": "c1", "name": "lookup", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c1", "output": "found"}
IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"}


def calls(*ids: str) -> list[dict[str, Any]]:
    return [{"id": id, "type": "function", "function": {"name": "lookup", "arguments": "{}"}} for id in ids]


INPUTS: dict[str, tuple[Any, list[dict[str, Any]]]] = {
    "a text": ("Hi", [{"role": "user", "content": "Hi"}]),
    "a message": ([{"role": "user", "content": "Hi"}], [{"role": "user", "content": "Hi"}]),
    "a developer": ([{"role": "developer", "content": "Be brief."}], [{"role": "system", "content": "Be brief."}]),
    "texts": (
        [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": text} for text in "ab"]}],
        [{"role": "user", "content": "a\nb"}],
    ),
    "an image": (
        [{"role": "user", "content": [{"type": "input_text", "text": "What?"}, IMAGE]}],
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What?"},
                    {"type": "image_url", "image_url": {"url": IMAGE["image_url"], "detail": "low"}},
                ],
            }
        ],
    ),
    "an answer and its refusal": (
        [{"role": "assistant", "content": [{"type": "output_text", "text": "No"}, {"type": "refusal", "refusal": "never"}]}],
        [{"role": "assistant", "content": "No\nnever"}],
    ),
    "calls belong to one message, that of the text before them": (
        [{"role": "assistant", "content": "So"}, CALL, {**CALL, "call_id": "c2"}, OUTPUT, {**OUTPUT, "call_id": "c2"}],
        [
            {"role": "assistant", "content": "So", "tool_calls": calls("c1", "c2")},
            {"role": "tool", "tool_call_id": "c1", "content": "found"},
            {"role": "tool", "tool_call_id": "c2", "content": "found"},
        ],
    ),
    "a call after an output is the next message": (
        [CALL, OUTPUT, CALL, {**OUTPUT, "output": [{"type": "input_text", "text": "a part"}]}],
        [
            {"role": "assistant", "content": None, "tool_calls": calls("c1")},
            {"role": "tool", "tool_call_id": "c1", "content": "found"},
            {"role": "assistant", "content": None, "tool_calls": calls("c1")},
            {"role": "tool", "tool_call_id": "c1", "content": "a part"},
        ],
    ),
    "reasoning is left out": (
        [
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"role": "user", "content": "Hi"},
        ],
        [{"role": "user", "content": "Hi"}],
    ),
}


@pytest.mark.parametrize(("given", "messages"), INPUTS.values(), ids=INPUTS.keys())
async def test_input_becomes_messages(given: Any, messages: list[dict[str, Any]]) -> None:
    async with sidecar(HELLO) as s:
        assert (await asked(s, input=given))["messages"] == messages


SCHEMA = {"name": "n", "schema": {"type": "object"}, "strict": True}
PARAMETERS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "instructions": (
        {"instructions": "Be brief."},
        {"messages": [{"role": "system", "content": "Be brief."}, *INPUTS["a text"][1]]},
    ),
    "limit": ({"max_output_tokens": 7}, {"max_tokens": 7}),
    "effort": ({"reasoning": {"effort": "low", "summary": "auto"}}, {"reasoning_effort": "low"}),
    "known there": ({"temperature": 0.5, "top_p": 0.9, "user": "u"}, {"temperature": 0.5, "top_p": 0.9, "user": "u"}),
    "known to nobody": ({"min_p": 0.1, "x": {"y": None}}, {"min_p": 0.1, "x": {"y": None}}),
    "functions": (
        {"tools": [LOOKUP], "tool_choice": "required", "parallel_tool_calls": False},
        {
            "tools": [{"type": "function", "function": {name: value for name, value in LOOKUP.items() if name != "type"}}],
            "tool_choice": "required",
            "parallel_tool_calls": False,
        },
    ),
    "one function": (
        {"tools": [LOOKUP], "tool_choice": {"type": "function", "name": "lookup"}},
        {"tool_choice": {"type": "function", "function": {"name": "lookup"}}},
    ),
    "a schema": (
        {
            "text": {
                "format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True},
                "verbosity": "low",
            }
        },
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object"}, "strict": True},
            },
            "verbosity": "low",
        },
    ),
    "a format of the upstream's": ({"text": {"format": {"type": "grammar"}}}, {"response_format": {"type": "grammar"}}),
    "any JSON": ({"text": {"format": {"type": "json_object"}}}, {"response_format": {"type": "json_object"}}),
}


@pytest.mark.parametrize(("body", "expected"), PARAMETERS.values(), ids=PARAMETERS.keys())
async def test_parameters_have_the_names_of_chat_completions(body: dict[str, Any], expected: dict[str, Any]) -> None:
    async with sidecar(HELLO) as s:
        found = await asked(s, **body)
        assert {name: found.get(name) for name in expected} == expected
        assert found["stream_options"] == {"include_usage": True}


async def test_what_belongs_to_responses_alone_is_not_passed_on() -> None:
    body = {
        "metadata": {"a": "b"},
        "store": True,
        "include": ["reasoning.encrypted_content"],
        "tool_choice": "auto",
        "tools": [],
    }
    body |= {"truncation": "disabled", "text": {"format": {"type": "text"}}, "stream_options": {"include_obfuscation": False}}
    async with sidecar(HELLO) as s:
        assert (await asked(s, **body)).keys() == {"model", "messages", "stream", "stream_options"}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("", "max_completion_tokens"),
        ("https://eu.api.openai.com/v1", "max_completion_tokens"),
        ("https://x.openai.azure.com/openai/v1", "max_completion_tokens"),
        ("https://notopenai.com/v1", "max_tokens"),
        ("http://127.0.0.1:11434/v1", "max_tokens"),
    ],
)
async def test_the_limit_has_the_name_that_the_upstream_knows(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    app = Sidestream(Settings())
    assert app.service
    assert app.features is not None
    assert app.features.chat.offer.limit == name


async def test_a_model_that_is_not_named_is_the_default() -> None:
    async with sidecar(HELLO, model="small") as s:
        assert (await create(s))["model"] == "test"  # as the upstream says
        assert (await create(s, model="large"))["model"] == "large"


NO: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({"input": None}, "input"),
    "an empty list": ({"input": []}, "input"),
    "a number": ({"input": 7}, "input"),
    "too many": ({"input": [{"role": "user", "content": "x"}] * 10_000}, "input"),
    "an item that is none": ({"input": ["Hi"]}, "input[0].type"),
    "a hosted tool's call": ({"input": [{"type": "web_search_call", "id": "ws_1"}]}, "input[0].type"),
    "an odd type": ({"input": [{"type": ["message"], "role": "user"}]}, "input[0].type"),
    "no role": ({"input": [{"content": "Hi"}]}, "input[0].role"),
    "no content": ({"input": [{"role": "user"}]}, "input[0].content"),
    "audio": (
        {"input": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        "input[0].content[0]",
    ),
    "a file": (
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]},
        "input[0].content[0]",
    ),
    "an image by id": (
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]},
        "input[0].content[0]",
    ),
    "an output without its call": ({"input": [{"type": "function_call_output", "output": ""}]}, "input[0].call_id"),
    "an output of nothing": ({"input": [{**OUTPUT, "output": None}]}, "input[0].output"),
    "arguments that are no text": ({"input": [{**CALL, "arguments": {}}]}, "input[0].arguments"),
    "an item that is not kept": ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
    "a response that is not kept": ({"previous_response_id": "resp_1"}, "previous_response_id"),
    "a hosted tool": ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    "a custom tool": ({"tools": [LOOKUP, {"type": "custom", "name": "x"}]}, "tools[1].type"),
    "a tool without name": ({"tools": [{"type": "function"}]}, "tools[0].type"),
    "an unknown tool": ({"tools": ["nothing"]}, "tools[0]"),
    "a choice": ({"tools": [LOOKUP], "tool_choice": {"type": "web_search"}}, "tool_choice"),
    "truncation": ({"truncation": "auto"}, "truncation"),
    "a conversation": ({"conversation": "conv_1"}, "conversation"),
    "a template": ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    "calls": ({"max_tool_calls": 1}, "max_tool_calls"),
    "logprobs": ({"top_logprobs": 1}, "top_logprobs"),
    "several answers": ({"n": 2}, "n"),
    "a limit": ({"max_output_tokens": 0}, "max_output_tokens"),
    "a flag": ({"stream": "yes"}, "stream"),
    "metadata": ({"metadata": {str(number): "" for number in range(17)}}, "metadata"),
    "forgotten in the background": ({"background": True, "store": False}, "store"),
    "linger": ({"background": True, "linger": -1}, "linger"),
}


@pytest.mark.parametrize(("body", "parameter"), NO.values(), ids=NO.keys())
async def test_what_cant_be_done_is_a_400_that_names_the_parameter(body: dict[str, Any], parameter: str) -> None:
    answer = await ask(demo(), RESPONSES, method="POST", json={"input": "Hi", **body})
    error = answer.json["error"]
    assert (answer.status, error["type"], error["param"]) == (400, "invalid_request_error", parameter), error
    assert parameter.split("[")[0].split(".")[0] in error["message"] or "Previous response" in error["message"]


async def test_a_body_that_is_no_object_is_a_400() -> None:
    bodies: list[Any] = [[], "Hi", 7]
    for body in bodies:
        answer = await ask(demo(), RESPONSES, method="POST", json=body)
        assert (answer.status, answer.json["error"]["type"]) == (400, "invalid_request_error")


# -- the object


async def test_the_object_repeats_what_was_asked_for() -> None:
    body: dict[str, Any] = {"instructions": "Be brief.", "temperature": 0.5, "metadata": {"a": "b"}}
    body |= {"tools": [LOOKUP, "calculate"], "reasoning": {"effort": "low"}, "text": {"verbosity": "low"}}
    body |= {"max_output_tokens": 9, "model": "large"}
    async with sidecar(HELLO) as s:
        found = await create(s, **body)
    told = {name: found[name] for name in ("instructions", "temperature", "metadata", "max_output_tokens", "model")}
    assert told == {name: body[name] for name in told}
    assert found["reasoning"] == {"effort": "low", "summary": None}
    assert found["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert [tool["name"] for tool in found["tools"]] == ["lookup", "calculate"]
    assert (found["object"], found["truncation"], found["tool_choice"], found["store"]) == (
        "response",
        "disabled",
        "auto",
        True,
    )
    assert found["completed_at"] >= found["created_at"]


async def test_it_is_complete_while_it_runs() -> None:
    async with (
        sidecar(reply(*EVERYTHING.steps[:6], HANG)) as s,
        s.watching(RESPONSES, {**BACKGROUND, "stream": True}) as client,
    ):
        while (await client.next()).data.count('\\"a\\"}') == 0:
            pass
        [stream] = s.app.service.store.running
        found = (await s.get(f"{RESPONSES}/resp_{stream}")).json
        state = (await s.get(f"/streams/{stream}", JSON)).json
    assert (found["status"], found["usage"]) == ("in_progress", None)
    assert [item["status"] for item in found["output"]] == ["completed", "completed", "in_progress"]
    assert found["output"][1]["content"][0]["text"] == "I look it up."
    assert found["output"][2]["arguments"] == '{"word": "a"}'
    assert state["result"]["response"]["id"] == found["id"]


# -- in the foreground and in the background


async def test_in_the_background_the_answer_is_there_before_the_work() -> None:
    async with sidecar(SLOW) as s:
        found = await create(s, background=True)
        assert (found["status"], found["background"], found["output"]) == ("queued", True, [])
        await s.upstream.wait_for(running=1)
        assert (await s.get(f"{RESPONSES}/{found['id']}")).json["status"] == "in_progress"


@pytest.mark.parametrize("stream", [True, False])
async def test_in_the_foreground_a_client_that_goes_ends_the_work(stream: bool) -> None:
    async with sidecar(SLOW) as s:
        async with open_stream(
            s.app, RESPONSES, method="POST", json={"input": "Hi", "stream": stream}, headers={"host": HOST}, wait=stream
        ):
            await running(s)
        await s.upstream.wait_for(running=0)
        [held] = s.app.service.store.streams.values()
        assert (await s.get(f"{RESPONSES}/resp_{held.id}")).json["status"] == "cancelled"


async def test_in_the_background_the_work_goes_on_for_as_long_as_the_request_says() -> None:
    async with sidecar(SLOW) as s:
        for linger, status in ((None, "in_progress"), (0, "cancelled")):
            async with s.watching(RESPONSES, {**BACKGROUND, "stream": True, "linger": linger}) as client:
                await client.next()
                *_, id = s.app.service.store.streams
            if status == "cancelled":
                await s.upstream.wait_for(running=1)
            assert (await s.get(f"{RESPONSES}/resp_{id}")).json["status"] == status


async def test_what_is_not_stored_cant_be_found() -> None:
    async with sidecar(HELLO) as s:
        for stream in (True, False):
            answer = await s.post({"input": "Hi", "store": False, "stream": stream}, RESPONSES)
            id = (payloads(answer)[-1]["response"] if stream else answer.json)["id"]
            assert (await s.get(f"{RESPONSES}/{id}")).status == 404
        assert s.app.service.store.budget.used == 0


# -- coming back


async def test_a_replay_after_every_event_is_the_same_bytes() -> None:
    async with sidecar(EVERYTHING) as s:
        whole = await s.post({**BACKGROUND, "stream": True}, RESPONSES)
        found = payloads(whole)
        id, blocks = found[-1]["response"]["id"], whole.body.removeprefix(b":\n").split(b"\n\n")
        for after in range(len(found)):
            again = await replayed(s, id, f"&starting_after={after}")
            assert (again.status, again.headers["content-type"]) == (200, "text/event-stream")
            assert again.body.removeprefix(b":\n") == b"\n\n".join(blocks[after + 1 :])
        assert (await replayed(s, id)).body == whole.body
        assert s.asked == 1


async def test_whoever_comes_back_in_the_middle_gets_what_is_there_and_what_comes() -> None:
    go_on = asyncio.Event()
    async with sidecar(reply(chunk("Hel"), go_on, chunk("lo"), finish(), DONE)) as s:
        id = (await create(s, background=True))["id"]
        async with open_stream(s.app, f"{RESPONSES}/{id}?stream=true&starting_after=1", headers={"host": HOST}) as client:
            assert json.loads((await client.next()).data)["sequence_number"] == 2
            go_on.set()
            rest = [json.loads(event.data)["sequence_number"] async for event in client]
    assert rest == list(range(3, rest[-1] + 1))


@pytest.mark.parametrize("after", ["-1", "x", "1e3", "100"])
async def test_a_position_that_there_is_not_is_a_400(after: str) -> None:
    async with sidecar(HELLO) as s:
        id = payloads(await s.post({**BACKGROUND, "stream": True}, RESPONSES))[-1]["response"]["id"]
        answer = await replayed(s, id, f"&starting_after={after}")
    assert (answer.status, answer.json["error"]["param"]) == (400, "starting_after")


async def test_below_the_oldest_event_held_there_is_a_400_and_never_a_hole() -> None:
    async with sidecar(reply(*map(chunk, "abcdefghij"), finish(), DONE), replay_events=5) as s:
        found = payloads(await s.post({**BACKGROUND, "stream": True}, RESPONSES))
        id, last = found[-1]["response"]["id"], found[-1]["sequence_number"]
        oldest = s.app.service.store.streams[id.removeprefix("resp_")].log.first - 1
        statuses = {after: (await replayed(s, id, f"&starting_after={after}")).status for after in range(last)}
        assert statuses == {after: 200 if after + 1 >= oldest else 400 for after in range(last)}
        answer = await replayed(s, id)
        assert (answer.status, answer.json["error"]["param"]) == (400, "starting_after")
        assert str(oldest) in answer.json["error"]["message"]
        assert payloads(await replayed(s, id, f"&starting_after={oldest - 1}"))[0]["sequence_number"] == oldest


async def test_only_what_runs_in_the_background_can_be_streamed_again() -> None:
    async with sidecar(HELLO) as s:
        id = (await create(s))["id"]
        answer = await replayed(s, id)
        assert (answer.status, answer.json["error"]["param"]) == (400, "stream")
        assert (await s.get(f"{RESPONSES}/{id}")).json["status"] == "completed"


async def test_its_stream_can_be_watched_and_cancelled_as_any_other() -> None:
    async with sidecar(SLOW) as s:
        async with s.watching(RESPONSES, {**BACKGROUND, "stream": True}) as client:
            await client.next()
            url, key = client.headers["location"], client.headers["stream-key"]
        async with open_stream(s.app, url, headers={"host": HOST}) as watcher:
            assert json.loads((await watcher.next()).data)["type"] == "response.created"
            assert (await ask(s.app, url, method="DELETE", headers={"stream-key": key})).status == 204
            last = [json.loads(event.data) async for event in watcher][-1]
        assert (last["type"], last["response"]["status"]) == ("response.incomplete", "cancelled")
        stream_id = url.rpartition("/")[2]
        rest = await s.get(f"{url}?last_event_id={stream_id}.2")
        assert payloads(rest)[0]["sequence_number"] == 2


# -- cancel and delete


async def test_cancelling_twice_is_the_same() -> None:
    async with sidecar(SLOW) as s:
        id = (await create(s, background=True))["id"]
        await s.upstream.wait_for(running=1)
        first, second = [await ask(s.app, f"{RESPONSES}/{id}/cancel", method="POST") for _ in range(2)]
        assert (first.status, first.json["status"], first.body) == (200, "cancelled", second.body)
        await s.upstream.wait_for(running=0)
        assert kinds(payloads(await replayed(s, id)))[-1] == "incomplete"


async def test_what_is_complete_stays_so_and_what_runs_in_the_foreground_cant_be_cancelled() -> None:
    async with sidecar(HELLO) as s:
        done = payloads(await s.post({**BACKGROUND, "stream": True}, RESPONSES))[-1]["response"]
        assert (await ask(s.app, f"{RESPONSES}/{done['id']}/cancel", method="POST")).json == done
        id = (await create(s))["id"]
        assert (await ask(s.app, f"{RESPONSES}/{id}/cancel", method="POST")).status == 400


async def test_what_is_deleted_ends_for_those_who_watch_it_and_is_gone() -> None:
    async with sidecar(SLOW) as s, s.watching(RESPONSES, {**BACKGROUND, "stream": True}) as client:
        id = json.loads((await client.next()).data)["response"]["id"]
        deleted = await ask(s.app, f"{RESPONSES}/{id}", method="DELETE")
        assert (deleted.status, deleted.json) == (200, {"id": id, "object": "response", "deleted": True})
        assert [json.loads(event.data)["type"] async for event in client][-1] == "response.incomplete"
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            assert (await ask(s.app, f"{RESPONSES}/{id}{path}", method=method)).status == 404
        assert (await s.get(f"/streams/{id.removeprefix('resp_')}")).status == 404
        await s.upstream.wait_for(running=0)


async def test_what_is_deleted_gives_its_memory_back() -> None:
    async with sidecar(HELLO) as s:
        id = (await create(s))["id"]
        assert s.app.service.store.budget.used > 0
        await ask(s.app, f"{RESPONSES}/{id}", method="DELETE")
        assert s.app.service.store.budget.used == 0


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("POST", "/cancel"), ("DELETE", ""), ("GET", "/input_items")])
async def test_an_unknown_id_and_one_of_another_format_are_not_found(method: str, path: str) -> None:
    async with sidecar(HELLO) as s:
        other = (await s.post({"prompt": "Hi"})).headers["location"].rpartition("/")[2]
        for id in (f"resp_{other}", "resp_unknown", other, "conv_1"):
            answer = await ask(s.app, f"{RESPONSES}/{id}{path}", method=method)
            assert (answer.status, answer.json["error"]["type"]) == (404, "invalid_request_error")
        assert other in s.app.service.store.streams


async def test_all_of_it_takes_the_token() -> None:
    async with sidecar(HELLO, token=("secret",)) as s:
        ways = [("POST", RESPONSES), ("GET", f"{RESPONSES}/resp_1"), ("DELETE", f"{RESPONSES}/resp_1")]
        ways += [("POST", f"{RESPONSES}/resp_1/cancel"), ("GET", f"{RESPONSES}/resp_1/input_items")]
        for method, path in ways:
            answer = await ask(s.app, path, method=method, json=BACKGROUND if path == RESPONSES else None)
            assert (answer.status, answer.json["error"]["type"]) == (401, "invalid_request_error")
        assert s.asked == 0


# -- what a response was made of


async def test_the_next_response_goes_on_where_the_one_before_ended() -> None:
    called = reply(chunk("So"), call("lookup", "{}"), finish("tool_calls"), DONE)
    async with sidecar(called, HELLO) as s:
        first = await create(s, instructions="Be brief.", tools=[LOOKUP])
        second = await create(s, previous_response_id=first["id"], input=[{**OUTPUT, "call_id": "call_1"}])
        third = await create(s, previous_response_id=second["id"], input="And?")
        messages = s.upstream.requests[-1].body["messages"]
        listed = (await s.get(f"{RESPONSES}/{third['id']}/input_items?order=asc")).json["data"]
    assert third["previous_response_id"] == second["id"]
    assert messages == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "So", "tool_calls": [{**calls("call_1")[0]}]},
        {"role": "tool", "tool_call_id": "call_1", "content": "found"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "And?"},
    ]
    assert [item["type"] for item in listed] == [
        "message",
        "message",
        "function_call",
        "function_call_output",
        "message",
        "message",
    ]
    assert len({item["id"] for item in listed}) == 6


async def test_items_can_be_referred_to_for_as_long_as_they_are_kept() -> None:
    async with sidecar(EVERYTHING, HELLO) as s:
        first = await create(s, tools=[LOOKUP])
        references = [{"type": "item_reference", "id": item["id"]} for item in first["output"]]
        references[0] = {"id": references[0]["id"]}
        outputs = [{**OUTPUT, "call_id": f"call_{number}"} for number in (1, 2)]
        await create(s, input=[{"role": "user", "content": "Hi"}, *references, *outputs])
        _, assistant, *tools = s.upstream.requests[-1].body["messages"]
        await ask(s.app, f"{RESPONSES}/{first['id']}", method="DELETE")
        answer = await s.post({"input": references}, RESPONSES)
    assert (assistant["content"], len(assistant["tool_calls"]), len(tools)) == ("I look it up.", 2, 2)
    assert (answer.status, answer.json["error"]["param"]) == (400, "input[0].id")


@pytest.mark.parametrize("times", [3, 1900])
async def test_what_is_referred_to_is_no_larger_than_a_body_may_be(times: int) -> None:
    """A thousand references to one item of 4 MB would be 4 GB."""
    async with sidecar(HELLO, max_body=1 << 20) as s:
        first = await create(s, input=[{"role": "user", "content": "x" * 400_000}])
        item = (await s.get(f"{RESPONSES}/{first['id']}/input_items")).json["data"][0]["id"]
        answer = await s.post({"input": [{"type": "item_reference", "id": item}] * times}, RESPONSES)
        goes_on = {"previous_response_id": first["id"], "input": [{"type": "item_reference", "id": item}] * 2}
        assert (await s.post(goes_on, RESPONSES)).status == 413
        assert len(s.upstream.requests) == 1
    assert (answer.status, answer.json["error"]["param"]) == (413, "input")


async def test_a_conversation_is_charged_once_for_all_responses_that_hold_it() -> None:
    """Twenty turns of 50 KB take 1 MB. Each response charged by itself would come to 10 MB."""
    text = "x" * 50_000
    async with sidecar(HELLO) as s:
        budget, ids = s.app.service.store.budget, list[str]()
        for _ in range(20):
            ids.append((await create(s, input=text, previous_response_id=ids[-1] if ids else None))["id"])
        assert 20 * len(text) < budget.charged < 40 * len(text)
        for id in ids[:-1]:
            await ask(s.app, f"{RESPONSES}/{id}", method="DELETE")
        assert 20 * len(text) < budget.charged, "the last one has all of it"
        await ask(s.app, f"{RESPONSES}/{ids[-1]}", method="DELETE")
        assert budget.charged < len(text)


async def test_a_long_text_is_not_searched_for_references() -> None:
    text = "x" * (4 << 20)
    async with sidecar() as s:
        begin = time.thread_time()
        assert await _items(s.app.service, {"input": text}) == ([], [{"role": "user", "content": text}], None)
    assert time.thread_time() - begin < 0.05


async def test_a_response_that_runs_is_none_to_go_on_from() -> None:
    async with sidecar(SLOW) as s:
        id = (await create(s, background=True))["id"]
        answer = await s.post({"input": "And?", "previous_response_id": id}, RESPONSES)
    assert (answer.status, answer.json["error"]["code"]) == (400, "previous_response_not_found")


async def test_input_items_come_in_pages() -> None:
    texts = [str(number) for number in range(5)]
    async with sidecar(HELLO) as s:
        id = (await create(s, input=[{"role": "user", "content": text} for text in texts]))["id"]
        for order, expected in (("asc", texts), ("desc", texts[::-1])):
            found: list[str] = []
            more, after = True, ""
            while more:
                page = (await s.get(f"{RESPONSES}/{id}/input_items?limit=2&order={order}{after}")).json
                found += [item["content"][0]["text"] for item in page["data"]]
                assert (page["object"], page["first_id"], page["last_id"]) == (
                    "list",
                    page["data"][0]["id"],
                    page["data"][-1]["id"],
                )
                more, after = page["has_more"], f"&after={page['last_id']}"
            assert found == expected
        assert (await s.get(f"{RESPONSES}/{id}/input_items?limit=101")).json["error"]["param"] == "limit"
        assert (await s.get(f"{RESPONSES}/{id}/input_items?after=x")).json["error"]["param"] == "after"


# -- failures


@pytest.mark.parametrize("way", ["foreground", "streamed", "background"])
@pytest.mark.parametrize("code", FAILURES)
async def test_a_failure_is_told_in_openais_shape(code: str, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the answer has begun as a status, where somebody waits for it; afterwards as events, and in the object."""
    monkeypatch.setattr(engine, "MAX_ANSWER", LONG)
    script, settings = FAILURES[code]
    async with sidecar(script, **settings) as s:
        answer = await s.post({"input": "Hi", "stream": way != "foreground", "background": way == "background"}, RESPONSES)
        await s.upstream.wait_for(running=0)
        held = list(s.app.service.store.streams)
        found = (await s.get(f"{RESPONSES}/resp_{held[0]}")).json if held else None
    assert KEY.encode() not in answer.body
    status_known = script.status != 200 or code in ("not_a_stream",)
    if way == "foreground" or (way == "streamed" and status_known):
        status = script.status if script.status != 200 else CODES[code][1]
        error = answer.json["error"]
        assert (answer.status, error["code"], error["param"]) == (status, code, None)
        assert error["type"] == ("invalid_request_error" if status < 500 else "server_error")
        assert answer.headers.get("retry-after") == script.headers.get("retry-after")
        assert bool(held) == (not status_known)
    else:
        events = payloads(answer)
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert kinds(events)[-2:] == ["error", "failed"]
        assert (events[-2]["code"], events[-1]["response"]["status"]) == (code, "failed")
        assert (b'"a"' in answer.body) == (code in BEGUN)
    if found is not None:
        expected = {"rate_limited": "rate_limit_exceeded", "bad_request": "invalid_prompt"}.get(code, "server_error")
        assert (found["status"], found["error"]["code"]) == ("failed", expected)
        assert [item["status"] for item in found["output"]] == ["incomplete"] * (code in BEGUN)


async def test_a_failed_upstream_is_asked_again_only_where_no_client_waits() -> None:
    busy = FAILURES["upstream_down"][0]
    busy = type(busy)(busy.steps, busy.status, busy.content_type, {})
    for background, asked in ((False, 1), (True, 3)):
        async with sidecar(busy) as s:
            await s.post({"input": "Hi", "stream": True, "background": background}, RESPONSES)
            assert s.asked == asked


async def test_a_drain_ends_what_runs_as_failed() -> None:
    async with sidecar(SLOW) as s:
        async with s.watching(RESPONSES, {**BACKGROUND, "stream": True}) as client:
            await client.next()
            await s.upstream.wait_for(running=1)
            await s.app.service.store.drain(0)
            events = [json.loads(event.data) async for event in client]
        id = events[-1]["response"]["id"]
        assert kinds(events)[-2:] == ["error", "failed"]
        assert events[-2]["code"] == "shutting_down"
        assert (await s.get(f"{RESPONSES}/{id}")).json["error"]["code"] == "server_error"
        refused = await s.post({"input": "Hi"}, RESPONSES)
        assert (refused.status, refused.json["error"]["type"]) == (503, "server_error")


async def test_a_drain_answers_who_waits_for_the_whole() -> None:
    async with sidecar(SLOW) as s:
        waiting = asyncio.create_task(s.post({"input": "Hi"}, RESPONSES))
        await running(s)
        await s.app.service.store.drain(0)
        answer = await waiting
    assert (answer.status, answer.json["error"]["code"]) == (500, "shutting_down")


async def test_where_there_is_no_room_nobody_is_asked() -> None:
    async with sidecar(SLOW, max_streams=1) as s:
        await create(s, background=True)
        await s.upstream.wait_for(running=1)
        for body in ({}, {"stream": True}, {"background": True}):
            answer = await s.post({"input": "Hi", **body}, RESPONSES)
            assert (answer.status, answer.json["error"]["type"]) == (503, "server_error")
        assert s.asked == 1


# -- silence


@pytest.mark.virtual_time
async def test_about_once_a_minute_silence_is_broken_by_an_event_that_counts() -> None:
    app = demo()
    app.settings = Settings(demo_interval=200, heartbeat=15)
    async with open_stream(
        app, RESPONSES, method="POST", json={"input": "Hi", "stream": True}, headers={"host": HOST}, timeout=1000
    ) as client:
        begin, last, longest, beats = clock.now(), clock.now(), 0.0, 0
        events = []
        async for event in client:
            longest, last = max(longest, clock.now() - last), clock.now()
            events.append(json.loads(event.data))
        beats = client.raw.count(b"\n:\n")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert longest <= 2 * responses.QUIET <= 60
    assert clock.now() - begin > 1000
    assert beats > 20
    assert b"\n:\n\n" not in client.raw
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert "" in deltas
    assert "".join(deltas) == "This is a mock response to: Hi"

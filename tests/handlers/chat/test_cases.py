"""What upstreams really send (tests/cases), through the whole service, in every format."""

import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import openai
import pytest

from sidecar.settings import Settings
from tests.support.app import JSON, Answer, serving
from tests.support.chat import KEY, MESSAGES
from tests.support.chatting import V1, Sidecar, named, sidecar
from tests.support.upstream import DONE, Script, chunk, finish, reply, serve

CASES = Path(__file__).parents[2] / "cases"
ANSWERED = reply(chunk("Well."), finish(), DONE)
LOOKUP = {"type": "function", "function": {"name": "calculate", "parameters": {"type": "object"}}}


def cases(name: str) -> list[Any]:
    """The cases of a file, as parameters."""
    return [pytest.param(case, id=case["name"]) for case in json.loads((CASES / f"{name}.json").read_text())["cases"]]


def script(case: dict[str, Any]) -> Script:
    return Script([case["body"].encode()], case.get("status", 200), case.get("content_type", "text/event-stream"))


FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "typed": ("/chat", {"messages": MESSAGES}),
    "plain": ("/chat", {"messages": MESSAGES, "format": "plain"}),
    "v1 streamed": (V1, {"messages": MESSAGES, "stream": True}),
    "v1 merged": (V1, {"messages": MESSAGES, "stream": True, "tools": ["current_time"]}),
    "v1 whole": (V1, {"messages": MESSAGES}),
    "v1 whole, merged": (V1, {"messages": MESSAGES, "tools": ["current_time"]}),
}


async def ask(s: Sidecar, format: str, **more: Any) -> Answer:
    path, body = FORMATS[format]
    return await s.post({**body, **more}, path)


def text_of(format: str, answer: Answer) -> str:
    if "whole" in format:
        return str(answer.json["choices"][0]["message"]["content"])
    said = ""
    for _, payload in named(answer):
        value = payload.get("chunk", payload) if isinstance(payload, dict) else {}
        content = value.get("content") if format == "plain" else _content(value)
        parts = content if isinstance(content, list) else [content]
        said += "".join(part.get("text", "") if isinstance(part, dict) else part or "" for part in parts)
    return said


def _content(value: dict[str, Any]) -> Any:
    choice: dict[str, Any] = next(filter(None, value.get("choices") or ()), {})
    return (choice.get("delta") or {}).get("content")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", cases("texts"))
async def test_the_text_arrives(case: dict[str, Any], format: str) -> None:
    async with sidecar(script(case)) as s:
        answer = await ask(s, format)
        states = [(await s.get(state["url"], JSON)).json for state in (await s.get("/streams")).json["streams"]]
    assert answer.status == 200
    assert text_of(format, answer) == case["text"]
    assert [state["state"] for state in states] in ([], ["done"])
    assert all(state["result"]["text"] == case["text"] for state in states)


@pytest.mark.parametrize("case", cases("tool_calls"))
async def test_the_sidecars_tools_are_called_as_the_model_meant(case: dict[str, Any]) -> None:
    async with sidecar(script(case), ANSWERED) as s:
        answer = await s.post({"messages": MESSAGES, "tools": ["calculate"]})
        told = s.upstream.requests[1].body["messages"]
    [calls] = [payload["tool_summary"]["calls"] for name, payload in named(answer) if name == "tool_summary"]
    assert [[call["name"], call["arguments"]] for call in calls] == [[name, json.loads(text)] for name, text in case["calls"]]
    assert all(call["ok"] for call in calls)
    made = told[1]["tool_calls"]
    assert [[call["function"]["name"], call["function"]["arguments"]] for call in made] == case["calls"]
    assert [call["id"] for call in made] == [message["tool_call_id"] for message in told[2:]]
    assert len({call["id"] for call in made}) == len(made)


@pytest.mark.parametrize("format", ["typed", "v1 merged", "v1 whole, merged"])
@pytest.mark.parametrize("case", cases("tool_calls"))
async def test_the_clients_calls_are_told_as_the_model_meant(case: dict[str, Any], format: str) -> None:
    async with sidecar(script(case)) as s:
        answer = await ask(s, format, tools=["current_time", LOOKUP])
    if format == "typed":
        found = [[call["name"], call["arguments"]] for call in named(answer)[-1][1]["pending"]]
    else:
        choice = answer.json["choices"][0] if "whole" in format else named(answer)[-2][1]["choices"][0]
        made = (choice.get("message") or choice["delta"])["tool_calls"]
        found = [[call["function"]["name"], call["function"]["arguments"]] for call in made]
        assert choice["finish_reason"] == "tool_calls"
    assert found == case["calls"]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", cases("errors"))
async def test_an_error_is_never_success_and_keeps_its_sentence(case: dict[str, Any], format: str) -> None:
    body = {**case, "body": case["body"].replace("try later", f"try later {KEY}")}
    async with sidecar(script(body)) as s:
        answer = await ask(s, format)
        states = (await s.get("/streams")).json["streams"]
    assert case["message"].encode() in answer.body
    assert KEY.encode() not in answer.body
    assert b"[DONE]" not in answer.body
    assert b'"final":true' not in answer.body
    assert all(state["state"] == "failed" and case["message"] in state["error"]["error"] for state in states)
    if format in ("typed", "plain"):
        assert named(answer)[-1][0] == "error"
    elif answer.status == 200:
        assert "error" in named(answer)[-1][1]
    else:
        assert answer.status == case["status"] if case["status"] != 200 else answer.status >= 400


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("case", cases("malformed"))
async def test_what_is_malformed_is_the_upstreams_fault(
    case: dict[str, Any], format: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with sidecar(script(case)) as s:
        with caplog.at_level(logging.WARNING):
            answer = await ask(s, format, tools=["calculate"] if format == "typed" else FORMATS[format][1].get("tools"))
        states = await s.get("/streams", JSON)
    assert b"internal" not in answer.body
    assert b"item_error" not in answer.body
    assert caplog.records == []
    assert states.status == 200
    if "whole" not in format and b"bad_chunk" not in answer.body:
        assert (b"[DONE]" in answer.body) != (b'"final":true' in answer.body)


# -- the openai SDK's own helper


@asynccontextmanager
async def in_front(*scripts: Script) -> AsyncIterator[tuple[str, str]]:
    """Two base URLs: of an upstream, and of the sidecar in front of it."""
    async with sidecar(*scripts) as s, serving(s.app, Settings()) as (_, port):
        yield s.upstream.url, f"http://127.0.0.1:{port}/v1"


async def helper(url: str, **asked: Any) -> Any:
    """What the helper makes of an answer: its events, and the completion. Or the type of what it raises."""
    async with openai.AsyncOpenAI(base_url=url, api_key="x", max_retries=0) as client:
        try:
            async with client.chat.completions.stream(model="test", messages=MESSAGES, **asked) as stream:  # type: ignore[arg-type]
                events = [event.to_dict() async for event in stream]
                return events, (await stream.get_final_completion()).to_dict()
        except Exception as error:
            return type(error)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # the SDK's own, about types that are not what they should be
@pytest.mark.parametrize("case", [*cases("texts"), *cases("tool_calls")])
async def test_the_sdks_helper_gives_what_it_gives_in_front_of_the_upstream(case: dict[str, Any]) -> None:
    async with in_front(script(case)) as (direct, through):
        expected = await helper(direct)
        if isinstance(expected, type):
            pytest.skip(f"in front of the upstream the helper raises {expected.__name__}")
        assert await helper(through) == expected


@pytest.mark.slow
async def test_for_some_cases_at_least_the_helper_works_directly() -> None:
    worked = 0
    for case in [*cases("texts"), *cases("tool_calls")]:
        async with serve(script(case.values[0])) as upstream:
            worked += not isinstance(await helper(upstream.url), type)
    assert worked >= 15

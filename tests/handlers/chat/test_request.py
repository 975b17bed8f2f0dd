"""Bodies, right and wrong."""

from typing import Any

import pytest

from handlers.chat.formats.openai import OpenAI
from handlers.chat.formats.typed import Typed
from handlers.chat.request import MAX_MESSAGES, ChatRequest, Offer, parse_openai, parse_own
from sse.errors import Problem

HELLO = [{"role": "user", "content": "Hello"}]
TOOLS = ("calculate", "current_time")


def function(name: str) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {}}}


OFFER = Offer(TOOLS, "Be brief.", 8)


def parse(body: Any, offer: Offer = OFFER) -> ChatRequest:
    return parse_own(body, offer)


def test_a_prompt_becomes_a_conversation() -> None:
    request = parse({"prompt": "Hi"})
    assert request.messages == ({"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"})
    assert (request.model, request.linger, request.max_stages, request.stream) == ("", None, 8, True)


def test_without_a_system_message_there_is_none() -> None:
    assert parse({"prompt": "Hi"}, Offer()).messages == ({"role": "user", "content": "Hi"},)


def test_what_nobody_here_knows_is_passed_on() -> None:
    body = {"messages": HELLO, "temperature": 0.5, "max_tokens": 5, "new_parameter": [1], "tool_choice": "auto", "stop": None}
    request = parse({**body, "model": "m", "stream": False, "metadata": {"a": 1}, "linger": 0, "max_stages": 2})
    wanted = {name: value for name, value in body.items() if name != "messages"}
    assert request.parameters == {**wanted, "stream_options": {"include_usage": True}}
    assert (request.model, request.metadata, request.linger, request.max_stages) == ("m", {"a": 1}, 0, 2)


def test_in_v1_only_the_sidecars_tools_and_stages_are_its_own() -> None:
    body = {"messages": HELLO, "metadata": {"a": "b"}, "prompt": 1, "linger": 2, "format": "x", "max_stages": 3}
    request = parse_openai(body, OFFER)
    assert request.parameters == {"metadata": {"a": "b"}, "prompt": 1, "linger": 2, "format": "x"}
    assert (request.stream, request.max_stages, request.metadata) == (False, 3, None)


USAGE: dict[str, tuple[dict[str, Any], bool, Any]] = {
    "typed asks for it": ({}, False, {"include_usage": True}),
    "typed, kept from it": ({"stream_options": None}, False, None),
    "typed, with its own": ({"stream_options": {"x": 1}}, False, {"x": 1}),
    "v1 does not": ({"stream": True}, True, None),
    "v1 does for a client that asks": (
        {"stream": True, "stream_options": {"include_usage": True}},
        True,
        {"include_usage": True},
    ),
    "v1 does for an answer in one piece": ({"tools": ["calculate"]}, True, {"include_usage": True}),
    "v1 does not for a streamed one": ({"tools": ["calculate"], "stream": True}, True, None),
}


@pytest.mark.parametrize(("body", "openai", "expected"), USAGE.values(), ids=USAGE.keys())
def test_usage(body: dict[str, Any], openai: bool, expected: Any) -> None:
    request = (OpenAI if openai else Typed)({"messages": HELLO, **body}, OFFER).request
    assert request.parameters.get("stream_options") == expected
    assert ("stream_options" in request.parameters) == (expected is not None)


def test_a_text_names_a_tool_of_the_sidecars_and_an_object_is_the_clients() -> None:
    request = parse({"prompt": "x", "tools": ["calculate", function("current_time"), {"type": "web_search"}]})
    assert request.own_tools == ("calculate",)
    assert request.client_tools == (function("current_time"), {"type": "web_search"})


def test_max_stages_can_only_be_lowered() -> None:
    assert parse({"prompt": "x", "max_stages": 99}, Offer(max_stages=5)).max_stages == 5


def test_several_choices_pass_in_v1() -> None:
    assert parse_openai({"messages": HELLO, "n": 2}, OFFER).parameters["n"] == 2


@pytest.mark.parametrize("body", [None, [], "x", 1])
def test_a_body_that_is_no_object(body: Any) -> None:
    with pytest.raises(Problem) as caught:
        parse(body)
    assert caught.value.status == 400


def messages(*more: Any) -> dict[str, Any]:
    return {"messages": [*HELLO, *more]}


WRONG: dict[str, dict[str, Any]] = {
    "messages": {},
    "messages ": {"messages": HELLO, "prompt": "x"},
    "messages  ": {"messages": "Hello"},
    "messages   ": {"messages": []},
    "messages    ": {"messages": HELLO * (MAX_MESSAGES + 1)},
    "messages[1]": messages("Hi"),
    "messages[1].content": messages({"role": "user", "content": 1}),
    "prompt": {"prompt": ""},
    "prompt ": {"prompt": 1},
    "model": {"prompt": "x", "model": 1},
    "n": {"prompt": "x", "n": 2},
    "n ": {"prompt": "x", "n": 0},
    "stream": {"prompt": "x", "stream": "yes"},
    "stream_options": {"prompt": "x", "stream_options": True},
    "format": {"prompt": "x", "format": ["typed"]},
    "linger": {"prompt": "x", "linger": -1},
    "metadata": {"prompt": "x", "metadata": "x"},
    "max_stages": {"prompt": "x", "max_stages": 1.5},
    "tools": {"prompt": "x", "tools": "calculate"},
    "tools[0]": {"prompt": "x", "tools": ["search"]},
    "tools[1]": {"prompt": "x", "tools": ["calculate", 1]},
    "tools[0] ": {"prompt": "x", "tools": ["calculate", "calculate"]},
    "tools[0].function.name": {"prompt": "x", "tools": [{"type": "function"}]},
    "tools[1].function.name": {"prompt": "x", "tools": ["calculate", function("calculate")]},
}


@pytest.mark.parametrize(("parameter", "body"), WRONG.items())
def test_the_problem_names_the_field(parameter: str, body: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        parse(body)
    assert caught.value.status == 422
    assert caught.value.members == {"parameter": parameter.strip()}
    assert caught.value.detail.startswith(parameter.strip())


UPSTREAMS_BUSINESS: list[dict[str, Any]] = [
    {"max_tokens": -1},
    {"max_completion_tokens": 0},
    {"temperature": "hot"},
    {"top_p": True},
    {"tool_choice": 1},
    {"messages": [{"role": "robot", "content": "x"}]},
    {"messages": [{"content": [{"type": "hologram", "hologram": 1}, {"text": "x"}, "x"]}]},
    {"messages": [{"role": "user"}, {"role": "tool", "content": None}]},
    {"messages": [{"role": "user", "content": {"parts": []}}]},
]


@pytest.mark.parametrize("body", UPSTREAMS_BUSINESS)
@pytest.mark.parametrize("read", [parse_own, parse_openai])
def test_what_the_sidecar_does_not_need_to_know_it_does_not_judge(read: Any, body: dict[str, Any]) -> None:
    request = read({"messages": HELLO, **body}, OFFER)
    assert list(request.messages) == body.pop("messages", HELLO)
    assert {name: request.parameters[name] for name in body} == body


@pytest.mark.parametrize("body", [{"n": 2, "tools": ["calculate"]}, {"prompt": "x", "messages": None}])
def test_wrong_in_v1(body: dict[str, Any]) -> None:
    with pytest.raises(Problem) as caught:
        parse_openai({"messages": HELLO, **body}, OFFER)
    assert caught.value.status == 422

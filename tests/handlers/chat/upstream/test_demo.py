"""The model that answers where none is configured."""

import json
import subprocess
import sys
import time
from contextlib import aclosing
from typing import Any

import pytest

from handlers.chat.engine import Answer
from handlers.chat.formats.openai import OpenAI
from handlers.chat.upstream.demo import DemoUpstream
from tests.support.chat import Asking


async def run(body: dict[str, Any]) -> Answer:
    done = Asking(DemoUpstream(0)).answer(body)
    async with aclosing(done):
        async for _ in done:
            pass
    return done


async def test_it_says_what_it_is() -> None:
    done = await run({"prompt": "Hello  there"})
    assert done.result["text"] == "This is a mock response to: Hello  there"
    assert done.result["finish_reason"] == "stop"
    assert done.result["usage"] == {"prompt_tokens": 2, "completion_tokens": 8, "total_tokens": 10}


async def test_it_answers_word_by_word() -> None:
    done = Asking(DemoUpstream(0)).answer({"prompt": "one two"})
    pieces = [text async for item in done if (text := getattr(item, "text", ""))]
    assert pieces == ["This", " is", " a", " mock", " response", " to:", " one", " two"]


async def test_it_calls_a_tool_that_the_prompt_names() -> None:
    done = await run({"prompt": "calculate 6*7", "tools": ["current_time", "calculate"]})
    assert [(call["name"], call["arguments"], call.get("result")) for call in done.result["stages"][0]["calls"]] == [
        ("calculate", {"expression": "6*7"}, 42)
    ]
    assert done.result["text"] == "This is a mock response to: calculate 6*7 (42)"


async def test_it_calls_no_tool_that_was_not_named_or_not_offered() -> None:
    assert len((await run({"prompt": "What is recalculated?", "tools": ["calculate"]})).result["stages"]) == 1
    assert len((await run({"prompt": "calculate 1"})).result["stages"]) == 1


async def test_it_calls_the_clients_tools_too() -> None:
    tool = {"type": "function", "function": {"name": "lookup"}}
    done = await run({"messages": [{"role": "user", "content": [{"type": "text", "text": "lookup it"}]}], "tools": [tool]})
    assert [call["function"] for call in done.result["tool_calls"]] == [{"name": "lookup", "arguments": "{}"}]


async def test_its_answer_in_one_piece() -> None:
    async def answered(content: str, **body: Any) -> dict[str, Any]:
        said = {"messages": [{"role": "user", "content": content}], **body}
        answer: dict[str, Any] = json.loads((await Asking(DemoUpstream(0)).answer(said, OpenAI).whole()).body)
        return answer

    body = await answered("Hi")
    assert body["choices"][0]["message"]["content"] == "This is a mock response to: Hi"
    assert body["object"] == "chat.completion"
    assert body["usage"]["prompt_tokens"] == 1
    [choice] = (await answered("lookup it", tools=[{"type": "function", "function": {"name": "lookup"}}]))["choices"]
    assert (choice["finish_reason"], choice["message"]["tool_calls"][0]["function"]["name"]) == ("tool_calls", "lookup")
    assert json.loads((await DemoUpstream(0).models()).body)["data"][0]["id"] == "demo"


async def test_typed_events_have_everything() -> None:
    written = await Asking(DemoUpstream(0)).written({"prompt": "current_time please", "tools": ["current_time"]})
    names = [line[7:].decode() for line in written.split(b"\n") if line.startswith(b"event: ")]
    assert names.count("tool_summary") == 1
    assert names.count("done") == 2
    assert names[-1] == "done"


@pytest.mark.parametrize("prompt", ["x" + " " * 40_000, " " * 40_000 + "x" + " " * 40_000, "calculate" + " " * 40_000])
async def test_blanks_take_no_time(prompt: str) -> None:
    began = time.thread_time()
    await run({"prompt": prompt, "tools": ["calculate"]})
    assert time.thread_time() - began < 0.5


ODD: list[dict[str, Any]] = [
    {"messages": [{}]},
    {"messages": [{"role": "user"}]},
    {"messages": [{"role": "user", "content": {"a": 1}}]},
    {"messages": [{"role": "user", "content": ["x", {"text": 5}, {"text": "hello"}]}]},
    {"messages": [{"role": "tool"}]},
    {"tools": [{"type": "web_search"}, {"type": "x", "function": "f"}, {"type": "x", "function": {"name": 5}}]},
    {"prompt": "lookup it", "tools": [{"type": "function", "function": {"name": "lookup", "parameters": [1]}}]},
    {"prompt": "lookup it", "tools": [{"type": "function", "function": {"name": "lookup", "parameters": {"required": [1]}}}]},
    {"stream_options": {}},
]


@pytest.mark.parametrize("body", ODD)
async def test_it_answers_whatever_it_is_asked(body: dict[str, Any]) -> None:
    done = await run(body)
    assert done.result["finish_reason"] in ("stop", "tool_calls")
    whole = await Asking(DemoUpstream(0)).answer(body).whole()
    assert json.loads(whole.body)["object"] == "chat.completion"


def test_nothing_of_it_imports_openai() -> None:
    script = "import sys, handlers.chat.routes\nassert 'openai' not in sys.modules and 'httpx2' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)

"""The demonstration model, `demo`: what answers where no upstream is configured. Never a word of it is a model's.

It says "This is a mock response to: " and the prompt, a word at a time. If the prompt names a tool that the request offers, it
calls that first: the tool's first parameter, if it needs one, gets what follows the name in the prompt ("calculate 6*7"); the
answer then says what came of it. Its chunks have OpenAI's shape.
"""

import asyncio
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from handlers.chat.upstream.chunks import Chunk, parse, write
from handlers.chat.upstream.failures import Reply

MODEL = "demo"


class DemoUpstream:
    """Stands where `upstream.OpenAIUpstream` would. interval: seconds a word."""

    def __init__(self, interval: float = 0.1) -> None:
        self._interval = interval

    async def default_model(self) -> str:
        return MODEL

    async def models(self) -> Reply:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "sidestream"}
        return _reply({"object": "list", "data": [model]})

    async def open(self, body: Mapping[str, Any], *, retry: bool) -> AsyncGenerator[list[Chunk], None]:  # noqa: ARG002
        return self._stream(body)

    async def complete(self, body: Mapping[str, Any]) -> Reply:
        call, words = _call(body), _words(body)
        message: dict[str, Any] = {"role": "assistant", "content": None if call else "".join(words)}
        if call:
            message["tool_calls"] = [call]
        await asyncio.sleep(self._interval * len(words))
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if call else "stop"}
        return _reply({**_head("chat.completion"), "choices": [choice], "usage": _usage(body, words)})

    async def _stream(self, body: Mapping[str, Any]) -> AsyncGenerator[list[Chunk], None]:
        head, words = _head("chat.completion.chunk"), _words(body)
        if call := _call(body):
            arguments = call["function"]["arguments"]
            begun = {**call, "index": 0, "function": {**call["function"], "arguments": ""}}
            deltas: list[dict[str, Any]] = [{"role": "assistant", "content": None, "tool_calls": [begun]}]
            deltas += [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in _halves(arguments)]
        else:
            deltas = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
        for delta in deltas:
            yield [_chunk(head, delta)]
            await asyncio.sleep(self._interval)
        yield [_chunk(head, {}, "tool_calls" if call else "stop")]
        if (body.get("stream_options") or {}).get("include_usage"):
            yield [_parsed({**head, "choices": [], "usage": _usage(body, words)})]


def _call(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The call that the prompt asks for, unless it has been made."""
    if body["messages"][-1]["role"] == "tool" or body.get("tool_choice") == "none":
        return None
    prompt = _prompt(body)
    for tool in body.get("tools") or ():
        function = tool.get("function") or {}
        name = function.get("name")
        if name and (named := re.search(rf"\b{re.escape(name)}\b", prompt)):
            required = (function.get("parameters") or {}).get("required") or ()
            arguments = {first: prompt[named.end() :].strip(" :") for first in required[:1]}
            called = {"name": name, "arguments": json.dumps(arguments)}
            return {"id": f"call_{secrets.token_hex(8)}", "type": "function", "function": called}
    return None


def _words(body: Mapping[str, Any]) -> list[str]:
    """The answer; each word but the first brings the blank before it."""
    answer = f"This is a mock response to: {_prompt(body)}"
    for message in reversed(body["messages"]):
        if message["role"] != "tool":
            break
        answer += f" ({message['content']})"
    return re.findall(r"\s*\S+", answer)


def _prompt(body: Mapping[str, Any]) -> str:
    """The last thing that the user said."""
    content = next((message["content"] for message in reversed(body["messages"]) if message["role"] == "user"), "")
    return content if isinstance(content, str) else " ".join(part.get("text") or "" for part in content)


def _halves(text: str) -> tuple[str, str]:
    return text[: len(text) // 2], text[len(text) // 2 :]


def _head(kind: str) -> dict[str, Any]:
    return {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": kind, "created": int(time.time()), "model": MODEL}


def _usage(body: Mapping[str, Any], words: list[str]) -> dict[str, int]:
    prompt = len(_prompt(body).split())
    return {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}


def _chunk(head: Mapping[str, Any], delta: dict[str, Any], finish_reason: str | None = None) -> Chunk:
    return _parsed({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]})


def _parsed(value: dict[str, Any]) -> Chunk:
    return parse(write(value))


def _reply(value: dict[str, Any]) -> Reply:
    return Reply(200, {"content-type": "application/json"}, write(value))

"""The demonstration model, `demo`: it answers where no upstream is configured. Its text is never that of a real model.

It says "This is a mock response to: " and the prompt, a word at a time. If the prompt names a tool that the request offers, it
calls that first: the tool's first parameter, if it needs one, gets what follows the name in the prompt ("calculate 6*7"); the
answer then says what came of it. Its chunks have OpenAI's shape.
"""

import asyncio
import itertools
import json
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from handlers.chat.items import Chunk, Whole
from handlers.chat.texts import write
from handlers.chat.upstream.chunks import parse

MODEL = "demo"

LONGEST = 20_000
"""Characters of a prompt that are read."""


@dataclass
class Speaking:
    """An answer on its way (`engine.ChunkStream`)."""

    chunks: AsyncGenerator[list[Chunk], None]
    limits: Mapping[str, str] = field(default_factory=dict)
    whole: Whole | None = None

    def __aiter__(self) -> AsyncIterator[list[Chunk]]:
        return self.chunks

    async def aclose(self) -> None:
        await self.chunks.aclose()


class DemoUpstream:
    """Stands where `upstream.OpenAIUpstream` would. interval: seconds a word."""

    name, limit = MODEL, "max_tokens"

    def __init__(self, interval: float = 0.1) -> None:
        self._interval = interval

    def start(self) -> None:
        """Nothing has to be prepared or closed."""

    async def aclose(self) -> None: ...

    async def models(self, *_: Any) -> Whole:
        model = {"id": MODEL, "object": "model", "created": 0, "owned_by": "sidestream"}
        return Whole(200, write({"object": "list", "data": [model]}))

    async def open(self, asked: Mapping[str, Any], **_: Any) -> Speaking:
        return Speaking(self._stream(asked))

    async def _stream(self, body: Mapping[str, Any]) -> AsyncGenerator[list[Chunk], None]:
        head: dict[str, Any] = {"id": f"chatcmpl-{secrets.token_hex(12)}", "object": "chat.completion.chunk"}
        head, words, call = head | {"created": int(time.time()), "model": MODEL}, _words(body), _call(body)
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}, *({"content": word} for word in words)]
        if call:
            arguments = call["function"]["arguments"]
            half = len(arguments) // 2
            begun = {**call, "index": 0, "function": {**call["function"], "arguments": ""}}
            rest = ({"index": 0, "function": {"arguments": part}} for part in (arguments[:half], arguments[half:]))
            deltas = [{"role": "assistant", "content": None, "tool_calls": [begun]}, *({"tool_calls": [one]} for one in rest)]
        for delta in [*deltas, {}]:
            reason = None if delta else "tool_calls" if call else "stop"
            yield _chunk({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": reason}]})
            await asyncio.sleep(self._interval if delta else 0)
        if not body.get("stream") or (body.get("stream_options") or {}).get("include_usage"):
            yield _chunk({**head, "choices": [], "usage": _usage(body, words)})


def _call(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The call that the prompt asks for, unless it has been made."""
    if body["messages"][-1].get("role") == "tool" or body.get("tool_choice") == "none":
        return None
    prompt = _prompt(body)
    for tool in body.get("tools") or ():
        function = _object(tool.get("function"))
        name = function.get("name")
        if isinstance(name, str) and name and (named := re.search(rf"\b{re.escape(name)}\b", prompt)):
            required = _object(function.get("parameters")).get("required")
            first = required[:1] if isinstance(required, list) else []
            arguments = {str(parameter): prompt[named.end() :].strip(" :") for parameter in first}
            called = {"name": name, "arguments": json.dumps(arguments)}
            return {"id": f"call_{secrets.token_hex(8)}", "type": "function", "function": called}
    return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _chunk(value: dict[str, Any]) -> list[Chunk]:
    return [chunk for chunk in (parse(write(value)),) if chunk]


def _words(body: Mapping[str, Any]) -> list[str]:
    """The answer; each word but the first brings the blank before it."""
    results = itertools.takewhile(lambda message: message.get("role") == "tool", reversed(body["messages"]))
    answer = " ".join([f"This is a mock response to: {_prompt(body)}", *(f"({result.get('content')})" for result in results)])
    return re.findall(r"\s*\S+", answer.rstrip())  # without blanks at the end each is looked at once


def _prompt(body: Mapping[str, Any]) -> str:
    """The last thing that the user said."""
    content = next((message.get("content") for message in reversed(body["messages"]) if message.get("role") == "user"), "")
    parts = content if isinstance(content, list) else [{"text": content}]
    return " ".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))[:LONGEST]


def _usage(body: Mapping[str, Any], words: list[str]) -> dict[str, int]:
    prompt = len(_prompt(body).split())
    return {"prompt_tokens": prompt, "completion_tokens": len(words), "total_tokens": prompt + len(words)}

"""A stage: one request to the model, and what has come of it so far."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from handlers.chat.items import Call, CallEnded, Chunk, Item, Reasoning, Refusal, ToolResult
from handlers.chat.texts import joined
from handlers.chat.upstream.message import Message


class Stage:
    """number: from 1. message: the model's. finish_reason: what is made of it. results: of the sidecar's tools, once all ran.

    tools: names that the model may call. taken: ids of the calls of stages before.
    """

    def __init__(self, number: int, tools: Collection[str] = (), taken: set[str] | None = None) -> None:
        self.number = number
        self.message = Message(f"call_{number}_", tools, taken)
        self.calls: list[Call] = []
        self.finish_reason: str | None = None
        self.results: tuple[ToolResult, ...] = ()

    def add(self, chunk: Chunk) -> Sequence[Item]:
        """Take the chunk, and make items of what it says."""
        deltas = self.message.add(chunk)
        if chunk.fields is None and not deltas and not chunk.reasoning:
            return (chunk,)
        before = [kind(text) for kind, text in ((Reasoning, chunk.reasoning), (Refusal, chunk.refusal)) if text]
        return [*before, chunk, *deltas]

    def end(self) -> Sequence[Item]:
        """No chunk follows: what there is left to say of the tool calls. Raises UpstreamFailed."""
        deltas = self.message.end()
        self.calls = self.message.calls()
        return [*deltas, *map(CallEnded, self.calls)]

    @property
    def result(self) -> dict[str, Any]:
        """The stage in an answer's `result`."""
        return {
            "stage_id": str(self.number),
            "text": joined(self.message.texts),
            "calls": [result.summary() for result in self.results],
            "finish_reason": self.finish_reason or self.message.finish_reason,
            "usage": self.message.usage,
        }

    def messages(self) -> list[dict[str, Any]]:
        """What the next stage is asked with besides: the assistant's message, and one for each tool that has run."""
        told = [{"role": "tool", "tool_call_id": one.call.id, "content": one.outcome.content} for one in self.results]
        return [self.message.value(map(_sent_back, self.results)), *told]


def _sent_back(result: ToolResult) -> Call:
    """The call of a tool that has run; upstreams that parse what they get back would fail on what is no object."""
    return result.call if isinstance(result.outcome.arguments, dict) else replace(result.call, arguments="{}")

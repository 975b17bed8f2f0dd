"""A stage: one request to the model, and what has come of it so far."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from handlers.chat.items import Call, CallEnded, Chunk, Item, Reasoning, Refusal, ToolResult
from handlers.chat.texts import joined
from handlers.chat.upstream.calls import Calls


class Stage:
    """number: from 1. head: `id`, `created` and `model` of its chunks. results: of the sidecar's tools, once all have run."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.head: dict[str, Any] = {}
        self.texts: list[str] = []
        self.calls: list[Call] = []
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self.results: tuple[ToolResult, ...] = ()
        self._growing = Calls(f"call_{number}_")

    def add(self, chunk: Chunk) -> Sequence[Item]:
        """Take the chunk, and make items of what it says."""
        if chunk.text:
            self.texts.append(chunk.text)
        if chunk.finish_reason:
            self.finish_reason = chunk.finish_reason
        if chunk.usage:
            self.usage = chunk.usage  # those who send it with every chunk count up
        if not self.head:
            self.head = {name: chunk.value.get(name) for name in ("id", "created", "model")}
        if not (chunk.reasoning or chunk.refusal or chunk.fragments):
            return (chunk,)
        before = [kind(text) for kind, text in ((Reasoning, chunk.reasoning), (Refusal, chunk.refusal)) if text]
        return [*before, chunk, *self._growing.feed(chunk.fragments or ())]

    def end(self) -> Sequence[Item]:
        """No chunk follows: what there is left to say of the tool calls."""
        begun = self._growing.end()
        self.calls = self._growing.whole()
        return [*begun, *map(CallEnded, self.calls)]

    @property
    def result(self) -> dict[str, Any]:
        """The stage in an answer's `result`."""
        return {
            "stage_id": str(self.number),
            "text": joined(self.texts),
            "calls": [result.summary() for result in self.results],
            "finish_reason": self.finish_reason,
            "usage": self.usage,
        }

    def messages(self) -> list[dict[str, Any]]:
        """What the next stage is asked with besides: the assistant's message, and one for each tool that has run."""
        told = [{"role": "tool", "tool_call_id": one.call.id, "content": one.outcome.content} for one in self.results]
        return [message(self.texts, map(_sent_back, self.results)), *told]


def message(texts: Iterable[str], calls: Iterable[Call]) -> dict[str, Any]:
    """An assistant message with these calls."""
    said = {"role": "assistant", "content": joined(texts) or None}
    made = [call.message() for call in calls]
    return said | {"tool_calls": made} if made else said


def _sent_back(result: ToolResult) -> Call:
    """The call of a tool that has run; upstreams that parse what they get back would fail on what is no object."""
    return result.call if isinstance(result.outcome.arguments, dict) else replace(result.call, arguments="{}")

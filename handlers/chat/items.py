"""What an answer is made of: the items that the engine yields and the formats write, and what they add up to.

Each stage is a StageBegun, chunks, a ToolResult for each tool of the sidecar's that ran, a ToolSummary if any did, a StageDone.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from handlers.chat.formats import events
from handlers.chat.tools import Outcome
from handlers.chat.upstream.calls import Call, Calls
from handlers.chat.upstream.chunks import Chunk, joined


@dataclass(frozen=True, slots=True)
class StageBegun:
    stage_id: int


@dataclass(frozen=True, slots=True)
class ToolResult:
    """One tool of the sidecar's has finished. head: `id`, `created` and `model` of the stage's chunks."""

    head: Mapping[str, Any]
    call: Call
    outcome: Outcome


@dataclass(frozen=True, slots=True)
class ToolSummary:
    calls: list[events.ToolCall]


@dataclass(frozen=True, slots=True)
class StageDone:
    """pending: calls of the client's tools."""

    finish_reason: str
    usage: dict[str, Any] | None
    final: bool
    pending: tuple[Call, ...]


Item = StageBegun | Chunk | ToolResult | ToolSummary | StageDone


@dataclass(slots=True)
class Stage:
    """What has come of one stage so far."""

    id: int
    calls: Calls
    texts: list[str] = field(default_factory=list)
    head: Mapping[str, Any] = field(default_factory=dict)
    summary: list[events.ToolCall] = field(default_factory=list)
    finish_reason: str | None = None
    usage: dict[str, Any] | None = None

    def add(self, chunk: Chunk) -> None:
        if chunk.text:
            self.texts.append(chunk.text)
        if chunk.calls:
            self.calls.feed(chunk.calls)
        if chunk.finish_reason:
            self.finish_reason = chunk.finish_reason
        if chunk.usage:
            self.usage = chunk.usage  # those who send it with every chunk count up
        if not self.head:
            self.head = {name: chunk.value.get(name) for name in ("id", "created", "model")}

    @property
    def result(self) -> events.StageResult:
        return {
            "stage_id": self.id,
            "text": joined(self.texts),
            "calls": self.summary,
            "finish_reason": self.finish_reason,
            "usage": self.usage,
        }

    def message(self, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
        """The stage as the next one's assistant message, with the calls that have an outcome."""
        calls = [call.message() for call in self.calls if call.id in outcomes]
        for call in calls:
            if not isinstance(outcomes[call["id"]].arguments, dict):
                call["function"]["arguments"] = "{}"  # upstreams that parse what they get back would fail on it
        return {"role": "assistant", "content": joined(self.texts) or None, "tool_calls": calls}


def summary_of(call: Call, outcome: Outcome) -> events.ToolCall:
    """One call's part of a tool_summary."""
    summary: events.ToolCall = {
        "id": call.id,
        "name": call.name,
        "arguments": outcome.arguments,
        "ok": outcome.error is None,
        "duration_ms": round(outcome.seconds * 1000, 1),
    }
    if outcome.error is None:
        summary["result"] = outcome.value
    else:
        summary["error"] = outcome.error
    return summary


def add_usage(total: dict[str, Any] | None, usage: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The sum of two usage objects, details included; None counts for nothing."""
    if usage is None:
        return total
    total = dict(total or {})
    for name, value in usage.items():
        if isinstance(value, Mapping):
            total[name] = add_usage(total.get(name), value)
        elif isinstance(value, int | float):
            total[name] = (total.get(name) or 0) + value
    return total

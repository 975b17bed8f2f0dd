"""What an answer is made of. The upstream's side and the client's side meet only here: `upstream` makes these values, the
engine puts them in order, and `formats` write them.

Each stage, in this order:

    StageBegun
    Chunk                                       each chunk of the model's, as it came
      Reasoning, Refusal                          before the chunk, if it has any
      CallBegun, CallDelta                        after the chunk, if it has any
    CallEnded                                   each tool call, once the model has said all
    ToolResult, ToolsDone                       where tools of the sidecar's ran: each as it finishes; all of them
    StageDone

A tool call is known by its index in the stage: which call a fragment belongs to is decided before (`upstream.calls`).
"""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from handlers.chat.texts import joined
from handlers.chat.tools import Outcome
from sse.errors import SourceFailed


class StageBegun(NamedTuple):
    """number: of the stage, from 1."""

    number: int


class Chunk(NamedTuple):
    """One `chat.completion.chunk`. A NamedTuple and not a frozen dataclass: many are built, and this takes half the time.

    json: as it came, without CR or LF. value: the same, parsed. The rest is what the choice says that counts:
    text, reasoning, refusal: "" if none. fragments: of tool calls. finish_reason, usage: None until the upstream gives them.
    parts: the content, where that is a list. fields: all else that its message holds.
    """

    json: bytes
    value: dict[str, Any]
    text: str = ""
    fragments: list[dict[str, Any]] | None = None
    finish_reason: str | None = None
    usage: Any = None
    reasoning: str = ""
    refusal: str = ""
    parts: list[Any] | None = None
    fields: Mapping[str, Any] | None = None


class Reasoning(NamedTuple):
    """The next piece of what the model thinks before it answers."""

    text: str


class Refusal(NamedTuple):
    """The next piece of the model's refusal, which stands in the place of an answer."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """index: of the call in its stage, from 0. id: unique in the answer. name: the function's."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class CallDelta:
    """The next piece of a call's arguments."""

    index: int
    arguments: str


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call, whole. arguments: JSON, unless the model made a mistake. fields: what else the upstream sent with it."""

    index: int
    id: str
    name: str
    arguments: str = ""
    fields: Mapping[str, Any] = field(default_factory=dict)

    def message(self) -> dict[str, Any]:
        """The call as an element of an assistant message's `tool_calls`."""
        function = {"name": self.name, "arguments": joined((self.arguments,)), **self.fields.get("function", {})}
        return {"id": self.id, "type": "function", **self.fields, "function": function}


class CallEnded(NamedTuple):
    call: Call


class ToolResult(NamedTuple):
    """One tool of the sidecar's has finished. head: `id`, `created` and `model` of the stage's chunks."""

    head: Mapping[str, Any]
    call: Call
    outcome: Outcome

    def summary(self) -> dict[str, Any]:
        """The result for a client: `id`, `name`, `arguments`, `ok`, `duration_ms`, and `result` or `error`."""
        call, outcome, ok = self.call, self.outcome, self.outcome.error is None
        summary = {"id": call.id, "name": call.name, "arguments": outcome.arguments, "ok": ok}
        said = {"result": outcome.value} if ok else {"error": outcome.error}
        return {**summary, "duration_ms": round(outcome.seconds * 1000, 1), **said}


class ToolsDone(NamedTuple):
    """All of a stage's tools have finished. results: in the order in which the model made the calls."""

    results: tuple[ToolResult, ...]


class StageDone(NamedTuple):
    """final: no stage follows. pending: calls of the client's tools, which it has to run before it asks again."""

    finish_reason: str
    usage: Any
    final: bool
    pending: tuple[Call, ...] = ()


Item = StageBegun | Chunk | Reasoning | Refusal | CallBegun | CallDelta | CallEnded | ToolResult | ToolsDone | StageDone


class Whole(NamedTuple):
    """An upstream's HTTP answer in one piece. headers: those that mean something to a client, lower-case. body: as it came."""

    status: int
    body: bytes
    headers: Mapping[str, str] = MappingProxyType({})


CODES: Final[Mapping[str, tuple[bool, int]]] = {
    "refused": (False, 502),
    "rate_limited": (True, 429),
    "model_not_found": (False, 404),
    "bad_request": (False, 400),
    "upstream_down": (True, 502),
    "first_token_timeout": (True, 504),
    "stalled": (True, 504),
    "broken": (True, 502),
    "upstream_error": (True, 502),
    "cut": (True, 502),
    "empty": (True, 502),
    "not_a_stream": (False, 502),
    "bad_chunk": (False, 502),
    "too_long": (False, 502),
}
"""Codes of failures (`upstream.failures` says when) -> whether the same request may succeed later, and the status for a client
where the upstream gave none."""


class UpstreamFailed(SourceFailed):
    """code: one of `CODES`. said: the error answer to pass on, None where there was none. status: of that."""

    def __init__(self, message: str, code: str, said: Whole | None = None, status: int | None = None) -> None:
        retryable, usual = CODES[code]
        super().__init__(message, code, retryable=retryable)
        self.status = status or usual
        self.said = said


def add_usage(total: Any, usage: Any) -> Any:
    """The sum of two usage objects, details included: of what are numbers in both. Of anything else the later one counts."""
    if usage is None or total is None:
        return total if usage is None else usage
    if isinstance(total, dict) and isinstance(usage, dict):
        return {**total, **{name: add_usage(total.get(name), value) for name, value in usage.items()}}
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (total, usage))
    return total + usage if numbers else usage


def head_of(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """The id, the time and the model that a chunk names. What it doesn't name in a form that clients read is made up."""
    id, created, model = chunk.get("id"), chunk.get("created"), chunk.get("model")
    return {
        "id": id if isinstance(id, str) and id else f"chatcmpl-{secrets.token_hex(12)}",
        "created": created if isinstance(created, int) else int(time.time()),
        "model": model if isinstance(model, str) else "",
    }

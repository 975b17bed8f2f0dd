"""The format of OpenAI's Responses API: a response is a stream, its events are the log's entries, its state is the object.

In:  a request (`handlers.chat.responses`), and the engine's items. Out: events in the order of OpenAI's server, and at
every moment the response as an object (`openai.types.responses.Response`).

    item of the engine      events
    the first stage         response.created, in the background .queued, .in_progress
    text, Refusal           a message: .output_item.added, .content_part.added, deltas, .done, .content_part.done,
                            .output_item.done
    Reasoning               the same, as an item of its own
    CallBegun to CallEnded  a function_call: .output_item.added, deltas of its arguments, .done, .output_item.done
    ToolResult              a function_call_output, whole
    SILENCE                 an event that changes nothing, since the idle timers of some clients don't count comments
    the end                 .completed, or .incomplete: by length, by filter, cancelled; or error and .failed

An event has no id but a `sequence_number`: its number in the log, less one. An item's id is `<kind>_<stream id>_<number>`, by
which a later request refers to it.

Limit: OpenAI ends one call before the next one begins. Here they are ended together, once the model has said all, since some
servers go on with an earlier one. There are no logprobs and annotations; reasoning is a text, not a summary.
"""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from handlers.chat import items
from handlers.chat.fields import Pieces
from handlers.chat.formats.base import ChatFormat
from handlers.chat.formats.openai import OpenAI, error_object
from handlers.chat.formats.usage import counted
from handlers.chat.request import ChatRequest
from handlers.chat.texts import write
from sse.budget import Charge
from sse.errors import SourceFailed
from sse.formats import LOST, Written
from sse.stream import MAX_EVENT, Trigger
from sse.wire.encoder import encode_json

SILENCE: Final = object()
"""The item for a stream that has written no event for a while."""

PREFIXES: Final = {"message": "msg", "reasoning": "rs", "function_call": "fc", "function_call_output": "fco"}
"""Types of items -> what their ids begin with."""

_CUT: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""finish_reasons of an answer that isn't complete -> the reason in its `incomplete_details`."""

_CODES: Final = {"rate_limited": "rate_limit_exceeded", "bad_request": "invalid_prompt"}
"""Codes of failures -> of the object's error; the others are `server_error`."""

_JSON = Mapping[str, Any]
Items = list[dict[str, Any]]


class _Kind(NamedTuple):
    """A kind of text that grows. item: the item's type. events: the name in its events. text: the member that holds it.

    part: the text stands in a part of the item, which begins like this. rest: members of the events besides.
    """

    item: str
    events: str
    text: str
    part: _JSON | None = None
    rest: _JSON = MappingProxyType({})


_LOGPROBS: Final[_JSON] = {"logprobs": []}
_TEXT = _Kind("message", "output_text", "text", {"type": "output_text", "text": "", "annotations": [], **_LOGPROBS}, _LOGPROBS)
_REFUSAL = _Kind("message", "refusal", "refusal", {"type": "refusal", "refusal": ""})
_REASONING = _Kind("reasoning", "reasoning_text", "text", {"type": "reasoning_text", "text": ""})
_CALL = _Kind("function_call", "function_call_arguments", "arguments")


@dataclass(slots=True, eq=False)
class _Growing:
    """An item whose text grows. place: members that all its events have. delta: how a delta begins. texts: the text so far."""

    item: dict[str, Any]
    kind: _Kind
    place: _JSON
    delta: bytes
    texts: Pieces = field(default_factory=Pieces)

    def settle(self) -> dict[str, Any]:
        """Write the text so far to where it stands in the object; returns what holds it."""
        holder: dict[str, Any] = self.item if self.kind.part is None else self.item["content"][-1]
        holder[self.kind.text] = self.texts.whole()
        return holder


class Responses(ChatFormat):
    """id: of the stream. input: all items before, those of earlier responses first. told: what the object repeats.

    charges: of the memory of `input`, which responses after this one share. background: whether the work outlives its client.
    output, status: the object's. running: it has not ended. failure: why it has failed.
    """

    name = "responses"
    ids = False
    transliterated = False
    greets = False
    problem = OpenAI.problem

    def __init__(self, id: str, request: ChatRequest, told: _JSON, input: Items) -> None:
        self.id, self.request, self.told, self.input = id, request, told, input
        self.keeps = told
        self.charges: tuple[Charge, ...] = ()
        self.background = bool(told["background"])
        self.after_status = not self.background
        self.status, self.running = "queued" if self.background else "in_progress", True
        self.output: Items = []
        self._model = ""
        self._number = 0
        self._said: _Growing | None = None
        self._calls: dict[int, _Growing] = {}
        self._call_ids = {said.get("call_id") for said in input}
        self._finish_reason: str | None = None
        self._usage: Any = None
        self.failure: SourceFailed | None = None
        self._ended: int | None = None

    def object(self) -> dict[str, Any]:
        """The response so far. Its parts still change: write it before anything else happens."""
        for growing in self._open():
            growing.settle()
        failed, cut = self.failure, _CUT.get(self._finish_reason or "") if self.status == "incomplete" else None
        return {
            **self.told,
            "model": self.told["model"] or self._model, "status": self.status, "output": self.output,
            "error": {"code": _CODES.get(failed.code, "server_error"), "message": failed.message} if failed else None,
            "incomplete_details": {"reason": cut} if cut else None,
            "usage": None if self.running else _usage(self._usage),
            "completed_at": self._ended if self.status == "completed" else None,
        }  # fmt: skip

    def result(self) -> dict[str, Any]:
        """The response and its input, for this process or another one; as for `object`, write it at once."""
        return {"response": self.object(), "input": self.input}

    # -- what the stream asks for

    def item(self, item: Any) -> Written:
        if type(item) is items.Chunk:
            self._finish_reason = item.finish_reason or self._finish_reason
            if self._said is not None and self._said.kind is _TEXT and item.text:  # as most of a stream
                return self._grow(self._said, item.text)
            self._model = str(item.value.get("model"))
            return self._say(_TEXT, item.text) if item.text else b""
        match item:
            case items.StageBegun():
                return self._begin()
            case items.Reasoning(text) | items.Refusal(text):
                return self._say(_REASONING if type(item) is items.Reasoning else _REFUSAL, text)
            case items.CallBegun(index, id, name):
                ended = self._hush()
                if id in self._call_ids:  # some servers use ids twice, and clients go by them
                    id = f"{id}_{len(self.input) + len(self.output)}"
                self._call_ids.add(id)
                added = self._add("function_call", call_id=id, name=name, arguments="")
                self._calls[index] = self._growing(_CALL)
                return [*ended, added]
            case items.CallDelta(index, arguments):
                return [self._grow(self._calls[index], arguments)]
            case items.CallEnded(call):
                return self._end(self._calls[call.index])
            case items.ToolResult(_, call, outcome):
                id = self._calls[call.index].item["call_id"]
                added = self._add("function_call_output", call_id=id, output=outcome.content)
                return [added, self._end_item(len(self.output) - 1, "completed")]
            case items.StageDone():
                self._finish_reason = item.finish_reason
                self._usage = items.add_usage(self._usage, item.usage)
                ended, self._calls = self._hush(), {}
                return ended
            case _ if item is SILENCE:
                return [self._grow(self._said, "") if self._said else self._state("in_progress")]
        return []

    def item_error(self, error: str) -> bytes:
        return self._event("error", code="item_error", message=error, param=None)

    def gap(self, first: int, last: int) -> bytes:
        return _broken(f"the events from the {first}. to the {last}. are no longer held", "gap")

    def lost(self) -> bytes:
        return _broken(*LOST)

    def apology(self) -> bytes:
        return _broken("internal error", "internal")

    def done(self) -> Written:
        return self._over("incomplete" if self._finish_reason in _CUT else "completed")

    def cancelled(self, reason: str) -> Written:
        """OpenAI doesn't document this end. `incomplete` is used, since clients repeat a response that has failed."""
        if reason == Trigger.SHUTTING_DOWN:  # then the client is to try again
            return self.failed(SourceFailed("the server is shutting down", "shutting_down", retryable=True))
        return self._over("cancelled", "incomplete")

    def failed(self, failure: SourceFailed) -> Written:
        self.failure = failure
        return self._over("failed")

    # -- what an item becomes

    def _begin(self) -> list[bytes]:
        """The events before all others, unless they are written."""
        if self._number:
            return []
        events = [self._state("created"), *([self._state("queued")] if self.background else [])]
        self.status = "in_progress"
        return [*events, self._state("in_progress")]

    def _say(self, kind: _Kind, text: str) -> list[bytes]:
        """The next piece of a text. A text of another kind is ended first."""
        events, said = [], self._said
        if said is None or said.kind is not kind:
            if said is not None and said.kind.item == kind.item:
                events = self._end_text(said)
            else:
                more: _JSON = {"role": "assistant"} if kind.item == "message" else {"summary": []}
                events = [*self._hush(), self._add(kind.item, **more, content=[])]
            content = self.output[-1]["content"]
            content.append({**(kind.part or {})})
            self._said = said = self._growing(kind, content_index=len(content) - 1)
            events.append(self._event("response.content_part.added", **said.place, part=kind.part))
        return [*events, self._grow(said, text)]

    def _add(self, type: str, **fields: Any) -> bytes:
        """A new item of the output, and the event that says so."""
        index = len(self.output)
        id = f"{PREFIXES[type]}_{self.id}_{len(self.input) + index}"
        self.output.append({"id": id, "type": type, "status": "in_progress", **fields})
        return self._event("response.output_item.added", output_index=index, item=self.output[-1])

    def _growing(self, kind: _Kind, **place: int) -> _Growing:
        """The newest item, with a text that begins."""
        name = f"response.{kind.events}.delta".encode()
        whole = {"item_id": self.output[-1]["id"], "output_index": len(self.output) - 1, **place}
        rest = write({**whole, **kind.rest})[1:-1]
        delta = b'event: %b\ndata: {"type":"%b","sequence_number":%%d,%b,"delta":' % (name, name, rest)
        return _Growing(self.output[-1], kind, whole, delta)

    def _grow(self, growing: _Growing, text: str) -> bytes:
        growing.texts.add(text)
        event = b"%b%b}\n\n" % (growing.delta % self._number, write(text))
        if len(event) > MAX_EVENT:
            return self.item_error(f"a delta of {len(event)} bytes is over the limit; the whole text has it")
        self._number += 1
        return event

    def _hush(self) -> list[bytes]:
        """End the text that grows, if one does."""
        said, self._said = self._said, None
        return self._end(said) if said is not None else []

    def _end(self, growing: _Growing, *, complete: bool = True) -> list[bytes]:
        status = "completed" if complete and self._finish_reason not in _CUT else "incomplete"
        return [*self._end_text(growing), self._end_item(growing.place["output_index"], status)]

    def _end_text(self, growing: _Growing) -> list[bytes]:
        holder, kind, place = growing.settle(), growing.kind, growing.place
        name = {"name": growing.item["name"]} if kind is _CALL else {}
        events = [self._event(f"response.{kind.events}.done", **place, **name, **{kind.text: holder[kind.text]}, **kind.rest)]
        return events if kind.part is None else [*events, self._event("response.content_part.done", **place, part=holder)]

    def _end_item(self, index: int, status: str) -> bytes:
        self.output[index]["status"] = status
        return self._event("response.output_item.done", output_index=index, item=self.output[index])

    def _open(self) -> list[_Growing]:
        return [one for one in (self._said, *self._calls.values()) if one is not None and one.item["status"] == "in_progress"]

    def _over(self, status: str, state: str = "") -> list[bytes]:
        """The end: everything that is open ends, and then the response."""
        events = self._begin()
        for growing in self._open():
            events += self._end(growing, complete=status == "completed")
        if self.failure is not None:
            events.append(self._event("error", code=self.failure.code, message=self.failure.message, param=None))
        self.status, self.running, self._said, self._ended = status, False, None, int(time.time())
        return [*events, self._state(state or status)]

    def _state(self, name: str) -> bytes:
        return self._event(f"response.{name}", response=self.object())

    def _event(self, type: str, **fields: Any) -> bytes:
        """The next event. If it is too large for the log, an error takes its place; the last event may have any size."""
        event = encode_json(write({"type": type, "sequence_number": self._number, **fields}), type)
        if len(event) > MAX_EVENT and self.running:
            return self.item_error(f"{type}: an event of {len(event)} bytes is over the limit")
        self._number += 1
        return event


def _usage(usage: Any) -> dict[str, Any]:
    """The counts, 0 where the upstream gives none, since clients need numbers."""
    counts = defaultdict(int, counted(usage))
    input, output = counts["inputTokens"], counts["outputTokens"]
    return {
        "input_tokens": input, "output_tokens": output, "total_tokens": counts["totalTokens"] or input + output,
        "input_tokens_details": {"cached_tokens": counts["cachedInputTokens"], "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": counts["reasoningTokens"]},
    }  # fmt: skip


def _broken(message: str, code: str) -> bytes:
    """The event for a client that can't get the next one. The SDKs raise for it."""
    return encode_json(write({"type": "error", **error_object(message, code)}), "error")

"""AG-UI 1.0: what `@ag-ui/client` sends and reads (`RunAgentInput`, `EventSchema`; its verifier's order).

    POST /ag-ui                            a run; its threadId is the conversation
    POST /ag-ui/{conversation}/stop        stops the work, for all who watch

    item, or end           events
    the first StageBegun   RUN_STARTED, STEP_STARTED
    another StageBegun     STEP_STARTED
    Chunk, Refusal         TEXT_MESSAGE_START, TEXT_MESSAGE_CONTENT …, TEXT_MESSAGE_END at the stage's end
    Reasoning              REASONING_START, REASONING_MESSAGE_START, -_CONTENT …, -_END, REASONING_END
    CallBegun, CallDelta   TOOL_CALL_START, TOOL_CALL_ARGS
    CallEnded              TOOL_CALL_END; REASONING_ENCRYPTED_VALUE with the fields that the upstream wants back
    ToolResult             TOOL_CALL_RESULT
    StageDone              STEP_FINISHED
    the source ended       RUN_FINISHED, success; pendingToolCallIds are those that the client has to answer
    it was stopped         what is open is ended, RUN_FINISHED, cancelled
    it failed              what is open is ended, RUN_ERROR
    events are lost        CUSTOM "gap", and the events of `spans`

A second request for the same run of the same thread joins that run and gets it from its beginning. AG-UI's client can't
reconnect, but it can ask for its run again. The `forwardedProps` are fields of the request: model, tools of the sidecar's by
name, linger, replace, …

Limit: `state` and `resume` are ignored, since there are no states and no interrupts. Reasoning of earlier messages is not
sent to the upstream; of media, images are.
"""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from handlers.chat import items
from handlers.chat.formats.base import ChatFormat
from handlers.chat.formats.spans import Spans
from handlers.chat.formats.usage import counted
from handlers.chat.request import TEXT, Check, Offer, check, parse_own, wrong
from handlers.chat.texts import write
from sse.errors import SourceFailed
from sse.formats import Written
from sse.ids import new_id
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps


class AGUI(ChatFormat):
    """One run."""

    name = "ag-ui"
    greets = False
    from_first = True

    def __init__(self, body: Any, offer: Offer) -> None:
        said, props, tools = _checked(body, offer)
        own = {**props, "conversation": body["threadId"], "messages": said, "tools": [*(props.get("tools") or ()), *tools]}
        request = parse_own(own, offer)
        assert request.conversation is not None
        self.request = replace(request, conversation=request.conversation._replace(run=body["runId"]))
        self.keeps = self._run = {"threadId": body["threadId"], "runId": body["runId"]}
        self._asked = time.monotonic()
        self._base = new_id()
        self._message = ""  # the id of this stage's
        self._prefix = b""  # what its content begins with
        self._thoughts = 0
        self._calls: dict[int, str] = {}  # ids of this stage's
        self._unanswered: dict[str, None] = {}  # ids of calls that the sidecar has to answer
        self._pending: list[str] = []
        self._usage: Any = None
        self._finish_reason = "stop"
        self._spans = Spans()

    # -- what is written

    def item(self, item: items.Item) -> Written:
        if type(item) is items.Chunk and item.text and self._message in self._spans and "thought" not in self._spans:
            return self._spans.event(b"%b%b}\n\n" % (self._prefix, write(item.text)))  # most items are this one
        return [*self._events(item)]

    def item_error(self, error: str) -> bytes:
        return _event("CUSTOM", name="item_error", value={"error": error})

    def gap(self, first: int, last: int) -> bytes:
        return self._spans.gap(first, last, _event("CUSTOM", name="gap", value={"first": first, "last": last}))

    def done(self) -> Written:
        pending = {"pendingToolCallIds": self._pending} if self._pending else {}
        return self._finished({"type": "success", **pending}, {"finishReason": self._finish_reason})

    def cancelled(self, reason: str) -> Written:
        begun = [] if self._spans.number else [self._begun()]
        return [*begun, *self._spans.end_all(), self._finished({"type": "cancelled"}, {"reason": reason})]

    def failed(self, failure: SourceFailed) -> Written:
        counts = {"usage": usage} if (usage := self._counted()) else {}
        return [*self._spans.end_all(), _event("RUN_ERROR", message=failure.message, code=failure.code, **counts)]

    def apology(self) -> bytes:
        return _event("RUN_ERROR", message="internal error", code="internal")

    # -- item by item

    def _events(self, item: items.Item) -> Iterator[bytes]:
        spans = self._spans
        match item:
            case items.StageBegun(number):
                if number == 1:
                    yield self._begun()
                self._calls, self._message, step = {}, f"msg-{self._base}-{number}", f"stage {number}"
                self._prefix = _event("TEXT_MESSAGE_CONTENT", messageId=self._message, delta="")[: -len(b'""}\n\n')]
                yield spans.begin("step", _event("STEP_STARTED", stepName=step), _event("STEP_FINISHED", stepName=step))
            case items.Chunk() | items.Refusal() if item.text:
                yield from self._end_thought()
                if self._message not in spans:
                    begin = _event("TEXT_MESSAGE_START", messageId=self._message, role="assistant")
                    yield spans.begin(self._message, begin, _event("TEXT_MESSAGE_END", messageId=self._message))
                yield spans.event(b"%b%b}\n\n" % (self._prefix, write(item.text)))
            case items.Reasoning(text):
                yield from self._think(text)
            case items.CallBegun(index, id, name):
                yield from self._end_thought()
                self._calls[index] = id
                begin = _event("TOOL_CALL_START", toolCallId=id, toolCallName=name, parentMessageId=self._message)
                yield spans.begin(id, begin, _event("TOOL_CALL_END", toolCallId=id))
            case items.CallDelta(index, arguments):
                yield spans.event(_event("TOOL_CALL_ARGS", toolCallId=self._calls[index], delta=arguments))
            case items.CallEnded(call):
                yield spans.end(call.id)
                if call.fields:
                    value = {"subtype": "tool-call", "entityId": call.id, "encryptedValue": dumps(call.fields).decode()}
                    yield spans.event(_event("REASONING_ENCRYPTED_VALUE", **value))
                if self.request.answers(call.name):
                    self._unanswered[call.id] = None
            case items.ToolResult(_, call, outcome):
                yield self._result(call.id, outcome.content)
            case items.StageDone():
                self._usage = items.add_usage(self._usage, item.usage)
                self._finish_reason, self._pending = item.finish_reason, [call.id for call in item.pending]
                for id in [*self._unanswered]:
                    yield self._result(id, '{"error":"This call was not run."}')
                yield from self._end_thought()
                if self._message in spans:
                    yield spans.end(self._message)
                yield spans.end("step")

    def _begun(self) -> bytes:
        return self._spans.begin("run", _event("RUN_STARTED", **self._run))

    def _think(self, text: str) -> Iterator[bytes]:
        if "thought" not in self._spans:
            self._thoughts += 1
            id = {"messageId": self._thought}
            yield self._spans.begin("reasoning", _event("REASONING_START", **id), _event("REASONING_END", **id))
            begin = _event("REASONING_MESSAGE_START", role="reasoning", **id)
            yield self._spans.begin("thought", begin, _event("REASONING_MESSAGE_END", **id))
        yield self._spans.event(_event("REASONING_MESSAGE_CONTENT", messageId=self._thought, delta=text))

    @property
    def _thought(self) -> str:
        return f"thought-{self._base}-{self._thoughts}"

    def _end_thought(self) -> Iterator[bytes]:
        if "thought" in self._spans:
            yield self._spans.end("thought")
            yield self._spans.end("reasoning")

    def _result(self, id: str, content: str) -> bytes:
        self._unanswered.pop(id, None)
        result = _event("TOOL_CALL_RESULT", messageId=f"result-{id}", toolCallId=id, content=content, role="tool")
        return self._spans.event(result)

    def _finished(self, outcome: Mapping[str, Any], result: Mapping[str, Any]) -> bytes:
        took = {"durationMs": round((time.monotonic() - self._asked) * 1000)}
        return _event("RUN_FINISHED", **self._run, outcome=outcome, result={**result, **took}, usage=self._counted())

    def _counted(self) -> list[dict[str, int]]:
        counts = counted(self._usage)
        return [counts] if counts else []


def _event(type: str, **fields: Any) -> bytes:
    return encode_json(dumps({"type": type, **fields}))


# -- what is read


_OBJECTS: Final[Check] = (
    lambda value: isinstance(value, list) and all(isinstance(entry, dict) for entry in value),
    "a list of objects",
)
_PROPS: Final[Check] = (
    lambda value: isinstance(value, dict) and isinstance(value.get("tools") or [], list),
    "an object here, whose tools are a list",
)
_FIELDS: Final[Mapping[str, Check]] = {
    **dict.fromkeys(("threadId", "runId"), TEXT),
    **dict.fromkeys(("messages", "tools", "context"), _OBJECTS),
    "forwardedProps": _PROPS,
}


def _checked(body: Any, offer: Offer) -> tuple[list[dict[str, Any]], Mapping[str, Any], list[dict[str, Any]]]:
    """The messages of a chat, the forwarded properties, the client's tools. Raises Problem."""
    check(body, _FIELDS, "threadId", "runId")
    messages, context, props = body.get("messages") or [], body.get("context") or [], body.get("forwardedProps") or {}
    answered = {message.get("toolCallId") for message in messages if message.get("role") == "tool"}
    said = offer.introduced([given for number, message in enumerate(messages) for given in _message(message, number, answered)])
    if context:
        told = "\n".join(f"{entry.get('description')}: {entry.get('value')}" for entry in context)
        at = sum(1 for message in said if message["role"] == "system")
        said.insert(at, {"role": "system", "content": told})
    return said, props, [{"type": "function", "function": _function(tool)} for tool in body.get("tools") or []]


def _function(tool: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tool[name] for name in ("name", "description", "parameters") if tool.get(name) is not None}


def _message(message: Mapping[str, Any], number: int, answered: set[Any]) -> Iterator[dict[str, Any]]:
    """A message of AG-UI's -> one of a chat, or none: reasoning and activities are not sent."""
    content = message.get("content")
    match message.get("role"):
        case "system" | "developer":
            yield {"role": "system", "content": content}
        case "user":
            parts = [_part(part, number) for part in content] if isinstance(content, list) else content
            yield {"role": "user", "content": parts}
        case "assistant":
            # A call without a result is left out, since the upstream would refuse it.
            calls = [call for call in message.get("toolCalls") or () if isinstance(call, dict) and call.get("id") in answered]
            made = [_sent_back(call) | {"id": call.get("id")} for call in calls]
            if content or made:
                yield {"role": "assistant", "content": content or None} | ({"tool_calls": made} if made else {})
        case "tool":
            if isinstance(content, list):
                content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
            result = dumps({"error": message["error"]}).decode() if message.get("error") else content
            yield {"role": "tool", "tool_call_id": message.get("toolCallId"), "content": result}
        case "activity" | "reasoning":
            return
        case role:
            raise wrong(f"messages[{number}].role", f"{str(role)[:100]!r} is none of AG-UI's")


def _sent_back(call: Mapping[str, Any]) -> dict[str, Any]:
    """A call as the model made it, with the fields that the client has kept."""
    try:
        fields = json.loads(call.get("encryptedValue") or "{}")
    except (TypeError, ValueError):  # another server's
        fields = {}
    fields = fields if isinstance(fields, dict) else {}
    function = {**(fields.get("function") or {}), **(call.get("function") or {})}
    return {"type": "function", **fields, "function": function}


def _part(part: Any, number: int) -> dict[str, Any]:
    """A part of a user's message. Raises Problem for what is no text and no image."""
    kind, source = (part.get("type"), part.get("source")) if isinstance(part, dict) else (None, None)
    if kind == "text":
        return {"type": "text", "text": part.get("text")}
    if kind == "image" and isinstance(source, dict) and source.get("type") in ("data", "url"):
        url = source.get("value")
        url = url if source["type"] == "url" else f"data:{source.get('mimeType')};base64,{url}"
        return {"type": "image_url", "image_url": {"url": url}}
    raise wrong(f"messages[{number}].content", "texts and images can be sent to the model, images by data or url")

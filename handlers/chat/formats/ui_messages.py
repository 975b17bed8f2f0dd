"""The AI SDK's UI messages: what its `useChat` sends and reads (npm `ai`, `uiMessageChunkSchema`; versions 5 to 7).

    POST /ui/chat                              what `DefaultChatTransport` posts; its `id` is the conversation
    GET /ui/chat/{conversation}/stream         the whole answer again, then live; 204 if there is none
    POST /ui/chat/{conversation}/stop          stops the work, for all who watch

    item, or end           parts
    the first StageBegun   start, start-step
    another StageBegun     start-step
    Chunk, Refusal         text-start, text-delta …, text-end
    Reasoning              reasoning-start, reasoning-delta …, reasoning-end
    CallBegun, CallDelta   tool-input-start, tool-input-delta; the sidecar's tools are `dynamic` and `providerExecuted`
    CallEnded              tool-input-available; tool-input-error where the arguments are not JSON
    ToolResult             tool-output-available, tool-output-error
    StageDone              finish-step
    the source ended       finish                                             then [DONE]
    it was stopped         what is open is closed, message-metadata, abort    then [DONE]
    it failed              what is open is closed, message-metadata, error    then [DONE]
    events are lost        data-gap, and the beginning of what is open

The client throws at a delta or a result whose part has not begun: after a gap those parts begin once more (`spans`). It
replaces a message by one with the same id: a page that comes back gets the answer from its beginning, and shows it once.

After the client has run its tools, the answer goes on within the last message of the assistant's. The client that posted has
the earlier parts of that message; all others get them first (`opening`). Calls among them come without tool-input-available,
at which the client would run its tools once more.

Limit: reasoning of earlier messages is not sent to the upstream; of files, images are.
Limit: if its connection breaks while the page stays, useChat of versions 5 and 6 adds the whole answer to the parts that it
has, which then stand there twice. A `fetch` that reconnects below it prevents that: docs/front-ends.md.
Limit: if an answer has ended in another process, its open parts do not begin once more after a gap.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from handlers.chat import items
from handlers.chat.fields import Pieces
from handlers.chat.formats.base import ChatFormat
from handlers.chat.formats.spans import Spans
from handlers.chat.formats.usage import counted
from handlers.chat.request import Offer, check, parse_own, wrong
from handlers.chat.texts import write
from handlers.chat.tools import loads
from sse.errors import Problem, SourceFailed, Unwritable
from sse.formats import DONE, Written
from sse.http import Response
from sse.ids import new_id
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps

_TRANSPORT: Final = ("id", "messages", "trigger", "messageId")
"""Fields of the client's; what an application adds to its body is the request's own: model, tools, linger, replace, …"""

_OWN: Final = "sidestream"
"""The provider's name under which the client keeps, and sends back, what else the upstream sent with a call."""

_REASONS: Final = ("stop", "length", "content-filter", "tool-calls")


class UIMessages(ChatFormat):
    """One message of the assistant's, part by part."""

    name = "ui-messages"
    headers = ((b"x-vercel-ai-ui-message-stream", b"v1"),)
    tells_opener = False
    from_first = True

    def __init__(self, body: Any, offer: Offer) -> None:
        messages = _checked(body)
        said = offer.introduced([message for each in messages for message in _from_ui(each)])
        rest = {name: value for name, value in body.items() if name not in _TRANSPORT}
        self.request = parse_own({"conversation": body.get("id"), **rest, "messages": said}, offer)
        self.keeps = self._earlier = messages[-1] if messages[-1]["role"] == "assistant" else {}
        self._id = self._earlier.get("id") or f"msg-{new_id()}"
        self._asked = time.monotonic()
        self._first: float | None = None
        self._usage: Any = None
        self._finish_reason = "other"
        self._spans = Spans()
        self._blocks = 0
        self._block = b'""'  # the id of the text or reasoning that is open, as JSON
        self._kind = ""  # what of those is open
        self._calls: dict[int, items.CallBegun] = {}  # of this stage
        self._due: dict[str, Pieces | None] = {}  # ids of calls that wait: for the rest of these arguments, or for the sidecar

    @classmethod
    def problem(cls, problem: Problem) -> Response:
        """A text: the client shows it."""
        return Response(problem.status, problem.detail.encode(), {"content-type": "text/plain", **problem.headers})

    # -- what is written

    def opening(self, stream_id: str) -> bytes | None:  # noqa: ARG002
        if not self._earlier:
            return None
        parts = enumerate(self._earlier["parts"])
        return b"".join([self._start(), *(event for number, part in parts for event in _again(part, number))])

    def item(self, item: items.Item) -> Written:
        if type(item) is items.Chunk and self._kind == "text" and item.text:  # most items are this one
            return self._spans.event(b'data: {"type":"text-delta","id":%b,"delta":%b}\n\n' % (self._block, write(item.text)))
        return [*self._events(item)]

    def item_error(self, error: str) -> bytes:
        return _part("data-item-error", data={"error": error})

    def gap(self, first: int, last: int) -> bytes:
        return self._spans.gap(first, last, _part("data-gap", data={"first": first, "last": last}))

    def done(self) -> Written:
        metadata = {"state": "done", "usage": counted(self._usage), **self._times()}
        return _part("finish", finishReason=self._finish_reason, messageMetadata=metadata), DONE

    def cancelled(self, reason: str) -> Written:
        metadata = _part("message-metadata", messageMetadata={"state": "cancelled", "reason": reason, **self._times()})
        return [*self._close_all("The answer was stopped."), metadata, _part("abort", reason=reason), DONE]

    def failed(self, failure: SourceFailed) -> Written:
        state = {"state": "failed", "code": failure.code, "retryable": failure.retryable, **self._times()}
        metadata = _part("message-metadata", messageMetadata=state)
        return [*self._close_all("The answer has failed."), metadata, _part("error", errorText=failure.message), DONE]

    def apology(self) -> bytes:
        return _part("error", errorText="internal error")

    # -- item by item

    def _events(self, item: items.Item) -> Iterator[bytes]:
        match item:
            case items.StageBegun(number):
                if number == 1:
                    yield self._spans.begin("message", self._start())
                self._calls = {}
                yield self._spans.event(_part("start-step"))
            case items.Chunk() | items.Refusal() if item.text:
                yield from self._piece("text", item.text)
            case items.Reasoning(text):
                yield from self._piece("reasoning", text)
            case items.CallBegun(index, id, name):
                yield from self._close_block()
                self._calls[index] = item
                self._due[id] = Pieces()
                yield self._spans.begin(id, _part("tool-input-start", toolCallId=id, toolName=name, **self._whose(name)))
            case items.CallDelta(index, arguments):
                id = self._calls[index].id
                if (due := self._due[id]) is not None:
                    due.add(arguments)
                yield self._spans.event(_part("tool-input-delta", toolCallId=id, inputTextDelta=arguments))
            case items.CallEnded(call):
                self._due[call.id] = None
                if not self._whose(call.name):
                    del self._due[call.id]
                yield self._spans.begin(call.id, self._input(call))
            case items.ToolResult(_, call, outcome):
                del self._due[call.id]
                fields = {"toolCallId": call.id, **self._whose(call.name)}
                if outcome.error is None:
                    yield self._spans.end(call.id, _part("tool-output-available", output=outcome.value, **fields))
                else:
                    yield self._spans.end(call.id, _part("tool-output-error", errorText=outcome.error, **fields))
            case items.StageDone():
                self._usage = items.add_usage(self._usage, item.usage)
                reason = item.finish_reason.replace("_", "-")
                self._finish_reason = reason if reason in _REASONS else "other"
                yield from self._close_all("This call was not run.")
                yield self._spans.event(_part("finish-step"))

    def _piece(self, kind: str, text: str) -> Iterator[bytes]:
        """The next piece of a text or of reasoning."""
        if self._first is None:
            self._first = time.monotonic()
        if self._kind != kind:
            yield from self._close_block()
            self._blocks, self._kind = self._blocks + 1, kind
            self._block = b'"%d"' % self._blocks
            yield self._spans.begin(kind, _part(f"{kind}-start", id=str(self._blocks)))
        yield self._spans.event(_part(f"{kind}-delta", id=str(self._blocks), delta=text))

    def _input(self, call: items.Call) -> bytes:
        fields: dict[str, Any] = {"toolCallId": call.id, "toolName": call.name, **self._whose(call.name)}
        if call.fields:
            fields["providerMetadata"] = {_OWN: call.fields}
        try:
            return _part("tool-input-available", input=loads(call.arguments), **fields)
        except (ValueError, Unwritable) as error:
            why = f"The arguments are not JSON that can be used: {error}."
            return _part("tool-input-error", input=call.arguments, errorText=why, **fields)

    def _whose(self, name: str) -> dict[str, bool]:
        """The members that mark a call as one that the sidecar answers."""
        return {"dynamic": True, "providerExecuted": True} if self.request.answers(name) else {}

    def _close_block(self) -> Iterator[bytes]:
        if self._kind:
            kind, self._kind = self._kind, ""
            yield self._spans.end(kind, _part(f"{kind}-end", id=str(self._blocks)))

    def _close_all(self, why: str) -> Iterator[bytes]:
        """End what is open, except calls of the client's own tools, which wait for the client."""
        yield from self._close_block()
        names = {call.id: call.name for call in self._calls.values()}
        for id, arguments in self._due.items():
            fields: dict[str, Any] = {"toolCallId": id, "errorText": why, **self._whose(names[id])}
            if arguments is not None:
                yield self._spans.end(id, _part("tool-input-error", toolName=names[id], input=arguments.whole(), **fields))
            else:
                yield self._spans.end(id, _part("tool-output-error", **fields))
        self._due = {}

    def _start(self) -> bytes:
        return _part(
            "start", messageId=self._id, messageMetadata={**(self._earlier.get("metadata") or {}), "state": "streaming"}
        )

    def _times(self) -> dict[str, int]:
        """Milliseconds since the request."""
        duration = {"durationMs": round((time.monotonic() - self._asked) * 1000)}
        return duration if self._first is None else {**duration, "firstTokenMs": round((self._first - self._asked) * 1000)}


def _part(type: str, **fields: Any) -> bytes:
    """A part of the protocol, as an event."""
    return encode_json(dumps({"type": type, **fields}))


# -- what is read


def _checked(body: Any) -> Sequence[dict[str, Any]]:
    """The messages of a body, whose outline is right. Raises Problem."""
    check(body, {"messages": (lambda value: isinstance(value, list) and value != [], "a list of UI messages")}, "messages")
    messages: list[dict[str, Any]] = body["messages"]
    for number, message in enumerate(messages):
        if not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant"):
            raise wrong(f"messages[{number}].role", "must be system, user or assistant")
        parts = message.get("parts")
        if not isinstance(parts, list) or not all(
            isinstance(part, dict) and isinstance(part.get("type"), str) for part in parts
        ):
            raise wrong(f"messages[{number}].parts", "must be a list of objects with a type")
    return messages


def _from_ui(message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A UI message -> messages of a chat. Parts that only the page understands are left out."""
    parts = message["parts"]
    if message["role"] == "assistant":
        for step in _steps(parts):
            yield from _assistant(step)
    elif all(part["type"] != "file" for part in parts):
        yield {"role": message["role"], "content": _text(parts)}
    else:
        yield {"role": message["role"], "content": [*filter(None, map(_content, parts))]}


def _steps(parts: Iterable[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The parts, stage by stage: a text behind calls belongs to the next stage."""
    step: list[dict[str, Any]] = []
    for part in parts:
        if part["type"] == "step-start" or (part["type"] == "text" and any(map(_tool, step))):
            yield step
            step = []
        step.append(part)
    yield step


def _assistant(step: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """One step, with its calls and their results. A call without a result is left out, since the upstream would refuse it."""
    calls = [part for part in step if _tool(part) and str(part.get("state")).startswith("output-")]
    if not calls and not _text(step):
        return
    made = [_call(part).message() for part in calls]
    yield {"role": "assistant", "content": _text(step) or None} | ({"tool_calls": made} if made else {})
    for part in calls:
        failed = part["state"] != "output-available"
        output = {"error": part.get("errorText") or "denied"} if failed else part.get("output")
        content = output if isinstance(output, str) else dumps(output).decode()
        yield {"role": "tool", "tool_call_id": part.get("toolCallId"), "content": content}


def _call(part: Mapping[str, Any]) -> items.Call:
    given, metadata = part.get("input"), part.get("callProviderMetadata")
    fields = metadata.get(_OWN) if isinstance(metadata, dict) else None
    arguments = dumps(given if isinstance(given, dict) else {}).decode()
    return items.Call(0, str(part.get("toolCallId")), _tool(part), arguments, fields if isinstance(fields, dict) else {})


def _tool(part: Mapping[str, Any]) -> str:
    """The name of the tool whose call a part is; empty if it is none."""
    kind: str = part["type"]
    return str(part.get("toolName")) if kind == "dynamic-tool" else kind[5:] if kind.startswith("tool-") else ""


def _text(parts: Iterable[Mapping[str, Any]]) -> str:
    return "".join(str(part.get("text") or "") for part in parts if part["type"] == "text")


def _content(part: Mapping[str, Any]) -> dict[str, Any] | None:
    """A part of a user's message. Raises Problem for a file that is no image."""
    if part["type"] == "text":
        return {"type": "text", "text": part.get("text")}
    if part["type"] != "file":
        return None
    if not str(part.get("mediaType")).startswith("image/"):
        raise wrong("messages", f"a file of type {str(part.get('mediaType'))[:100]} can't be sent to the model; images can")
    return {"type": "image_url", "image_url": {"url": part.get("url")}}


def _again(part: Mapping[str, Any], number: int) -> Iterator[bytes]:
    """A part that was there before this answer, as the protocol writes it."""
    kind, id = part["type"], f"earlier-{number}"
    if kind in ("text", "reasoning"):
        yield _part(f"{kind}-start", id=id)
        yield _part(f"{kind}-delta", id=id, delta=part.get("text") or "")
        yield _part(f"{kind}-end", id=id)
    elif kind == "step-start":
        yield _part("start-step")
    elif name := _tool(part):
        fields: dict[str, Any] = {"toolCallId": part.get("toolCallId")}
        whose = {"dynamic": True} if kind == "dynamic-tool" else {}
        yield _part("tool-input-start", toolName=name, providerExecuted=bool(part.get("providerExecuted")), **fields, **whose)
        yield _part("tool-input-delta", inputTextDelta=dumps(part.get("input")).decode(), **fields)
        if part.get("state") == "output-available":
            yield _part("tool-output-available", output=part.get("output"), **fields, **whose)
        else:
            yield _part("tool-output-error", errorText=part.get("errorText") or "denied", **fields, **whose)
    elif kind.startswith(("data-", "source-")) or kind == "file":
        yield _part(**part)

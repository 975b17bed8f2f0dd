"""How an answer is written: typed, plain, or as OpenAI would.

In:  the engine's items, and how the stream ended. Out: encoded events without their id line (`sse.formats.Format`).

    item          typed                    plain           openai
    Chunk         chat_completion_chunk    its text        the object; `openai_format`
    ToolResult    tool_completion_chunk
    ToolSummary   tool_summary
    StageDone     done                                     at the end: what only the end could tell
    the end       done, final              [DONE]          [DONE]
    cancelled     cancel                   cancelled       an error object
    failed        error                    error           an error object

What comes from upstream goes out as it came; it is written anew only where OpenAI's format makes one answer out of several.
"""

from collections.abc import Mapping
from typing import Any

from handlers.chat.formats import events
from handlers.chat.formats.openai import OpenAI
from handlers.chat.items import Item, StageBegun, StageDone, ToolResult, ToolSummary
from handlers.chat.request import ChatRequest
from handlers.chat.upstream.chunks import Chunk, write
from sse.errors import SourceFailed
from sse.formats import Format
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps


def format_for(request: ChatRequest) -> Format:
    """The format that the request asks for, for one stream."""
    if request.format == "openai":
        return OpenAI(merge=bool(request.own_tools), include_usage=request.include_usage)
    return ChatPlain() if request.format == "plain" else Typed()


class ChatPlain(Format):
    """`{"content": …}` for each piece of text, and nothing else."""

    def item(self, item: Item) -> bytes:
        if type(item) is not Chunk or not item.text:
            return b""
        return encode_json(write({"content": item.text}))


class Typed(Format):
    """The events of `handlers.chat.formats.events`."""

    name = "typed"

    def __init__(self) -> None:
        self._begin(1)
        self._final: dict[str, Any] | None = None

    def _begin(self, stage_id: int) -> None:
        self._stage_id = stage_id
        self._before_chunk = b'event: chat_completion_chunk\ndata: {"stage_id":%d,"chunk":' % stage_id

    def opening(self, stream_id: str) -> bytes | None:  # noqa: ARG002
        return None

    def item(self, item: Item) -> bytes:
        match item:
            case Chunk():
                # Most events of a stream are this one: put together, and not built and dumped.
                return b"%b%b}\n\n" % (self._before_chunk, item.json)
            case StageBegun(stage_id):
                self._begin(stage_id)
            case ToolResult():
                return self._event("tool_completion_chunk", {"tool_results": tool_chunk(item)})
            case ToolSummary(calls):
                return self._event("tool_summary", {"tool_summary": {"calls": calls}})
            case StageDone():
                done = self._stage_done(item)
                if not item.final:
                    return self._event("done", done)
                self._final = done
        return b""

    def item_error(self, error: str) -> bytes:
        return self._event("item_error", {"error": error})

    def gap(self, first: int, last: int) -> bytes:
        return self._event("gap", {"first": first, "last": last})

    def done(self) -> bytes:
        return self._event("done", self._final or {"finish_reason": "stop", "usage": None, "final": True})

    def cancelled(self, reason: str) -> bytes:
        return self._event("cancel", {"reason": reason})

    def failed(self, failure: SourceFailed) -> bytes:
        return self._event("error", {"error": failure.message, "code": failure.code, "retryable": failure.retryable})

    def _stage_done(self, item: StageDone) -> dict[str, Any]:
        done: dict[str, Any] = {"finish_reason": item.finish_reason, "usage": item.usage, "final": item.final}
        if item.pending:
            done["pending"] = [{"id": call.id, "name": call.name, "arguments": call.arguments} for call in item.pending]
        return done

    def _event(self, name: str, payload: Mapping[str, Any]) -> bytes:
        payload = {"stage_id": self._stage_id, **payload}
        return encode_json(dumps(payload), name)


def tool_chunk(result: ToolResult) -> dict[str, Any]:
    """A tool's result in the shape of a chunk; its `delta` is an `events.ToolDelta`."""
    delta: events.ToolDelta = {
        "role": "tool",
        "tool_call_id": result.call.id,
        "name": result.call.name,
        "content": result.outcome.content,
    }
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return {**result.head, "object": "chat.completion.chunk", "choices": [choice]}

"""The typed format: stages, tools, and the model's chunks as they came, each under an event name. docs/typed-events.md is for
those who write a client.

    item         event
    Chunk        chat_completion_chunk
    ToolResult   tool_completion_chunk
    ToolsDone    tool_summary
    StageDone    done
    the end      done with final, cancel, or error
"""

from collections.abc import Mapping
from typing import Any

from handlers.chat.formats.base import ChatFormat
from handlers.chat.items import Chunk, Item, StageBegun, StageDone, ToolResult, ToolsDone
from sse.errors import SourceFailed
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps


class Typed(ChatFormat):
    """Every payload says which stage it is of."""

    name = "typed"
    greets = False

    _stage_id = "1"
    _before_chunk = b""
    _final: Mapping[str, Any] = {"finish_reason": "stop", "usage": None, "final": True}

    def item(self, item: Item) -> bytes:
        match item:
            case Chunk():
                # Most events of a stream are this one: put together, and not built and dumped.
                return b"%b%b}\n\n" % (self._before_chunk, item.json)
            case StageBegun(number):
                self._stage_id = str(number)
                self._before_chunk = b'event: chat_completion_chunk\ndata: {"stage_id":"%d","chunk":' % number
            case ToolResult():
                return self._event("tool_completion_chunk", {"tool_results": _tool_chunk(item)})
            case ToolsDone(results):
                return self._event("tool_summary", {"tool_summary": {"calls": [result.summary() for result in results]}})
            case StageDone():
                done = _done(item)
                if not item.final:
                    return self._event("done", done)
                self._final = done
        return b""

    def item_error(self, error: str) -> bytes:
        return self._event("item_error", {"error": error})

    def gap(self, first: int, last: int) -> bytes:
        return self._event("gap", {"first": first, "last": last})

    def done(self) -> bytes:
        return self._event("done", self._final)

    def cancelled(self, reason: str) -> bytes:
        return self._event("cancel", {"reason": reason})

    def failed(self, failure: SourceFailed) -> bytes:
        return self._event("error", {"error": failure.message, "code": failure.code, "retryable": failure.retryable})

    def _event(self, name: str, payload: Mapping[str, Any]) -> bytes:
        return encode_json(dumps({"stage_id": self._stage_id, **payload}), name)


def _done(item: StageDone) -> dict[str, Any]:
    done: dict[str, Any] = {"finish_reason": item.finish_reason, "usage": item.usage, "final": item.final}
    if item.pending:
        done["pending"] = [
            {"id": call.id, "name": call.name, "arguments": call.arguments, **call.fields} for call in item.pending
        ]
    return done


def _tool_chunk(result: ToolResult) -> dict[str, Any]:
    """A tool's result in the shape of a chunk."""
    call, content = result.call, result.outcome.content
    delta = {"role": "tool", "tool_call_id": call.id, "name": call.name, "content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    return {**result.head, "object": "chat.completion.chunk", "choices": [choice]}

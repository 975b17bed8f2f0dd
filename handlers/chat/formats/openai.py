"""The format of OpenAI's own `/v1/chat/completions`, as its SDK reads it.

No ids and no retry, since the SDK takes either for an event of its own. `[DONE]` stands for success alone; everything else ends
with an `{"error": …}` object, for which the SDK raises.
"""

from typing import Any

from handlers.chat.items import Item, StageDone, add_usage
from handlers.chat.upstream.chunks import Chunk, write
from sse.errors import SourceFailed
from sse.formats import DONE, Format
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps


class OpenAI(Format):
    """Without tools of the sidecar the chunks go through as they came, less the usage that nobody asked for.

    With them (merge), all stages together look like one answer: the first one's id, one role, one finish_reason, no calls but
    those that the client has to run, usage summed.
    """

    name = "openai"
    ids = False
    transliterated = False

    def __init__(self, *, merge: bool = False, include_usage: bool = False) -> None:
        self._merge = merge
        self._include_usage = include_usage
        self._head: dict[str, Any] | None = None  # of the merged answer: what all its chunks have in common
        self._usage: dict[str, Any] | None = None

    def opening(self, stream_id: str) -> bytes | None:  # noqa: ARG002
        return None

    def item(self, item: Item) -> bytes:
        match item:
            case Chunk():
                return self._merged(item) if self._merge else self._passed_on(item)
            case StageDone():
                self._usage = add_usage(self._usage, item.usage)
                if self._merge and item.final:
                    return self._finish(item)
        return b""

    def item_error(self, error: str) -> bytes:
        return encode_error(error, "item_error")

    def gap(self, first: int, last: int) -> bytes:
        return encode_error(f"chunks {first} to {last} are lost", "gap")

    def done(self) -> bytes:
        """Two events where the usage of a merged answer was asked for: without ids, that is possible."""
        if self._merge and self._include_usage:
            return encode_json(write({**(self._head or {}), "choices": [], "usage": self._usage})) + DONE
        return DONE

    def cancelled(self, reason: str) -> bytes:
        return encode_error(f"the answer was cancelled: {reason}", "cancelled")

    def failed(self, failure: SourceFailed) -> bytes:
        return encode_error(failure.message, failure.code)

    def _passed_on(self, chunk: Chunk) -> bytes:
        if chunk.usage is None or self._include_usage:
            return encode_json(chunk.json)
        value = {name: field for name, field in chunk.value.items() if name != "usage"}
        if not any(_says_something(choice) for choice in value.get("choices") or ()):
            return b""  # it was there for the usage alone
        return encode_json(write(value))

    def _merged(self, chunk: Chunk) -> bytes:
        choice = next(iter(chunk.value.get("choices") or ()), None) or {}
        delta = {name: field for name, field in (choice.get("delta") or {}).items() if name not in ("role", "tool_calls")}
        if self._head is None:
            self._head = {name: chunk.value.get(name) for name in ("id", "object", "created", "model")}
            delta = {"role": "assistant", "content": "", **{k: v for k, v in delta.items() if v is not None}}
        elif not any(delta.values()):
            return b""
        value = {name: field for name, field in chunk.value.items() if name != "usage"}
        return encode_json(write({**value, **self._head, "choices": [{**choice, "delta": delta, "finish_reason": None}]}))

    def _finish(self, item: StageDone) -> bytes:
        delta = {"tool_calls": [{"index": index, **call.message()} for index, call in enumerate(item.pending)]}
        choice = {"index": 0, "delta": delta if item.pending else {}, "finish_reason": item.finish_reason}
        return encode_json(write({**(self._head or {}), "choices": [choice]}))


def _says_something(choice: Any) -> bool:
    return bool(choice and (choice.get("finish_reason") or any((choice.get("delta") or {}).values())))


def error_object(message: str, code: str | None, *, type: str = "upstream_error", param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object, as a body or as the last event of a stream."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def encode_error(message: str, code: str) -> bytes:
    return encode_json(dumps(error_object(message, code)))

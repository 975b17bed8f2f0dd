"""A stage: one request to the model, and what has come of it so far.

The message is put together from its chunks. It goes back to the upstream with the next stage, and nothing that the upstream
sent with it is lost. Some upstreams refuse a message that lacks it: Gemini's `extra_content`, DeepSeek's `reasoning_content`,
OpenRouter's `reasoning_details`.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from sys import getsizeof
from typing import Any, Final

from handlers.chat.fields import Fields, Pieces, footprint
from handlers.chat.items import Call, CallEnded, Chunk, Item, Reasoning, Refusal, ToolResult, head_of
from handlers.chat.texts import write
from handlers.chat.upstream.calls import Calls

_BROKEN_OFF: Final = re.compile(
    r"length|max_?\w*tokens|limit|exceed|filter|safety|block|prohibit|recitation|spii|guardrail|refus|toxic|error|fail"
    r"|malformed|abort|cancel|interrupt|incomplete|insufficient|timeout|overload",
    re.IGNORECASE,
)
"""Words in the finish_reasons of answers that were broken off. After any other finish_reason, and after none, calls are run."""


class Stage:
    """number: from 1. tools: names that the model may call. taken: ids of the calls of stages before.

    head: `id`, `created` and `model`, of the first chunk with a choice. fields: what the message holds besides text and calls.
    usage: the last that came. results: of the sidecar's tools, once all have run. charged: bytes of its `size`, by the engine.
    """

    def __init__(self, number: int = 1, tools: Collection[str] = (), taken: set[str] | None = None) -> None:
        self.number = number
        self.head: dict[str, Any] = {}
        self.text = Pieces()
        self.fields = Fields()
        self.calls: list[Call] = []
        self.finish_reason: str | None = None
        self.usage: Any = None
        self.results: tuple[ToolResult, ...] = ()
        self._growing = Calls(f"call_{number}_", tools, taken)
        self._content: Pieces | None = None  # the same as `text`, since a list of parts has come
        self.charged = 0
        self._size = self._length = 0

    @property
    def size(self) -> int:
        """Bytes of memory that it takes; a text counts twice, since it is put together in the end."""
        content = self._content.size if self._content is not None else 0
        said = self._size + self.text.size + content + self.fields.size + self._growing.size
        return 2 * said + footprint(self.usage) + getsizeof(self.finish_reason)

    @property
    def length(self) -> int:
        """Characters of texts, reasoning, and the arguments of calls."""
        return self._length + self._growing.length

    def add(self, chunk: Chunk) -> Sequence[Item]:
        """Add the chunk to the message, and make items of it."""
        if chunk.parts and self._content is None:
            self._content = Pieces()
            self._content.add([{"type": "text", "text": self.text.whole()}] if self.text.held else [])
        if chunk.text:
            self._length += len(chunk.text)
            self.text.add(chunk.text)
        if self._content is not None and (chunk.text or chunk.parts):
            self._content.add(chunk.parts or [{"type": "text", "text": chunk.text}])
        if chunk.finish_reason:
            self.finish_reason = chunk.finish_reason
        if chunk.usage:
            self.usage = chunk.usage  # upstreams that send it with every chunk count up
        if not self.head and chunk.value.get("choices"):
            self.head = head_of(chunk.value)
            self._size = footprint(self.head)
        if chunk.fields:
            self.fields.add(chunk.fields)
        if not (chunk.reasoning or chunk.refusal or chunk.fragments):
            return (chunk,)
        self._length += len(chunk.reasoning) + len(chunk.refusal)
        before = [kind(text) for kind, text in ((Reasoning, chunk.reasoning), (Refusal, chunk.refusal)) if text]
        return [*before, chunk, *self._growing.feed(chunk.fragments or ())]

    def end(self) -> Sequence[Item]:
        """No chunk follows. Returns the last items of the tool calls. Raises UpstreamFailed."""
        deltas = self._growing.end()
        self.calls = self._growing.whole()
        return [*deltas, *map(CallEnded, self.calls)]

    @property
    def broken_off(self) -> bool:
        """Whether the answer was broken off. Its calls may be incomplete then, or are not to be run."""
        return bool(_BROKEN_OFF.search((self.finish_reason or "")[:100]))

    @property
    def result(self) -> dict[str, Any]:
        """The stage in an answer's `result`."""
        return {
            "stage_id": str(self.number),
            "text": self.text.whole(),
            "calls": [result.summary() for result in self.results],
            "finish_reason": self.finish_reason,
            "usage": self.usage,
        }

    def messages(self) -> list[dict[str, Any]]:
        """The messages that the next stage adds: the assistant's, and one for each tool that has run."""
        content = (self._content or self.text).whole()
        told = [{"role": "tool", "tool_call_id": one.call.id, "content": one.outcome.content} for one in self.results]
        return [message(content, self.fields.whole(), map(_sent_back, self.results)), *told]


def message(content: Any, fields: Mapping[str, Any], calls: Iterable[Call]) -> dict[str, Any]:
    """An assistant message with these calls."""
    made = [call.message() for call in calls]
    return {"role": "assistant", "content": content or None, **fields, **({"tool_calls": made} if made else {})}


def completion(head: Mapping[str, Any], message: Mapping[str, Any], finish_reason: str | None, usage: Any) -> bytes:
    """OpenAI's `chat.completion` object, as JSON."""
    choice = {"index": 0, "message": message, "finish_reason": finish_reason}
    return write({**head, "object": "chat.completion", "choices": [choice], "usage": usage})


def _sent_back(result: ToolResult) -> Call:
    """The call as the upstream gets it back: always with a JSON object, since some upstreams parse the arguments."""
    return result.call if isinstance(result.outcome.arguments, dict) else replace(result.call, arguments="{}")

"""A model's message, put together from its chunks. Nothing that the upstream sent with it is lost: it can go back whole.

Some refuse the next stage without what they sent beside the text: Gemini's `extra_content`, DeepSeek's `reasoning_content`,
OpenRouter's `reasoning_details`, Mistral's parts that think.
"""

from collections.abc import Collection, Iterable
from typing import Any

from handlers.chat.fields import Fields, whole
from handlers.chat.items import Call, CallBegun, CallDelta, Chunk, head_of
from handlers.chat.texts import joined
from handlers.chat.upstream.calls import Calls


class Message:
    """head: `id`, `created` and `model`, of the first chunk with a choice. usage: the last that came.

    tools, prefix, taken: as `Calls` has them.
    """

    def __init__(self, prefix: str = "call_", tools: Collection[str] = (), taken: set[str] | None = None) -> None:
        self.head: dict[str, Any] = {}
        self.texts: list[str] = []
        self.finish_reason: str | None = None
        self.usage: Any = None
        self.fields = Fields()
        self._calls = Calls(prefix, tools, taken)
        self._parts: dict[int, list[Any]] = {}  # by their place in `texts`

    def add(self, chunk: Chunk) -> list[CallBegun | CallDelta]:
        """Take what the chunk says. Returns what it adds to the tool calls."""
        if chunk.parts:
            self._parts[len(self.texts)] = chunk.parts
        if chunk.text or chunk.parts:
            self.texts.append(chunk.text)
        if chunk.finish_reason:
            self.finish_reason = chunk.finish_reason
        if chunk.usage:
            self.usage = chunk.usage  # those who send it with every chunk count up
        if not self.head and chunk.value.get("choices"):
            self.head = head_of(chunk.value)
        if chunk.fields:
            self.fields.add(chunk.fields)
        return self._calls.feed(chunk.fragments) if chunk.fragments else []

    def end(self) -> list[CallBegun | CallDelta]:
        """No chunk follows. Returns what there is left to say of the tool calls. Raises UpstreamFailed."""
        return self._calls.end()

    def calls(self) -> list[Call]:
        """The tool calls, as far as they have come."""
        return self._calls.whole()

    def value(self, calls: Iterable[Call]) -> dict[str, Any]:
        """The assistant's message, with these of its tool calls."""
        content: Any = joined(self.texts) or None
        if self._parts:
            content = whole([self._parts.get(i) or [{"type": "text", "text": text}] for i, text in enumerate(self.texts)])
        made = [call.message() for call in calls]
        return {"role": "assistant", "content": content, **self.fields.whole(), **({"tool_calls": made} if made else {})}

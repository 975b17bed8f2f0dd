"""The plain format: `{"content": …}` for each piece of text, and nothing else; for a bare EventSource by GET, too."""

from typing import Any

from handlers.chat.formats.base import ChatFormat
from sse.errors import Problem
from sse.http import Request


class Plain(ChatFormat):
    """All is as `ChatFormat` has it."""


class Asked(Plain):
    """`?prompt=&model=`, since an EventSource sends no body."""

    @classmethod
    async def body(cls, request: Request, limit: int) -> Any:  # noqa: ARG003
        if not request.query.get("prompt"):
            raise Problem(400, "prompt is missing.", parameter="prompt")
        return {name: request.query[name] for name in ("prompt", "model") if request.query.get(name)}

"""The plain format: `{"content": …}` for each piece of text, and nothing else; for a bare EventSource by GET, too."""

from handlers.chat.formats.base import ChatFormat
from handlers.chat.request import Offer
from sse.errors import Problem
from sse.http import Request
from sse.wire.payload import dumps


class Plain(ChatFormat):
    """All is as `ChatFormat` has it."""


class Asked(Plain):
    """`?prompt=&model=`, since an EventSource sends no body."""

    @classmethod
    async def asked(cls, request: Request, offer: Offer, limit: int, *_: type[ChatFormat]) -> tuple[ChatFormat, bytes]:  # noqa: ARG003
        if not request.query.get("prompt"):
            raise Problem(400, "prompt is missing.", parameter="prompt")
        body = {name: request.query[name] for name in ("prompt", "model") if request.query.get(name)}
        return cls(body, offer), dumps(body)

"""`GET /chat/formats` lists the formats, `GET /chat/formats/{name}` writes one recorded answer in one of them.

In:  the formats that have routes; a new one is added by its route. Out: an event stream of this one connection.

The answer is the demonstration model's: a tool call, its result, and a second stage that speaks of it. It is run once through
the engine, when it is first asked for, and no upstream is asked. The formats differ only in how they write it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from handlers.chat.engine import Answer
from handlers.chat.formats.base import ChatFormat
from handlers.chat.formats.plain import Plain
from handlers.chat.items import Item
from handlers.chat.request import Offer
from handlers.chat.tools import Toolbox
from handlers.chat.upstream.demo import DemoUpstream
from sidecar import answers
from sidecar.request import Reply, Request
from sse.errors import Problem
from sse.http import json_response

PROMPT: Final = "calculate (2 + 3) * 4"
MESSAGE: Final = {"id": "m", "role": "user", "content": PROMPT, "parts": [{"type": "text", "text": PROMPT}]}
OWN: Final = {"tools": ["calculate"]}
BODIES: Final[Sequence[Mapping[str, Any]]] = (
    {"prompt": PROMPT, **OWN},
    {"messages": [{"role": "user", "content": PROMPT}], "stream": True, **OWN},
    {"input": PROMPT, "stream": True, **OWN},
    {"id": "chat", "messages": [MESSAGE], "trigger": "submit-message", **OWN},
    {"threadId": "thread", "runId": "run", "messages": [MESSAGE], "forwardedProps": OWN},
)
"""The same request in the shapes of different clients. A format takes the first one that it understands."""


class Samples:
    """Its methods are the handlers. formats: those that there are routes of, by name, in the order of the routes."""

    def __init__(self, offer: Offer, toolbox: Toolbox) -> None:
        self.formats: dict[str, type[ChatFormat]] = {}
        self._offer = offer
        self._toolbox = toolbox
        self._items: list[Item] = []

    async def index(self, request: Request) -> Reply:  # noqa: ARG002
        """`GET /chat/formats`."""
        return json_response({"formats": list(self.formats)})

    async def show(self, request: Request) -> Reply:
        """`GET /chat/formats/{name}`."""
        kind = self.formats.get(request.params["name"])
        if kind is None:
            raise Problem(404, f"There is no such format; there are {', '.join(self.formats)}.")
        if not self._items:
            self._items = [item async for item in Answer(self.made(Plain), DemoUpstream(0), self._toolbox)]
        return await answers.private(request, _again(self._items), self.made(kind))

    def made(self, kind: type[ChatFormat]) -> ChatFormat:
        """The format, made of the first body that it understands. Raises Problem 404 if there is none."""
        for body in BODIES:
            with suppress(Problem):
                return kind(body, self._offer)
        raise Problem(404, f"There is no sample in the format {kind.name}.")


async def _again(items: Sequence[Item]) -> AsyncIterator[Item]:
    for item in items:
        yield item

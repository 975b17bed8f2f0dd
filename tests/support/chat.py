"""What the tests of the chat engine share: an upstream client on a scripted server, and an answer from it."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from handlers.chat import builtin
from handlers.chat.engine import Answer
from handlers.chat.formats.typed import format_for
from handlers.chat.items import Item
from handlers.chat.request import parse_request
from handlers.chat.tools import Toolbox
from handlers.chat.upstream.openai_sdk import OpenAIUpstream
from sidecar.functions import Function
from sse.formats import Transliterated
from tests.support.streams import joined
from tests.support.upstream import Script, Upstream, serve

KEY = "sk-test-0123456789"
MESSAGES = [{"role": "user", "content": "Hello"}]


@asynccontextmanager
async def client_of(upstream: Upstream, key: str | None = KEY, **options: Any) -> AsyncIterator[OpenAIUpstream]:
    """The sidecar's client of the upstream, configured by the environment as in production."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", upstream.url)
        patch.delenv("OPENAI_API_KEY", raising=False)
        if key is not None:
            patch.setenv("OPENAI_API_KEY", key)
        client = OpenAIUpstream(**{"model": "test", **options})
        await client.load()
    try:
        yield client
    finally:
        await client.aclose()


class Chat:
    """A scripted upstream and the engine in front of it."""

    def __init__(self, upstream: Upstream, client: OpenAIUpstream, tools: tuple[Function, ...]) -> None:
        self.upstream = upstream
        self.client = client
        self.toolbox = Toolbox([builtin.current_time, builtin.calculate, *tools])

    def answer(self, body: dict[str, Any] | None = None, *, openai: bool = False) -> Answer:
        body = {"messages": MESSAGES, **(body or {})}
        return Answer(parse_request(body, tools=self.toolbox.tools, openai=openai), self.client, self.toolbox)

    async def items(self, body: dict[str, Any] | None = None, *, openai: bool = False) -> list[Item]:
        async with aclosing(self.answer(body, openai=openai)) as answer:
            return [item async for item in answer]

    async def written(self, body: dict[str, Any] | None = None, *, openai: bool = False, ascii: bool = False) -> bytes:
        """The whole event stream of an answer that succeeds."""
        async with aclosing(self.answer(body, openai=openai)) as answer:
            format = format_for(answer.request)
            format = Transliterated(format) if ascii and format.transliterated else format
            return joined(*[format.item(item) async for item in answer], format.done())


@asynccontextmanager
async def chat(*scripts: Script, tools: tuple[Function, ...] = (), **options: Any) -> AsyncIterator[Chat]:
    async with serve(*scripts) as upstream, client_of(upstream, **options) as client:
        yield Chat(upstream, client, tools)

"""What the tests of the chat engine share: an upstream client on a scripted server, and an answer from it."""

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from handlers.chat import builtin
from handlers.chat.engine import Answer, Upstream
from handlers.chat.formats.base import ChatFormat
from handlers.chat.formats.typed import Typed
from handlers.chat.items import Item
from handlers.chat.request import Offer
from handlers.chat.tools import Toolbox
from handlers.chat.upstream.openai_sdk import OpenAIUpstream
from sidecar.functions import Function
from sse.formats import Written
from tests.support.upstream import Script, serve
from tests.support.upstream import Upstream as Server

KEY = "sk-test-0123456789"
MESSAGES = [{"role": "user", "content": "Hello"}]


@asynccontextmanager
async def client_of(upstream: Server, key: str | None = KEY, **options: Any) -> AsyncIterator[OpenAIUpstream]:
    """The sidecar's client of the upstream, configured by the environment as in production."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", upstream.url)
        patch.delenv("OPENAI_API_KEY", raising=False)
        if key is not None:
            patch.setenv("OPENAI_API_KEY", key)
        client = OpenAIUpstream.from_environment(**{"model": "test", **options})
        assert client is not None
        await client.start()
    try:
        yield client
    finally:
        await client.aclose()


def encoded(written: Written) -> bytes:
    return written if isinstance(written, bytes) else b"".join(written)


class Asking:
    """The engine in front of an upstream."""

    def __init__(self, client: Upstream, tools: tuple[Function, ...] = ()) -> None:
        self.client = client
        self.toolbox = Toolbox([builtin.current_time, builtin.calculate, *tools])

    def answer(self, body: dict[str, Any] | None = None, format: type[ChatFormat] = Typed) -> Answer:
        """The answer to a body, which asks with MESSAGES if it says nothing else."""
        body = body or {}
        if "prompt" not in body:
            body = {"messages": MESSAGES, **body}
        return Answer(format(body, Offer(self.toolbox.tools)), self.client, self.toolbox)

    async def items(self, body: dict[str, Any] | None = None, format: type[ChatFormat] = Typed) -> list[Item]:
        async with aclosing(self.answer(body, format)) as answer:
            return [item async for item in answer]

    async def written(self, body: dict[str, Any] | None = None, format: type[ChatFormat] = Typed) -> bytes:
        """The whole event stream of an answer that succeeds."""
        async with aclosing(self.answer(body, format)) as answer:
            return b"".join([encoded(answer.format.item(item)) async for item in answer]) + encoded(answer.format.done())


class Chat(Asking):
    """A scripted upstream and the engine in front of it."""

    def __init__(self, upstream: Server, client: OpenAIUpstream, tools: tuple[Function, ...]) -> None:
        super().__init__(client, tools)
        self.upstream = upstream


@asynccontextmanager
async def chat(*scripts: Script, tools: tuple[Function, ...] = (), **options: Any) -> AsyncIterator[Chat]:
    async with serve(*scripts) as upstream, client_of(upstream, **options) as client:
        yield Chat(upstream, client, tools)

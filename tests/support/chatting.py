"""The whole application in process, in front of a scripted upstream on a real socket."""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest

from app import Sidestream
from handlers.chat.upstream.openai_sdk import OpenAIUpstream
from sidecar.settings import Settings
from sse.testing import OpenedStream, open_stream
from tests.support.app import HOST, Answer, ask
from tests.support.chat import KEY
from tests.support.upstream import Script, Upstream, serve

V1 = "/v1/chat/completions"


class Sidecar:
    """The application, and the upstream that it uses."""

    def __init__(self, app: Sidestream, upstream: Upstream) -> None:
        self.app = app
        self.upstream = upstream

    async def post(self, body: Any, path: str = "/chat", headers: Mapping[str, str] | None = None) -> Answer:
        return await ask(self.app, path, method="POST", json=body, headers=headers)

    async def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answer:
        return await ask(self.app, path, headers=headers)

    def watching(self, path: str, body: Any) -> AbstractAsyncContextManager[OpenedStream]:
        """A client of an answer that isn't complete."""
        return open_stream(self.app, path, method="POST", json=body, headers={"host": HOST})

    @property
    def asked(self) -> int:
        """How many requests have reached the upstream."""
        return len(self.upstream.requests)


@asynccontextmanager
async def sidecar(
    *scripts: Script, models: Script | Sequence[Script] = (), application: type[Sidestream] = Sidestream, **settings: Any
) -> AsyncIterator[Sidecar]:
    with pytest.MonkeyPatch.context() as patch:
        async with serve(*scripts, models=models) as upstream:
            patch.setenv("OPENAI_BASE_URL", upstream.url)
            patch.setenv("OPENAI_API_KEY", KEY)
            app = application(Settings(**{"model": "test", **settings}))
            app.start()
            assert app.features is not None
            client = app.features.chat.upstream
            assert isinstance(client, OpenAIUpstream)
            await client.start()
            try:
                yield Sidecar(app, upstream)
            finally:
                await app.stop()


def demo(**settings: Any) -> Sidestream:
    return Sidestream(Settings(demo_interval=0, **settings))


def named(answer: Answer) -> list[tuple[str, Any]]:
    """The events: name and payload."""
    return [(e.type, e.data if e.data == "[DONE]" else json.loads(e.data)) for e in answer.events]

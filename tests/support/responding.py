"""The Responses API as a test asks for it: over our own server on a socket, by the unchanged SDK, or in process."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest

from app import Sidestream
from sidecar.settings import Settings
from tests.support.app import Answer, serving
from tests.support.chat import KEY
from tests.support.upstream import DONE, Script, Upstream, call, chunk, chunk_object, event, finish, reply, serve, usage

RESPONSES = "/v1/responses"
LOOKUP: Any = {
    "type": "function",
    "name": "lookup",
    "description": "Find a word.",
    "parameters": {
        "type": "object",
        "properties": {"word": {"type": "string"}},
        "required": ["word"],
        "additionalProperties": False,
    },
    "strict": True,
}


def thought(text: str) -> bytes:
    return event(chunk_object({"reasoning_content": text}))


def refusal(text: str) -> bytes:
    return event(chunk_object({"refusal": text}))


HELLO = reply(chunk("Hel"), chunk("lo"), finish(), usage(3, 2), DONE)
EVERYTHING = reply(
    thought("Let me "),
    thought("see."),
    chunk("I look "),
    chunk("it up."),
    call("lookup", '{"word": '),
    call("", '"a"}', id=None),
    call("lookup", '{"word": "b"}', id="call_2", index=1),
    finish("tool_calls"),
    usage(11, 7),
    DONE,
)
"""Text, reasoning and two calls of a client's tool."""


@asynccontextmanager
async def served(*scripts: Script, **settings: Any) -> AsyncIterator[tuple[str, Upstream, Sidestream]]:
    """The sidecar under its own server, in front of scripts: its base URL for an SDK."""
    with pytest.MonkeyPatch.context() as patch:
        async with serve(*scripts) as upstream:
            patch.setenv("OPENAI_BASE_URL", upstream.url)
            patch.setenv("OPENAI_API_KEY", KEY)
            chosen = Settings(**{"model": "test", "drain": 0, **settings})
            app = Sidestream(chosen)
            async with serving(app, chosen) as (_, port):
                yield f"http://127.0.0.1:{port}/v1", upstream, app


class Client:
    """The SDK, the upstream behind the sidecar, and the sidecar."""

    def __init__(self, sdk: openai.AsyncOpenAI, upstream: Upstream, app: Sidestream) -> None:
        self.responses = sdk.responses
        self.sdk = sdk
        self.upstream = upstream
        self.app = app

    async def ended(self, id: str) -> Any:
        """The response, once it has ended."""
        async for _ in await self.responses.retrieve(id, stream=True):
            pass
        return await self.responses.retrieve(id)


@asynccontextmanager
async def client(*scripts: Script, **settings: Any) -> AsyncIterator[Client]:
    async with (
        served(*scripts, **settings) as (url, upstream, app),
        openai.AsyncOpenAI(base_url=url, api_key="unused", max_retries=0) as sdk,
    ):
        yield Client(sdk, upstream, app)


def payloads(answer: Answer) -> list[dict[str, Any]]:
    """The events' JSON; each under the name that it has itself, and without an id."""
    parsed = [(event.type, json.loads(event.data)) for event in answer.events]
    assert all(name == payload["type"] for name, payload in parsed)
    assert answer.last_event_id == ""
    return [payload for _, payload in parsed]


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]

"""Chat through a real sidecar process: the openai SDK as its upstream client, and in front of it as a client of /v1."""

import asyncio
import importlib.util
import json
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk

from tests.support.chat import KEY, MESSAGES
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, complaints, fetch
from tests.support.upstream import (
    BREAK,
    DONE,
    HANG,
    Script,
    Upstream,
    call,
    chunk,
    error_reply,
    event,
    finish,
    reply,
    serve,
    usage,
)

pytestmark = pytest.mark.e2e

HELLO = reply(chunk("Hel"), chunk("lo"), finish(), usage(1, 2), DONE)
CALLED = reply(chunk("Let me see. "), call("calculate", '{"expression": "6*7"}'), finish("tool_calls"), usage(1, 2), DONE)
JSON = {"Content-Type": "application/json"}
V1 = "/v1/chat/completions"
TEST: Any = {"model": "test", "messages": MESSAGES}


@asynccontextmanager
async def chatting(
    *scripts: Script, models: Script | Sequence[Script] = (), **env: Any
) -> AsyncIterator[tuple[Upstream, Server]]:
    """An upstream and a sidecar in front of it. Whatever happens, no log line shows the key or complains."""
    async with serve(*scripts, models=models) as upstream:
        settings: Any = {"SIDESTREAM_MODEL": "test", "SIDESTREAM_LOG_LEVEL": "debug", **env}
        async with sidecar(OPENAI_BASE_URL=upstream.url, OPENAI_API_KEY=KEY, **settings) as server:
            yield upstream, server
        assert not [line for line in server.stderr if KEY in line]
        assert complaints(server.stderr) == []


@asynccontextmanager
async def sdk(server: Server) -> AsyncIterator[openai.AsyncOpenAI]:
    """Any OpenAI client: nothing but its base URL is changed."""
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


async def streamed(client: openai.AsyncOpenAI, **options: Any) -> list[ChatCompletionChunk]:
    return [chunk async for chunk in await client.chat.completions.create(**TEST, stream=True, **options)]


def text_of(chunks: list[ChatCompletionChunk]) -> str:
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


# -- the SDK as a client of /v1


async def test_the_sdk_streams() -> None:
    async with chatting(HELLO) as (upstream, server), sdk(server) as client:
        chunks = await streamed(client, temperature=0.5)
        with_usage = await streamed(client, stream_options={"include_usage": True})
    assert text_of(chunks) == "Hello"
    assert [chunk.usage for chunk in chunks] == [None] * 3
    assert [chunk.usage.total_tokens for chunk in with_usage if chunk.usage] == [3]
    assert upstream.requests[0].body == {**TEST, "stream": True, "temperature": 0.5}
    assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_the_sdk_gets_an_answer_in_one_piece() -> None:
    message = {"role": "assistant", "content": "Hello"}
    whole = {
        "id": "x",
        "object": "chat.completion",
        "created": 1,
        "model": "test",
        "choices": [{"index": 0, "message": message}],
    }
    async with chatting(Script([json.dumps(whole).encode()], 200, "application/json")) as (_, server), sdk(server) as client:
        answer = await client.chat.completions.create(**TEST)
    assert answer.choices[0].message.content == "Hello"


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "in one piece"])
async def test_the_sdk_sees_one_answer_whatever_tools_the_sidecar_ran(stream: bool) -> None:
    own = {"tools": ["calculate"]}  # a name is no tool to the SDK, which has a way around its types
    async with (
        chatting(CALLED, reply(chunk("It is 42."), finish(), usage(3, 4), DONE)) as (upstream, server),
        sdk(server) as client,
    ):
        if stream:
            chunks = await streamed(client, extra_body=own, stream_options={"include_usage": True})
            assert text_of(chunks) == "Let me see. It is 42."
            assert len({chunk.id for chunk in chunks}) == 1
            assert [chunk.choices[0].delta.role for chunk in chunks if chunk.choices and chunk.choices[0].delta.role] == [
                "assistant"
            ]
            assert not [chunk for chunk in chunks if chunk.choices and chunk.choices[0].delta.tool_calls]
            assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["stop"]
            total = chunks[-1].usage
        else:
            answer = await client.chat.completions.create(**TEST, extra_body=own)
            assert answer.choices[0].message.content == "Let me see. It is 42."
            assert answer.choices[0].message.tool_calls is None
            total = answer.usage
    assert total is not None
    assert (total.prompt_tokens, total.completion_tokens, total.total_tokens) == (4, 6, 10)
    assert upstream.requests[1].body["messages"][-1] == {"role": "tool", "tool_call_id": "call_1", "content": "42"}


async def test_the_sdk_gets_the_calls_of_its_own_tools() -> None:
    lookup = {"type": "function", "function": {"name": "lookup", "parameters": {"type": "object", "properties": {}}}}
    called = reply(call("lookup", '{"word": "x"}'), finish("tool_calls"), DONE)
    async with chatting(called) as (upstream, server), sdk(server) as client:
        chunks = await streamed(client, tools=[lookup, "calculate"])
    calls = [call for chunk in chunks for choice in chunk.choices for call in choice.delta.tool_calls or ()]
    assert [(call.id, call.function and call.function.name) for call in calls] == [("call_1", "lookup")]
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    assert len(upstream.requests) == 1


async def test_the_sdk_raises_for_the_upstreams_status_and_is_told_when_to_try_again() -> None:
    limited = error_reply(429, {"error": {"message": "slow down", "code": "rate_limit_exceeded"}}, retry_after="7")
    async with chatting(limited) as (upstream, server), sdk(server) as client:
        for stream in (True, False):
            with pytest.raises(openai.RateLimitError) as caught:
                await client.chat.completions.create(**TEST, stream=stream)
            assert caught.value.response.headers["retry-after"] == "7"
            assert (caught.value.code, caught.value.status_code) == ("rate_limit_exceeded", 429)
        assert len(upstream.requests) == 2  # whether to try again is the client's to say


@pytest.mark.parametrize(
    ("last", "code"),
    [((event({"error": {"message": "overloaded"}}), HANG), "upstream_error"), ((BREAK,), "broken"), ((), "cut")],
    ids=["an error object", "broken", "cut"],
)
async def test_the_sdk_raises_for_what_fails_after_the_stream_began(last: tuple[Any, ...], code: str) -> None:
    texts = []
    async with chatting(reply(chunk("Hel"), *last)) as (_, server), sdk(server) as client:
        with pytest.raises(openai.APIError) as caught:
            async for one in await client.chat.completions.create(**TEST, stream=True):
                texts.append(one.choices[0].delta.content)
    assert texts == ["Hel"]
    assert caught.value.code == code


async def test_the_sdk_raises_for_bad_input() -> None:
    async with chatting(HELLO) as (upstream, server), sdk(server) as client:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            await client.chat.completions.create(**TEST, extra_body={"tools": ["nothing"]})
        assert caught.value.param == "tools[0]"
        assert upstream.requests == []


async def test_the_sidecars_token_is_the_clients_key() -> None:
    async with chatting(HELLO, SIDESTREAM_TOKEN="unused") as (upstream, server), sdk(server) as client:
        assert text_of(await streamed(client)) == "Hello"
        with pytest.raises(openai.AuthenticationError):
            await streamed(client.with_options(api_key="wrong"))
        assert len(upstream.requests) == 1
        assert upstream.requests[0].headers["authorization"] == f"Bearer {KEY}"


async def test_heartbeats_survive_the_sdks_decoder() -> None:
    """Before the first chunk, and between chunks."""
    first, second = asyncio.Event(), asyncio.Event()
    script = reply(b"", first, chunk("Hel"), second, chunk("lo"), finish(), DONE)
    async with chatting(script, SIDESTREAM_HEARTBEAT="0.05") as (_, server), sdk(server) as client, Client(server.port) as raw:
        answer = await raw.request("POST", V1, JSON, json.dumps({**TEST, "stream": True}).encode())
        body = b""
        stream = await client.chat.completions.create(**TEST, stream=True)
        while body.count(b":\n") < 4:
            body += await answer.read()
        first.set()
        assert (await anext(aiter(stream))).choices[0].delta.content == "Hel"
        while body.count(b":\n") < 8:
            body += await answer.read()
        second.set()
        assert text_of([chunk async for chunk in stream]) == "lo"
        body += await answer.whole()
    assert body.endswith(DONE)
    assert b"\n:\n" in body
    assert not [line for line in body.split(b"\n") if line.startswith((b"id", b"retry"))]


async def test_the_sdk_lists_the_models() -> None:
    listed = {"object": "list", "data": [{"id": "one", "object": "model", "created": 1, "owned_by": "x"}]}
    models = Script([json.dumps(listed).encode()], 200, "application/json")
    async with chatting(HELLO, models=models) as (_, server), sdk(server) as client:
        assert [model.id async for model in client.models.list()] == ["one"]


async def test_the_sdk_talks_to_the_demonstration_model() -> None:
    async with sidecar(SIDESTREAM_DEMO_INTERVAL="0", OPENAI_API_KEY="", OPENAI_BASE_URL="") as server, sdk(server) as client:
        chunks = await streamed(client)
        assert text_of(chunks) == "This is a mock response to: Hello"
        assert {chunk.model for chunk in chunks} == {"demo"}
        assert any("no upstream: the model `demo` answers" in line for line in server.stderr)


# -- a browser's EventSource, and what the key gets into


async def test_an_event_source_that_reconnects_asks_nobody_again() -> None:
    more = asyncio.Event()
    async with chatting(reply(chunk("Hel"), more, chunk("lo"), finish(), DONE)) as (upstream, server):
        async with Client(server.port) as client:
            answer = await client.get("/chat?prompt=Hello")
            assert [(await answer.event()).type for _ in range(2)] == ["connected", "message"]
            last = answer.parser.last_event_id
            client.reset()
        async with Client(server.port) as client:
            answer = await client.get("/chat?prompt=Hello", {"Last-Event-ID": last})
            more.set()
            events = await answer.events()
        assert [event.data for event in events] == ['{"content":"lo"}', "[DONE]"]
        assert await fetch(server.port, "/chat?prompt=Hello", headers={"Last-Event-ID": events[-1].last_event_id}) == (204, b"")
        assert len(upstream.requests) == 1


async def test_no_message_and_no_log_line_has_the_key_in_it() -> None:
    """Whatever the upstream says about it; at the log's lowest level. `chatting` looks through the log."""
    leaks = [
        error_reply(401, {"error": {"message": f"Incorrect API key provided: {KEY}"}}),
        error_reply(400, {"error": {"message": f"bad {KEY}"}}),
        reply(chunk("a"), event({"error": {"message": f"bad {KEY}"}})),
    ]
    async with chatting(*[leak for leak in leaks for _ in range(3)], SIDESTREAM_KEEP="60") as (upstream, server):
        bodies = []
        for _ in leaks:
            bodies.append((await fetch(server.port, "/chat?prompt=x"))[1])
            bodies.append((await fetch(server.port, "/chat", method="POST", headers=JSON, body=b'{"prompt":"x"}'))[1])
            bodies.append(
                (await fetch(server.port, V1, method="POST", headers=JSON, body=json.dumps({**TEST, "stream": True}).encode()))[
                    1
                ]
            )
        bodies.append((await fetch(server.port, "/streams", headers={"Accept": "application/json"}))[1])
        assert len(upstream.requests) == 9
        assert not [body for body in bodies if KEY.encode() in body]


# -- the start

HELD = """
import importlib.abc, os, sys
class Held(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "openai":
            open(os.environ["GATE"]).read()
sys.meta_path.insert(0, Held())
sys.path.insert(0, "")
import app
from sidecar import server
sys.exit(server.main(app.Sidestream))
"""
"""The sidecar, in which `import openai` waits until somebody opens and closes the other end of a pipe."""


async def test_importing_openai_is_not_on_the_way_to_anything_else(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    async with chatting(HELLO, command=(sys.executable, "-c", HELD), GATE=str(gate)) as (_, server):
        try:
            assert (await fetch(server.port, "/readyz"))[0] == 200
            assert (await fetch(server.port, "/stream?count=1"))[1].endswith(b"data: [DONE]\n\n")
            async with Client(server.port) as client:
                answer = await client.get("/chat?prompt=Hello")  # waits for it, and tells so much at once
                assert (await answer.event()).type == "connected"
                gate.write_text("")
                assert [event.data for event in await answer.events()][-1] == "[DONE]"
        finally:
            os.close(os.open(gate, os.O_RDWR))


def test_openai_is_there_to_be_held() -> None:
    assert importlib.util.find_spec("openai") is not None


# -- cancelling

LIMIT = 0.050
"""Seconds from what cancels an answer to the end of the upstream's connection, at the 99th percentile."""
EACH = 30
TOGETHER = 15
"""Answers that a drain ends; as many tools as may run at once, less one."""
DRAIN = 0.3


class Holder:
    """Where the tool `hold` connects to. held: how many of it are running."""

    def __init__(self) -> None:
        self.held = 0
        self.changed = asyncio.Condition()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._count(1)
        await reader.read()
        writer.close()
        await self._count(-1)

    async def _count(self, change: int) -> None:
        async with self.changed:
            self.held += change
            self.changed.notify_all()

    async def wait_for(self, *, running: int) -> None:
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: self.held == running)


@dataclass
class Scene:
    """An answer that has come to a certain moment and stays there."""

    server: Server
    upstream: Upstream
    running: Callable[..., Awaitable[None]]
    """Waits until so many requests upstream, or tools, are at work."""
    wish: dict[str, Any]

    async def begun(self, client: Client, path: str = "/chat", **wish: Any) -> None:
        """Ask, and wait until it is at that moment."""
        body = json.dumps({**TEST, **self.wish, **wish}).encode()
        headers = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **JSON}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        await client.send(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body)

    async def ended(self, since: float) -> float:
        await self.running(running=0)
        return time.monotonic() - since

    async def gone(self, path: str = "/chat", delay: float = 0.0, **wish: Any) -> float:
        """The client goes; `delay` seconds later that has its effect."""
        async with Client(self.server.port) as client:
            await self.begun(client, path, **wish)
            await self.running(running=1)
            trigger = time.monotonic() + delay
        return await self.ended(trigger)

    async def deleted(self) -> float:
        async with Client(self.server.port) as client:
            await self.begun(client, linger=60)
            await self.running(running=1)
            answer = await client.answer()
            async with Client(self.server.port) as other:
                trigger = time.monotonic()
                assert (await other.request("DELETE", answer.headers["location"])).status == 204
                return await self.ended(trigger)

    async def drained(self) -> float:
        """The drain's end stops TOGETHER answers; the time of the last."""
        async with AsyncExitStack() as stack:
            for _ in range(TOGETHER):
                await self.begun(await stack.enter_async_context(Client(self.server.port)))
            await self.running(running=TOGETHER)
            self.server.process.terminate()
            status = 200
            while status == 200:
                trigger = time.monotonic() + DRAIN  # if it has begun by now
                status, _ = await fetch(self.server.port, "/readyz")
            return await self.ended(trigger)


MOMENTS: dict[str, Script] = {
    "before the first token": reply(HANG),
    "between tokens": reply(chunk("a"), HANG),
    "during a tool": reply(call("hold", "{}"), finish("tool_calls"), DONE),
}


@asynccontextmanager
async def at(moment: str) -> AsyncIterator[Scene]:
    holder = Holder()
    holding = await asyncio.start_server(holder, "127.0.0.1", 0)
    port = holding.sockets[0].getsockname()[1]
    tool = moment == "during a tool"
    env: Any = {"SIDESTREAM_TOOLS": "tests.support.holding", "HOLD_PORT": str(port)}
    env |= {"SIDESTREAM_LINGER": "0", "SIDESTREAM_DRAIN": str(DRAIN)}
    async with holding, chatting(MOMENTS[moment], **env) as (upstream, server):
        running = holder.wait_for if tool else upstream.wait_for
        yield Scene(server, upstream, running, {"tools": ["hold"]} if tool else {})
        assert upstream.running == 0


@pytest.mark.parametrize("moment", MOMENTS)
async def test_what_cancels_an_answer_closes_the_upstreams_connection(moment: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with at(moment) as scene:
        await scene.gone()  # the SDK is loaded
        asked = len(scene.upstream.requests)
        took = {
            "client gone": [await scene.gone() for _ in range(EACH)],
            "client gone, /v1 streamed": [await scene.gone(V1, stream=True) for _ in range(EACH)],
            "DELETE": [await scene.deleted() for _ in range(EACH)],
            "linger over": [await scene.gone(delay=0.05, linger=0.05) for _ in range(EACH)],
        }
        if moment != "between tokens":  # where nothing is streamed, no token is seen
            took["client gone, /v1 in one piece"] = [await scene.gone(V1) for _ in range(EACH)]
        drained = await scene.drained()
        assert len(scene.upstream.requests) == asked + EACH * len(took) + TOGETHER  # no stage follows a tool that is cancelled
    with capsys.disabled():
        print(f"\n{moment}: what cancels to the connection's end, p50 and p99 in ms")
        for trigger, times in took.items():
            times.sort()
            print(f"  {trigger:<30}{times[EACH // 2] * 1e3:>8.2f}{times[-1] * 1e3:>8.2f}")
        print(f"  {f'drain over, the last of {TOGETHER}':<30}{drained * 1e3:>16.2f}")
    together = sorted(time for times in took.values() for time in times)
    assert together[int(len(together) * 0.99) - 1] < LIMIT
    assert drained < 2 * LIMIT  # when the drain began is known to within one request, which can take 40 ms

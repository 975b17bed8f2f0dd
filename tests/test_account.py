"""The account of memory over all features: what grows with what clients ask for is charged, and given back."""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from app import Sidestream
from sidecar.settings import Settings
from sse.http import SLICE
from sse.stream import STREAM
from tests.support.app import HOST, JSON, ask
from tests.support.asgi import Connection, http_scope
from tests.support.chat import MESSAGES
from tests.support.chatting import V1, Sidecar, sidecar
from tests.support.streams import Source, open_in
from tests.support.upstream import DONE, chunk, finish, reply

LONG = "x" * 100_000
LISTS: list[Any] = [[]] * 500
USER: dict[str, Any] = {"id": "u", "role": "user", "parts": [{"type": "text", "text": "hi"}]}
EARLIER = {"id": "m", "role": "assistant", "parts": [{"type": "text", "text": LONG}]}
RUN = {"threadId": "t", "runId": LONG, "state": {}, "messages": [], "tools": [], "context": [], "forwardedProps": {}}


def kept(s: Sidecar) -> int:
    """Bytes that are charged beside events and fixed costs."""
    store = s.app.service.store
    return store.budget.charged - STREAM * len({**store.streams, **store.running})


async def ended(s: Sidecar) -> None:
    while s.app.service.store.running:
        await asyncio.sleep(0)


TEXT = reply(*[chunk(LONG[:1000])] * 100, finish(), DONE)
SHORT = reply(chunk("a"), finish(), DONE)

KEPT: dict[str, tuple[Any, str, Mapping[str, Any], int]] = {
    "the text of an answer": (TEXT, "/chat", {"messages": MESSAGES}, 2 * len(LONG)),
    "metadata": (SHORT, "/chat", {"messages": MESSAGES, "metadata": {"x": LISTS[:300]}}, 300 * 64),
    "the input of a response": (SHORT, "/v1/responses", {"input": LONG}, len(LONG)),
    "its lists": (SHORT, "/v1/responses", {"input": "x", "metadata": {"x": LISTS}}, 500 * 64),
    "the message that is gone on with": (SHORT, "/ui/chat", {"id": "c", "messages": [USER, EARLIER]}, len(LONG)),
    "the name of a run": (SHORT, "/ag-ui", {**RUN, "messages": [{"id": "1", "role": "user", "content": "x"}]}, len(LONG)),
}


@pytest.mark.parametrize(("script", "path", "body", "least"), KEPT.values(), ids=KEPT.keys())
async def test_what_an_answer_keeps_is_charged_until_it_is_forgotten(
    script: Any, path: str, body: Mapping[str, Any], least: int
) -> None:
    async with sidecar(script) as s:
        assert (await s.post(body, path)).status == 200
        await ended(s)
        assert least <= kept(s) <= 10 * least
        store = s.app.service.store
        while store.streams:
            store.forget(next(iter(store.streams.values())))
        assert store.budget.used == 0


REQUESTS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "/chat": ("/chat", {"messages": [{"role": "user", "content": LONG}]}),
    "/v1": (V1, {"messages": [{"role": "user", "content": LONG}]}),
    "/v1, streamed": (V1, {"messages": [{"role": "user", "content": LONG}], "stream": True}),
    "/v1/responses that is not stored": ("/v1/responses", {"input": LONG, "store": False}),
    "/ui/chat": ("/ui/chat", {"id": "c", "messages": [{**USER, "parts": [{"type": "text", "text": LONG}]}]}),
}


@pytest.mark.parametrize(("path", "body"), REQUESTS.values(), ids=REQUESTS.keys())
async def test_a_request_is_charged_while_it_is_answered_and_let_go_then(path: str, body: Mapping[str, Any]) -> None:
    go = asyncio.Event()
    async with sidecar(reply(chunk("a"), go, finish(), DONE)) as s:
        asking = asyncio.create_task(s.post(body, path))
        await s.upstream.wait_for(running=1)
        assert kept(s) >= 2 * len(LONG), "its value, and what the upstream's client sends"
        go.set()
        assert (await asking).status == 200
        await ended(s)
        assert kept(s) < 10_000


@pytest.mark.parametrize("stream", [True, False])
async def test_an_answer_that_grows_beyond_the_memory_is_refused_and_let_go(stream: bool) -> None:
    text = [chunk("x" * 50_000)] * 40
    script = reply(*text, finish(), DONE) if stream else reply(json.dumps({"choices": [], "x": "y" * 2_000_000}).encode())
    async with sidecar(replace(script, content_type=None if stream else "application/json"), memory=1 << 20) as s:
        answer = await s.post({"messages": MESSAGES, "stream": stream}, V1)
        await ended(s)
        assert kept(s) == 0
        if stream:
            assert b'"code":"full"' in answer.body
        else:
            assert (answer.status, answer.headers["retry-after"]) == (503, "5")
        metrics = (await s.get("/metrics")).body.decode()
    assert 'error_type="full"' in metrics


async def test_a_state_that_takes_several_messages_counts_as_a_watcher_until_it_is_sent() -> None:
    sidestream = Sidestream(Settings(max_watchers=1))
    store = sidestream.service.store
    stream = open_in(store, Source([1]), result=lambda: LONG)
    before, connection = store.budget.charged, Connection()
    connection.stop_reading()
    scope = http_scope(f"/streams/{stream.id}", headers=[(b"host", HOST.encode()), (b"accept", b"application/json")])
    asking = asyncio.ensure_future(sidestream(scope, connection.receive, connection.send))
    while not connection.calls:
        await asyncio.sleep(0)

    assert store.watchers == 1
    assert len(LONG) < store.budget.charged - before < len(LONG) + 2000
    assert (await ask(sidestream, f"/streams/{stream.id}", headers=JSON)).status == 503
    connection.go_on_reading()
    await asking
    assert connection.complete
    assert max(map(len, connection.bodies)) == SLICE
    assert (store.watchers, store.budget.charged) == (0, before)
    await sidestream.stop()

"""What has ended is freed by reference counting alone: a garbage collection takes time that grows with all there is, and memory
that waits for one is charged to nobody."""

import asyncio
import gc
import json
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

import pytest

from app import Sidestream
from sidecar.settings import Settings
from sse.asgi import attended
from sse.errors import EventTooLong, SourceFailed
from sse.formats import Format
from sse.http import MAX_BODY, MAX_VALUES
from sse.merge import merge
from sse.store import Store
from sse.stream import Stream, Trigger
from sse.wire.parser import Parser
from tests.support.app import EVENT_STREAM, JSON, ask
from tests.support.asgi import Connection
from tests.support.chat import MESSAGES
from tests.support.chatting import V1, Sidecar, sidecar
from tests.support.streams import Source, open_in
from tests.support.upstream import DONE, Script, chunk, error_reply, event, finish, reply

OURS = ("app", "handlers", "sidecar", "sse")


@contextmanager
def uncollected() -> Iterator[Counter[str]]:
    """What the block leaves that only a garbage collection would free, by type: objects of ours, frames, tracebacks, errors."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found.update(name for name in map(_named, gc.garbage) if name)
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def _named(garbage: Any) -> str | None:
    kind = type(garbage)
    if isinstance(garbage, FrameType):
        return f"frame of {garbage.f_globals.get('__name__')}.{garbage.f_code.co_name}"
    if isinstance(garbage, BaseException | TracebackType) or kind.__module__.partition(".")[0] in OURS:
        return f"{kind.__module__}.{kind.__qualname__}"
    return None


@pytest.fixture(autouse=True)
def only_what_is_new() -> None:
    """Each collection looks through what the test has made, and not through all that was there before, which takes 0.2 s."""
    gc.freeze()


@pytest.fixture
async def sidestream() -> AsyncIterator[Sidestream]:
    sidestream = Sidestream(Settings(demo_interval=0, keep=0, linger=0))
    assert (await ask(sidestream, "/stream?count=1")).status == 200
    yield sidestream
    await sidestream.stop()


async def settle(store: Store) -> None:
    """Until nothing is held any more."""
    async with asyncio.timeout(5):
        while store.streams or store.running:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.01)


Case = Callable[[Sidestream], Awaitable[Any]]


def asks(path: str, status: int, **options: Any) -> Case:
    async def case(sidestream: Sidestream) -> None:
        assert (await ask(sidestream, path, **options)).status == status

    return case


async def published(sidestream: Sidestream) -> None:
    opened = (await ask(sidestream, "/streams", method="POST", json={})).json
    url, key = opened["url"], {"stream-key": opened["key"]}
    for body in ({"data": 1}, {"event": "error"}, 1):
        await ask(sidestream, f"{url}/events", method="POST", headers=key, json=body)
    lines = {**key, "content-type": "application/jsonl"}
    await ask(sidestream, f"{url}/events", method="POST", headers=lines, body=b'{"data": 2}\n{"x": 1}\n')
    await ask(sidestream, f"{url}/close", method="POST", headers=key)
    assert (await ask(sidestream, f"{url}/events", method="POST", headers=key, json={"data": 1})).status in (404, 410)


async def lapsed(sidestream: Sidestream) -> None:
    opened = (await ask(sidestream, "/streams", method="POST", json={"ttl": 0.5})).json
    assert b"publisher_gone" in (await ask(sidestream, opened["url"])).body


async def deleted(sidestream: Sidestream) -> None:
    for path in ("/jobs", "/streams"):
        opened = (await ask(sidestream, path, method="POST", json={})).json
        await asyncio.sleep(0)
        await ask(sidestream, f"{path}/{opened.get('job_id') or opened['stream_id']}", method="DELETE")


async def job(sidestream: Sidestream, **body: Any) -> None:
    opened = (await ask(sidestream, "/jobs", method="POST", json=body)).json
    await ask(sidestream, opened["progress"])


async def merged(sidestream: Sidestream) -> None:
    stream = open_in(sidestream.service.store, Source([1, 2]), keep=0)
    assert (await ask(sidestream, f"/merge?streams={stream.id},{'x' * 22}")).status == 200


async def merging(sidestream: Sidestream) -> None:
    async def counting(count: int, *, fails: bool = False) -> AsyncGenerator[int, None]:
        for number in range(count):
            yield number
        if fails:
            raise ValueError("no")

    with suppress(ValueError):
        async with aclosing(merge({"a": counting(1, fails=True), "b": counting(2)})) as values:
            async for _ in values:
                pass


async def attending(sidestream: Sidestream) -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise SourceFailed("no", "no")

    with suppress(SourceFailed):
        await attended(Connection().receive, fail())


async def parsing(sidestream: Sidestream) -> None:
    parser = Parser(100)
    for data in (b"data: %b" % (b"x" * 200), b"\n"):
        with suppress(EventTooLong):
            parser.feed(data)


async def responses(sidestream: Sidestream) -> None:
    for body in ({}, {"stream": True}, {"store": False}, {"background": True}):
        answer = await ask(sidestream, "/v1/responses", method="POST", json={"input": "x", **body})
        assert answer.status == 200
        if not body:
            more = {"input": "y", "previous_response_id": answer.json["id"]}
            assert (await ask(sidestream, "/v1/responses", method="POST", json=more)).status in (200, 400)
    assert (await ask(sidestream, "/v1/responses", method="POST", json={"input": 1})).status == 400


async def conversing(sidestream: Sidestream) -> None:
    said = {"id": "1", "role": "user", "parts": [{"type": "text", "text": "hi"}], "content": "hi"}
    assert (await ask(sidestream, "/ui/chat", method="POST", json={"id": "c", "messages": [said]})).status == 200
    run = {"threadId": "t", "runId": "r", "messages": [said], "tools": [], "context": [], "forwardedProps": {}, "state": {}}
    assert (await ask(sidestream, "/ag-ui", method="POST", json=run)).status == 200
    assert (await ask(sidestream, "/ui/chat/c/stop", method="POST")).status == 204


async def failing(sidestream: Sidestream) -> None:
    for error in (SourceFailed("no", "no"), ValueError("no"), asyncio.CancelledError(), SystemExit(1)):
        stream = open_in(sidestream.service.store, Source([1, error]), keep=0)
        await ask(sidestream, f"/streams/{stream.id}")


async def cancelled(sidestream: Sidestream) -> None:
    """In the middle of an item, and of its cleaning up."""

    async def endless() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)

    stream = open_in(sidestream.service.store, endless(), keep=0, linger=None)
    await asyncio.sleep(0.01)
    stream.end(Trigger.DELETED)
    await stream.closed()


LARGE = json.dumps({"prompt": "x" * 10_000, "unknown": [[]] * 1000}).encode()
TYPED = {"content-type": "application/json"}

CASES: dict[str, Case] = {
    "GET /stream": asks("/stream?count=3", 200),
    "GET /chat": asks("/chat?prompt=hi", 200),
    "POST /chat": asks("/chat", 200, method="POST", json={"prompt": "hi"}),
    "POST /chat, a backend's": asks("/chat", 202, method="POST", json={"prompt": "hi"}, headers=JSON),
    "POST /chat, a tool": asks("/chat", 200, method="POST", json={"prompt": "/tool calculate 1+2", "tools": ["calculate"]}),
    "POST /v1": asks("/v1/chat/completions", 200, method="POST", json={"messages": [{"role": "user", "content": "x"}]}),
    "POST /v1, streamed": asks(
        "/v1/chat/completions", 200, method="POST", json={"messages": [{"role": "user", "content": "x"}], "stream": True}
    ),
    "POST /v1/responses": responses,
    "POST /ui/chat and /ag-ui": conversing,
    "GET /v1/models": asks("/v1/models", 200),
    "a body that is refused": asks("/chat", 422, method="POST", json={"prompt": 1, "x": ["y"] * 1000}),
    "a body that is no JSON": asks("/chat", 400, method="POST", body=b"[" * 1000, headers=TYPED),
    "a body with too many values": asks("/chat", 400, method="POST", body=b"[" + b"[]," * MAX_VALUES + b"[]]", headers=TYPED),
    "a body with too many levels": asks("/chat", 400, method="POST", body=b"[" * 300 + b"]" * 300, headers=TYPED),
    "a body that is too large": asks("/chat", 413, method="POST", body=b"x" * (MAX_BODY | 1), headers=TYPED),
    "a body that is too large, and doesn't say so": asks(
        "/chat", 413, method="POST", body=b"x" * (MAX_BODY | 1), headers={**TYPED, "content-length": ""}
    ),
    "a body of another type": asks("/chat", 415, method="POST", body=LARGE, headers={"content-type": "text/plain"}),
    "a query that is refused": asks("/stream?count=x", 400),
    "a path that is not there": asks("/nowhere", 404),
    "a method that is not there": asks("/healthz", 405, method="DELETE"),
    "a stream that is gone": asks(f"/streams/{'x' * 22}", 404),
    "a stream that is gone, for an EventSource": asks(f"/streams/{'x' * 22}", 200, headers=EVENT_STREAM),
    "a last event ID that is none": asks("/chat?prompt=x", 400, headers={"last-event-id": "?"}),
    "the state of all streams": asks("/streams", 200),
    "metrics": asks("/metrics", 200),
    "a published stream": published,
    "a publisher that is gone": lapsed,
    "a job and a stream that are deleted": deleted,
    "a job that awaits": lambda sidestream: job(sidestream, params={"count": 3, "interval": 0}),
    "a job with a thread": lambda sidestream: job(sidestream, kind="checksum", params={"mebibytes": 1}),
    "streams merged": merged,
    "sources merged, of which one fails": merging,
    "an answer in one piece that fails": attending,
    "an event stream with an event that is too long": parsing,
    "sources that fail": failing,
    "a source that is cancelled": cancelled,
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_what_has_ended_leaves_nothing_to_a_garbage_collection(sidestream: Sidestream, case: Case) -> None:
    await case(sidestream)
    await settle(sidestream.service.store)
    with uncollected() as found:
        await case(sidestream)
        await settle(sidestream.service.store)

    assert found == {}
    assert sidestream.service.store.budget.used == 0


SCRIPTS = {
    "an answer": reply(chunk("a"), finish(), DONE),
    "an error": error_reply(400, {"error": {"message": "no"}}),
    "an error that is tried again": error_reply(500, {"error": {"message": "no"}}, retry_after="0"),
    "a body that is cut": reply(chunk("a")),
    "no body": reply(),
    "a chunk that is no JSON": reply(b"data: {\n\n"),
    "an error in the body": reply(chunk("a"), event({"error": {"message": "no"}})),
}


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_an_upstreams_answer_leaves_nothing_to_a_garbage_collection_whatever_it_is(script: Script) -> None:
    async def answered(s: Sidecar) -> None:
        for path, body in (("/chat", {"prompt": "x"}), (V1, {}), (V1, {"stream": True}), (V1, {"tools": ["calculate"]})):
            await s.post({"messages": MESSAGES, **body} if path == V1 else body, path)
        await settle(s.app.service.store)

    async with sidecar(*[script] * 30, keep=0, linger=0) as s:
        await answered(s)
        with uncollected() as found:
            await answered(s)
        assert found == {}
        assert s.app.service.store.budget.used == 0


async def test_what_would_be_left_is_seen() -> None:
    def leave() -> None:
        try:
            raise SourceFailed("a", "b")
        except SourceFailed as raised:
            error = raised  # noqa: F841 - it holds the traceback, and that this frame

    with uncollected() as found:
        stream = Stream.__new__(Stream)
        stream.format = Format()
        stream.log = stream  # type: ignore[assignment]
        del stream
        leave()

    assert found == {
        "sse.stream.Stream": 1,
        "sse.formats.Format": 1,
        "sse.errors.SourceFailed": 1,
        "builtins.traceback": 1,
        f"frame of {__name__}.leave": 1,
    }

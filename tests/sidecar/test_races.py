"""Twenty requests at the same moment where there is room for two: exactly two are let in, however long each of them waits.

The backend answers late, the upstream not at all: so all twenty have begun before any of them has got anywhere.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from app import Sidestream
from sidecar.settings import Settings
from tests.support.app import EVENT_STREAM, HOST, JSON
from tests.support.asgi import Connection, http_scope
from tests.support.backends import Slow
from tests.support.streams import open_in
from tests.support.upstream import HANG, Upstream, reply, serve

CROWD = 20
ROOM = 2
LONG = 10.0  # seconds after which a wait in these tests has failed


@asynccontextmanager
async def sidecar(**settings: Any) -> AsyncIterator[tuple[Sidestream, Upstream]]:
    with pytest.MonkeyPatch.context() as patch:
        async with serve(reply(HANG)) as upstream:
            patch.setenv("OPENAI_BASE_URL", upstream.url)
            patch.setenv("OPENAI_API_KEY", "sk-test")
            sidestream = Sidestream(Settings(model="test", linger=None, **settings), Slow())
            sidestream.start()
            yield sidestream, upstream
            await sidestream.stop()


@dataclass(frozen=True)
class Kind:
    """One kind of request. stays: whether whoever is let in is answered for as long as it likes."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    stays: bool = True

    def request(self, number: int, last: str = "") -> tuple[dict[str, Any], Connection]:
        path, _, query = self.path.partition("?")
        headers = {"host": HOST, "idempotency-key": f"key-{number}", **self.headers}
        if self.body is not None:
            headers["content-type"] = "application/json"
        encoded = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = http_scope(path, method=self.method, query=query.encode(), headers=encoded)
        return dict(scope), Connection([b"" if self.body is None else json.dumps(self.body).encode()])


class Crowd:
    """Twenty requests of one kind, begun at once."""

    def __init__(self, sidestream: Sidestream, kind: Kind) -> None:
        self.kind = kind
        requests = [kind.request(number) for number in range(CROWD)]
        self.connections = [connection for _, connection in requests]
        self.tasks = [asyncio.ensure_future(sidestream(scope, c.receive, c.send)) for scope, c in requests]

    async def settled(self) -> None:
        """Wait until all that aren't let in have been told so, and where they don't stay, the others are answered too."""
        async with asyncio.timeout(LONG):
            while sum(task.done() for task in self.tasks) < (CROWD - ROOM if self.kind.stays else CROWD):
                pending = [task for task in self.tasks if not task.done()]
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)

    def refused(self) -> list[Connection]:
        return [connection for connection in self.connections if connection.sent and connection.status == 503]

    async def leave(self) -> None:
        for connection in self.connections:
            connection.disconnect()
        await asyncio.wait_for(asyncio.gather(*self.tasks), LONG)


MESSAGES = [{"role": "user", "content": "hello"}]
JOB = {"kind": "steps", "params": {"count": 10, "interval": 60}}

OPENING = {
    "POST /chat": Kind("POST", "/chat", EVENT_STREAM, {"prompt": "x"}),
    "POST /chat, not watched": Kind("POST", "/chat", JSON, {"prompt": "x"}, stays=False),
    "GET /chat": Kind("GET", "/chat?prompt=x", EVENT_STREAM),
    "POST /jobs": Kind("POST", "/jobs", {}, JOB, stays=False),
    "POST /streams": Kind("POST", "/streams", {}, {}, stays=False),
    "GET /merge": Kind("GET", "/merge", EVENT_STREAM),
    "GET /stream": Kind("GET", "/stream?interval=60", EVENT_STREAM),
    "GET /bench": Kind("GET", "/bench?interval=60", EVENT_STREAM),
    "POST /v1, streamed": Kind("POST", "/v1/chat/completions", {}, {"model": "m", "messages": MESSAGES, "stream": True}),
    "POST /v1, whole": Kind("POST", "/v1/chat/completions", {}, {"model": "m", "messages": MESSAGES}),
}
ASKS = ("POST /chat", "POST /chat, not watched", "GET /chat", "POST /v1, streamed", "POST /v1, whole")
"""Those that ask the upstream."""


@pytest.mark.parametrize("name", OPENING)
async def test_so_many_streams_are_opened_as_there_is_room_for(name: str) -> None:
    async with sidecar(max_streams=ROOM) as (sidestream, upstream):
        store, crowd = sidestream.service.store, Crowd(sidestream, OPENING[name])
        await crowd.settled()

        assert len(crowd.refused()) == CROWD - ROOM
        assert store.busy == ROOM
        if name in ASKS:
            await upstream.wait_for(running=ROOM)
            assert len(upstream.requests) == ROOM
        if not name.startswith("POST /v1"):  # whose streams wait for the upstream
            assert len(store.running) == ROOM

        await crowd.leave()
        await store.drain(0)
        assert (store.busy, store.watchers, store.running) == (0, 0, {})
        await upstream.wait_for(running=0)


@pytest.mark.parametrize("name", [name for name, kind in OPENING.items() if kind.stays and name != "POST /v1, whole"])
async def test_so_many_are_let_in_as_may_watch_and_for_the_others_nothing_is_opened(name: str) -> None:
    async with sidecar(max_watchers=ROOM) as (sidestream, upstream):
        store, crowd = sidestream.service.store, Crowd(sidestream, OPENING[name])
        await crowd.settled()
        async with asyncio.timeout(LONG):
            while store.busy < ROOM:  # the two wait for the backend
                await asyncio.sleep(0)

        assert len(crowd.refused()) == CROWD - ROOM
        assert (store.watchers, store.busy) == (ROOM, ROOM)
        if name in ASKS:
            await upstream.wait_for(running=ROOM)
            assert len(upstream.requests) == ROOM

        await crowd.leave()
        await store.drain(0)
        assert (store.busy, store.watchers) == (0, 0)


@pytest.mark.parametrize(
    "path", ["/streams/{id}", "/merge?streams={id}", "/merge?streams={id},unknown", "/jobs/{job}/progress"]
)
@pytest.mark.parametrize("last", ["", "0"], ids=["newcomers", "resumed"])
async def test_so_many_watch_a_stream_as_may(path: str, last: str) -> None:
    async with sidecar(max_watchers=ROOM) as (sidestream, _):
        store = sidestream.service.store
        stream = open_in(store, linger=None)
        connection = Connection([json.dumps(JOB).encode()])
        headers = [(b"host", HOST.encode()), (b"content-type", b"application/json")]
        await sidestream(http_scope("/jobs", method="POST", headers=headers), connection.receive, connection.send)
        job = json.loads(connection.body)["job_id"]

        named = job if "{job}" in path else stream.id
        positions = f"{last}-{last}" if "unknown" in path else last
        told = {"last-event-id": positions if "merge" in path else f"{named}.{last}"} if last else {}
        crowd = Crowd(sidestream, Kind("GET", path.format(id=stream.id, job=job), told))
        await crowd.settled()

        assert len(crowd.refused()) == CROWD - ROOM
        assert store.watchers == ROOM
        await crowd.leave()
        assert store.watchers == 0


async def test_one_key_at_the_same_moment_opens_one_stream() -> None:
    async with sidecar() as (sidestream, upstream):
        kind = Kind("POST", "/chat", {**JSON, "idempotency-key": "one"}, {"prompt": "x"}, stays=False)
        crowd = Crowd(sidestream, kind)
        await crowd.settled()

        opened = {json.loads(c.body)["stream_id"] for c in crowd.connections if c.status == 202}
        assert len(opened) == len(sidestream.service.store.streams) == 1
        assert {c.status for c in crowd.connections} <= {202, 409}
        await upstream.wait_for(running=1)
        assert len(upstream.requests) == 1

"""Several processes and one Redis, over real sockets: what is started at one is watched, resumed and ended at any other."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest

from sse.connections import REQUESTS, TASKS
from sse.wire.event import MessageEvent
from tests.support import upstream
from tests.support.nginx import CONFIGURATION, free_ports, nginx
from tests.support.redis import RedisServer, redis_server
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, Cut, complaints, encode_request, fetch, get_json

pytestmark = pytest.mark.e2e

JSON = {"Content-Type": "application/json"}
STATE = {"Accept": "application/json"}
EVENTS = {"Accept": "text/event-stream"}


@dataclass(frozen=True)
class Way:
    """How an answer is asked for, and asked for again: the same request, with the last event ID."""

    method: str
    path: str
    body: Mapping[str, Any] | None = None

    def request(self, port: int, headers: Mapping[str, str]) -> bytes:
        body = json.dumps(self.body).encode() if self.body is not None else b""
        return encode_request(port, self.method, self.path, {**headers, **(JSON if body else {})}, body)

    def again(self, events: Sequence[MessageEvent]) -> "Way | None":
        """How a client that has these events goes on; None: not at all."""
        return self


class Responding(Way):
    """OpenAI's: an answer is gone on with by its id and the number of an event."""

    def again(self, events: Sequence[MessageEvent]) -> Way | None:
        if not events or events[-1].type == "response.completed":
            return None if events else self
        id, number = json.loads(events[0].data)["response"]["id"], json.loads(events[-1].data)["sequence_number"]
        return Way("GET", f"/v1/responses/{id}?stream=true&starting_after={number}")


UI = {"id": "c1", "messages": [{"id": "u1", "role": "user", "parts": [{"type": "text", "text": "Hello"}]}]}
AG = {
    "threadId": "t1",
    "runId": "r1",
    "messages": [{"id": "u1", "role": "user", "content": "Hello"}],
    "tools": [],
    "context": [],
}
WAYS = {
    "plain": Way("GET", "/chat?prompt=Hello"),
    "typed": Way("POST", "/chat", {"prompt": "Hello"}),
    "plain, posted": Way("POST", "/chat", {"prompt": "Hello", "format": "plain"}),
    "ui messages": Way("POST", "/ui/chat", UI),
    "ag-ui": Way("POST", "/ag-ui", AG),
    "responses": Responding("POST", "/v1/responses", {"model": "test", "input": "Hello", "background": True, "stream": True}),
}
"""Formats, each with the request that opens its answer."""


@asynccontextmanager
async def processes(server: RedisServer, number: int, **env: str) -> AsyncIterator[list[Server]]:
    """So many sidecars on one Redis."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(sidecar(SIDESTREAM_STORE=server.url, **env)) for _ in range(number)]


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with redis_server(tmp_path) as server:
        yield server


async def open_job(port: int, **params: Any) -> dict[str, Any]:
    body = json.dumps({"kind": "steps", "params": params}).encode()
    status, answer = await fetch(port, "/jobs", method="POST", headers=JSON, body=body)
    assert status == 202, answer
    opened: dict[str, Any] = json.loads(answer)
    return opened


@dataclass
class EventSource:
    """What a browser's does (HTML 9.2.3), over any of these ports in turn. pause: seconds until it comes back.

    It ends when it is told to stop, by 204 or another status, or when its way says so.
    """

    ports: Sequence[int]
    way: Way
    cut: int = 0  # events after which its connection breaks; 0: never
    pause: float = 0.05
    headers: Mapping[str, str] = field(default_factory=dict)
    events: list[MessageEvent] = field(default_factory=list)
    last_event_id: str = ""
    connections: int = 0
    statuses: list[int] = field(default_factory=list)

    async def run(self, seconds: float = 90.0, *, once: bool = False) -> list[MessageEvent]:
        turns = cycle(self.ports)
        async with asyncio.timeout(seconds):
            while await self._connect(next(turns)) and not once:
                await asyncio.sleep(0 if self.cut else self.pause)
        return self.events

    async def _connect(self, port: int) -> bool:
        headers = {**EVENTS, **self.headers} | ({"Last-Event-ID": self.last_event_id} if self.last_event_id else {})
        if (way := self.way.again(self.events)) is None:
            return False
        self.connections += 1
        try:
            async with Client(port) as client:
                await client.send(way.request(port, headers))
                answer = await client.answer(way.method)
                self.statuses.append(answer.status)
                if answer.status != 200:
                    return False
                taken = 0
                while not self.cut or taken < self.cut:
                    event = await answer.event()
                    taken += event.last_event_id != self.last_event_id or not event.last_event_id  # not the one for a newcomer
                    self.last_event_id = event.last_event_id or self.last_event_id
                    self.events.append(event)
        except (Cut, OSError, TimeoutError):
            pass
        return True


# -- start here, watch there


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_cut_at_every_event_and_resumed_at_another_process_each_time(redis: RedisServer, way: Way) -> None:
    gate = asyncio.Event()
    chunks = [upstream.chunk(f"{n} ü ") for n in range(1, 81)]
    script = upstream.reply(*chunks[:40], gate, *chunks[40:], upstream.finish(), upstream.usage(1, 80), upstream.DONE)
    async with (
        upstream.serve(script) as model,
        processes(redis, 3, OPENAI_BASE_URL=model.url, OPENAI_API_KEY="x", SIDESTREAM_MODEL="test") as servers,
    ):
        ports = [server.port for server in servers]
        cutting = EventSource(ports, way, cut=1)
        run = asyncio.create_task(cutting.run())
        while len(cutting.events) < 30:
            assert not run.done()
            await asyncio.sleep(0.01)
        gate.set()
        events = await run
        listed = (await get_json(ports[0], "/streams"))["streams"]
        [stream_id] = [stream["stream_id"] for stream in listed]
        whole = await EventSource(ports[:1], Way("GET", f"/streams/{stream_id}")).run(90, once=not events[-1].last_event_id)
        newcomers = sum(event.type in ("connected", "connection_established") for event in (events[0], whole[0]))
        assert [e for e in events if e.last_event_id[-2:] != ".0"] == [e for e in whole if e.last_event_id[-2:] != ".0"]
        assert newcomers in (0, 2)
        assert cutting.statuses == [200] * len(cutting.statuses[:-1]) + [204 if events[-1].last_event_id else 200]
        assert cutting.connections > 80
        assert len(model.requests) == 1
        for server in servers:
            assert complaints(server.stderr) == []


async def test_a_chat_that_comes_back_to_another_process_has_its_answer_from_the_beginning(redis: RedisServer) -> None:
    """As useChat does: it knows of no last event ID. The connection breaks after one event, then after two, and so on."""
    chunks, gate = [upstream.chunk(f"{n} ü ") for n in range(20)], asyncio.Event()
    script = upstream.reply(*chunks, gate, upstream.finish(), upstream.DONE)
    async with (
        upstream.serve(script) as model,
        processes(redis, 3, OPENAI_BASE_URL=model.url, OPENAI_API_KEY="x", SIDESTREAM_MODEL="test") as servers,
    ):
        status, _ = await fetch(
            servers[0].port, "/ui/chat", method="POST", headers={**JSON, **STATE}, body=json.dumps(UI).encode()
        )
        assert status == 202
        said: list[list[MessageEvent]] = []
        for count, server in zip(range(1, 24), cycle(servers), strict=False):
            async with Client(server.port) as client:
                answer = await client.get("/ui/chat/c1/stream")
                said.append([await answer.event() for _ in range(count)])
        async with Client(servers[1].port) as client:
            answer = await client.get("/ui/chat/c1/stream")
            gate.set()
            whole = await answer.events()
        assert all(events == whole[: len(events)] for events in said)
        assert (whole[-1].data, len(model.requests)) == ("[DONE]", 1)


async def test_watchers_at_three_processes_see_the_same(redis: RedisServer) -> None:
    async with processes(redis, 3) as servers:
        job = await open_job(servers[0].port, count=200, interval=0.005)
        way = Way("GET", f"/streams/{job['job_id']}")
        seen = await asyncio.gather(*[EventSource([server.port], way).run() for server in servers for _ in range(3)])
        assert all(events == seen[0] for events in seen)
        assert [event.last_event_id.rpartition(".")[2] for event in seen[0]][1:] == [*map(str, range(1, 203)), "end"]


async def test_documents_keys_jobs_and_the_list_are_the_same_everywhere(redis: RedisServer) -> None:
    async with processes(redis, 2, SIDESTREAM_TOKEN="secret") as (here, there):
        token = {"Authorization": "Bearer secret"}
        _, body = await fetch(here.port, "/jobs", method="POST", headers=token)
        job = json.loads(body)
        path = f"/jobs/{job['job_id']}"
        assert (await fetch(there.port, path))[0] == 401
        document = await get_json(there.port, path, {"Stream-Key": job["key"]})
        assert (document["kind"], document["status"]) == ("steps", "running")
        state = await get_json(there.port, f"/streams/{job['job_id']}", STATE)
        assert (state["state"], state["format"], state["result"]["kind"]) == ("running", "plain", "steps")
        for server in (here, there):
            listed = (await get_json(server.port, "/streams", token))["streams"]
            assert [stream["stream_id"] for stream in listed] == [job["job_id"]]
            assert listed[0]["state"] == "running"
        assert (await fetch(there.port, path, method="DELETE", headers={"Stream-Key": job["key"]}))[0] == 204
        assert (await get_json(here.port, path, token))["status"] == "cancelled"


async def test_what_is_published_through_any_process_has_one_numbering(redis: RedisServer) -> None:
    async with processes(redis, 3) as servers:
        _, body = await fetch(servers[0].port, "/streams", method="POST", headers=JSON, body=b'{"ttl": 60}')
        stream = json.loads(body)
        watching = asyncio.create_task(EventSource([servers[2].port], Way("GET", stream["url"])).run())
        told = []
        for n, server in zip(range(30), cycle(servers), strict=False):
            status, body = await fetch(
                server.port, f"{stream['url']}/events", method="POST", headers=JSON, body=b'{"data": %d}' % n
            )
            assert status == 200, body
            told.append(json.loads(body))
        assert [answer["first"] for answer in told] == [answer["last"] for answer in told] == [*range(1, 31)]
        lines = b"".join(b'{"data": "line %d"}\n' % n for n in range(5000))
        path = f"{stream['url']}/events?first=21"
        status, body = await fetch(
            servers[1].port, path, method="POST", headers={"Content-Type": "application/jsonl"}, body=lines
        )
        assert (status, json.loads(body)) == (200, {"first": 31, "last": 5020, "events": 4990, "skipped": 10})
        status, body = await fetch(
            servers[1].port, f"{stream['url']}/events?first=9999", method="POST", headers=JSON, body=b"{}"
        )
        assert status == 409, (body, [s.stderr[-12:] for s in servers])
        closed = await fetch(servers[1].port, f"{stream['url']}/close", method="POST")
        assert closed[0] == 204, (closed, [s.stderr[-12:] for s in servers])
        assert (await fetch(servers[2].port, f"{stream['url']}/close", method="POST"))[0] == 204
        events = await watching
        assert [event.data for event in events[:30]] == [str(n) for n in range(30)]
        assert [event.data for event in events[30:-1]] == [f"line {n}" for n in range(10, 5000)]
        assert (await fetch(servers[1].port, f"{stream['url']}/events", method="POST", headers=JSON, body=b"{}"))[0] == 410


async def test_two_processes_race_for_one_key(redis: RedisServer) -> None:
    async with upstream.serve(upstream.reply(upstream.chunk("Hi"), upstream.HANG)) as model:
        env = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "x", "SIDESTREAM_MODEL": "test"}
        async with processes(redis, 2, **env) as servers:
            for n in range(20):
                headers = {**JSON, **STATE, "Idempotency-Key": f"key {n}"}
                answers = await asyncio.gather(
                    *[
                        fetch(server.port, "/chat", method="POST", headers=headers, body=b'{"prompt": "x"}')
                        for server in servers * 3
                    ]
                )
                assert {status for status, _ in answers} == {202}, answers
                assert len({json.loads(body)["stream_id"] for _, body in answers}) == 1
                assert len({json.loads(body)["key"] for _, body in answers}) == 1
            async with asyncio.timeout(5):
                while len(model.requests) < 20:
                    await asyncio.sleep(0.01)
            assert model.running == 20


async def test_a_cancel_from_another_process_closes_the_upstream(redis: RedisServer) -> None:
    took = []
    async with upstream.serve(upstream.reply(upstream.chunk("Hi"), upstream.HANG)) as model:
        env = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "x", "SIDESTREAM_MODEL": "test"}
        async with processes(redis, 2, **env) as (here, there):
            for _ in range(100):
                _, body = await fetch(here.port, "/chat", method="POST", headers={**JSON, **STATE}, body=b'{"prompt": "x"}')
                await model.wait_for(running=1)
                begin = time.monotonic()
                status, _ = await fetch(there.port, json.loads(body)["url"], method="DELETE")
                await model.wait_for(running=0)
                took.append(time.monotonic() - begin)
                assert status == 204
    took.sort()
    print(f"cancel at another process to upstream closed: median {took[50] * 1e3:.1f} ms, p99 {took[98] * 1e3:.1f} ms")
    assert took[98] < 0.15


# -- processes that go


async def test_every_watcher_of_a_process_that_is_killed_has_an_end(redis: RedisServer) -> None:
    async with processes(redis, 3) as (doomed, *others):
        job = await open_job(doomed.port, count=10_000, interval=0.005)
        way, ports = Way("GET", f"/streams/{job['job_id']}"), [server.port for server in others]
        watching = [EventSource([port], way) for port in ports for _ in range(3)]
        moving = [EventSource([doomed.port, *ports], way, pause=0.1) for _ in range(5)]  # ahead of Redis, perhaps
        runs = [asyncio.create_task(watcher.run()) for watcher in (*watching, *moving)]
        while not all(len(watcher.events) > 50 for watcher in (*watching, *moving)):
            await asyncio.sleep(0.05)
        os.kill(doomed.pid, signal.SIGKILL)
        begin = time.monotonic()
        ends = [(await run)[-1] for run in runs]
        print(f"kill -9 to the last watcher's end: {time.monotonic() - begin:.1f} s")
        assert time.monotonic() - begin < 7
        assert {json.loads(end.data)["code"] for end in ends} == {"producer_lost"}
        for watcher in (*watching, *moving):
            numbers = [event.last_event_id.rpartition(".")[2] for event in watcher.events]
            assert numbers[1:-1] == [str(n) for n in range(1, len(numbers) - 1)]
            assert 409 not in watcher.statuses
        state = await get_json(ports[0], f"/streams/{job['job_id']}", STATE)
        assert (state["state"], state["error"]["code"]) == ("failed", "producer_lost")


async def test_a_process_that_comes_back_from_the_dead_stops(redis: RedisServer) -> None:
    async with upstream.serve(upstream.reply(upstream.chunk("Hi"), upstream.HANG)) as model:
        env = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "x", "SIDESTREAM_MODEL": "test"}
        async with processes(redis, 2, **env) as (frozen, other):
            _, body = await fetch(frozen.port, "/chat", method="POST", headers={**JSON, **STATE}, body=b'{"prompt": "x"}')
            await model.wait_for(running=1)
            watching = asyncio.create_task(EventSource([other.port], Way("GET", json.loads(body)["url"])).run())
            os.kill(frozen.pid, signal.SIGSTOP)
            try:
                end = (await watching)[-1]
            finally:
                os.kill(frozen.pid, signal.SIGCONT)
            assert json.loads(end.data)["code"] == "producer_lost"
            await model.wait_for(running=0)
            state = await get_json(frozen.port, json.loads(body)["url"], STATE)
            assert (state["state"], state["error"]["code"]) == ("failed", "producer_lost")


async def test_a_drain_lets_go_of_what_runs_elsewhere_and_ends_what_runs_here(redis: RedisServer) -> None:
    async with processes(redis, 2, SIDESTREAM_DRAIN="10") as (here, there):
        elsewhere = await open_job(there.port, count=400, interval=0.01)
        own = await open_job(here.port, count=200, interval=0.01)
        ways = [Way("GET", f"/streams/{job['job_id']}") for job in (elsewhere, own)]
        moving = [EventSource([here.port, there.port], way) for way in ways]
        staying = EventSource([there.port], ways[1])
        runs = [asyncio.create_task(watcher.run()) for watcher in (*moving, staying)]
        while not all(len(watcher.events) > 20 for watcher in (*moving, staying)):
            await asyncio.sleep(0.05)
        assert await here.stop() == 0
        assert complaints(here.stderr) == []
        for run, steps in zip(runs, (400, 200, 200), strict=True):
            events = await run
            assert events[-1].data == "[DONE]"
            assert [event.last_event_id.rpartition(".")[2] for event in events][1:] == [*map(str, range(1, steps + 3)), "end"]
        assert moving[0].statuses == [200, 200, 204], "let go of without an end, and went on at the other one"
        # What has ended stays when its process is gone
        document = await get_json(there.port, f"/jobs/{own['job_id']}")
        assert (document["status"], document["result"]) == ("completed", {"steps": 201})


# -- Redis in trouble


@pytest.mark.parametrize("trouble", ["frozen", "killed and empty", "killed and kept"])
async def test_under_load_each_watcher_gets_every_event_whatever_happens_to_redis(tmp_path: Path, trouble: str) -> None:
    options = {"appendonly": "yes", "appendfsync": "everysec"} if "kept" in trouble else {}
    async with redis_server(tmp_path, **options) as server, processes(server, 2) as servers:
        jobs = [await open_job(servers[n % 2].port, count=700, interval=0.01) for n in range(30)]
        watchers = [
            EventSource([each.port], Way("GET", f"/streams/{job['job_id']}"), headers={}) for job in jobs for each in servers
        ]
        runs = [asyncio.create_task(watcher.run()) for watcher in watchers]
        for _ in range(2):
            await asyncio.sleep(1.0)
            if trouble == "frozen":
                server.freeze()
                await asyncio.sleep(3)
                server.thaw()
            else:
                await server.kill()
                await asyncio.sleep(0.5)
                await server.start()
        for run in runs:
            events = await run
            assert [event.last_event_id.rpartition(".")[2] for event in events][1:] == [*map(str, range(1, 703)), "end"]
        for each in servers:
            assert complaints(each.stderr) == [] or "does not answer" in str(complaints(each.stderr))
            metrics = (await fetch(each.port, "/metrics"))[1].decode()
            assert "sidestream_store_up 1.0" in metrics
            assert "sidestream_store_lag_events 0.0" in metrics
            assert "sidestream_store_reconnects_total 0.0" not in metrics


async def test_without_a_redis_it_does_not_start_and_says_why(tmp_path: Path) -> None:
    [port] = free_ports(1)
    with pytest.raises(AssertionError) as raised:
        async with sidecar(SIDESTREAM_STORE=f"redis://user:hush@127.0.0.1:{port}"):
            pass
    assert "SIDESTREAM_STORE: Redis can" in str(raised.value)
    assert "hush" not in str(raised.value)


async def test_or_it_waits_for_redis_and_is_not_ready_meanwhile(redis: RedisServer) -> None:
    await redis.kill()
    async with sidecar(SIDESTREAM_STORE=redis.url, SIDESTREAM_STORE_REQUIRED="off") as server:
        assert (await fetch(server.port, "/readyz"))[0] == 503
        assert (await fetch(server.port, "/healthz"))[0] == 200
        await redis.start()
        async with asyncio.timeout(5):
            while (await fetch(server.port, "/readyz"))[0] != 200:
                await asyncio.sleep(0.05)
        await redis.kill()
        await server.says("does not answer", times=2)
        assert (await fetch(server.port, "/readyz"))[0] == 200, "streams go on here"
        await open_job(server.port, count=1)
        unknown = "/streams/AAAAAAAAAAAAAAAAAAAAAA"
        assert (await fetch(server.port, unknown, headers=STATE))[0] == 503, "not that it is gone: that isn't known"
        assert await fetch(server.port, unknown, headers=EVENTS) == (200, b"retry: 2000\n\n")


async def test_credentials_are_in_no_log(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        async with server.client() as client:
            await client.acl_setuser("app", enabled=True, passwords=["+hush"], keys=["*"], channels=["*"], commands=["+@all"])
        url = f"redis://app:hush@127.0.0.1:{server.port}"
        async with sidecar(SIDESTREAM_STORE=url, SIDESTREAM_LOG_LEVEL="debug") as process:
            await open_job(process.port, count=1)
            await server.kill()
            await process.says("does not answer")
        assert "hush" not in "\n".join(process.stderr)


async def test_connections_do_not_grow_with_what_is_watched(redis: RedisServer) -> None:
    async with processes(redis, 2) as (here, there), redis.client() as client:
        jobs = [await open_job(here.port, count=150, interval=0.02) for _ in range(50)]
        watchers = [EventSource([there.port], Way("GET", f"/streams/{job['job_id']}")) for job in jobs for _ in range(4)]
        runs = [asyncio.create_task(watcher.run()) for watcher in watchers]
        while not all(watcher.events for watcher in watchers):
            await asyncio.sleep(0.05)
        assert len(await client.client_list()) <= 2 * (TASKS + REQUESTS) + 1
        for run in runs:
            events = await run
            assert [event.last_event_id.rpartition(".")[2] for event in events][1:] == [*map(str, range(1, 153)), "end"]
        async with asyncio.timeout(5):
            while len(await client.pubsub_channels()) > 2:
                await asyncio.sleep(0.1)


# -- behind nginx


async def test_a_rolling_restart_behind_nginx_loses_no_answer_and_runs_none_twice(tmp_path: Path, redis: RedisServer) -> None:
    chunks = [upstream.chunk(f"{n} ") for n in range(60)]
    ports = free_ports(2)
    configuration = CONFIGURATION.read_text().replace("#server 127.0.0.1:8092", "server 127.0.0.1:8092")
    configuration = configuration.replace("127.0.0.1:8092", f"127.0.0.1:{ports[1]}").replace("rate=20r/s", "rate=9999r/s")
    asked: list[str] = []
    ended: list[list[MessageEvent]] = []
    restarted = asyncio.Event()
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(slow_model(chunks))
        env = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "x", "SIDESTREAM_MODEL": "test", "SIDESTREAM_DRAIN": "20"}

        async def start(port: int) -> tuple[AsyncExitStack, Server]:
            own = await stack.enter_async_context(AsyncExitStack())
            return own, await own.enter_async_context(sidecar(SIDESTREAM_STORE=redis.url, SIDESTREAM_PORT=str(port), **env))

        running = [await start(port) for port in ports]
        proxy = await stack.enter_async_context(nginx(tmp_path, sidecar=ports[0], configuration=configuration))

        async def ask(number: int) -> None:
            headers = {**JSON, **STATE, "Idempotency-Key": f"answer {number}"}
            while True:
                body = json.dumps({"prompt": str(number)}).encode()
                try:
                    status, answer = await fetch(proxy.private, "/chat", method="POST", headers=headers, body=body)
                except (Cut, OSError, TimeoutError):  # the same request again, with its key
                    continue
                if status == 202:
                    break
                assert status in (502, 503, 504), answer
                await asyncio.sleep(0.2)
            source = EventSource([proxy.http], Way("GET", json.loads(answer)["url"]), pause=0.1)
            ended.append(await source.run())

        async def load() -> None:
            numbers, tasks = count(1), []
            while not restarted.is_set():
                number = next(numbers)
                asked.append(str(number))
                tasks.append(asyncio.create_task(ask(number)))
                await asyncio.sleep(0.05)
            await asyncio.gather(*tasks)

        loading = asyncio.create_task(load())
        for n, port in enumerate(ports):
            await asyncio.sleep(2)
            own, old = running[n]
            assert await old.stop() == 0
            await own.aclose()
            running[n] = await start(port)
        await asyncio.sleep(1)
        restarted.set()
        await loading
        assert len(asked) > 60
        assert sorted(request.body["messages"][-1]["content"] for request in model.requests) == sorted(asked)
    for events in ended:
        assert (events[-1].type, events[-1].last_event_id.rpartition(".")[2]) == ("done", "end")
        numbers = [event.last_event_id.rpartition(".")[2] for event in events if not event.last_event_id.endswith(".0")]
        assert numbers == [*map(str, range(1, len(numbers))), "end"]
    assert len(ended) == len(asked)


class Tick(asyncio.Event):
    """Set a little after somebody begins to wait for it."""

    async def wait(self) -> Any:
        await asyncio.sleep(0.03)


def slow_model(chunks: Sequence[bytes]) -> Any:
    """Each answer takes about two seconds."""
    steps = [step for chunk in chunks for step in (chunk, Tick())]
    return upstream.serve(upstream.reply(*steps, upstream.finish(), upstream.DONE))


async def test_a_conversation_is_one_for_all_processes(redis: RedisServer) -> None:
    """A chat is found, joined, refused, stopped and replaced wherever its next request lands."""

    def body(words: str, **more: Any) -> bytes:
        earlier = {"id": "a1", "role": "assistant", "parts": [{"type": "text", "text": "Earlier."}]}
        message = {"id": "u1", "role": "user", "parts": [{"type": "text", "text": words}]}
        return json.dumps({"id": "c1", "messages": [message, earlier], **more}).encode()

    async def post(port: int, given: bytes) -> int:
        status, _ = await fetch(port, "/ui/chat", method="POST", headers={**JSON, **STATE}, body=given)
        return status

    script = upstream.reply(upstream.chunk("Hello"), upstream.HANG)
    async with upstream.serve(script) as model:
        model_of = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "k", "SIDESTREAM_MODEL": "test"}
        async with processes(redis, 2, **model_of) as (one, two):
            assert await post(one.port, body("Hello")) == 202
            await model.wait_for(running=1)
            assert await post(two.port, body("Hello")) == 202, "the same request joins"
            assert await post(two.port, body("And?")) == 409
            assert len(model.requests) == 1
            watched = [asyncio.create_task(fetch(server.port, "/ui/chat/c1/stream")) for server in (one, two)]
            while (await get_json(one.port, "/conversations/c1", STATE))["watchers"] == []:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            assert (await fetch(two.port, "/ui/chat/c1/stop", method="POST"))[0] == 204
            await model.wait_for(running=0)
            assert time.monotonic() - began < 1
            (_, here), (_, there) = await asyncio.gather(*watched)
            assert here == there
            assert here.count(b'"messageId":"a1"') == 2, "the earlier parts, and the answer"
            assert b'"type":"abort"' in here
            assert await post(two.port, body("And now?")) == 202
            await model.wait_for(running=1)
            assert await post(one.port, body("Or rather?", replace=True)) == 202
            await model.wait_for(running=1)
            assert (await get_json(two.port, "/conversations/c1", STATE))["state"] == "running"
            assert len(model.requests) == 3


@pytest.mark.parametrize(
    ("asking", "joining", "begins"),
    [
        (Way("POST", "/ui/chat", UI), Way("GET", "/ui/chat/c1/stream"), ["start", "data-gap", "text-start", "text-delta"]),
        (
            Way("POST", "/ag-ui", AG),
            Way("POST", "/ag-ui", AG),
            ["RUN_STARTED", "CUSTOM", "STEP_STARTED", "TEXT_MESSAGE_START", "TEXT_MESSAGE_CONTENT"],
        ),
    ],
    ids=["ui messages", "ag-ui"],
)
async def test_who_joins_elsewhere_after_the_beginning_is_gone_is_told_what_is_open(
    redis: RedisServer, asking: Way, joining: Way, begins: list[str]
) -> None:
    chunks = [upstream.chunk(f"{n} ") for n in range(60)]
    gate = asyncio.Event()
    script = upstream.reply(*chunks, gate, upstream.chunk("last"), upstream.finish(), upstream.DONE)
    async with upstream.serve(script) as model:
        env = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "k", "SIDESTREAM_MODEL": "test"}
        async with processes(redis, 2, SIDESTREAM_REPLAY_EVENTS="16", **env) as (one, two), Client(one.port) as first:
            await first.send(asking.request(one.port, EVENTS))
            opened = await first.answer(asking.method)
            while '"59 "' not in (await opened.event()).data:
                pass
            async with Client(two.port) as second:
                await second.send(joining.request(two.port, EVENTS))
                joined = await second.answer(joining.method)
                told = [json.loads((await joined.event()).data)["type"] for _ in begins]
                assert told == begins
                gate.set()
                assert [event.data for event in (await opened.events())[-2:]] == [
                    event.data for event in (await joined.events())[-2:]
                ]

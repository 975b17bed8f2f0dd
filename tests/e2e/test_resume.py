"""A connection cut anywhere, over a real socket to a real process: every event once, in order, and the source runs once."""

import asyncio
import json
from collections.abc import AsyncIterator

import pytest

from sse.wire.event import MessageEvent
from sse.wire.parser import Parser
from tests.support.app import NUMBERS
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, Cut, fetch, get_json, read_and_reset

pytestmark = pytest.mark.e2e

COUNT = 200


@pytest.fixture
async def process() -> AsyncIterator[Server]:
    async with sidecar(command=NUMBERS) as process:
        yield process


class EventSource:
    """Reads a stream as a browser does, over connections that are cut. events: those dispatched so far."""

    def __init__(self, port: int, path: str) -> None:
        self.port = port
        self.path = path
        self.last_event_id = ""
        self.events: list[MessageEvent] = []
        self.connections = 0

    async def connect(self, body_bytes: int | None = None, events: int | None = None) -> bool:
        """One connection, reset after so many bytes of the body, or so many events. False once it is told to stop."""
        headers = {"Accept": "text/event-stream"}
        if self.last_event_id:
            headers["Last-Event-ID"] = self.last_event_id
        parser = Parser()
        read, dispatched = 0, 0
        self.connections += 1
        async with Client(self.port) as client:
            answer = await client.get(self.path, headers)
            if answer.status == 204:
                return False
            assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
            while not answer.done and (body_bytes is None or read < body_bytes) and (events is None or dispatched < events):
                piece = await answer.read()
                if body_bytes is not None:
                    piece = piece[: body_bytes - read]
                for byte in (piece[i : i + 1] for i in range(len(piece))) if events is not None else (piece,):
                    new = parser.feed(byte)
                    self.events += new
                    dispatched += len(new)
                    if events is not None and dispatched >= events:
                        break
                read += len(piece)
            self.last_event_id = parser.last_event_id or self.last_event_id
            client.reset()
        return True

    def messages(self) -> list[int]:
        """The numbers of the messages received, and that the terminal event came last and once."""
        assert [event.type for event in self.events].count("connected") <= 1
        *messages, done = [event for event in self.events if event.type != "connected"]
        assert (done.data, done.last_event_id) == ("[DONE]", self.last_event_id)
        numbers = [int(event.last_event_id.rpartition(".")[2]) for event in messages]
        payloads = [json.loads(event.data) for event in messages]
        assert [payload["n"] for payload in payloads] == numbers
        assert [payload["text"] for payload in payloads] == [f"ü, я, 世, 😀 {number}" for number in numbers]
        return numbers


EVERY = list(range(1, COUNT + 1))


async def test_cut_after_every_event_of_a_stream_that_runs(process: Server) -> None:
    source = EventSource(process.port, f"/numbers?count={COUNT}&interval=0.005")
    while await source.connect(events=1):
        pass
    assert source.messages() == EVERY
    assert source.connections == COUNT + 3  # `connected`, each message, [DONE], and the 204
    assert (await get_json(process.port, "/numbers/runs"))["opened"] == 1


async def test_cut_at_every_byte_of_the_body(process: Server) -> None:
    """Each connection gets a byte further into the next event than the one before, until it has it."""
    path = f"/numbers?count={COUNT}"
    source = EventSource(process.port, path)
    await source.connect(events=1)

    def go_on() -> int:
        cuts = 0
        while not source.last_event_id.endswith(".end"):
            headers = {"Accept": "text/event-stream", "Last-Event-ID": source.last_event_id}
            size = len(f"id: {source.last_event_id}\nretry: 2000\n\n")
            dispatched: list[MessageEvent] = []
            while not dispatched:
                parser = Parser()
                dispatched = parser.feed(read_and_reset(process.port, path, headers, size))
                assert dispatched or parser.last_event_id == source.last_event_id
                size += 1
                cuts += 1
            (event,) = dispatched
            source.events.append(event)
            source.last_event_id = event.last_event_id
        return cuts

    cuts = await asyncio.to_thread(go_on)
    assert not await source.connect()
    assert source.messages() == EVERY
    assert cuts > COUNT * 70
    assert (await get_json(process.port, "/numbers/runs"))["opened"] == 1


async def test_cut_anywhere_before_the_first_message_with_a_key(process: Server) -> None:
    """A client that has no id yet comes back by its key; from the end of the first message on it has one."""
    path = "/numbers?count=3&key=a-key"
    whole = EventSource(process.port, path)
    await whole.connect()
    async with Client(process.port) as client:
        answer = await client.get(path, {"Accept": "text/event-stream"})
        first = (await answer.read()).partition(b"\n\n")[0]
    for size in range(len(first) + 3):
        source = EventSource(process.port, path)
        await source.connect(body_bytes=size)
        assert bool(source.last_event_id) == (size >= len(first) + 2)
        await source.connect()
        assert source.messages() == [1, 2, 3]
    assert (await get_json(process.port, "/numbers/runs"))["opened"] == 1


async def test_cut_anywhere_in_the_head_of_the_answer_with_a_key(process: Server) -> None:
    path = "/numbers?count=3&key=a-key"
    async with Client(process.port) as client:
        await client.get(path)
    for size in (0, 1, 10, 100, 200, 300):
        async with Client(process.port) as client:
            await client.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            if size:
                await client.receive(size)
            client.reset()
    source = EventSource(process.port, path)
    assert await source.connect()
    assert source.messages() == [1, 2, 3]
    assert (await get_json(process.port, "/numbers/runs"))["opened"] == 1


@pytest.mark.parametrize("count", [0, 1, 7, 40])
async def test_a_numbered_stream_is_resumed_by_the_number_alone(process: Server, count: int) -> None:
    """/stream keeps nothing, so that it can be cut and resumed by the number."""
    whole = await fetch(process.port, f"/stream?count={count}&interval=0")
    last, messages = "", 0
    while True:
        headers = {"Last-Event-ID": last} if last else {}
        async with Client(process.port) as client:
            answer = await client.get(f"/stream?count={count}&interval=0", headers)
            if answer.status == 204:
                break
            event = await answer.event()
            while event.type == "connected":
                event = await answer.event()
            last = event.last_event_id
            messages += event.data != "[DONE]"
            client.reset()
    assert (messages, last) == (count, "end")
    assert whole[1].count(b"\ndata: ") == count + 2


async def test_a_client_that_is_cut_is_told_so_by_http(process: Server) -> None:
    """The body of a stream that runs is not completed, so that nobody takes a cut for an end."""
    async with Client(process.port) as client:
        answer = await client.get("/numbers?count=2&interval=3600")
        await answer.event()
        process.process.kill()
        with pytest.raises((Cut, ConnectionResetError)):
            await answer.whole()

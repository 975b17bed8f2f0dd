"""Client gone to source closed, over real sockets to a real process, with no linger; and what hides a client's going."""

import time
from collections.abc import AsyncIterator

import pytest

from tests.support.app import NUMBERS
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, complaints, descriptors, encode_request, get_json

pytestmark = pytest.mark.e2e

EACH = 70
LIMIT = 0.050
"""Seconds from the client's going to the source's end, at the 99th percentile."""


@pytest.fixture
async def process() -> AsyncIterator[Server]:
    async with sidecar(command=NUMBERS, SIDESTREAM_LINGER="0") as process:
        yield process


async def test_the_source_ends_when_its_client_goes(process: Server, capsys: pytest.CaptureFixture[str]) -> None:
    """Idle and in the middle of sending; by FIN, by RST and by half-close. p99 of all of them."""
    left: dict[str, float] = {}
    for number in range(EACH):
        for how in ("close", "reset", "half_close"):
            run = f"{how}-{number}"
            busy = number % 2
            query = f"count={10_000_000 if busy else 2}&interval={0 if busy else 3600}&pad=500&run={run}"
            async with Client(process.port) as client:
                answer = await client.get(f"/numbers?{query}")
                assert (await answer.event()).type == "connected"
                left[run] = time.monotonic()
                getattr(client, how)()
                if how == "half_close":
                    await client.closed()
    runs = await get_json(process.port, f"/numbers/runs?closed={len(left)}")
    took = sorted(runs["closed"][run] - left[run] for run in left)
    p50, p99 = took[len(took) // 2], took[len(took) * 99 // 100]
    with capsys.disabled():
        print(f"\nclient gone to source closed, {len(took)} connections: p50 {p50 * 1e3:.2f} ms, p99 {p99 * 1e3:.2f} ms")
    assert p99 < LIMIT
    assert complaints(process.stderr) == []


@pytest.mark.parametrize("together", [False, True], ids=["later", "in one segment"])
async def test_a_request_pipelined_behind_a_stream_closes_the_connection_at_once(process: Server, together: bool) -> None:
    """uvicorn would stop reading there, and not see the client go."""
    stream = encode_request(process.port, "GET", "/numbers?count=2&interval=3600&run=piped")
    behind = encode_request(process.port, "GET", "/healthz")
    async with Client(process.port) as client:
        await client.send(stream + (behind if together else b""))
        if not together:
            answer = await client.answer()
            await answer.event()
            await client.send(behind)
        await client.closed()
    assert "piped" in (await get_json(process.port, "/numbers/runs?closed=1"))["closed"]
    assert complaints(process.stderr) == []


async def test_requests_pipelined_behind_a_whole_answer_are_all_answered(process: Server) -> None:
    async with Client(process.port) as client:
        await client.send(encode_request(process.port, "GET", "/healthz") * 3)
        assert [(await (await client.answer()).json())["status"] for _ in range(3)] == ["ok"] * 3


async def test_a_stream_may_follow_on_a_connection_that_is_kept(process: Server) -> None:
    async with Client(process.port) as client:
        for _ in range(3):
            assert await (await client.get("/healthz")).json()
            assert len(await (await client.get("/stream?count=2&interval=0")).events()) == 4


async def test_http_1_0_and_connection_close_are_served(process: Server) -> None:
    async with Client(process.port) as client:
        await client.send(b"GET /stream?count=1&interval=0 HTTP/1.0\r\nHost: localhost\r\n\r\n")
        received = b""
        while piece := await client.receive():
            received += piece
    assert received.endswith((b"id: end\ndata: [DONE]\n\n", b"0\r\n\r\n"))
    async with Client(process.port) as client:
        answer = await client.get("/stream?count=1&interval=0", {"Connection": "close"})
        assert (await answer.events())[-1].last_event_id == "end"
        assert await client.receive() == b""


async def test_clients_that_went_leave_no_descriptor(process: Server) -> None:
    before = descriptors(process.pid)
    clients = [await Client(process.port).__aenter__() for _ in range(50)]
    for number, client in enumerate(clients):
        await (await client.get(f"/numbers?count=2&interval=3600&run={number}")).event()
    assert descriptors(process.pid) == before + len(clients)
    for client in clients:
        client.reset()
    await get_json(process.port, f"/numbers/runs?closed={len(clients)}")
    assert descriptors(process.pid) <= before + 1  # the connection that asked for the runs may still be closing

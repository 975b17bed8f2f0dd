"""SIGTERM and SIGINT: what is answered meanwhile, how every stream ends, how soon the process does, and with which status."""

import asyncio
import signal
import time
from typing import Any

import pytest

from tests.support.app import NUMBERS
from tests.support.servers import Server, sidecar
from tests.support.sockets import Answer, Client, Cut, complaints, encode_request, fetch, get_json

pytestmark = pytest.mark.e2e

LONG = "/numbers?count=2&interval=3600"


async def ended(process: Server, timeout: float = 10.0) -> int:
    async with asyncio.timeout(timeout):
        return await process.process.wait()


async def begin_to_drain(process: Server, number: int = signal.SIGTERM) -> None:
    """Send the signal, and wait until the probe says so."""
    process.process.send_signal(number)
    async with asyncio.timeout(5):
        while (await fetch(process.port, "/readyz"))[0] == 200:
            pass


async def watch(client: Client, path: str, headers: dict[str, str] | None = None) -> Answer:
    answer = await client.get(path, headers)
    assert answer.status == 200
    return answer


async def terminal(answer: Answer) -> tuple[str, str]:
    """The last event of a body that ends as HTTP wants it: without its last chunk this raises Cut."""
    *_, last = await answer.events()
    assert last.last_event_id.endswith("end")
    return last.type, last.data


async def test_a_drain_lets_what_runs_finish_and_tells_the_rest() -> None:
    async with (
        sidecar(command=NUMBERS, SIDESTREAM_DRAIN="1.5") as process,
        Client(process.port) as finishing,
        Client(process.port) as waiting,
        Client(process.port) as deleted,
        Client(process.port) as private,
        Client(process.port) as resumed,
    ):
        short = await watch(finishing, "/numbers?count=3&interval=0.4&run=short")
        long = await watch(waiting, LONG)
        doomed = await watch(deleted, f"{LONG}&run=deleted")
        basic = await watch(private, "/stream?count=9&interval=3600")
        for answer in (short, long, doomed, basic):
            await answer.event()
        first = await long.event()

        await begin_to_drain(process)

        assert (await get_json(process.port, "/healthz"))["status"] == "ok"
        for path in ("/numbers?run=new", "/stream", "/bench"):
            status, body = await fetch(process.port, path)
            assert (status, b"shutting down" in body) == (503, True)
        again = await watch(resumed, LONG, {"Last-Event-ID": first.last_event_id})
        status, _ = await fetch(process.port, doomed.headers["location"], method="DELETE")
        assert status == 204

        assert await terminal(doomed) == ("cancelled", '{"reason":"deleted"}')
        assert await terminal(short) == ("message", "[DONE]")
        for answer in (long, again, basic):
            assert await terminal(answer) == ("cancelled", '{"reason":"shutting_down"}')
        assert await ended(process) == 0
        assert complaints(process.stderr) == []


async def test_a_drain_ends_as_soon_as_nothing_runs() -> None:
    async with sidecar(command=NUMBERS, SIDESTREAM_DRAIN="60") as process, Client(process.port) as client:
        answer = await watch(client, "/numbers?count=2&interval=0.5")
        process.process.send_signal(signal.SIGTERM)
        assert await terminal(answer) == ("message", "[DONE]")
        begin = time.monotonic()
        assert await ended(process) == 0
        assert time.monotonic() - begin < 1.5


async def test_an_answer_that_is_not_a_stream_is_completed_too() -> None:
    async with sidecar(SIDESTREAM_DRAIN="60", SIDESTREAM_DEMO_INTERVAL="0.05") as process, Client(process.port) as client:
        body = b'{"model": "demo", "messages": [{"role": "user", "content": "and then?"}]}'
        headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Expect": "100-continue"}
        await client.send(encode_request(process.port, "POST", "/v1/chat/completions", headers))
        await client.until(b"100 Continue\r\n\r\n")  # it is being handled
        process.process.send_signal(signal.SIGTERM)
        await client.send(body)
        answer = await client.answer()
        assert (answer.status, (await answer.json())["choices"][0]["finish_reason"]) == (200, "stop")
        assert await ended(process) == 0


async def test_a_second_sigterm_changes_nothing() -> None:
    async with sidecar(command=NUMBERS, SIDESTREAM_DRAIN="0.5") as process, Client(process.port) as client:
        answer = await watch(client, LONG)
        await begin_to_drain(process)
        process.process.send_signal(signal.SIGTERM)
        assert await terminal(answer) == ("cancelled", '{"reason":"shutting_down"}')
        assert await ended(process) == 0


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
async def test_a_sigint_while_it_drains_ends_it_at_once(first: int) -> None:
    async with sidecar(command=NUMBERS, SIDESTREAM_DRAIN="60") as process, Client(process.port) as client:
        answer = await watch(client, LONG)
        await answer.event()
        await begin_to_drain(process, first)
        begin = time.monotonic()
        process.process.send_signal(signal.SIGINT)
        with pytest.raises((Cut, ConnectionResetError)):
            await answer.events()
        assert await ended(process) == 130
        assert time.monotonic() - begin < 1.5
        assert complaints(process.stderr) == []


async def test_one_sigint_drains_as_sigterm_does() -> None:
    async with sidecar(command=NUMBERS, SIDESTREAM_DRAIN="0") as process, Client(process.port) as client:
        answer = await watch(client, LONG)
        process.process.send_signal(signal.SIGINT)
        assert await terminal(answer) == ("cancelled", '{"reason":"shutting_down"}')
        assert await ended(process) == 0


IDLE = {
    "kept alive": (encode_request(0, "GET", "/healthz"), 0),
    "never used": (b"", 0),
    "half a request": (b"GET /healthz HT", 0),
    "half a body": (b"POST /numbers HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n1234", 2),
}
"""What was sent on a connection on which nothing happens any more, and how many seconds it may hold the end."""


@pytest.mark.parametrize(("sent", "seconds"), IDLE.values(), ids=IDLE)
async def test_connections_on_which_nothing_happens_hold_nobody(sent: bytes, seconds: float) -> None:
    async with sidecar(command=NUMBERS, SIDESTREAM_DRAIN="60") as process:
        clients = [await Client(process.port).__aenter__() for _ in range(20)]
        for client in clients:
            await client.send(sent)
            if b"healthz HTTP" in sent:
                await (await client.answer()).whole()
        await get_json(process.port, "/healthz")
        begin = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
        assert time.monotonic() - begin < seconds + 1.5
        for client in clients:
            await client.closed()
            client.close()
        assert complaints(process.stderr) == []


async def test_a_stalled_watcher_holds_the_end_for_two_seconds_at_the_most() -> None:
    settings = {"SIDESTREAM_DRAIN": "0", "SIDESTREAM_SEND_TIMEOUT": "60"}
    async with sidecar(command=NUMBERS, **settings) as process, Client(process.port, receive_buffer=4096) as client:
        answer = await watch(client, "/numbers?count=1000000&pad=1000")

        async def waits() -> Any:
            state = await get_json(process.port, answer.headers["location"], {"Accept": "application/json"})
            return state["waits_for"]

        async with asyncio.timeout(5):
            while await waits() != "watcher":
                pass
        begin = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0
        assert time.monotonic() - begin < 2 + 1.5


async def test_told_to_stop_as_soon_as_it_serves_it_stops() -> None:
    async with sidecar() as process:
        process.process.send_signal(signal.SIGTERM)
        assert await ended(process) == 0


async def test_the_listener_is_closed_only_after_the_drain() -> None:
    """And then connections are refused, instead of hanging."""
    async with sidecar(command=NUMBERS, SIDESTREAM_DRAIN="0.5") as process, Client(process.port) as client:
        answer = await watch(client, LONG)
        await begin_to_drain(process)
        assert (await fetch(process.port, "/readyz"))[0] == 503
        await terminal(answer)
        assert await ended(process) == 0
        with pytest.raises(ConnectionRefusedError):
            await fetch(process.port, "/readyz")

"""Clients that stop reading, read a byte a second, half-close or reset, while others read: on the real process."""

import asyncio
import errno
import select
import time
from collections.abc import AsyncIterator

import pytest

from app import Sidestream
from sidecar.settings import Settings
from sse.stream import Trigger
from sse.wire.parser import Parser
from tests.support.app import NUMBERS, serving
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, complaints, descriptors, fetch, get_json, resident
from tests.support.streams import open_in

pytestmark = pytest.mark.e2e

SEND_TIMEOUT = 1.0
MEBIBYTE = 1 << 20
SMALL = 4096
"""Bytes that the kernel holds for a client that doesn't read."""


@pytest.fixture
async def process() -> AsyncIterator[Server]:
    settings = {"SEND_TIMEOUT": str(SEND_TIMEOUT), "REPLAY_BYTES": "1MiB", "MEMORY": "8MiB", "LINGER": "5"}
    async with sidecar(command=NUMBERS, **{f"SIDESTREAM_{name}": value for name, value in settings.items()}) as process:
        yield process


async def dropped(client: Client) -> None:
    """Wait until the server has reset the connection, without reading from it."""
    poll = select.poll()
    poll.register(client.socket, select.POLLERR | select.POLLHUP)
    assert await asyncio.to_thread(poll.poll, 10_000), "the server did not let go of it"


async def read_a_byte_a_second(client: Client) -> None:
    """Until the server lets go of it."""
    gone = asyncio.create_task(dropped(client))
    while not gone.done():
        await client.receive(1)
        await asyncio.wait((gone,), timeout=1.0)
    await gone


async def test_a_stalled_client_is_aborted_and_what_it_held_is_freed(process: Server) -> None:
    """Its stream goes on for the others, or lingers; the descriptor is free when the client learns of it."""
    before = descriptors(process.pid)
    begin = time.monotonic()
    async with Client(process.port, receive_buffer=SMALL) as client:
        await client.get("/numbers?count=10000000&pad=1000")
        assert descriptors(process.pid) == before + 1
        await dropped(client)
        assert SEND_TIMEOUT <= time.monotonic() - begin < SEND_TIMEOUT + 2
        (document,) = (await get_json(process.port, "/streams"))["streams"]
        assert (document["state"], document["watchers"]) == ("running", [])
        await fetch(process.port, document["url"], method="DELETE")
    assert descriptors(process.pid) <= before + 1
    assert complaints(process.stderr) == []


async def test_a_client_that_stalls_behind_the_last_event_is_let_go_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """No send is pending then: what is left stands in the server's buffer, and only the kernel's timeout ends that."""
    lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
    settings = Settings(send_timeout=SEND_TIMEOUT, drain=0)
    sidestream = Sidestream(settings)
    async with serving(sidestream, settings) as (server, port), Client(port, receive_buffer=SMALL) as client:
        stream = open_in(sidestream.service.store)
        await client.get(f"/streams/{stream.id}")
        (connection,) = server.server_state.connections
        monkeypatch.setattr(connection, "connection_lost", lost.set_result)
        while connection.transport.get_write_buffer_size() == 0:
            stream.emit("x" * 8000)
            await asyncio.sleep(0)
        stream.end(Trigger.SOURCE_ENDED)
        await asyncio.wait(server.server_state.tasks)
        assert connection.transport.get_write_buffer_size() > 0
        async with asyncio.timeout(10):
            assert getattr(await lost, "errno", None) == errno.ETIMEDOUT
        server.server_state.connections.clear()


async def test_a_private_stream_ends_with_its_stalled_client(process: Server) -> None:
    async with Client(process.port, receive_buffer=SMALL) as client:
        await client.get("/bench?events=100000000&size=1000")
        await dropped(client)
    assert (await get_json(process.port, "/readyz"))["status"] == "ready"
    assert complaints(process.stderr) == []


async def test_others_see_nothing_of_bad_watchers_and_the_slow_ones_resume(process: Server) -> None:
    """One stream of 60 MB at the pace of its first reader; beside it four watchers of each bad kind."""
    count, pad = 30_000, 2000
    async with Client(process.port) as first:
        good = await first.get(f"/numbers?count={count}&pad={pad}&run=a")
        url = good.headers["location"]
        bad = {kind: [await Client(process.port, receive_buffer=SMALL).__aenter__() for _ in range(4)] for kind in KINDS}
        answers = {kind: [await client.get(url) for client in clients] for kind, clients in bad.items()}
        before = resident(process.pid)
        slow = [asyncio.create_task(read_a_byte_a_second(client)) for client in bad["a byte a second"]]
        stopped = [asyncio.create_task(dropped(client)) for client in bad["stopped"]]
        for client in bad["half-closed"]:
            client.half_close()
        for answer in answers["reset"]:
            assert (await answer.event()).type == "connected"
        last = [(await answer.event()).last_event_id for answer in answers["reset"]]
        for client in bad["reset"]:
            client.reset()

        expected, peak = 0, before
        while not good.done:
            for event in good.parser.feed(await good.read()):
                if event.type == "connected":
                    continue
                expected += 1
                name = "end" if expected == count + 1 else str(expected)
                assert event.last_event_id.rpartition(".")[2] == name
                if expected % 1000 == 0:
                    peak = max(peak, resident(process.pid))
        assert expected == count + 1
        await asyncio.gather(*slow, *stopped)
        for client in (*bad["stopped"], *bad["a byte a second"], *bad["half-closed"]):
            client.close()
    assert peak - before < 24 * MEBIBYTE
    state = await get_json(process.port, url, {"Accept": "application/json"})
    assert (state["state"], state["watchers"], state["events"]) == ("done", [], count)
    for last_event_id in last:
        await resume(process, url, last_event_id, count)
    assert complaints(process.stderr) == []


KINDS = ("stopped", "a byte a second", "half-closed", "reset")


async def resume(process: Server, url: str, last_event_id: str, count: int) -> None:
    """One that was let go gets a gap, then everything that is held, and the end."""
    headers = {"Accept": "text/event-stream", "Last-Event-ID": last_event_id}
    status, body = await fetch(process.port, url, headers=headers)
    gap, *rest = Parser().feed(body)
    assert (status, gap.type) == (200, "gap")
    after = int(gap.last_event_id.rpartition(".")[2])
    assert [event.last_event_id.rpartition(".")[2] for event in rest] == [*map(str, range(after + 1, count + 1)), "end"]


async def test_a_stalled_watcher_that_sets_the_pace_holds_nobody_for_longer_than_the_send_timeout(process: Server) -> None:
    """The producer waits for the watcher furthest ahead: a newcomer behind a stalled one gets everything once it is let go."""
    async with Client(process.port, receive_buffer=SMALL) as stalled, Client(process.port) as newcomer:
        answer = await stalled.get("/numbers?count=10000&pad=1000")
        watched = await newcomer.get(answer.headers["location"])
        events = await watched.events()
        assert events[-1].data == "[DONE]"
        await dropped(stalled)


async def test_a_client_that_goes_on_reading_in_time_gets_everything(process: Server) -> None:
    """Slow is not stalled: as long as something of each send is taken within the timeout."""
    async with Client(process.port, receive_buffer=SMALL) as client:
        answer = await client.get("/numbers?count=2000&pad=1000")
        events = await answer.events()
    assert [event.last_event_id.rpartition(".")[2] for event in events[1:]] == [*map(str, range(1, 2001)), "end"]


async def test_memory_stays_within_the_limit_whatever_is_published(process: Server) -> None:
    """Twenty abandoned streams of 4 MB, with 8 MiB for all logs: what nobody needs goes."""
    await fetch(process.port, "/numbers?count=4000&pad=1000")
    before = resident(process.pid)
    peak = before
    for number in range(20):
        await fetch(process.port, f"/numbers?count=4000&pad=1000&run={number}")
        peak = max(peak, resident(process.pid))
    listed = (await get_json(process.port, "/streams"))["streams"]
    assert sum(document["bytes"] for document in listed) <= 8 * MEBIBYTE
    assert peak - before < 24 * MEBIBYTE

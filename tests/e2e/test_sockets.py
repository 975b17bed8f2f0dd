"""The listening socket's options at work: peers that vanish without a word, and peers that stop reading, over a network."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator

import pytest

from tests.support.app import NUMBERS
from tests.support.netns import Network, network, run
from tests.support.servers import Server, sidecar
from tests.support.sockets import encode_request, fetch, get_json

pytestmark = pytest.mark.e2e

TOKEN = "t"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def net() -> Iterator[Network]:
    with network() as net:
        yield net


async def watching(process: Server, url: str, count: int, seconds: float) -> float:
    """Wait until `count` watch; how many seconds that took. AssertionError after `seconds`."""
    begin = time.monotonic()
    while True:
        state = await get_json(process.port, url, {**BEARER, "Accept": "application/json"})
        if len(state["watchers"]) == count:
            return time.monotonic() - begin
        assert time.monotonic() - begin < seconds, state
        await asyncio.sleep(0.1)


def ask(sock: socket.socket, port: int, path: str) -> bytes:
    """Send a GET; the first that comes of its answer."""
    sock.sendall(encode_request(port, "GET", path, BEARER))
    return sock.recv(65536)


def kernel_memory(port: int) -> int:
    """Bytes that the kernel holds to be sent from `port` on connections that are stalled: what skmem says of each."""
    held = [
        int(match)
        for match in re.findall(r"skmem:\([^)]*?,w(\d+)", run("ss", "-tmnH", "state", "established", "sport", f":{port}"))
    ]
    return max(held)


async def test_a_peer_that_vanishes_is_noticed_while_events_flow(net: Network) -> None:
    """The kernel gives up after 1.5 send timeouts without an acknowledgement; with the default of 30 s that is 45 s."""
    settings = {"SIDESTREAM_HOST": "0.0.0.0", "SIDESTREAM_TOKEN": TOKEN, "SIDESTREAM_SEND_TIMEOUT": "2"}
    async with sidecar(command=NUMBERS, **settings) as process:
        with net.connect(process.port) as peer:
            first = await asyncio.to_thread(ask, peer, process.port, "/numbers?count=100000&interval=0.1&linger=60")
            location = re.search(rb"location: (\S+)", first)
            assert location is not None
            url = location[1].decode()
            await watching(process, url, 1, 5)
            await asyncio.to_thread(net.swallow)
            took = await watching(process, url, 0, 20)
            # The kernel looks when it retransmits, and waits twice as long each time
            assert 2 < took < 10
            assert (await fetch(process.port, url, method="DELETE", headers=BEARER))[0] == 204


async def test_a_peer_that_reads_nothing_costs_the_kernel_little(net: Network) -> None:
    settings = {"SIDESTREAM_HOST": "0.0.0.0", "SIDESTREAM_TOKEN": TOKEN, "SIDESTREAM_SEND_TIMEOUT": "3"}
    async with sidecar(command=NUMBERS, **settings) as process:
        with net.connect(process.port, receive_buffer=4096) as peer:
            first = await asyncio.to_thread(ask, peer, process.port, "/numbers?count=1000000&pad=1000&linger=60")
            assert first.startswith(b"HTTP/1.1 200")
            peak, begin = 0, time.monotonic()
            while time.monotonic() - begin < 2:
                peak = max(peak, await asyncio.to_thread(kernel_memory, process.port))
            assert 16_384 < peak < 300_000


async def test_without_reading_a_peer_that_takes_much_does_not_slow_down(net: Network) -> None:
    """What is limited is what can't be sent yet; a reader gets all there is."""
    async with sidecar(command=NUMBERS, SIDESTREAM_HOST="0.0.0.0", SIDESTREAM_TOKEN=TOKEN) as process:
        with net.connect(process.port) as peer:
            await asyncio.to_thread(ask, peer, process.port, "/numbers?count=20000&pad=1000")

            def read() -> int:
                size = 0
                while data := peer.recv(1 << 20):
                    size += len(data)
                    if data.endswith(b"0\r\n\r\n"):
                        break
                return size

            assert await asyncio.to_thread(read) > 20_000_000

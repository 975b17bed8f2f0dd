"""The peers do the same work: each that this machine has writes the events of the load, and one event to all who watch.

None of them is a dependency of the project, so those that are missing are left out without more ado.
"""

import pytest

from bench import streams
from bench.servers import BARE, NCHAN, PEERS_OF_STREAMS, SIDESTREAM, Server

pytestmark = pytest.mark.e2e


def here(server: Server) -> Server:
    if lacks := server.lacks():
        pytest.skip(lacks)
    return server


@pytest.mark.parametrize("server", [SIDESTREAM, *PEERS_OF_STREAMS], ids=lambda server: server.name)
def test_a_peer_writes_the_events_of_the_load(server: Server) -> None:
    with here(server).run() as running:
        streams.burst(running, 3, 50)
        streams.burst(running, 3, 5, interval=0.001)


@pytest.mark.parametrize("server", [SIDESTREAM, *PEERS_OF_STREAMS, NCHAN], ids=lambda server: server.name)
def test_a_peer_sends_one_event_to_all_who_watch(server: Server) -> None:
    with here(server).run() as running, streams.watched(running, server, 5) as publish:
        figures = publish(3)
    assert figures["deliveries/s"] > 0


def test_the_cpu_of_a_server_is_counted_and_its_memory() -> None:
    with BARE.run() as running:
        before = running.cpu()
        streams.burst(running, 2, 500)
        assert 0 < running.cpu() - before < 5
        assert 5 < running.rss() / (1 << 20) < 500

"""The race between a host's addresses: what is tried when, and that no socket is left behind."""

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

from handlers.chat.upstream.addresses import Address, connected, first, in_turn
from sidecar.listener import KEEPALIVE

V4, V6 = socket.AF_INET, socket.AF_INET6
WINS, FAILS, HANGS = "wins", "fails", "hangs"


class Race:
    """Attempts, each of which does what it is told to, after so many seconds. began: when each did, in order."""

    def __init__(self, *outcomes: tuple[str, float]) -> None:
        self.sockets = [socket.socket() for _ in outcomes]
        self.began: list[float] = []
        self.cancelled = 0
        self.attempts = [self._attempt(number, *outcome) for number, outcome in enumerate(outcomes)]

    def _attempt(self, number: int, outcome: str, seconds: float) -> Callable[[], Any]:
        async def attempt() -> socket.socket:
            self.began.append(asyncio.get_running_loop().time())
            try:
                await asyncio.sleep(60 if outcome == HANGS else seconds)
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            if outcome == FAILS:
                raise OSError(number, "refused")
            return self.sockets[number]

        return attempt


RACES: dict[str, tuple[list[tuple[str, float]], int, list[float]]] = {
    # what each attempt does; which one wins; when they begin
    "one": ([(WINS, 0)], 0, [0]),
    "the first, at once": ([(WINS, 0), (WINS, 0)], 0, [0]),
    "the first fails at once": ([(FAILS, 0), (WINS, 0)], 1, [0, 0]),
    "the first leads nowhere": ([(HANGS, 0), (WINS, 0)], 1, [0, 1]),
    "the first is slow": ([(WINS, 1.5), (WINS, 1)], 0, [0, 1]),
    "the second is faster": ([(WINS, 3), (WINS, 0.5)], 1, [0, 1]),
    "the second fails, the first is slow": ([(WINS, 3), (FAILS, 0.5), (HANGS, 0)], 0, [0, 1, 1.5]),
    "three": ([(HANGS, 0), (HANGS, 0), (WINS, 0.5)], 2, [0, 1, 2]),
}


@pytest.mark.virtual_time
@pytest.mark.parametrize(("outcomes", "winner", "times"), RACES.values(), ids=RACES.keys())
async def test_a_race(outcomes: list[tuple[str, float]], winner: int, times: list[float]) -> None:
    race, start = Race(*outcomes), asyncio.get_running_loop().time()
    won = await first(race.attempts, delay=1)
    assert won is race.sockets[winner]
    assert [round(time - start, 3) for time in race.began] == times
    await asyncio.sleep(0.1)
    assert race.cancelled == len(times) - 1 - sum(outcome == FAILS for outcome, _ in outcomes)


@pytest.mark.virtual_time
async def test_where_all_fail_the_first_failure_counts() -> None:
    with pytest.raises(OSError) as caught:
        await first(Race((FAILS, 0.5), (FAILS, 0)).attempts, delay=1)
    assert caught.value.errno == 0


@pytest.mark.virtual_time
async def test_of_two_that_win_in_one_turn_the_other_is_closed() -> None:
    race = Race((WINS, 2), (WINS, 1))
    won = await first(race.attempts, delay=1)
    await asyncio.sleep(0.1)
    assert sorted(sock.fileno() == -1 for sock in race.sockets) == [False, True]
    assert won.fileno() != -1


@pytest.mark.virtual_time
async def test_cancelling_the_race_cancels_all_attempts() -> None:
    race = Race((HANGS, 0), (HANGS, 0))
    task = asyncio.create_task(first(race.attempts, delay=1))
    await asyncio.sleep(2)
    task.cancel()
    await asyncio.wait([task])
    await asyncio.sleep(0)
    assert race.cancelled == 2


ORDERS: list[tuple[list[int], list[int]]] = [
    ([], []),
    ([V4, V4], [0, 1]),
    ([V6, V6, V4, V4], [0, 2, 1, 3]),
    ([V4, V6, V6], [0, 1, 2]),
]


@pytest.mark.parametrize(("families", "order"), ORDERS)
def test_the_families_take_turns(families: list[int], order: list[int]) -> None:
    addresses: list[Address] = [(family, 1, 6, (str(number), 80)) for number, family in enumerate(families)]
    assert in_turn(addresses) == [addresses[number] for number in order]


async def test_a_socket_is_connected_and_does_not_block() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, await connected("127.0.0.1", server.getsockname()[1]) as sock:
        assert sock.getpeername() == server.getsockname()
        assert sock.gettimeout() == 0.0
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        for name, value in KEEPALIVE.items():
            assert sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value

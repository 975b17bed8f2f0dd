"""A host and a port -> a connected socket, to whichever of the host's addresses answers first (RFC 8305, Happy Eyeballs).

asyncio's own event loop can do this. uvloop's tries one address after the other: one that leads nowhere takes all the time.
"""

import asyncio
import socket
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, TypeAlias

from sidecar.listener import KEEPALIVE, configure

DELAY: Final = 0.25
"""Seconds after which the next address is tried, beside those before it (RFC 8305, 5)."""

Address: TypeAlias = tuple[int, int, int, Any]
"""Family, type and protocol of the socket, and what it connects to."""

Attempt: TypeAlias = Callable[[], Coroutine[Any, Any, socket.socket]]


async def connected(host: str, port: int) -> socket.socket:
    """A connected socket that doesn't block. Raises OSError: why the first address failed, where all of them have."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses: list[Address] = [(family, type, protocol, address) for family, type, protocol, _, address in found]
    return await first([partial(_connected, *address) for address in in_turn(addresses)])


def in_turn(addresses: Sequence[Address]) -> list[Address]:
    """The addresses with the families taking turns, each family's in their order (RFC 8305, 4)."""
    seen: Counter[int] = Counter()
    ranked = []
    for number, address in enumerate(addresses):
        ranked.append((seen[address[0]], number, address))
        seen[address[0]] += 1
    return [address for _, _, address in sorted(ranked)]


async def first(attempts: Sequence[Attempt], delay: float = DELAY) -> socket.socket:
    """What the first attempt to succeed returns. Each begins `delay` seconds after the one before, or once one has failed.

    Raises what the first attempt that failed has raised, if none succeeds.
    """
    left = list(reversed(attempts))
    running: set[asyncio.Task[socket.socket]] = set()
    failures: list[BaseException] = []
    try:
        while left or running:
            if left:
                running.add(asyncio.create_task(left.pop()()))
            done, _ = await asyncio.wait(running, timeout=delay if left else None, return_when=asyncio.FIRST_COMPLETED)
            for attempt in done:
                running.remove(attempt)
                if (failure := attempt.exception()) is None:
                    return attempt.result()
                failures.append(failure)
        raise OSError(*failures[0].args)  # not the same: it would refer to this frame, which refers to it
    finally:
        for attempt in running:
            attempt.add_done_callback(_close)
            attempt.cancel()


async def _connected(family: int, type: int, protocol: int, address: Any) -> socket.socket:
    sock = socket.socket(family, type, protocol)
    try:
        sock.setblocking(False)
        configure(sock, {"TCP_NODELAY": 1, **KEEPALIVE})  # a model may think for ten minutes, a machine that is gone may not
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


def _close(attempt: "asyncio.Task[socket.socket]") -> None:
    """An attempt that came too late; what it raises is not wanted either."""
    if not attempt.cancelled() and attempt.exception() is None:
        attempt.result().close()

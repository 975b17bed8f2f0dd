"""The listening socket, who accepts what waits there, and how many files the process may have open.

Accepted sockets inherit the listening one's options (Linux: `tcp(7)`, `socket(7)`):

    TCP_NODELAY          an event goes out when it is written, not when the one before is acknowledged
    TCP_NOTSENT_LOWAT    the kernel accepts no more than this many bytes that it can't send yet, so that a stalled client costs
                         little. Unlike SO_SNDBUF it doesn't limit the bytes in flight, of which a long distance needs many
    TCP_USER_TIMEOUT     the kernel gives up a peer that acknowledges nothing for so long
    SO_KEEPALIVE         the kernel asks a silent peer on an idle connection whether it still exists
"""

import asyncio
import logging
import resource
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from sidecar.origins import is_loopback
from sidecar.settings import Settings

logger = logging.getLogger("sidestream")

BACKLOG: Final = 4096
"""Connections that wait to be accepted. Behind 1,024, the rest of 1,500 that came at once tried again after a second."""

AT_ONCE: Final = 64
"""Connections that are accepted in one turn of the event loop."""

UNSENT: Final = 128 * 1024
KEEPALIVE: Final = {"TCP_KEEPIDLE": 20, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}  # seconds, seconds, times: 50 s in all
RESERVE: Final = 128
"""Open files besides watchers and upstreams: the listener, the event loop, logs, requests with short answers."""


def check_exposure(settings: Settings) -> None:
    """Raise ValueError for an address other than loopback without a token. The token `off` permits it."""
    if not settings.token and not is_loopback(settings.host):
        expected = "a loopback address, or SIDESTREAM_TOKEN set (off: open to whoever reaches it)"
        raise ValueError(f"SIDESTREAM_HOST={settings.host!r}: expected {expected}")


def listener(settings: Settings) -> socket.socket:
    """The listening socket; accepted ones inherit its options. Raises OSError."""
    try:
        family, _, _, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
    except (OSError, UnicodeError) as error:
        raise OSError(f"SIDESTREAM_HOST={settings.host!r}: expected an address or a name of this machine: {error}") from None
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        configure(sock, options(settings))
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        raise OSError(f"cannot listen on {settings.host}:{settings.port}: {error.strerror}") from None
    return sock


def configure(sock: socket.socket, options: Mapping[str, int]) -> None:
    """Set SO_KEEPALIVE, and options of TCP by name; those that a system doesn't have are left out."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in options.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Acceptor:
    """Accepts the connections that wait behind the one that uvloop accepts in a turn of the event loop.

    By uvloop alone, a health check that comes after 200 new connections would wait for 200 turns. It is made before uvloop
    listens, so that epoll calls uvloop first: a connection that comes alone costs 14 µs more than without this, and not 40.
    (With uvloop accepting from 16 copies of the listener, it would cost 45 µs more.)
    """

    def __init__(self, listener: socket.socket, make: Callable[[], asyncio.Protocol]) -> None:
        """make: the protocol of a connection. Call it in the event loop that serves."""
        self._loop = asyncio.get_running_loop()
        self._listener = listener.dup()
        self._make = make
        self._beginning: set[asyncio.Task[Any]] = set()
        self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # none waits, or no file can be opened: uvloop closes those that wait then
                return
            beginning = self._loop.create_task(self._loop.connect_accepted_socket(self._make, connection))
            self._beginning.add(beginning)
            beginning.add_done_callback(self._beginning.discard)

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()


def options(settings: Settings) -> dict[str, int]:
    """The options of TCP, by name."""
    # The send timeout notices a client that doesn't read. This one notices a peer that has vanished, also after the last event.
    # It is longer, so that a client that doesn't read is logged as stalled.
    return {
        "TCP_NODELAY": 1,
        "TCP_NOTSENT_LOWAT": UNSENT,
        "TCP_USER_TIMEOUT": int(settings.send_timeout * 1500),
        **KEEPALIVE,
    }


def fit_watchers(settings: Settings) -> Settings:
    """Raise the soft limit of open files to the hard one, and fit MAX_WATCHERS to it: each watcher is a socket.

    A running stream may have a socket to its upstream as well. Where the limit is low, watchers get at least half of it.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return settings
    room = max(hard // 2, hard - settings.max_streams - RESERVE)
    if room >= settings.max_watchers:
        return settings
    logger.warning("%d watchers at the most, not %d: this process may have %d files open", room, settings.max_watchers, hard)
    return replace(settings, max_watchers=room)

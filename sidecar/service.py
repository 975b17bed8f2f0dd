"""The service: the settings, the store, the counts and the pace of sending, which all features share."""

import asyncio
from typing import Any

from sidecar import logs
from sidecar.counts import Counts
from sidecar.settings import Settings
from sse.budget import Budget, Charge
from sse.errors import Full, Problem, Unwritable
from sse.http import SLICE
from sse.sender import Pace
from sse.store import Backend, Limits, Store
from sse.stream import Stream
from sse.wire.ascii import to_ascii
from sse.wire.payload import dumps

MAX_METADATA = 1024
"""Bytes of a stream's metadata as JSON."""


def backend_for(settings: Settings) -> Backend | None:
    """What the settings keep streams in beyond this process. Raises ValueError, without the credentials."""
    if not settings.store:
        return None
    try:
        from sse.redis import Redis

        backend = Redis(settings.store)
        if settings.store_required:
            backend.check()
    except ModuleNotFoundError:
        raise ValueError("SIDESTREAM_STORE needs the extra `redis`: pip install redis") from None
    except ValueError as error:
        raise ValueError(f"SIDESTREAM_STORE: {error}") from None
    return backend


class Service:
    """It is made once, at the start, and given to every handler. Raises ValueError for a setting that can't be used.

    turn: for `Request.turn`.
    """

    def __init__(self, settings: Settings, backend: Backend | None = None) -> None:
        if settings.ascii:
            try:
                to_ascii(b"")
            except ModuleNotFoundError:
                raise ValueError("SIDESTREAM_ASCII=on needs the extra `ascii`: pip install anyascii") from None
        self.settings = settings
        self.counts = Counts()
        bounds = settings.replay_events, settings.replay_bytes
        limits = Limits(settings.max_streams, settings.max_watchers, settings.memory, *bounds)
        self.store = Store(limits, backend=backend, on_end=self._ended)
        self.pace = Pace(settings.heartbeat, settings.send_timeout, settings.retry)
        self.turn = asyncio.Lock()
        self._outgoing = Budget(settings.memory // 4)

    def outgoing(self, size: int) -> tuple[Charge, Charge]:
        """Charge a large answer of `size` bytes. Raises Full.

        All of them together have a quarter of the memory: clients that don't read can't have more than that dropped.
        """
        charges = Charge(self._outgoing), Charge(self.store.budget)
        for charge in charges:
            charge.claim(size)
        return charges

    async def result(self, stream: Stream) -> Any:
        """What a stream has come to, whichever process runs it. Raises Full if there is no room for an answer that holds it."""
        if stream.kept.size > SLICE and not self._outgoing.fits(stream.kept.size):
            raise Full("memory")
        return await self.store.ask(stream, "result")

    def _ended(self, stream: Stream) -> None:
        self.counts.stream_ended(stream)
        logs.stream_ended(stream)


def check_metadata(metadata: Any) -> None:
    """Raise Problem 422 if it is longer than `MAX_METADATA`, or has too many levels for the list of streams."""
    try:
        dumps({"streams": [{"metadata": metadata}]})
    except Unwritable:
        raise Problem(422, "metadata has too many levels.", parameter="metadata") from None
    if metadata is not None and len(dumps(metadata)) > MAX_METADATA:
        raise Problem(422, f"metadata may have {MAX_METADATA} bytes at the most.", parameter="metadata")

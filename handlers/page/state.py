"""`GET /lab/state`: the state of this sidecar as an event stream: one event at once, and one after each change.

Limit: while somebody watches, the state is read once a second. A change that is undone within a second is not reported.
"""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from sidecar import access, answers
from sidecar.request import Reply, Request
from sidecar.routes import Handler
from sidecar.service import Service
from sse import __version__
from sse.formats import Format

INTERVAL = 1.0
"""Seconds."""


def watch(upstream: str) -> Handler:
    """The handler. upstream: name of the upstream, for people."""

    async def state(request: Request) -> Reply:
        return await answers.private(request, _states(request.service, upstream), Format())

    return state


async def _states(service: Service, upstream: str) -> AsyncIterator[dict[str, Any]]:
    """Ends when the server drains, so that no shutdown waits for it."""
    before = None
    while not service.store.draining:
        now = describe(service, upstream)
        if now != before:
            yield now
        before = now
        await asyncio.sleep(INTERVAL)


def describe(service: Service, upstream: str) -> dict[str, Any]:
    """running, held: streams that can be found; watchers: connections, this one included; memory: bytes of all event logs."""
    store = service.store
    return {
        "version": __version__,
        "upstream": upstream,
        "token": access.guarded(service.settings),
        "running": sum(1 for stream_id in store.running if stream_id in store.streams),
        "held": len(store.streams),
        "watchers": store.watchers,
        "memory": store.budget.used,
    }

"""`GET /healthz`: the process is alive, and its version. `GET /readyz`: it takes new streams; 503 while it drains."""

from sidecar.request import Reply, Request
from sse import __version__
from sse.errors import Problem
from sse.http import json_response


async def alive(request: Request) -> Reply:  # noqa: ARG001
    return json_response({"status": "ok", "version": __version__})


async def ready(request: Request) -> Reply:
    store = request.service.store
    if store.draining:
        raise Problem(503, "Shutting down.", headers={"retry-after": "5"})
    if store.backend.link is not None and not store.backend.link.reached:
        raise Problem(503, "The store has not been reached yet.", headers={"retry-after": "5"})
    return json_response({"status": "ready"})

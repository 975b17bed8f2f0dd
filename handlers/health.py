"""`GET /healthz`: the process is alive, and its version. `GET /readyz`: it takes new streams; 503 while it drains."""

from sidecar.answers import Reply
from sidecar.service import Service
from sse import __version__
from sse.errors import Problem
from sse.http import Request, json_response
from sse.stream import Stream


async def alive(service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG001
    return json_response({"status": "ok", "version": __version__})


async def ready(service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG001
    if service.store.draining:
        raise Problem(503, "Shutting down.", headers={"retry-after": "5"})
    link = service.store.backend.link
    if link is not None and not link.reached:
        raise Problem(503, "The store has not been reached yet.", headers={"retry-after": "5"})
    return json_response({"status": "ready"})

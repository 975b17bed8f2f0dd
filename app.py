"""Sidestream: the ASGI callable. A route table, the lifespan, and one boundary for errors.

uvicorn app:app      under any ASGI server
python app.py        under ours, which drains on SIGTERM and lets go of clients that stall (`sidecar.server`)
"""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from handlers import basic, bench, health, metrics, streams
from handlers import index as page
from handlers.chat import routes as chat
from handlers.jobs import routes as jobs
from handlers.merge import routes as merge
from handlers.publish import routes as publish
from sidecar import access, logs
from sidecar.access import Right
from sidecar.answers import Reply
from sidecar.service import Service, busy
from sidecar.settings import Settings, from_environment
from sse.asgi import Receive, Scope, Send, lifespan
from sse.errors import Disconnected, Full, Problem
from sse.http import Request, Response, problem_response

logger = logging.getLogger("sidestream")

Handler = Callable[[Service, Request], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Route:
    """method, path (`{name}` matches one segment), handler, the right it takes; and a curl line for the index."""

    method: str
    path: str
    handler: Handler
    right: Right
    about: str = ""

    def match(self, path: str) -> dict[str, str] | None:
        """The parameters, if this is the path of this route."""
        pattern, parts = self.path.split("/"), path.split("/")
        if len(pattern) != len(parts):
            return None
        params: dict[str, str] = {}
        for expected, part in zip(pattern, parts, strict=True):
            if expected.startswith("{"):
                params[expected[1:-1]] = part
            elif expected != part:
                return None
        return params


ASK = 'curl -N -H content-type:application/json -d \'{"prompt": "Hello"}\' {url}/chat'

ROUTES: tuple[Route, ...] = (
    Route("GET", "/", page.index, Right.OPEN),
    Route("GET", "/chat", chat.get, Right.TOKEN, "curl -N '{url}/chat?prompt=Hello'"),
    Route("POST", "/chat", chat.post, Right.TOKEN, ASK),
    Route("POST", "/v1/chat/completions", chat.completions, Right.TOKEN),
    Route("GET", "/v1/models", chat.models, Right.TOKEN, "curl {url}/v1/models"),
    Route("GET", "/stream", basic.stream, Right.TOKEN, "curl -N '{url}/stream?count=10&interval=0.5'"),
    Route("GET", "/streams", streams.index, Right.TOKEN, "curl {url}/streams"),
    Route("GET", "/streams/{id}", streams.watch, Right.CAPABILITY, "curl -N {url}/streams/ID"),
    Route("DELETE", "/streams/{id}", streams.cancel, Right.KEY, "curl -X DELETE {url}/streams/ID"),
    Route("POST", "/jobs", jobs.create, Right.TOKEN, "curl -X POST {url}/jobs"),
    Route("GET", "/jobs", jobs.index, Right.TOKEN, "curl {url}/jobs"),
    Route("GET", "/jobs/{id}", jobs.show, Right.KEY, "curl {url}/jobs/ID"),
    Route("GET", "/jobs/{id}/progress", jobs.progress, Right.CAPABILITY, "curl -N {url}/jobs/ID/progress"),
    Route("DELETE", "/jobs/{id}", jobs.cancel, Right.KEY, "curl -X DELETE {url}/jobs/ID"),
    Route("GET", "/merge", merge.watch, Right.CAPABILITY, "curl -N '{url}/merge?streams=ID,ID'"),
    Route("POST", "/streams", publish.open, Right.TOKEN, "curl -X POST {url}/streams"),
    Route("POST", "/streams/{id}/events", publish.publish, Right.KEY, """curl --json '{"data": 1}' {url}/streams/ID/events"""),
    Route("PUT", "/streams/{id}/events", publish.publish, Right.KEY),
    Route("POST", "/streams/{id}/close", publish.close, Right.KEY, "curl -X POST {url}/streams/ID/close"),
    Route("GET", "/bench", bench.load, Right.TOKEN, "curl -N '{url}/bench?events=1000&size=190&interval=0&burst=1'"),
    Route("GET", "/healthz", health.alive, Right.OPEN, "curl {url}/healthz"),
    Route("GET", "/readyz", health.ready, Right.OPEN, "curl {url}/readyz"),
    Route("GET", "/metrics", metrics.show, Right.TOKEN, "curl {url}/metrics"),
)


class Sidestream:
    """The ASGI application. settings: read from the environment when it starts, unless given."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings
        self._service: Service | None = None

    @property
    def service(self) -> Service:
        """What the handlers share; made at the start, or by the first request where no lifespan is forwarded."""
        if self._service is None:
            self.start()
        assert self._service is not None
        return self._service

    def start(self) -> None:
        """Read the settings. Raises ValueError for one that is wrong."""
        service = Service(self.settings or from_environment())
        service.state["routes"] = ROUTES
        chat.start(service)
        jobs.start(service)
        logs.start(service)
        metrics.start(service)
        self._service = service

    async def drain(self) -> None:
        """Let what runs finish, and end what doesn't in time."""
        await self.service.store.drain(self.service.settings.drain)

    async def stop(self) -> None:
        """End what still runs. Our server has drained before; under another one this is all there is."""
        if self._service is not None:
            await self._service.store.drain(0)
            metrics.stop(self._service)
            await chat.stop(self._service)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send, self.start, self.stop)
        elif scope["type"] == "http":
            await self._answer(Request(scope, receive), send)
        else:
            raise NotImplementedError(f"Sidestream speaks HTTP, not {scope['type']}")

    async def _answer(self, request: Request, send: Send) -> None:
        exchange, reply = logs.Exchange(request), None
        try:
            reply = await self._reply(request)
            headers = access.cors(self._service.settings, request) if self._service is not None else {}
            request.answer_headers = exchange.headers(headers)
            await reply(request, send)
        except (Disconnected, OSError) as error:
            logger.debug("%s %s: the client is gone: %r", request.method, logs.short_path(request.path), error)
        finally:
            exchange.end(reply)
            if self._service is not None and reply is not None:
                self._service.counts.requests[reply.status] += 1

    async def _reply(self, request: Request) -> Reply:
        try:
            service = self.service
            route = find(request)
            access.check(service.settings, request, route.right, service.store.find(request.params.get("id", "")))
            return await route.handler(service, request)
        except Problem as raised:
            problem = raised
        except Full as full:
            problem = busy(full)
        except Disconnected:
            raise
        except Exception:
            logger.exception("%s %s failed", request.method, logs.short_path(request.path))
            problem = Problem(500, "The request failed; the log says why.")
        # Clients of OpenAI's routes read OpenAI's error object.
        return chat.error_response(problem) if request.path.startswith("/v1/") else problem_response(problem)


def find(request: Request) -> Route:
    """The route of a request, whose `params` are set. HEAD is answered as GET. Raises Problem 404, or 405 with Allow."""
    method = "GET" if request.method == "HEAD" else request.method
    allowed = []
    for route in ROUTES:
        params = route.match(request.path)
        if params is None:
            continue
        if route.method == method:
            request.params = params
            return route
        allowed.append(route.method)
    if not allowed:
        raise Problem(404, "There is nothing here; GET / lists what there is.")
    allow = ", ".join([*sorted(allowed), *(["HEAD"] if "GET" in allowed else []), "OPTIONS"])
    if method == "OPTIONS":
        return Route("OPTIONS", request.path, partial(_options, allow), Right.OPEN)
    raise Problem(405, f"Allowed here: {allow}.", headers={"allow": allow})


async def _options(allow: str, service: Service, request: Request) -> Reply:  # noqa: ARG001
    return Response(204, headers={"allow": allow})


app = Sidestream()

if __name__ == "__main__":
    import signal
    import sys

    from sidecar import server

    # The image starts us with SIGTERM blocked (Containerfile): one that came while all this was imported arrives now.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    sys.exit(server.main(app))

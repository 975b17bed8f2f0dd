"""Sidestream: the ASGI callable. A route table, the lifespan, and one boundary for errors.

uvicorn app:app      under any ASGI server
python app.py        under ours, which drains on SIGTERM and lets go of clients that stall (`sidecar.server`)
"""

import gc
import logging
from functools import cached_property

if __name__ == "__main__":
    gc.disable()  # until the server has started: collections would take a tenth of the time to the first byte, and find little

from handlers import basic, bench, health, index, streams
from handlers.chat.formats.ag_ui import AGUI
from handlers.chat.formats.openai import OpenAI
from handlers.chat.formats.plain import Asked, Plain
from handlers.chat.formats.typed import Typed
from handlers.chat.formats.ui_messages import UIMessages
from handlers.chat.responses import ResponsesAPI
from handlers.chat.routes import Chat
from handlers.jobs.routes import Jobs
from handlers.merge import routes as merge
from handlers.metrics import Metrics
from handlers.page import front, state
from handlers.page.lab import Lab
from handlers.publish import routes as publish
from sidecar import access, answers, conversations, logs
from sidecar.access import Right
from sidecar.request import Reply, Request
from sidecar.routes import Route, Routes
from sidecar.service import Service, backend_for
from sidecar.settings import Settings, from_environment, warn_of_unknown
from sse import resume
from sse.asgi import Receive, Scope, Send, lifespan
from sse.errors import Disconnected, Problem
from sse.http import SLICE, UNCHARGED, Response, problem_response
from sse.http import Request as HTTPRequest
from sse.store import Backend
from sse.stream import Stream

logger = logging.getLogger("sidestream")


class Features:
    """The features that keep state. Raises ValueError for a setting that can't be used.

    Call `start` in the event loop that serves them.
    """

    def __init__(self, service: Service) -> None:
        self.jobs = Jobs(service.settings)
        self.chat = Chat(service.settings)
        self.metrics = Metrics(service, self.jobs.threads)
        self.lab = Lab()

    def start(self) -> None:
        self.chat.upstream.start()  # makes it ready while we serve already
        self.metrics.start()

    async def stop(self) -> None:
        self.metrics.stop()
        await self.chat.upstream.aclose()


ASK = 'curl -N -H content-type:application/json -d \'{"prompt": "Hello"}\' {url}/chat'
RESPOND = """curl --json '{"input": "Hello", "background": true}' {url}/v1/responses"""
PUBLISH = """curl --json '{"data": 1}' {url}/streams/ID/events"""


def routes(features: Features) -> tuple[Route, ...]:
    """The route table: everything that is served."""
    chat, responses, jobs = features.chat, ResponsesAPI(features.chat), features.jobs
    table = (
        Route("GET", "/chat", chat.answering(Asked), Right.TOKEN, "curl -N '{url}/chat?prompt=Hello'"),
        Route("POST", "/chat", chat.answering(Typed, Plain), Right.TOKEN, ASK),
        Route("GET", "/chat/formats", chat.samples.index, Right.TOKEN, "curl {url}/chat/formats"),
        Route("GET", "/chat/formats/{name}", chat.samples.show, Right.TOKEN, "curl -N {url}/chat/formats/typed"),
        Route("POST", "/ui/chat", chat.answering(UIMessages), Right.TOKEN, errors=UIMessages.problem),
        Route("GET", "/ui/chat/{conversation}/stream", chat.rejoining(UIMessages), Right.TOKEN, errors=UIMessages.problem),
        Route("POST", "/ui/chat/{conversation}/stop", chat.cancel, Right.TOKEN, errors=UIMessages.problem),
        Route("POST", "/ag-ui", chat.answering(AGUI), Right.TOKEN),
        Route("POST", "/ag-ui/{conversation}/stop", chat.cancel, Right.TOKEN),
        Route("POST", "/v1/chat/completions", chat.answering(OpenAI), Right.TOKEN, errors=OpenAI.problem),
        Route("POST", "/v1/responses", responses.create, Right.TOKEN, RESPOND, errors=OpenAI.problem),
        Route("GET", "/v1/responses/resp_{id}", responses.retrieve, Right.TOKEN, errors=OpenAI.problem),
        Route("DELETE", "/v1/responses/resp_{id}", responses.delete, Right.TOKEN, errors=OpenAI.problem),
        Route("POST", "/v1/responses/resp_{id}/cancel", responses.cancel, Right.TOKEN, errors=OpenAI.problem),
        Route("GET", "/v1/responses/resp_{id}/input_items", responses.input_items, Right.TOKEN, errors=OpenAI.problem),
        Route("GET", "/v1/models", chat.models, Right.TOKEN, "curl {url}/v1/models", errors=OpenAI.problem),
        Route("GET", "/v1/models/{model*}", chat.models, Right.TOKEN, errors=OpenAI.problem),
        Route("GET", "/stream", basic.stream, Right.TOKEN, "curl -N '{url}/stream?count=10&interval=0.5'"),
        Route("GET", "/streams", streams.index, Right.TOKEN, "curl {url}/streams"),
        Route("GET", "/streams/{id}", streams.watch, Right.CAPABILITY, "curl -N {url}/streams/ID"),
        Route("DELETE", "/streams/{id}", streams.cancel, Right.KEY, "curl -X DELETE {url}/streams/ID"),
        Route("DELETE", "/streams/{id}/watchers", streams.drop, Right.KEY, "curl -X DELETE {url}/streams/ID/watchers"),
        Route("GET", "/conversations/{conversation}", streams.watch, Right.TOKEN, "curl -N {url}/conversations/KEY"),
        Route("DELETE", "/conversations/{conversation}", streams.cancel, Right.TOKEN, "curl -X DELETE {url}/conversations/KEY"),
        Route("POST", "/jobs", jobs.create, Right.TOKEN, "curl -X POST {url}/jobs"),
        Route("GET", "/jobs", jobs.index, Right.TOKEN, "curl {url}/jobs"),
        Route("GET", "/jobs/{id}", jobs.show, Right.KEY, "curl {url}/jobs/ID"),
        Route("GET", "/jobs/{id}/progress", jobs.progress, Right.CAPABILITY, "curl -N {url}/jobs/ID/progress"),
        Route("DELETE", "/jobs/{id}", jobs.cancel, Right.KEY, "curl -X DELETE {url}/jobs/ID"),
        Route("GET", "/merge", merge.watch, Right.CAPABILITY, "curl -N '{url}/merge?streams=ID,ID'"),
        Route("POST", "/streams", publish.open, Right.TOKEN, "curl -X POST {url}/streams"),
        Route("POST", "/streams/{id}/events", publish.publish, Right.KEY, PUBLISH),
        Route("PUT", "/streams/{id}/events", publish.publish, Right.KEY),
        Route("POST", "/streams/{id}/close", publish.close, Right.KEY, "curl -X POST {url}/streams/ID/close"),
        Route("GET", "/bench", bench.load, Right.TOKEN, "curl -N '{url}/bench?events=1000&size=190&interval=0&burst=1'"),
        Route("GET", "/page/{file}", front.file, Right.OPEN),
        Route("GET", "/lab/state", state.watch(chat.upstream.name), Right.TOKEN),
        Route("GET", "/lab/probe", features.lab.probe, Right.CAPABILITY, "curl -N {url}/lab/probe"),
        Route("POST", "/lab/probe", features.lab.judge, Right.CAPABILITY),
        Route("GET", "/lab/{lesson}", features.lab.lesson, Right.CAPABILITY, "curl -N {url}/lab/reconnect"),
        Route("GET", "/healthz", health.alive, Right.OPEN, "curl {url}/healthz"),
        Route("GET", "/readyz", health.ready, Right.OPEN, "curl {url}/readyz"),
        Route("GET", "/metrics", features.metrics.show, Right.TOKEN, "curl {url}/metrics"),
    )
    front_page = front.front(index.of([route.about for route in table if route.about]))
    return (Route("GET", "/", front_page, Right.OPEN), *table)


class Sidestream:
    """The ASGI application. settings: read from the environment when it starts, unless given. backend: see `sse.store`."""

    def __init__(self, settings: Settings | None = None, backend: Backend | None = None) -> None:
        self.settings = settings
        self._backend = backend
        self.features: Features | None = None
        self._routes = Routes(())

    @cached_property
    def service(self) -> Service:
        """What the handlers share. It is made at the start, or by the first request if the server runs no lifespan.

        Raises ValueError for a wrong setting.
        """
        if self.settings is None:
            warn_of_unknown()
        settings = self.settings or from_environment()
        service = Service(settings, self._backend or backend_for(settings))
        features = Features(service)
        features.start()
        self.features, self._routes = features, Routes(self.routes(features))
        return service

    def start(self) -> None:
        """Read the settings and make the features, unless that is done. Raises ValueError for a wrong setting."""
        self.service  # noqa: B018

    def routes(self, features: Features) -> tuple[Route, ...]:
        """The route table. A subclass may add routes to it."""
        return routes(features)

    def example(self, url: str) -> str:
        """A command that gets a first stream. url: where this is served."""
        token = " -H 'Authorization: Bearer <token>'" if access.guarded(self.service.settings) else ""
        return f"curl -N{token} '{url}/chat?prompt=Hello'"

    async def drain(self) -> None:
        """Let the streams that run finish, and end those that take longer than `SIDESTREAM_DRAIN`."""
        running, seconds = len(self.service.store.running), self.service.settings.drain
        if running:
            logger.info("draining: %d running streams have %g s to end", running, seconds)
        await self.service.store.drain(seconds)

    async def stop(self) -> None:
        """End the streams that still run. Our own server has called `drain` before; another server calls only this."""
        if self.features is not None:
            await self.service.store.drain(0)
            await self.features.stop()
            await self.service.store.backend.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send, self.start, self.stop)
        elif scope["type"] == "http":
            try:
                request = Request(scope, receive, self.service)
            except ValueError as error:  # without a lifespan the error has not been logged yet
                logger.error("%s", error)
                problem = Problem(500, "A setting is wrong; the log says which.")
                await problem_response(problem)(HTTPRequest(scope, receive), send)
            else:
                await self._answer(request, send)
        else:
            raise NotImplementedError(f"Sidestream speaks HTTP, not {scope['type']}")

    async def _answer(self, request: Request, send: Send) -> None:
        service, exchange, reply = request.service, logs.Exchange(request), None
        try:
            reply = await self._reply(request)
            await reply(request, send, exchange.headers(access.cors(service.settings, request)))
        except (Disconnected, OSError) as error:
            logger.debug("%s %s: the client is gone: %r", request.method, logs.short_path(request.path), error)
            service.counts.unanswered += 1
        finally:
            exchange.end(reply)
            if reply is not None:
                service.counts.requests[reply.status] += 1

    async def _reply(self, request: Request) -> Reply:
        service = request.service
        # No name keeps an error: an error holds its traceback, which holds this function's variables, and so a cycle.
        try:
            route = self._routes.find(request)
            request.stream = await access.admit(service.settings, request, route.right, lambda: self._named(request))
            reply = await route.handler(request)
            return answers.Large(service, reply) if isinstance(reply, Response) and len(reply.body) > SLICE else reply
        except Problem as problem:
            return self._refusal(request, problem)
        except Disconnected:
            raise
        except Exception:
            logger.exception("%s %s failed", request.method, logs.short_path(request.path))
            return self._refusal(request, Problem(500, "The request failed; the log says why."))
        finally:
            request.charge = UNCHARGED  # a stream that needs what was made of the body has the charge

    def _refusal(self, request: Request, problem: Problem) -> Reply:
        return answers.refusal(request, problem, self._routes.errors(request.path))

    async def _named(self, request: Request) -> Stream | None:
        """The stream that the path names or, if it names none, the last event ID does. A request looks up no other stream."""
        store = request.service.store
        if (key := request.params.get("conversation")) is not None:
            return await conversations.find(store, request, key)
        stream_id = request.params.get("id")
        if stream_id is None:
            last = resume.parse(request.last_event_id or "")
            stream_id = last.stream if last is not None and last.number is not None else None
        return await store.find(stream_id) if stream_id is not None else None


app = Sidestream()

if __name__ == "__main__":
    import signal
    import sys

    from sidecar import server

    # The image starts this process with SIGTERM blocked (Containerfile). A SIGTERM sent during the imports arrives now.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    sys.exit(server.main(Sidestream))

"""Chat over HTTP: one engine (`stages`), three formats (`formats`), any OpenAI-compatible upstream (`upstream`).

    POST /chat                    typed events, or plain ones; 200 at once, what fails upstream is an event
    GET /chat?prompt=&model=      plain, for a bare EventSource
    POST /v1/chat/completions     OpenAI's own shape, streamed or not; the status is the upstream's
    GET /v1/models                what the upstream lists

Without OPENAI_API_KEY and OPENAI_BASE_URL, the model `demo` answers.
"""

import logging
import os
from typing import Any

from handlers.chat.engine import Answer
from handlers.chat.formats.completion import complete
from handlers.chat.formats.openai import error_object
from handlers.chat.formats.typed import format_for
from handlers.chat.request import ChatRequest, parse_request
from handlers.chat.tools import Toolbox
from handlers.chat.upstream.demo import DemoUpstream
from handlers.chat.upstream.failures import Reply as UpstreamReply
from handlers.chat.upstream.failures import UpstreamFailed
from handlers.chat.upstream.openai_sdk import OpenAIUpstream
from sidecar import answers
from sidecar.answers import Reply
from sidecar.functions import load
from sidecar.service import Service, check_metadata
from sidecar.settings import Settings
from sse.asgi import attended
from sse.errors import Problem
from sse.http import Request, Response, json_response
from sse.stream import Opening, Stream
from sse.wire.payload import dumps

logger = logging.getLogger("sidestream")


class Chat:
    """The upstream and the tools; its methods are the handlers. Raises ValueError for a setting that can't be used."""

    def __init__(self, settings: Settings) -> None:
        for name in ("openai", "httpx2", "httpcore2"):
            # At INFO a line for each request; at DEBUG the SDK logs whole prompts, which are nobody's business.
            logging.getLogger(name).setLevel(logging.WARNING)
        self.toolbox = Toolbox(load("SIDESTREAM_TOOLS", ("handlers.chat.builtin", *settings.tools)).values())
        self.upstream: OpenAIUpstream | DemoUpstream
        if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
            self.upstream = OpenAIUpstream(settings.model, settings.first_token_timeout, settings.upstream_timeout)
        else:
            logger.info("no upstream: the model `demo` answers; set OPENAI_API_KEY or OPENAI_BASE_URL for a real one")
            self.upstream = DemoUpstream(settings.demo_interval)

    def start(self) -> None:
        """Load the SDK: half a second, in a thread, while we serve already."""
        if isinstance(self.upstream, OpenAIUpstream):
            self.upstream.load()

    async def stop(self) -> None:
        """Close the upstream's connections."""
        if isinstance(self.upstream, OpenAIUpstream):
            await self.upstream.aclose()

    async def post(self, service: Service, request: Request, stream: Stream | None) -> Reply:
        """`POST /chat`."""
        body = await request.json(limit=service.settings.max_body)
        chat = self._parse(service, body)
        check_metadata(chat.metadata)
        return await answers.open(service, request, stream, lambda: self._opening(service, chat), body=dumps(body))

    async def get(self, service: Service, request: Request, stream: Stream | None) -> Reply:
        """`GET /chat?prompt=`."""
        if not request.query.get("prompt"):
            raise Problem(400, "prompt is missing.", parameter="prompt")
        wishes = {name: request.query[name] for name in ("prompt", "model") if request.query.get(name)}
        chat = self._parse(service, {**wishes, "format": "plain"})
        return await answers.open(service, request, stream, lambda: self._opening(service, chat))

    async def completions(self, service: Service, request: Request, stream: Stream | None) -> Reply:
        """`POST /v1/chat/completions`. No header goes out before the upstream's status is known; a client that goes cancels it.

        Limit: nothing here can be resumed, since OpenAI's SDK takes an id for an event; an Idempotency-Key has no effect.
        """
        settings = service.settings
        body = await request.json(limit=settings.max_body)
        chat = parse_request(body, tools=self.toolbox.tools, max_stages=settings.max_stages, openai=True)
        answer = self._answer(service, chat)
        try:
            with service.store.reserve() as place:
                if not chat.stream:
                    return _whole(await attended(request.receive, complete(answer)))
                with answers.seat(service):
                    await attended(request.receive, answer.open())
                    stream = answers.begin(service, self._opening(service, chat, answer), place)
            return answers.follow(service, request, stream, None, newcomer=True, key=stream.key)
        except UpstreamFailed as failure:
            await answer.aclose()
            return _failed(service, failure)
        except BaseException:
            await answer.aclose()
            raise

    async def models(self, service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG002
        """`GET /v1/models`."""
        try:
            return _whole(await attended(request.receive, self.upstream.models()))
        except UpstreamFailed as failure:
            return _failed(service, failure)

    def _parse(self, service: Service, body: Any) -> ChatRequest:
        settings = service.settings
        return parse_request(body, tools=self.toolbox.tools, system=settings.system, max_stages=settings.max_stages)

    def _answer(self, service: Service, chat: ChatRequest) -> Answer:
        return Answer(chat, self.upstream, self.toolbox, service.counts.first_token.observe)

    def _opening(self, service: Service, chat: ChatRequest, answer: Answer | None = None) -> Opening:
        settings, answer = service.settings, answer or self._answer(service, chat)
        return Opening(
            answer,
            format_for(chat),
            linger=0 if chat.format == "openai" else settings.linger if chat.linger is None else chat.linger,
            keep=settings.keep,
            metadata=chat.metadata,
            result=lambda: answer.result,
        )


def error_response(problem: Problem) -> Response:
    """A problem on a route of OpenAI's, as its SDK expects it."""
    kind = "invalid_request_error" if problem.status < 500 else "server_error"
    error = error_object(problem.detail, None, type=kind, param=problem.members.get("parameter"))
    return json_response(error, problem.status, problem.headers)


def _whole(reply: UpstreamReply) -> Response:
    return Response(reply.status, reply.body, {"content-type": "application/json", **reply.headers})


def _failed(service: Service, failure: UpstreamFailed) -> Response:
    """What the upstream said, as it said it; where it said nothing, an error object of our own."""
    service.counts.failures[failure.code] += 1
    if failure.reply is not None:
        return _whole(failure.reply)
    return json_response(error_object(failure.message, failure.code), failure.status)

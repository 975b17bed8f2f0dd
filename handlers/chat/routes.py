"""Chat over HTTP: one engine, a format for each kind of client (`formats`), any OpenAI-compatible upstream (`upstream`).

    POST /chat                    typed events, or plain ones; 200 at once, what fails upstream is an event
    GET /chat?prompt=&model=      plain, for a bare EventSource
    POST /v1/chat/completions     OpenAI's own shape, streamed or not; the status is the upstream's
    GET /v1/models                what the upstream lists; /v1/models/{model}: one of them

Without OPENAI_API_KEY and OPENAI_BASE_URL, the model `demo` answers.
"""

import logging
from functools import partial
from typing import Any

from handlers.chat.engine import Answer
from handlers.chat.formats.base import ChatFormat
from handlers.chat.formats.openai import OpenAI, passed_on
from handlers.chat.items import UpstreamFailed
from handlers.chat.request import Offer
from handlers.chat.samples import Samples
from handlers.chat.tools import Toolbox
from handlers.chat.upstream.demo import DemoUpstream
from handlers.chat.upstream.models import listed
from handlers.chat.upstream.openai_sdk import OpenAIUpstream
from sidecar import answers
from sidecar.functions import load
from sidecar.request import Reply, Request
from sidecar.routes import Handler
from sidecar.service import check_metadata
from sidecar.settings import Settings
from sse.asgi import attended
from sse.budget import Charge
from sse.errors import Problem
from sse.http import Response, json_response
from sse.stream import Opening, State, Trigger

logger = logging.getLogger("sidestream")


class Chat:
    """The upstream and the tools; makes the handlers. Raises ValueError for a setting that can't be used."""

    def __init__(self, settings: Settings) -> None:
        for name in ("openai", "httpx2", "httpcore2"):
            # At INFO they write a line for each request; at DEBUG the SDK writes whole prompts, which belong into no log.
            logging.getLogger(name).setLevel(logging.WARNING)
        self.toolbox = Toolbox(load("SIDESTREAM_TOOLS", ("handlers.chat.builtin", *settings.tools)).values())
        upstream = OpenAIUpstream.from_environment(
            model=settings.model, first_token_timeout=settings.first_token_timeout, timeout=settings.upstream_timeout
        )
        if upstream is None:
            logger.info("no upstream: the model `demo` answers; set OPENAI_API_KEY or OPENAI_BASE_URL for a real one")
        self.upstream: OpenAIUpstream | DemoUpstream = upstream or DemoUpstream(settings.demo_interval)
        self.offer = Offer(self.toolbox.tools, settings.system, settings.max_stages, self.upstream.limit)
        self.samples = Samples(self.offer, self.toolbox)

    def answering(self, first: type[ChatFormat], *others: type[ChatFormat]) -> Handler:
        """A handler that answers in a format; of several, in the one that the body's `format` names, or else in the first."""
        self.samples.formats.update((kind.name, kind) for kind in (first, *others))

        async def handle(request: Request) -> Reply:
            settings = request.service.settings
            format, body = await first.asked(request, self.offer, settings.max_body, *others)
            check_metadata(format.request.metadata)
            answer = self.answer(request, format, len(body))
            if format.after_status:
                del body  # the upstream may take minutes
                return await self._after_status(request, answer)
            return await answers.open(request, partial(opening, settings, answer), body, format.request.conversation)

        return handle

    def rejoining(self, kind: type[ChatFormat]) -> Handler:
        """A handler that sends the answer of a conversation from its beginning. `?running=1`: only if it has not ended.

        204 where there is none (`useChat` asks at each load of its page). Raises Problem 409 for one in another format.
        """

        async def handle(request: Request) -> Reply:
            stream = request.stream
            if stream is None or (request.query.get("running") and stream.state is not State.RUNNING):
                return Response(204)
            if stream.format.name != kind.name:
                raise Problem(409, f"The answer in this conversation has the format {stream.format.name}.")
            return answers.resume(request, stream)

        return handle

    async def cancel(self, request: Request) -> Reply:
        """Stop the answer of a conversation, if one runs there. Asking twice is no error."""
        if request.stream is not None:
            await request.service.store.end(request.stream, Trigger.DELETED)
        return Response(204)

    async def models(self, request: Request) -> Reply:
        """`GET /v1/models`, and `GET /v1/models/{model}`: of those that it lists, since not every upstream answers that."""
        try:
            with request.service.store.reserve():
                whole = await attended(request.receive, self.upstream.models(request.charge.claim))
        except UpstreamFailed as failure:
            return refused(request, OpenAI, failure)
        if (id := request.params.get("model")) is None:
            return passed_on(whole)
        if (model := listed(whole.body).get(id)) is None:
            raise Problem(404, f"The model {id[:200]!r} is not one that the upstream lists.", parameter="model")
        return json_response(model)

    def answer(self, request: Request, format: ChatFormat, size: int) -> Answer:
        """The answer to a request whose body has `size` bytes. Raises Full."""
        request.charge.claim(size)  # the upstream's client keeps what it has sent until the answer has ended
        measure, kept = partial(request.service.counts.asked, self.upstream.name), Charge(request.service.store.budget)
        return Answer(format, self.upstream, self.toolbox, measure, trace(request), kept)

    async def _after_status(self, request: Request, answer: Answer) -> Reply:
        """The answer, once the upstream's status is known. It isn't kept or listed, and ends with its client."""
        try:
            if answer.format.request.stream:
                return await answers.private(request, answer, answer.format, ready=answer.open, kept=answer.kept)
            with request.service.store.reserve():
                return passed_on(await attended(request.receive, answer.whole()))
        except UpstreamFailed as failure:
            return refused(request, answer.format, failure)


def opening(settings: Settings, answer: Answer, **facts: Any) -> Opening:
    """How the stream of an answer is opened."""
    asked, result = answer.format.request, lambda: answer.result
    linger = settings.linger if asked.linger is None else asked.linger
    return Opening(answer, answer.format, linger, settings.keep, asked.metadata, result, kept=answer.kept, **facts)


def trace(request: Request) -> dict[str, str]:
    """The headers that make the upstream's work a part of the caller's trace (W3C Trace Context)."""
    headers = {name: request.header(name.encode()) or "" for name in ("traceparent", "tracestate")}
    return {name: value for name, value in headers.items() if value and value.isascii() and value.isprintable()}


def refused(request: Request, format: ChatFormat | type[ChatFormat], failure: UpstreamFailed) -> Reply:
    """The answer to a request whose upstream has failed before a stream began."""
    request.service.counts.failures[failure.code] += 1
    return format.refused(failure)

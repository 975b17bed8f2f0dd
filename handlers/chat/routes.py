"""Chat over HTTP: one engine (`stages`), three formats (`formats`), any OpenAI-compatible upstream (`upstream`).

    POST /chat                    typed events, or plain ones; 200 at once, what fails upstream is an event
    GET /chat?prompt=&model=      plain, for a bare EventSource
    POST /v1/chat/completions     OpenAI's own shape, streamed or not; the status is the upstream's
    GET /v1/models                what the upstream lists

Without OPENAI_API_KEY and OPENAI_BASE_URL, the model `demo` answers.
"""

import logging
import os
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import Any

from handlers.chat.engine import Answer, Upstream
from handlers.chat.formats.completion import complete
from handlers.chat.formats.openai import error_object
from handlers.chat.formats.typed import format_for
from handlers.chat.request import ChatRequest, parse_request
from handlers.chat.tools import Toolbox, load
from handlers.chat.upstream.demo import DemoUpstream
from handlers.chat.upstream.failures import Reply as UpstreamReply
from handlers.chat.upstream.failures import UpstreamFailed
from handlers.chat.upstream.openai_sdk import OpenAIUpstream
from sidecar.answers import Reply
from sidecar.service import Proposal, Service, check_metadata
from sse.asgi import attended
from sse.errors import MissingExtra, Problem
from sse.http import Request, Response, json_response
from sse.store import Opening
from sse.wire.payload import dumps, to_ascii

logger = logging.getLogger("sidestream")

Handler = Callable[[Service, Request], Awaitable[Reply]]


def start(service: Service) -> None:
    """Choose the upstream and load the tools. Raises ValueError for a module or a setting that can't be used."""
    settings = service.settings
    try:
        tools = load(("handlers.chat.builtin", *settings.tools))
    except (ImportError, ValueError) as error:
        raise ValueError(f"SIDESTREAM_TOOLS: {error}") from None
    if settings.ascii:
        try:
            to_ascii("")
        except MissingExtra as missing:
            raise ValueError(f"SIDESTREAM_ASCII=on: {missing}") from None
    for name in ("openai", "httpx2", "httpcore2"):
        # At INFO a line for each request; at DEBUG the SDK logs whole prompts, which are nobody's business.
        logging.getLogger(name).setLevel(logging.WARNING)
    service.state["toolbox"] = Toolbox(tools)
    if os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL"):
        upstream = OpenAIUpstream(settings.model, settings.first_token_timeout, settings.upstream_timeout)
        upstream.load()  # half a second, in a thread, while we serve already
        service.state["upstream"] = upstream
    else:
        logger.info("no upstream: the model `demo` answers; set OPENAI_API_KEY or OPENAI_BASE_URL for a real one")
        service.state["upstream"] = DemoUpstream(settings.demo_interval)


async def stop(service: Service) -> None:
    """Close the upstream's connections."""
    upstream = service.state.get("upstream")
    if isinstance(upstream, OpenAIUpstream):
        await upstream.aclose()


async def post(service: Service, request: Request) -> Reply:
    """`POST /chat`."""
    body = await request.json(limit=service.settings.max_body)
    chat = _parse(service, body)
    check_metadata(chat.metadata)
    return service.answer(request, _propose(service, chat), body=dumps(body))


async def get(service: Service, request: Request) -> Reply:
    """`GET /chat?prompt=`."""
    if not request.query.get("prompt"):
        raise Problem(400, "prompt is missing.", parameter="prompt")
    wishes = {name: request.query[name] for name in ("prompt", "model") if request.query.get(name)}
    chat = _parse(service, {**wishes, "format": "plain"})
    return service.answer(request, _propose(service, chat))


def _passing_on(handler: Handler) -> Handler:
    """Pass on what the upstream answered instead of what was asked of it."""

    @wraps(handler)
    async def handle(service: Service, request: Request) -> Reply:
        try:
            return await handler(service, request)
        except UpstreamFailed as failure:
            service.counts.failures[failure.code] += 1
            return _failed(failure)

    return handle


def error_response(problem: Problem) -> Response:
    """A problem on a route of OpenAI's, as its SDK expects it."""
    kind = "invalid_request_error" if problem.status < 500 else "server_error"
    error = error_object(problem.detail, None, type=kind, param=problem.members.get("parameter"))
    return json_response(error, problem.status, problem.headers)


@_passing_on
async def completions(service: Service, request: Request) -> Reply:
    """`POST /v1/chat/completions`. No header goes out before the upstream's status is known; a client that goes cancels it.

    Limit: nothing here can be resumed, since OpenAI's SDK takes an id for an event; an Idempotency-Key has no effect.
    """
    settings = service.settings
    body = await request.json(limit=settings.max_body)
    chat = parse_request(body, tools=_toolbox(service).tools, max_stages=settings.max_stages, openai=True)
    answer = _answer(service, chat)
    if not chat.stream:
        service.admit()
        with service.store.working():
            return _whole(await attended(request.receive, complete(answer)))
    try:
        service.admit()
        service.admit_watcher()
        with service.store.working():
            await attended(request.receive, answer.open())
        stream = service.begin(_proposal(service, "", chat, answer))
    except BaseException:
        await answer.aclose()
        raise
    return service.watch(request, stream, None, key=stream.key)


@_passing_on
async def models(service: Service, request: Request) -> Reply:
    """`GET /v1/models`."""
    return _whole(await attended(request.receive, _upstream(service).models()))


def _parse(service: Service, body: Any) -> ChatRequest:
    settings = service.settings
    tools = _toolbox(service).tools
    return parse_request(body, tools=tools, system=settings.system, max_stages=settings.max_stages)


def _answer(service: Service, chat: ChatRequest) -> Answer:
    return Answer(chat, _upstream(service), _toolbox(service), service.counts.first_token.observe)


def _propose(service: Service, chat: ChatRequest) -> Callable[[str], Proposal]:
    return lambda identity: _proposal(service, identity, chat, _answer(service, chat))


def _proposal(service: Service, identity: str, chat: ChatRequest, answer: Answer) -> Proposal:
    settings = service.settings
    opening = Opening(
        identity,
        format_for(chat, ascii=settings.ascii),
        linger=0 if chat.format == "openai" else settings.linger if chat.linger is None else chat.linger,
        keep=settings.keep,
        metadata=chat.metadata,
        result=lambda: answer.result,
    )
    return Proposal(lambda: answer, opening)


def _upstream(service: Service) -> Upstream:
    upstream: Upstream = service.state["upstream"]
    return upstream


def _toolbox(service: Service) -> Toolbox:
    toolbox: Toolbox = service.state["toolbox"]
    return toolbox


def _whole(reply: UpstreamReply) -> Response:
    return Response(reply.status, reply.body, {"content-type": "application/json", **reply.headers})


def _failed(failure: UpstreamFailed) -> Response:
    """What the upstream said, as it said it; where it said nothing, an error object of our own."""
    if failure.reply is not None:
        return _whole(failure.reply)
    return json_response(error_object(failure.message, failure.code), failure.status)

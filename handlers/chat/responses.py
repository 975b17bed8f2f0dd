"""OpenAI's Responses API over any upstream that speaks chat completions: what a request asks of the model, and the routes.

    POST /v1/responses                    streamed or not, in the foreground or in the background
    GET /v1/responses/{id}                the object, or with `stream=true` its events, from `starting_after` on
    POST /v1/responses/{id}/cancel        the object; only in the background, where no connection ends the work
    DELETE /v1/responses/{id}             gone at once; those who watch it get its end
    GET /v1/responses/{id}/input_items    what it was made of, in pages

In the foreground a client that goes ends the work, and the status is the upstream's. In the background the work goes on for the
request's `linger`, or to its end if the request has none. An ended response is kept for `KEEP`, unless `"store"` is false.

Limit: `Idempotency-Key` has no effect. If a process is gone before a response has ended, no other one knows the response.
"""

import asyncio
import time
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final
from weakref import ref

from handlers.chat import request as shape
from handlers.chat.formats.responses import PREFIXES, SILENCE, Responses
from handlers.chat.items import Call, UpstreamFailed
from handlers.chat.request import ASK_FOR_USAGE, MAX_MESSAGES, Offer, check, parse_openai, wrong
from handlers.chat.routes import Chat, refused
from sidecar import answers
from sidecar.request import Reply, Request
from sidecar.service import Service
from sse.asgi import attended
from sse.budget import Charge
from sse.errors import Problem
from sse.http import Response, json_response
from sse.ids import ID_LENGTH, new_id
from sse.stream import Opening, State, Stream, Trigger
from sse.wire.document import weight
from sse.wire.payload import dumps

PREFIX: Final = "resp_"
"""What a response's id begins with; the rest is the id of its stream."""

QUIET: Final = 30.0
"""Seconds between two checks whether a stream has written an event."""

_NO: Final[shape.Check] = (lambda _: False, "left out: there is nothing like it in chat completions")
_FIELDS: Final[Mapping[str, shape.Check]] = {
    "input": (lambda value: isinstance(value, str | list), "a text or a list of items"),
    "metadata": (lambda value: isinstance(value, dict) and len(value) <= 16, "an object of 16 members at the most"),
    "truncation": (lambda value: value == "disabled", "disabled"),
    "linger": shape.OWN_FIELDS["linger"],
    "max_output_tokens": shape.COUNT,
    "tools": shape.LIST,
    **dict.fromkeys(("instructions", "previous_response_id"), (lambda value: isinstance(value, str), "a text")),
    **dict.fromkeys(("text", "reasoning"), shape.OBJECT),
    **dict.fromkeys(("background", "store", "parallel_tool_calls"), shape.FLAG),
    **dict.fromkeys(("conversation", "prompt", "context_management", "moderation", "max_tool_calls", "top_logprobs", "n"), _NO),
}  # fmt: skip
_TAKEN: Final = {*_FIELDS, "tool_choice", "stream_options", "include"}
"""Fields that are not passed on: chat completions have another name for them, or none. Unknown fields are passed on."""

_TOLD: Final[Mapping[str, Any]] = {
    **dict.fromkeys(("instructions", "max_output_tokens", "previous_response_id", "temperature", "top_p")),
    "background": False, "store": True, "parallel_tool_calls": True, "tool_choice": "auto", "truncation": "disabled",
    "metadata": {}, "reasoning": {"effort": None, "summary": None}, "text": {"format": {"type": "text"}},
}  # fmt: skip
"""Members of the object that repeat the request, and their values where the request leaves them out."""

_NEEDED: Final = {"message": ("role",), "function_call": ("call_id", "name", "arguments"), "function_call_output": ("call_id",)}
"""Texts that an item must have, by its type."""

_TOOL: Final = ("name", "description", "parameters", "strict")


# -- what a request asks


def asked(body: Any, offer: Offer, before: list[dict[str, Any]], given: list[Any]) -> Responses:
    """The response to a body that was checked. before: items of earlier responses. given: its own. Raises Problem."""
    id = new_id()
    input = [*before, *_input(given, id)]
    if not 0 < len(input) < MAX_MESSAGES:
        raise wrong("input", f"must be 1 to {MAX_MESSAGES - 1} items, with those of the responses before it")
    system = [{"role": "system", "content": body["instructions"]}] if body.get("instructions") else []
    messages = [*system, *_messages(input, len(before))]
    request = parse_openai({**_parameters(body, offer), "messages": messages}, offer)
    if body.get("background") and body.get("store") is False:
        raise wrong("store", "must be true in the background")
    return Responses(id, request, _told(body, id), input)


def _told(body: Mapping[str, Any], id: str) -> dict[str, Any]:
    given = {name: body[name] for name in _TOLD if body.get(name) is not None}
    given |= {name: {**_TOLD[name], **given[name]} for name in ("reasoning", "text") if name in given}
    tools = [tool if isinstance(tool, dict) else {"type": "function", "name": tool} for tool in body.get("tools") or ()]
    head = {"id": f"{PREFIX}{id}", "object": "response", "created_at": int(time.time()), "model": body.get("model") or ""}
    return {**head, **_TOLD, **given, "tools": [{**dict.fromkeys(_TOOL), **tool} for tool in tools]}


def _input(given: list[Any], id: str) -> list[dict[str, Any]]:
    """The items, each with a type and an id."""
    items = []
    for number, item in enumerate(given):
        place = f"input[{number}]"
        type = (item.get("type") or "message") if isinstance(item, dict) else None
        if not isinstance(type, str) or type not in PREFIXES:
            raise wrong(f"{place}.type", f"must be {', '.join(PREFIXES)} or item_reference, not {type!r}")
        for name in _NEEDED.get(type, ()):
            if not isinstance(item.get(name), str):
                raise wrong(f"{place}.{name}", "must be a text")
        if isinstance(text := item.get("content"), str):
            part = "output_text" if item.get("role") == "assistant" else "input_text"
            item = {**item, "content": [{"type": part, "text": text}]}
        own = str(item.get("id") or f"{PREFIXES[type]}_{id}_{number}")
        items.append({"status": "completed", **item, "type": type, "id": own})
    return items


def _reference(item: Any) -> str | None:
    """The id of the item that this one refers to, if it is a reference."""
    refers = isinstance(item, dict) and item.get("type") in ("item_reference", None) and "role" not in item
    return item["id"] if refers and isinstance(item.get("id"), str) else None


def _stream_of(id: str) -> str:
    """The stream that the id of a response or of an item names."""
    return id.partition("_")[2][:ID_LENGTH]


def _messages(items: Iterable[Mapping[str, Any]], before: int) -> list[dict[str, Any]]:
    """Items as the messages of a chat; the first `before` are not of this request."""
    messages: list[dict[str, Any]] = []
    for number, item in enumerate(items, -before):
        match item["type"]:
            case "message":
                role = "system" if item["role"] == "developer" else item["role"]  # which every upstream knows
                messages.append({"role": role, "content": _content(item.get("content"), f"input[{number}].content")})
            case "function_call":
                if not messages or messages[-1]["role"] != "assistant":
                    messages.append({"role": "assistant", "content": None})
                call = Call(0, item["call_id"], item["name"], item["arguments"])
                messages[-1].setdefault("tool_calls", []).append(call.message())
            case "function_call_output":
                content = _content(item.get("output"), f"input[{number}].output")
                messages.append({"role": "tool", "tool_call_id": item["call_id"], "content": content})
    return messages


def _content(content: Any, place: str) -> str | list[dict[str, Any]]:
    """A text, or a list of parts. If all parts are texts, they are joined, since some upstreams know only texts."""
    if not isinstance(content, str | list):
        raise wrong(place, "must be a text or a list of parts")
    parts = [_part(part, f"{place}[{number}]") for number, part in enumerate(content)] if isinstance(content, list) else []
    texts = [part["text"] for part in parts if "text" in part] if parts else content
    return "\n".join(texts) if parts and len(texts) == len(parts) else parts or content


def _part(part: Any, place: str) -> dict[str, Any]:
    match part:
        case {"type": "input_text" | "output_text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            return {"type": "text", "text": text}
        case {"type": "input_image", "image_url": str(url)}:
            return {
                "type": "image_url",
                "image_url": {"url": url, **({"detail": part["detail"]} if part.get("detail") else {})},
            }
    raise wrong(place, "must be a text, a refusal or an image with its image_url: there are no files here, and no audio")


def _parameters(body: Mapping[str, Any], offer: Offer) -> dict[str, Any]:
    """A body's parameters, by the names that they have in chat completions."""
    text = body.get("text") or {}
    tools = [_tool(tool, f"tools[{number}]") for number, tool in enumerate(body.get("tools") or ())]
    parameters = {
        **{name: value for name, value in body.items() if name not in _TAKEN},
        **ASK_FOR_USAGE,
        offer.limit: body.get("max_output_tokens") or body.get(offer.limit),
        "reasoning_effort": (body.get("reasoning") or {}).get("effort"),
        "verbosity": text.get("verbosity"),
        "response_format": _response_format(text.get("format")),
    }
    if tools:  # without any, upstreams refuse the others
        choice, parallel = _tool_choice(body.get("tool_choice")), body.get("parallel_tool_calls")
        parameters |= {"tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel}
    return {name: value for name, value in parameters.items() if value is not None}


def _tool(tool: Any, place: str) -> Any:
    if isinstance(tool, str):
        return tool
    if not isinstance(tool, dict) or tool.get("type") != "function" or not isinstance(tool.get("name"), str):
        raise wrong(f"{place}.type", "must be a function, or a tool of the sidecar's by its name: none is hosted, none custom")
    return {"type": "function", "function": {name: tool[name] for name in _TOOL if tool.get(name) is not None}}


def _tool_choice(choice: Any) -> Any:
    if isinstance(choice, dict) and choice.get("type") == "function":
        return {"type": "function", "function": {"name": choice.get("name")}}
    if choice not in (None, "none", "auto", "required"):
        raise wrong("tool_choice", "must be none, auto, required or a function")
    return choice


def _response_format(format: Any) -> Any:
    if isinstance(format, dict) and format.get("type") == "json_schema":
        return {"type": "json_schema", "json_schema": {name: value for name, value in format.items() if name != "type"}}
    return None if format == {"type": "text"} else format


# -- the routes


class ResponsesAPI:
    """The handlers."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    async def create(self, request: Request) -> Reply:
        """`POST /v1/responses`."""
        settings, chat = request.service.settings, self._chat
        body = await request.json(limit=settings.max_body)
        try:
            check(body, _FIELDS)
            before, given, previous = await _items(request.service, body)
            format = asked(body, chat.offer, before, given)
            format.charges = _charges(request.service, format.input, previous)
            answer = chat.answer(request, format, len(dumps(format.input)))
            linger = body.get("linger") if format.background else 0 if format.request.stream else None
            more: Any = {"result": format.result, "kept": answer.kept, "kind": format.name, "listed": format.told["store"]}
            propose = partial(Opening, answer, format, linger, settings.keep if format.told["store"] else 0, **more)
            ready = answer.open if format.after_status else None
            seat = request.service.store.seat() if format.request.stream else None
            stream = await answers.begin(request, propose, format.id, ready=ready)
        except UpstreamFailed as failure:
            return refused(request, Responses, failure)
        except Problem as problem:
            status = 400 if problem.status == 422 else problem.status  # as OpenAI's server says it
            raise Problem(status, problem.detail, headers=problem.headers, **problem.members) from None
        asyncio.get_running_loop().call_later(QUIET, _break_silence, ref(stream), None)
        if format.request.stream:
            return answers.follow(request, stream, None, seat)
        if not format.background:
            try:
                await attended(request.receive, stream.closed())
            finally:
                stream.end(Trigger.ABANDONED)  # without effect if it has ended
        if format.failure is not None:
            raise Problem(getattr(format.failure, "status", 500), format.failure.message, code=format.failure.code)
        return json_response(format.object(), headers=answer.limits)

    async def retrieve(self, request: Request) -> Reply:
        """`GET /v1/responses/{id}?stream=&starting_after=`."""
        stream, held = await _found(request)
        if request.query.get("stream") != "true":
            return json_response(held["response"])
        if not held["response"]["background"]:
            raise Problem(400, "stream: only a response in the background can be streamed again", parameter="stream")
        log, newest = stream.log, max(stream.log.last, stream.newest) - 1
        after = request.integer("starting_after", -1, minimum=0, maximum=newest)
        if after + 2 < log.first:
            raise Problem(400, f"The events before {log.first - 1} are held no more.", parameter="starting_after")
        if log.closed and after == log.last - 1:  # there is nothing more to say
            return Response(200, b":\n", {"content-type": "text/event-stream"})
        return answers.follow(request, stream, after + 1)

    async def cancel(self, request: Request) -> Reply:
        """`POST /v1/responses/{id}/cancel`; one that has ended stays as it is."""
        stream, held = await _found(request)
        if not held["response"]["background"]:
            raise Problem(400, "Only a response in the background can be cancelled.", parameter="id")
        await request.service.store.end(stream, Trigger.DELETED)
        _, held = await _found(request)
        return json_response(held["response"])

    async def delete(self, request: Request) -> Reply:
        """`DELETE /v1/responses/{id}`."""
        stream, held = await _found(request)
        await request.service.store.delete(stream)
        return json_response({"id": held["response"]["id"], "object": "response", "deleted": True})

    async def input_items(self, request: Request) -> Reply:
        """`GET /v1/responses/{id}/input_items?after=&limit=&order=`; those of the responses before it too."""
        _, held = await _found(request)
        limit, after = request.integer("limit", 20, minimum=1, maximum=100), request.query.get("after")
        items = {item["id"]: item for item in held["input"]}
        ids = list(items) if request.query.get("order") == "asc" else list(items)[::-1]
        if after is not None and after not in items:
            raise Problem(400, "after: is no item of this response", parameter="after")
        rest = ids if after is None else ids[ids.index(after) + 1 :]
        page, more = [items[id] for id in rest[:limit]], len(rest) > limit
        first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
        return json_response({"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more})


def _charges(service: Service, input: list[dict[str, Any]], previous: Responses | None) -> tuple[Charge, ...]:
    """Of the items before a response. It shares those that were before the previous one, and their charges. Raises Full."""
    shared = () if previous is None else previous.charges
    own = Charge(service.store.budget)
    own.claim(weight(dumps(input[0 if previous is None else len(previous.input) :])))
    return (*shared, own)


async def _items(service: Service, body: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[Any], Responses | None]:
    """The items before a request, its own with those that it refers to in their place, and the response before, if it is here.

    Raises Problem 400, 422; 413 where those of earlier responses are larger than a body may be.
    """
    before: list[dict[str, Any]] = []
    format: Any = None
    if (previous := body.get("previous_response_id")) is not None:
        stream = await service.store.find(_stream_of(previous))
        held = await _held(service, stream)
        if stream is None or held is None or held["response"]["usage"] is None:
            detail = f"Previous response with id {previous[:100]!r} not found, or still running."
            raise Problem(400, detail, parameter="previous_response_id", code="previous_response_not_found")
        before = [*held["input"], *held["response"]["output"]]
        format = None if stream.elsewhere else stream.format
    given = body.get("input") or []
    given = [{"role": "user", "content": given}] if isinstance(given, str) else [*given]
    earlier, known = [*before], dict[str, dict[str, Any]]()  # by the stream: a response's items, by their ids
    for number, item in enumerate(given):
        if (reference := _reference(item)) is None:
            continue
        if (id := _stream_of(reference)) not in known:
            held = await _held(service, await service.store.find(id))
            known[id] = {item["id"]: item for item in (*held["input"], *held["response"]["output"])} if held else {}
        if reference not in known[id]:
            raise wrong(f"input[{number}].id", f"there is no item {reference[:100]!r}, or it is kept no more")
        given[number] = known[id][reference]
        earlier.append(given[number])
    limit = service.settings.max_body
    for item in earlier:
        limit -= len(dumps(item))
        if limit < 0:
            raise Problem(413, "The items of earlier responses are larger than a body may be.", parameter="input")
    return before, given, format


async def _held(service: Service, stream: Stream | None) -> Any:
    """The result of a response (`Responses.result`), whichever process runs it; None for any other stream."""
    if stream is None or stream.discarded or stream.opening.kind != Responses.name:
        return None
    return await service.result(stream)


async def _found(request: Request) -> tuple[Stream, Any]:
    """The response that the path names. Raises Problem 404, for another feature's stream too."""
    stream, held = request.stream, await _held(request.service, request.stream)
    if stream is None or held is None:
        raise Problem(404, f"Response with id '{PREFIX}{request.params['id'][:100]}' not found.")
    return stream, held


def _break_silence(watched: "ref[Stream]", last: float | None) -> None:
    """Write an event if the stream has written none since the last check, and check again: some clients ignore comments."""
    stream = watched()  # which is forgotten without waiting for this
    if stream is not None and stream.state is State.RUNNING:
        if stream.last_event == last:
            stream.emit(SILENCE)
        asyncio.get_running_loop().call_later(QUIET, _break_silence, watched, stream.last_event)

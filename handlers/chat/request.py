"""A request's body, parsed JSON -> `ChatRequest`; or a Problem that names the field.

What is the sidecar's own is taken out: prompt, tools, max_stages, format, linger, metadata (in /v1, the last three are not the
sidecar's). What it has to know is checked: the fields of `_FIELDS`, and the outline of messages and tools. The rest is the
upstream's business and passed on as it is, parameters that nobody here knows included.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sse.errors import Problem

MAX_MESSAGES = 2000
"""Of one request."""

MAX_LINGER = 86400
"""Seconds. A request may ask for less than `LINGER` and for more: whoever may open a stream has the token, where one is set."""

ROLES: Final = ("system", "developer", "user", "assistant", "tool", "function")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """parameters: passed on. own_tools: names of the sidecar's. client_tools: objects. format: typed, plain, openai.

    linger: seconds, None if not asked for. include_usage, stream: what a /v1 client asked for.
    """

    messages: tuple[dict[str, Any], ...]
    model: str
    parameters: Mapping[str, Any]
    own_tools: tuple[str, ...]
    client_tools: tuple[dict[str, Any], ...]
    max_stages: int
    format: str
    linger: float | None = None
    metadata: Any = None
    stream: bool = True
    include_usage: bool = False


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_Check = tuple[Callable[[Any], bool], str]
_TEXT: Final[_Check] = (lambda value: isinstance(value, str) and value != "", "a text that is not empty")
_FLAG: Final[_Check] = (lambda value: isinstance(value, bool), "true or false")
_COUNT: Final[_Check] = (_is_count, "an integer from 1")
_NUMBER: Final[_Check] = (_is_number, "a number")
_OBJECT: Final[_Check] = (lambda value: isinstance(value, dict), "an object")
_LIST: Final[_Check] = (lambda value: isinstance(value, list), "a list")

_FIELDS: Final[Mapping[str, _Check]] = {
    "model": _TEXT,
    "messages": (lambda value: isinstance(value, list) and 0 < len(value) <= MAX_MESSAGES, f"a list of 1 to {MAX_MESSAGES}"),
    "tools": _LIST,
    "tool_choice": (lambda value: isinstance(value, str | dict), "a text or an object"),
    "temperature": _NUMBER,
    "top_p": _NUMBER,
    "max_tokens": _COUNT,
    "max_completion_tokens": _COUNT,
    "n": _COUNT,
    "stream": _FLAG,
    "stream_options": _OBJECT,
    "max_stages": _COUNT,
}  # fmt: skip
_CHAT_FIELDS: Final[Mapping[str, _Check]] = {
    "prompt": _TEXT,
    "format": (lambda value: value in ("typed", "plain"), '"typed" or "plain"'),
    "linger": (lambda value: _is_number(value) and 0 <= value <= MAX_LINGER, f"seconds, from 0 to {MAX_LINGER}"),
    "metadata": _OBJECT,
}


def parse_request(
    body: Any, *, tools: Collection[str] = (), system: str = "", max_stages: int = 8, openai: bool = False
) -> ChatRequest:
    """Check a body. tools: names of the sidecar's. system: the system message of a prompt. openai: it came to /v1.

    Raises Problem: 400 if it is no object, otherwise 422 with the member `parameter`.
    """
    if not isinstance(body, dict):
        raise Problem(400, "the body must be a JSON object")
    fields = _FIELDS if openai else {**_FIELDS, **_CHAT_FIELDS}
    for name, (is_right, expected) in fields.items():
        if body.get(name) is not None and not is_right(body[name]):
            raise _wrong(name, f"must be {expected}")
    own_tools, client_tools = _tools(body.get("tools") or (), tools)
    format = "openai" if openai else body.get("format") or "typed"
    if (body.get("n") or 1) > 1 and (own_tools or not openai):
        raise _wrong("n", "must be 1 here: one answer is streamed")
    taken = {"model", "messages", "tools", "max_stages", "stream"} | (set() if openai else set(_CHAT_FIELDS))
    return ChatRequest(
        messages=_messages(body, system, openai),
        model=body.get("model") or "",
        parameters=_parameters({name: value for name, value in body.items() if name not in taken}, openai, body, own_tools),
        own_tools=own_tools,
        client_tools=client_tools,
        max_stages=min(body.get("max_stages") or max_stages, max_stages),
        format=format,
        linger=None if openai else body.get("linger"),
        metadata=None if openai else body.get("metadata"),
        stream=not openai or bool(body.get("stream")),
        include_usage=bool((body.get("stream_options") or {}).get("include_usage")),
    )


def _parameters(rest: dict[str, Any], openai: bool, body: Mapping[str, Any], own_tools: tuple[str, ...]) -> Mapping[str, Any]:
    """What is passed on. Where the sidecar itself wants the usage it asks for it; `"stream_options": null` prevents that."""
    if "stream_options" not in body and (not openai or (own_tools and not body.get("stream"))):
        return rest | {"stream_options": {"include_usage": True}}
    return {name: value for name, value in rest.items() if name != "stream_options" or value is not None}


def _messages(body: Mapping[str, Any], system: str, openai: bool) -> tuple[dict[str, Any], ...]:
    prompt = None if openai else body.get("prompt")
    if (prompt is None) == (body.get("messages") is None):
        raise _wrong("messages", "is missing" if prompt is None else "can't stand beside `prompt`")
    if prompt is not None:
        return *([{"role": "system", "content": system}] if system else []), {"role": "user", "content": prompt}
    for number, message in enumerate(body["messages"]):
        _check_message(message, f"messages[{number}]")
    return tuple(body["messages"])


def _check_message(message: Any, place: str) -> None:
    if not isinstance(message, dict):
        raise _wrong(place, "must be an object")
    if message.get("role") not in ROLES:
        raise _wrong(f"{place}.role", f"must be one of {', '.join(ROLES)}")
    content = message.get("content")
    if isinstance(content, list):
        for number, part in enumerate(content):
            if not isinstance(part, dict) or not isinstance(part.get("type"), str):
                raise _wrong(f"{place}.content[{number}]", "must be an object with a type")
    elif not isinstance(content, str) and not (content is None and message["role"] == "assistant"):
        raise _wrong(f"{place}.content", "must be a text or a list of parts")
    if message["role"] == "tool" and not isinstance(message.get("tool_call_id"), str):
        raise _wrong(f"{place}.tool_call_id", "must be a text")


def _tools(given: Collection[Any], known: Collection[str]) -> tuple[tuple[str, ...], tuple[dict[str, Any], ...]]:
    own = [tool for tool in given if isinstance(tool, str)]
    for number, tool in enumerate(given):
        place = f"tools[{number}]"
        if isinstance(tool, str):
            if tool not in known:
                raise _wrong(place, f"the sidecar has no tool {tool[:100]!r}; it has {', '.join(sorted(known)) or 'none'}")
            if own.count(tool) > 1:
                raise _wrong(place, f"names {tool!r} twice")
        elif not isinstance(tool, dict):
            raise _wrong(place, "must be the name of one of the sidecar's tools, or an object")
        elif tool.get("type", "function") == "function":
            function = tool.get("function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise _wrong(f"{place}.function.name", "must be a text")
            if function["name"] in own:
                raise _wrong(f"{place}.function.name", f"{function['name']!r} is one of the sidecar's tools in this request")
    return tuple(own), tuple(tool for tool in given if isinstance(tool, dict))


def _wrong(parameter: str, what: str) -> Problem:
    return Problem(422, f"{parameter}: {what}", parameter=parameter)

"""A request's body, parsed JSON -> `ChatRequest`; or a Problem that names the field.

Fields of the sidecar's own are taken out: the names of its tools and max_stages; in a request of its own shape also prompt,
format, linger, metadata, conversation and replace. Fields that the sidecar has to understand are checked: those of the tables,
and the outline of messages and tools. Everything else is passed on as it is, parameters that the sidecar doesn't know included.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

from sidecar.conversations import MAX_KEY, Conversation
from sse.errors import Problem

MAX_MESSAGES = 10_000
"""Of one request."""

MAX_LINGER = 86400
"""Seconds. A request may ask for less than `LINGER` or for more, since its sender has the token where one is set."""

ASK_FOR_USAGE: Final = {"stream_options": {"include_usage": True}}


class Offer(NamedTuple):
    """What the sidecar adds to a request. tools: names of its own. system: its system message. max_stages: the limit.

    limit: the upstream's name for the parameter that bounds an answer's tokens.
    """

    tools: Collection[str] = ()
    system: str = ""
    max_stages: int = 8
    limit: str = "max_tokens"

    def introduced(self, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The messages, behind the sidecar's own system message unless they have one."""
        has_one = any(message["role"] == "system" for message in messages)
        return messages if has_one or not self.system else [{"role": "system", "content": self.system}, *messages]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """parameters: passed on. own_tools: names of the sidecar's. client_tools: objects. linger: seconds, None if not asked for.

    stream: whether the client wants events. conversation: the one in which the answer runs. client_names: of the client's
    functions.
    """

    messages: tuple[dict[str, Any], ...]
    model: str
    parameters: Mapping[str, Any]
    own_tools: tuple[str, ...]
    client_tools: tuple[dict[str, Any], ...]
    max_stages: int
    linger: float | None = None
    metadata: Any = None
    stream: bool = True
    conversation: Conversation | None = None
    client_names: frozenset[str] = frozenset()

    def answers(self, name: str) -> bool:
        """Whether the sidecar answers a call of this name: also an unknown one, if the request has tools of the sidecar's."""
        return bool(self.own_tools) and name not in self.client_names


Check = tuple[Callable[[Any], bool], str]
TEXT: Final[Check] = (lambda value: isinstance(value, str) and value != "", "a text that is not empty")
FLAG: Final[Check] = (lambda value: isinstance(value, bool), "true or false")
COUNT: Final[Check] = (lambda value: type(value) is int and value >= 1, "an integer from 1")
OBJECT: Final[Check] = (lambda value: isinstance(value, dict), "an object")
LIST: Final[Check] = (lambda value: isinstance(value, list), "a list")

FIELDS: Final[Mapping[str, Check]] = {
    "model": TEXT,
    "messages": (lambda value: isinstance(value, list) and 0 < len(value) <= MAX_MESSAGES, f"a list of 1 to {MAX_MESSAGES}"),
    "tools": LIST,
    "n": COUNT,
    "stream": FLAG,
    "stream_options": OBJECT,
    "max_stages": COUNT,
}  # fmt: skip
OWN_FIELDS: Final[Mapping[str, Check]] = {
    "prompt": TEXT,
    "format": TEXT,
    "linger": (lambda value: type(value) in (int, float) and 0 <= value <= MAX_LINGER, f"seconds, from 0 to {MAX_LINGER}"),
    "metadata": OBJECT,
    "conversation": (
        lambda value: isinstance(value, str) and 0 < len(value) <= MAX_KEY,
        f"a text of 1 to {MAX_KEY} characters",
    ),
    "replace": FLAG,
}
_TAKEN: Final = ("model", "messages", "tools", "max_stages", "stream")


def parse_openai(body: Any, offer: Offer) -> ChatRequest:
    """A body as OpenAI's API takes it. Raises Problem: 400 if it is no object, otherwise 422 with the member `parameter`."""
    check(body, FIELDS, "messages")
    for number, message in enumerate(body["messages"]):
        _check_message(message, f"messages[{number}]")
    own_tools, client_tools = _tools(body.get("tools") or (), offer.tools)
    if own_tools and (body.get("n") or 1) > 1:
        raise wrong("n", "must be 1 here: one answer is streamed")
    functions = [function for tool in client_tools if isinstance(function := tool.get("function"), dict)]
    passed_on = {name: value for name, value in body.items() if name not in _TAKEN}
    if passed_on.get("stream_options", ...) is None:
        del passed_on["stream_options"]
    return ChatRequest(
        messages=tuple(body["messages"]),
        model=body.get("model") or "",
        parameters=passed_on,
        own_tools=own_tools,
        client_tools=client_tools,
        max_stages=min(body.get("max_stages") or offer.max_stages, offer.max_stages),
        stream=bool(body.get("stream")),
        client_names=frozenset(str(function.get("name")) for function in functions),
    )


def parse_own(body: Any, offer: Offer) -> ChatRequest:
    """A body in the sidecar's own shape: as OpenAI's, with fields of our own, and always streamed. Raises Problem.

    It asks the upstream for the usage; `"stream_options": null` prevents that.
    """
    check(body, OWN_FIELDS)
    rest = {name: value for name, value in body.items() if name not in OWN_FIELDS}
    if (prompt := body.get("prompt")) is not None:
        if body.get("messages") is not None:
            raise wrong("messages", "can't stand beside `prompt`")
        rest["messages"] = offer.introduced([{"role": "user", "content": prompt}])
    request = parse_openai(ASK_FOR_USAGE | rest, offer)
    if request.parameters.get("n", 1) not in (1, None):
        raise wrong("n", "must be 1 here: one answer is streamed")
    key, replaces = body.get("conversation"), bool(body.get("replace"))
    conversation = Conversation(key, replace=replaces) if key is not None else None
    return replace(request, linger=body.get("linger"), metadata=body.get("metadata"), stream=True, conversation=conversation)


def wrong(parameter: str, what: str) -> Problem:
    """The problem for a field of the body that can't be used."""
    return Problem(422, f"{parameter}: {what}", parameter=parameter)


def check(body: Any, fields: Mapping[str, Check], *needed: str) -> None:
    """Raise Problem 400 for a body that is no object, 422 for a field that is missing or isn't as the table says."""
    if not isinstance(body, dict):
        raise Problem(400, "the body must be a JSON object")
    for name, (is_right, expected) in fields.items():
        if body.get(name) is not None and not is_right(body[name]):
            raise wrong(name, f"must be {expected}")
        if body.get(name) is None and name in needed:
            raise wrong(name, "is missing")


def _check_message(message: Any, place: str) -> None:
    """Check the outline only. Unknown roles and parts are left to the upstream."""
    if not isinstance(message, dict):
        raise wrong(place, "must be an object")
    if not isinstance(message.get("content"), str | list | dict | None):
        raise wrong(f"{place}.content", "must be a text or a list of parts")


def _tools(given: Collection[Any], known: Collection[str]) -> tuple[tuple[str, ...], tuple[dict[str, Any], ...]]:
    own = [tool for tool in given if isinstance(tool, str)]
    for number, tool in enumerate(given):
        place = f"tools[{number}]"
        if isinstance(tool, str):
            if tool not in known:
                raise wrong(place, f"the sidecar has no tool {tool[:100]!r}; it has {', '.join(sorted(known)) or 'none'}")
            if own.count(tool) > 1:
                raise wrong(place, f"names {tool!r} twice")
        elif not isinstance(tool, dict):
            raise wrong(place, "must be the name of one of the sidecar's tools, or an object")
        elif tool.get("type", "function") == "function":
            function = tool.get("function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise wrong(f"{place}.function.name", "must be a text")
            if function["name"] in own:
                raise wrong(f"{place}.function.name", f"{function['name']!r} is one of the sidecar's tools in this request")
    return tuple(own), tuple(tool for tool in given if isinstance(tool, dict))

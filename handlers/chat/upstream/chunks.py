"""The JSON of one chunk -> a `Chunk`: what it says, in whichever of the shapes that servers give it.

    in the JSON                                  comes out as (failures: their code)
    an object with choices, or with usage        a Chunk, its bytes as they came
    half a surrogate pair (`"\\ud83d"`)           the same: the escape stays, the client joins the halves
    NaN, Infinity                                written anew, with null
    a choice with a message instead of a delta   written anew as a chunk, unless others have come before it
    an object without choices; null              None: a ping, or another way to keep the connection alive
    an object, a list or a choice says error     upstream_error
    anything else; over MAX_LEVELS, MAX_VALUES   bad_chunk

Members of a choice whose type is not the expected one are ignored.

Limit: of several choices (`n` over 1) only the first counts towards text and tool calls; all of them are passed on.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Final

import orjson

from handlers.chat.items import Chunk, UpstreamFailed
from handlers.chat.texts import write
from handlers.chat.upstream.failures import reported, says_error
from sse.wire.document import MAX_VALUES, too_many

MAX_LEVELS: Final = 100
"""Of lists and objects in each other."""

_THOUGHTS: Final = ("reasoning_content", "reasoning", "thinking")
_READ: Final = ("role", "content", "tool_calls", "function_call")


def parse(data: bytes, *, several: bool = False, first: bool = True) -> Chunk | None:
    """One event's chunk. several: more than one choice was asked for. first: no choice came before. Raises UpstreamFailed."""
    value, raw = loads(data)
    if value is None:
        return None
    choices = value.get("choices") if isinstance(value, dict) else None
    if value.get("error") if choices else says_error(value):
        raise reported(value)
    if not isinstance(value, dict):
        raise _no_chunk("JSON that is no object")
    usage = value.get("usage") or None
    if not choices:
        return Chunk(raw, value, usage=usage) if usage or isinstance(choices, list) else None
    choice = _choice(choices, several)
    delta, reason = choice.get("delta"), choice.get("finish_reason")
    if delta is None and first and isinstance(choice.get("message"), dict):
        return from_whole(value, several=several)
    if delta is not None and not isinstance(delta, dict):
        raise _no_chunk("a delta that is no object")
    if reason is not None and (not isinstance(reason, str) or reason.lower() in ("", "null", "none")):
        reason = None
    if not delta:
        return Chunk(raw, value, "", None, reason, usage)
    if len(delta) == 1 and isinstance(text := delta.get("content"), str):
        return Chunk(raw, value, text, None, reason, usage)
    return _read(Chunk(raw, value, "", None, reason, usage), delta)


def from_whole(value: dict[str, Any], *, several: bool = False) -> Chunk:
    """The chunk that says all of a `chat.completion`. Raises UpstreamFailed if it is none."""
    choices = []
    for number, choice in enumerate(value["choices"]):
        if isinstance(choice, dict) and choice.get("error"):
            raise reported(choice)
        if not isinstance(choice, dict) or not isinstance(choice.get("message"), dict):
            raise _no_chunk("a choice without a message")
        delta = dict(choice["message"])
        if isinstance(calls := delta.get("tool_calls"), list):
            delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls) if isinstance(call, dict)]
        rest = {name: field for name, field in choice.items() if name != "message"}
        choices.append({"index": number, "finish_reason": None, **rest, "delta": delta})
    chunk = parse(write({**value, "object": "chat.completion.chunk", "choices": choices}), several=several)
    assert chunk is not None, "it has choices"
    return chunk


def _choice(choices: Any, several: bool) -> Mapping[str, Any]:
    """The choice that counts; an empty one where there is none. Raises UpstreamFailed."""
    counts: Mapping[str, Any] = {}
    if not isinstance(choices, list):
        raise _no_chunk("choices that are no list")
    for choice in choices:
        if not choice:
            continue
        if not isinstance(choice, dict):
            raise _no_chunk("a choice that is no object")
        if choice.get("error"):
            raise reported(choice)
        if not counts and not (several and choice.get("index")):
            counts = choice
    return counts


def _read(chunk: Chunk, delta: Mapping[str, Any]) -> Chunk:
    """The chunk with everything that its delta holds."""
    content, calls, call = delta.get("content"), delta.get("tool_calls"), delta.get("function_call")
    parts = content if isinstance(content, list) else [content] if isinstance(content, dict) else None
    text, thought = _texts(parts) if parts else (content if isinstance(content, str) else "", "")
    fragments = [one for one in (calls if isinstance(calls, list) else [calls]) if isinstance(one, dict)]
    if isinstance(call, dict):  # how it was before tools
        fragments.append({"function": call})
    fields = {name: field for name, field in delta.items() if name not in _READ and field is not None and field != ""}
    thoughts = [thought, *map(fields.get, _THOUGHTS), _texts(fields.get("reasoning_details"))[1]] if fields else [thought]
    return chunk._replace(
        text=text,
        fragments=fragments or None,
        reasoning=next((thought for thought in thoughts if thought and isinstance(thought, str)), ""),
        refusal=refusal if isinstance(refusal := fields.get("refusal"), str) else "",
        parts=parts,
        fields=fields or None,
    )


def _texts(parts: Any) -> tuple[str, str]:
    """The text of a message's parts, and their reasoning."""
    text, thought = "", ""
    for part in parts if isinstance(parts, list) else ():
        if isinstance(part, str):
            text += part
        elif isinstance(part, dict):
            type, said = part.get("type"), part.get("text")
            if type in (None, "text", "output_text"):
                text += said if isinstance(said, str) else ""
            elif isinstance(type, str) and type.startswith(("thinking", "reasoning")):
                said = part.get("thinking") or said or part.get("summary")
                thought += said if isinstance(said, str) else "".join(_texts(said))
    return text, thought


def loads(data: bytes) -> tuple[Any, bytes]:
    """The value, and the bytes to pass on: the same JSON in one line. Raises UpstreamFailed."""
    # JSON allows LF between its tokens (RFC 8259, 2) and nowhere else, so a space can stand for it.
    raw = data.replace(b"\n", b" ")
    if too_many(raw):
        raise _no_chunk(f"JSON of more than {MAX_VALUES} values")
    try:
        value = orjson.loads(raw)
    except ValueError:
        value, raw = _loads_odd(raw)
    if len(raw) > 2 * MAX_LEVELS and raw.count(b"[") + raw.count(b"{") > MAX_LEVELS and _too_deep(value):
        raise _no_chunk(f"JSON of more than {MAX_LEVELS} levels")
    return value, raw


def _loads_odd(raw: bytes) -> tuple[Any, bytes]:
    """Read what orjson refuses and other parsers take: broken UTF-8, lone surrogates, numbers over 1e308, and NaN.

    In the value, null stands for a number that JSON can't hold.
    """
    constants: list[str] = []
    raw = raw.decode("utf-8", "replace").encode()
    try:
        value = json.loads(raw, parse_constant=constants.append, parse_float=_finite)
    except (ValueError, RecursionError):
        shown = raw[:200].decode("utf-8", "replace")
        raise UpstreamFailed(f"the upstream sent a chunk that is not JSON: {shown}", "bad_chunk") from None
    return value, write(value) if constants else raw


def _finite(digits: str) -> float | None:
    number = float(digits)
    return number if math.isfinite(number) else None


def _too_deep(value: Any) -> bool:
    level: list[Any] = [[value]]
    for _ in range(MAX_LEVELS + 1):
        nodes = [node.values() if type(node) is dict else node for node in level]
        level = [child for node in nodes for child in node if type(child) in (list, dict)]
        if not level:
            return False
    return True


def _no_chunk(what: str) -> Exception:
    return UpstreamFailed(f"the upstream sent {what} where a chat.completion.chunk is expected", "bad_chunk")

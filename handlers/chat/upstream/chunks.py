"""An upstream's body -> chunks. Sans-IO: bytes in, `Chunk`s out; knows no socket, no SDK and no clock.

What an OpenAI-compatible server streams is one `data` line for each `chat.completion.chunk` object, and `data: [DONE]`:

    in the body                                  comes out as (failures: their code)
    an object                                    a Chunk, its bytes as they came
    JSON over several `data` lines               the same, in one line
    half a surrogate pair (`"\\ud83d"`)           the same: the escape stays, the client joins the halves
    NaN, Infinity                                written anew, with null
    an object with `error`; `event: error`       upstream_error
    no JSON, or no chunk                         bad_chunk
    `[DONE]`, or the end after a finish_reason   the end
    the end without either                       cut; `empty` if there was no byte, `not_a_stream` if no event

Limit: of several choices (`n` over 1) only the first counts towards text and tool calls; all of them are passed on.
"""

import json
from typing import Any

import orjson

from handlers.chat.items import Chunk, UpstreamFailed
from handlers.chat.texts import write
from handlers.chat.upstream.failures import error_message, failed
from sse.errors import EventTooLong
from sse.wire.parser import Parser


class ChunkReader:
    """Reads one body.

    done: `[DONE]` has come, what follows is no part of the answer. complete: the answer is whole, with or without it.
    failure: what is wrong with the body; set behind the last chunk before it.
    """

    def __init__(self) -> None:
        self.done = False
        self.complete = False
        self.failure: UpstreamFailed | None = None
        self._parser = Parser()
        self._between = True  # no event is begun
        self._bytes = False
        self._events = False

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that `data` completes."""
        self._bytes = True
        chunks: list[Chunk] = []
        try:
            for type, text in self._dispatch(data):
                self._events = True
                if text == b"[DONE]":
                    self.done = self.complete = True
                    break
                chunk = parse(text, type)
                if chunk.finish_reason is not None:
                    self.complete = True
                chunks.append(chunk)
        except UpstreamFailed as failure:
            self.failure = failure
        except EventTooLong as error:
            self.failure = failed(f"the upstream sent too much in one event: {error}", "bad_chunk")
        return chunks

    def _dispatch(self, data: bytes) -> list[tuple[str, bytes]]:
        """The events that `data` completes: type and data. Events of one line, as nearly all are, need no parser."""
        if self._between and (lines := _lone_lines(data)):
            return lines
        self._between = data.endswith(b"\n\n")
        return [(event.type, event.data.encode()) for event in self._parser.feed(data)]

    def end(self) -> None:
        """The body has ended. Raises UpstreamFailed if the answer is not whole."""
        if self.complete:
            return
        if not self._bytes:
            raise failed("the upstream answered 200 with an empty body", "empty")
        if not self._events:
            raise failed("the upstream's answer is not an event stream", "not_a_stream")
        raise failed("the upstream's answer ended before it was complete", "cut")


def _lone_lines(data: bytes) -> list[tuple[str, bytes]] | None:
    """The events, if each of them is a lone `data` line and nothing else is there."""
    if not data.endswith(b"\n\n") or b"\r" in data:
        return None
    events = data[:-2].split(b"\n\n")
    for event in events:
        if not event.startswith(b"data: ") or b"\n" in event:
            return None
    return [("message", event[6:]) for event in events]


def parse(data: bytes, type: str = "message") -> Chunk:
    """One event's chunk. Raises UpstreamFailed."""
    value, raw = _loads(data)
    if type == "error" or (isinstance(value, dict) and value.get("error")):
        raise failed(f"the upstream reported an error: {error_message(value)}", "upstream_error")
    try:
        return _read(raw, value)
    except (AttributeError, KeyError, TypeError):
        raise failed("the upstream sent JSON that is no chat.completion.chunk", "bad_chunk") from None


def _read(raw: bytes, value: dict[str, Any]) -> Chunk:
    usage = value.get("usage")
    text, fragments, finish_reason, reasoning, refusal = "", None, None, "", ""
    for choice in value.get("choices") or ():
        if not choice:
            continue
        finish_reason = choice.get("finish_reason") or finish_reason
        if not choice.get("index"):  # 0; some leave it out
            delta = choice.get("delta") or {}
            text = _text(delta.get("content"))
            reasoning = _text(delta.get("reasoning_content")) or _text(delta.get("reasoning"))
            refusal = _text(delta.get("refusal"))
            if fragments := delta.get("tool_calls"):
                fragments = [fragment for fragment in fragments if isinstance(fragment, dict)]
    usage = usage if isinstance(usage, dict) else None
    return Chunk(raw, value, text, fragments or None, finish_reason, usage, reasoning, refusal)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _loads(data: bytes) -> tuple[Any, bytes]:
    """The value, and the bytes to pass on: the same JSON in one line."""
    # JSON allows LF between its tokens (RFC 8259, 2) and nowhere else, so a space can stand for it.
    raw = data.replace(b"\n", b" ")
    try:
        return orjson.loads(raw), raw
    except ValueError:
        return _loads_odd(raw)


def _loads_odd(raw: bytes) -> tuple[Any, bytes]:
    """What orjson refuses and others take: broken UTF-8, lone surrogates, numbers over 1e308; and NaN, though not as it is."""
    constants: list[str] = []
    raw = raw.decode("utf-8", "replace").encode()
    try:
        value = json.loads(raw, parse_constant=constants.append)
    except (ValueError, RecursionError):
        raise failed("the upstream sent a chunk that is not JSON", "bad_chunk") from None
    return value, write(value) if constants else raw

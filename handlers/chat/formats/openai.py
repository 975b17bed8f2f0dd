"""The format of OpenAI's own `/v1/chat/completions`, as its SDK reads it.

No ids and no retry, since the SDK takes either for an event of its own. `[DONE]` stands for success alone; everything else ends
with an `{"error": …}` object, for which the SDK raises. No header goes out before the upstream's status is known.

Limit: nothing here can be resumed, or watched by others, so nothing is kept or listed; an Idempotency-Key has no effect.
"""

from dataclasses import replace
from typing import Any

from handlers.chat.fields import Numbered
from handlers.chat.formats.base import ChatFormat
from handlers.chat.items import Chunk, Item, StageDone, UpstreamFailed, Whole, add_usage, head_of
from handlers.chat.request import ASK_FOR_USAGE, Offer, parse_openai
from handlers.chat.texts import write
from sse.errors import Problem, SourceFailed
from sse.formats import DONE, Written
from sse.http import Response, json_response
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps


class OpenAI(ChatFormat):
    """Without tools of the sidecar the chunks pass through as they came, without the usage if the client didn't ask for it.

    With them, all stages together look like one answer: the first one's id, one role, one finish_reason, no calls but those
    that the client has to run, usage summed.
    """

    name = "openai"
    ids = False
    transliterated = False
    greets = False
    after_status = True
    beside_pending = False

    def __init__(self, body: Any, offer: Offer) -> None:
        request = parse_openai(body, offer)
        self._merge = bool(request.own_tools)
        self._include_usage = bool((request.parameters.get("stream_options") or {}).get("include_usage"))
        self._head: dict[str, Any] | None = None  # of the merged answer: what all its chunks have in common
        self._usage: Any = None
        self._numbered = Numbered()
        if self._merge and not request.stream and "stream_options" not in body:
            # The answer is streamed to us and put together here.
            request = replace(request, parameters={**request.parameters, **ASK_FOR_USAGE})
        self.request = request

    @classmethod
    def problem(cls, problem: Problem) -> Response:
        kind = "invalid_request_error" if problem.status < 500 else "server_error"
        error = error_object(problem.detail, problem.members.get("code"), type=kind, param=problem.members.get("parameter"))
        return json_response(error, problem.status, problem.headers)

    @classmethod
    def refused(cls, failure: UpstreamFailed) -> Response:
        """The upstream's own error answer. If it sent none, an error object of ours."""
        if failure.said is not None:
            return passed_on(failure.said)
        return json_response(error_object(failure.message, failure.code), failure.status)

    def item(self, item: Item) -> bytes:
        match item:
            case Chunk():
                return self._merged(item) if self._merge else self._passed_on(item)
            case StageDone():
                self._usage = add_usage(self._usage, item.usage)
                self._numbered.end()
                if self._merge and item.final:
                    return self._finish(item)
        return b""

    def item_error(self, error: str) -> bytes:
        return _error(error, "item_error")

    def gap(self, first: int, last: int) -> bytes:
        return _error(f"chunks {first} to {last} are lost", "gap")

    def done(self) -> Written:
        if self._merge and self._include_usage:
            return encode_json(write({**(self._head or {}), "choices": [], "usage": self._usage})), DONE
        return DONE

    def cancelled(self, reason: str) -> bytes:
        return _error(f"the answer was cancelled: {reason}", "cancelled")

    def failed(self, failure: SourceFailed) -> bytes:
        return _error(failure.message, failure.code)

    def _passed_on(self, chunk: Chunk) -> bytes:
        if chunk.usage is None or self._include_usage:
            return encode_json(chunk.json)
        value = {name: field for name, field in chunk.value.items() if name != "usage"}
        if not any(_says_something(choice) for choice in value.get("choices") or ()):
            return b""  # it was there for the usage alone
        return encode_json(write(value))

    def _merged(self, chunk: Chunk) -> bytes:
        """What a chunk adds to the merged message: its text, and its other fields except the calls."""
        delta = {**({"content": chunk.text} if chunk.text else {}), **self._numbered.fields(chunk.fields or {})}
        choices = chunk.value.get("choices")
        if self._head is None:
            if not choices:
                return b""  # its id, if it has one, is not the answer's
            self._head = {**head_of(chunk.value), "object": "chat.completion.chunk"}
            delta = {"role": "assistant", "content": "", **delta}
        elif not delta:
            return b""
        value = {name: field for name, field in chunk.value.items() if name != "usage"}
        choice = {**next(filter(None, choices or ()), {}), "index": 0, "delta": delta, "finish_reason": None}
        return encode_json(write({**value, **self._head, "choices": [choice]}))

    def _finish(self, item: StageDone) -> bytes:
        delta = {"tool_calls": [{"index": index, **call.message()} for index, call in enumerate(item.pending)]}
        choice = {"index": 0, "delta": delta if item.pending else {}, "finish_reason": item.finish_reason}
        return encode_json(write({**(self._head or {}), "choices": [choice]}))


def passed_on(whole: Whole) -> Response:
    """An upstream's answer, as it came."""
    return Response(whole.status, whole.body, {"content-type": "application/json", **whole.headers})


def error_object(message: str, code: str | None, *, type: str = "upstream_error", param: str | None = None) -> dict[str, Any]:
    """OpenAI's error object, as a body or as the last event of a stream."""
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def _error(message: str, code: str) -> bytes:
    return encode_json(dumps(error_object(message, code)))


def _says_something(choice: Any) -> bool:
    delta = choice.get("delta") if choice else None
    return bool(choice and (choice.get("finish_reason") or (any(delta.values()) if isinstance(delta, dict) else delta)))

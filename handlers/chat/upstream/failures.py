"""How an upstream can fail: one code for each way, the same in every format and log line, and stable.

    code                 when
    refused              401, 403: the upstream doesn't take the sidecar's key
    rate_limited         429
    model_not_found      404 or another error that says so
    bad_request          any other 4xx; or a request that can't be sent
    upstream_down        408, 409, 5xx; or no connection, or one that closed without an answer
    first_token_timeout  nothing came within FIRST_TOKEN_TIMEOUT
    stalled              chunks came, and then nothing for UPSTREAM_TIMEOUT
    broken               the connection broke in the middle of the answer
    upstream_error       an answer that says error
    cut                  the stream ended with neither a finish_reason nor [DONE]
    empty                a 200 with an empty body, or [DONE] alone
    not_a_stream         an answer that is neither an event stream nor an error, such as a redirect
    bad_chunk            a chunk that is not JSON, or not a chunk
    too_long             an answer with more characters than `engine.MAX_ANSWER`

An answer that has its finish_reason or [DONE] is whole, and a connection that breaks after that is no failure. The message has
what the upstream itself says of the error, whatever the shape in which it says it.
"""

import re
from typing import Any, Final

import orjson

from handlers.chat.items import UpstreamFailed, Whole
from handlers.chat.texts import write
from sse.wire.document import too_many

_BY_STATUS: Final = {401: "refused", 403: "refused", 408: "upstream_down", 409: "upstream_down", 429: "rate_limited"}

MAX_SAID: Final = 64 << 10
"""Bytes that are read of an error answer."""

_SHOWN = 500  # characters of what an upstream says
_SAYS_ERROR: Final = ("error", "errors", "error_message", "error_msg", "error_code", "error_type", "detail")
_SENTENCES: Final = (
    "message", "error_message", "error_msg", "error_description", "error", "errors", "detail", "details", "msg", "description",
    "reason", "title", "code", "error_code", "error_type", "type", "status",
)  # fmt: skip
_SUCCESS: Final = (None, 0, 200, "", "0", "200", "ok", "OK", "success")
_NO_MODEL: Final = re.compile(
    r"model.{0,200}?(not (be )?(found|exist|available|loaded)|n't exist|is unknown)"
    r"|(no such|unknown|invalid|unsupported|not a valid) model|model_not_found|invalid_model",
    re.IGNORECASE | re.DOTALL,
)


def from_answer(answer: Whole, redirect: str = "") -> UpstreamFailed:
    """The failure that an answer with an error status is. redirect: the host that it leads to."""
    if redirect:
        return UpstreamFailed(
            f"the upstream redirects to {redirect}: if that is right, OPENAI_BASE_URL has to name it", "not_a_stream"
        )
    status, said = answer.status, read(answer.body)
    message = f"the upstream answered {status}: {sentence(said) or one_line(answer.body) or '(no message)'}"
    if not 400 <= status < 600:
        return UpstreamFailed(message, "not_a_stream" if status < 400 else "upstream_down")
    code = _BY_STATUS.get(status) or ("upstream_down" if status >= 500 else "bad_request")
    if code == "bad_request" and not isinstance(said, str) and _NO_MODEL.search(one_line(answer.body)):
        code = "model_not_found"
    # A body as long as the limit has been cut, and no client could read it.
    return UpstreamFailed(message, code, answer if len(answer.body) < MAX_SAID else None, status)


def reported(value: Any) -> UpstreamFailed:
    """The failure that an upstream reports in an answer that began as a success."""
    message = sentence(value) or one_line(write(value))
    code = "model_not_found" if _NO_MODEL.search(message) else "upstream_error"
    return UpstreamFailed(f"the upstream reported an error: {message}", code)


def read(body: bytes) -> Any:
    """What an upstream has said, whatever it is: the value if it is JSON of no more than `MAX_VALUES`, otherwise the text."""
    try:
        return one_line(body) if too_many(body) else orjson.loads(body)
    except ValueError:
        return one_line(body)


def one_line(body: bytes | bytearray) -> str:
    """The beginning of a body, without the markup of a page."""
    text = bytes(body[:MAX_SAID]).decode("utf-8", "replace")
    text = re.sub(r"(?is)<(script|style)\b[^<]*</\1>|<[^<>]*>", " ", text) if text.lstrip().startswith("<") else text
    return " ".join(text.split())[:_SHOWN]


def says_error(value: Any) -> bool:
    """Whether an object without choices, or a list of such, says that something went wrong."""
    if isinstance(value, list):
        return any(map(says_error, value[:10]))
    if not isinstance(value, dict):
        return False
    kinds = (value.get("object"), value.get("type"), value.get("status"))
    if any(value.get(name) for name in _SAYS_ERROR) or "error" in kinds or value.get("success") is False:
        return True
    return bool(value.get("message")) and value.get("code") not in _SUCCESS


def sentence(value: Any, levels: int = 8) -> str:
    """What an error says for people, in one of the shapes in which servers say it; "" if nothing."""
    if isinstance(value, str):
        return value.strip()[:_SHOWN]
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, dict | list) or not levels:
        return ""
    inner = value[:10] if isinstance(value, list) else [value.get(name) for name in _SENTENCES]
    said = next((said for one in inner if (said := sentence(one, levels - 1))), "")
    details = value.get("metadata") if isinstance(value, dict) else None
    raw = details.get("raw") if isinstance(details, dict) else None  # OpenRouter: what its provider said
    return f"{said}: {raw}"[:_SHOWN] if isinstance(raw, str) and raw else said

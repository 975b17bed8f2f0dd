"""How an upstream can fail: one code for each way, the same in every format and log line, and stable.

    code                 when
    refused              401, 403: the upstream doesn't take the sidecar's key
    rate_limited         429
    model_not_found      404 with an error object, or an error object that says so
    bad_request          any other 4xx
    upstream_down        408, 409, 5xx; or no connection, or one that closed without an answer
    first_token_timeout  nothing came within FIRST_TOKEN_TIMEOUT
    stalled              chunks came, and then nothing for UPSTREAM_TIMEOUT
    broken               the connection broke in the middle of the answer
    upstream_error       an error object in the stream
    cut                  the stream ended with neither a finish_reason nor [DONE]
    empty                a 200 with an empty body
    not_a_stream         a 200 that is not an event stream
    bad_chunk            a chunk that is not JSON, or not a chunk

An answer that has its finish_reason or [DONE] is whole: whatever becomes of the connection after that is no failure.
"""

from collections.abc import Mapping
from typing import Any, Final

import orjson

from handlers.chat.items import UpstreamFailed, Whole

CODES: Final[Mapping[str, tuple[bool, int]]] = {
    "refused": (False, 502),
    "rate_limited": (True, 429),
    "model_not_found": (False, 404),
    "bad_request": (False, 400),
    "upstream_down": (True, 502),
    "first_token_timeout": (True, 504),
    "stalled": (True, 504),
    "broken": (True, 502),
    "upstream_error": (True, 502),
    "cut": (True, 502),
    "empty": (True, 502),
    "not_a_stream": (False, 502),
    "bad_chunk": (False, 502),
}
"""code -> whether the same request may succeed later, and the status for /v1 where the upstream gave none."""

_BY_STATUS: Final = {401: "refused", 403: "refused", 408: "upstream_down", 409: "upstream_down", 429: "rate_limited"}


def failed(message: str, code: str, said: Whole | None = None) -> UpstreamFailed:
    """The failure of this code. said: the error answer to pass on, None where there was none."""
    retryable, status = CODES[code]
    return UpstreamFailed(message, code, retryable=retryable, status=said.status if said else status, said=said)


def from_answer(said: Whole) -> UpstreamFailed:
    """The failure that an error answer is."""
    status = said.status
    try:
        body = orjson.loads(said.body)
    except ValueError:
        body = None
    error = body.get("error") if isinstance(body, dict) else None
    code = _BY_STATUS.get(status) or ("upstream_down" if status >= 500 else "bad_request")
    says_so = isinstance(error, dict) and error.get("code") == "model_not_found"
    if code == "bad_request" and (says_so or (error and status == 404)):
        code = "model_not_found"
    # What upstreams say about a wrong key tends to hold most of it.
    message = "it does not take the sidecar's key" if code == "refused" else error_message(body)
    return failed(f"the upstream answered {status}: {message}", code, said)


def error_message(body: Any) -> str:
    """What an upstream's error object says: `{"error": {"message"}}`, or one of the shapes that others have made of it."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        error = error.get("message") or error.get("detail") or error.get("code")
    return error[:500] if isinstance(error, str) and error else "(no message)"

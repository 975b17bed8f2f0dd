"""An upstream's answer in one piece -> the same, untouched; or one made of the event stream that came instead."""

from handlers.chat.items import Whole
from handlers.chat.stage import in_one_piece
from handlers.chat.upstream.body import BEFORE, Body
from handlers.chat.upstream.failures import failed, read
from sse.wire.document import too_many


def checked(answer: Whole, *, several: bool = False) -> Whole:
    """The answer, if it is one. Any other object that reports no error is passed on as well. Raises UpstreamFailed.

    Limit: an object of more than `MAX_VALUES` is passed on unseen: to look into 16 MiB of it would hold up the event loop.
    """
    if answer.body[:100].lstrip(BEFORE + b" \t").startswith(b"{") and too_many(answer.body):
        return answer
    body = Body(several=several)
    chunks = [*body.feed(answer.body), *body.end()]
    odd = body.failure is not None and body.failure.code in ("not_a_stream", "bad_chunk")
    if body.failure is not None and not (odd and body.held is not None and isinstance(read(answer.body), dict)):
        raise failed(body.failure.message, body.failure.code)  # a copy: its traceback holds what holds the original
    if body.held is not None:
        return answer
    return Whole(200, in_one_piece(chunks), {**answer.headers, "content-type": "application/json"})

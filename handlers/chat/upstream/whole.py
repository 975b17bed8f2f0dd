"""An upstream's answer in one piece -> the same, untouched; or one made of the event stream that came instead."""

import asyncio
from typing import Final

from handlers.chat.items import Whole
from handlers.chat.stage import Stage
from handlers.chat.upstream.body import BEFORE, Body
from handlers.chat.upstream.failures import failed, read
from sse.wire.document import too_many

PORTION: Final = 16 << 10
"""Bytes that are made chunks of in one turn of the event loop: 6 MB of small chunks take 0.35 s."""


async def checked(answer: Whole, *, several: bool = False) -> Whole:
    """The answer, if it is one. Any other object that reports no error is passed on as well. Raises UpstreamFailed.

    Limit: an object of more than `MAX_VALUES` is passed on unseen: to look into 16 MiB of it would hold up the event loop.
    """
    if answer.body[:100].lstrip(BEFORE + b" \t").startswith(b"{") and too_many(answer.body):
        return answer
    body, stage = Body(several=several), Stage()
    for begin in range(0, len(answer.body), PORTION):
        for chunk in body.feed(answer.body[begin : begin + PORTION]):
            stage.add(chunk)
        if body.done or body.failure is not None:
            break
        if body.held is None:
            await asyncio.sleep(0)
    body.end()
    odd = body.failure is not None and body.failure.code in ("not_a_stream", "bad_chunk")
    if body.failure is not None and not (odd and body.held is not None and isinstance(read(answer.body), dict)):
        raise failed(body.failure.message, body.failure.code)  # a copy: its traceback holds what holds the original
    if body.held is not None:
        return answer
    stage.end()
    return Whole(200, stage.completion(), {**answer.headers, "content-type": "application/json"})

"""A streamed answer on its way in: how long it keeps the event loop from others."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from handlers.chat.items import UpstreamFailed
from handlers.chat.upstream.body import Body
from handlers.chat.upstream.incoming import PORTION, Incoming
from handlers.chat.upstream.patience import Patience
from tests.support.upstream import DONE, chunk, finish


class Response:
    """What one read of the socket brings."""

    def __init__(self, data: bytes) -> None:
        self.http_response = self
        self.headers: dict[str, str] = {}
        self._data = data

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        yield self._data

    async def close(self) -> None:
        pass


async def test_comments_that_come_together_leave_turns_to_others() -> None:
    comments = b": x\n\n" * 20_000
    response: Any = Response(comments + chunk("a") + finish() + DONE)
    patience = Patience(asyncio.get_running_loop().time() + 10, 10)
    incoming = Incoming(response, Body(), patience, (), lambda error: UpstreamFailed(str(error), "broken"), lambda _: None)
    begin = asyncio.create_task(incoming.begin())
    turns = 0
    while not begin.done():
        await asyncio.sleep(0)
        turns += 1
    assert [made.text async for chunks in incoming for made in chunks] == ["a", ""]
    await incoming.aclose()
    assert turns >= len(comments) / (2 * PORTION)

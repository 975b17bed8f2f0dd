"""A streamed answer on its way in: the SDK's response -> lists of chunks, as they come, within the time that they may take.

One task iterates. `aclose` gives the connection up at once, unless the answer has come to its end: then it can be used again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from handlers.chat.items import Chunk, UpstreamFailed
from handlers.chat.upstream.chunks import ChunkReader
from handlers.chat.upstream.failures import failed
from handlers.chat.upstream.patience import Patience

if TYPE_CHECKING:
    from openai import AsyncAPIResponse

BROKEN: Final = "the connection to the upstream broke in the middle of the answer"
NOTHING_IN_TIME: Final = "the upstream sent nothing in time"


class Incoming:
    """One answer. broken: what the body raises when the connection breaks; TimeoutError is among it (an OSError).

    redacted: takes the key out of a message.
    """

    def __init__(
        self,
        response: "AsyncAPIResponse[Any]",
        patience: Patience,
        broken: tuple[type[Exception], ...],
        redacted: Callable[[str], str],
    ) -> None:
        self._response = response
        # Each layer less is time saved with every chunk; decoding is one.
        encoded = "content-encoding" in response.headers
        self._body = response.iter_bytes() if encoded else response.http_response.aiter_raw()
        self._patience = patience
        self._broken = broken
        self._redacted = redacted
        self._reader = ChunkReader()
        self._begun = False

    def __aiter__(self) -> AsyncIterator[list[Chunk]]:
        return self

    async def __anext__(self) -> list[Chunk]:
        reader = self._reader
        if self._begun:
            self._patience.renew()
        while not reader.done and reader.failure is None:
            try:
                with self._patience:
                    data = await anext(self._body)
            except StopAsyncIteration:
                reader.end()
                break
            except self._broken as error:
                if reader.complete:
                    break
                raise self._failure(error) from None
            if chunks := reader.feed(data):
                self._begun = True
                return chunks
        if reader.failure is not None:
            raise failed(self._redacted(reader.failure.message), reader.failure.code)
        raise StopAsyncIteration

    def _failure(self, error: Exception) -> UpstreamFailed:
        if not isinstance(error, TimeoutError):
            return failed(BROKEN, "broken")
        if self._begun:
            return failed("the upstream stopped in the middle of the answer", "stalled")
        return failed(NOTHING_IN_TIME, "first_token_timeout")

    async def aclose(self) -> None:
        self._patience.close()
        try:
            if self._reader.done:
                # HTTP/1.1 can use a connection again only if the body was read to its end, which follows `[DONE]` closely.
                with suppress(*self._broken):
                    async with asyncio.timeout(0.05):
                        async for _ in self._body:
                            pass
        finally:
            await self._response.close()

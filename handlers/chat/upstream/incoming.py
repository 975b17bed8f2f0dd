"""An answer on its way in: the SDK's response -> lists of chunks, as they come, within the time that they may take.

One task iterates. `aclose` gives the connection up at once, unless the answer has come to its end: then it can be used again.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from handlers.chat.items import Chunk, UpstreamFailed, Whole
from handlers.chat.upstream.body import Body
from handlers.chat.upstream.patience import Patience

if TYPE_CHECKING:
    import httpx2
    from openai import AsyncAPIResponse

PORTION: Final = 4 << 10
"""Bytes that are made chunks of at a time. One read of the socket may bring a thousand chunks: parsed all at once, they live
long enough to count as old, and the garbage collector goes through all there is again and again."""

_LIMITS: Final = ("retry-after", "x-ratelimit-", "openai-")  # x-request-id is ours, and told upstream


@dataclass(eq=False, repr=False)
class Incoming:
    """One answer. body: what reads it. broken: what the response raises when the connection breaks; TimeoutError is among it
    (an OSError). failure: makes of such an error, or of what the body says, what clients are told. claim: told the bytes that
    are held while the answer doesn't look like an event stream, and may raise Full.
    """

    response: "AsyncAPIResponse[Any]"
    body: Body
    patience: Patience
    broken: tuple[type[Exception], ...]
    failure: Callable[[Exception], UpstreamFailed]
    claim: Callable[[int], None]

    def __post_init__(self) -> None:
        self._bytes = self.response.http_response.aiter_raw()  # which is decoded: a layer less saves time with every chunk
        self.limits: Mapping[str, str] = limits(self.response.http_response)
        self.whole: Whole | None = None
        self._data = b""  # what has come
        self._read = 0  # so much of it is chunks
        self._first: list[Chunk] | None = None
        self._begun = False
        self._ended = False

    def __aiter__(self) -> AsyncIterator[list[Chunk]]:
        return self

    async def begin(self) -> None:
        """Wait for the first chunks. Raises UpstreamFailed if there are none, and is closed then."""
        try:
            self._first = await anext(self, [])
        except BaseException:
            await self.aclose()
            raise

    async def __anext__(self) -> list[Chunk]:
        if self._first:
            chunks, self._first = self._first, None
            return chunks
        body = self.body
        if self._begun:
            self.patience.renew()
        while not body.done and body.failure is None and not self._ended:
            try:
                if self._read == len(self._data):
                    with self.patience:
                        self._data = await anext(self._bytes)
                    self._read = 0
            except StopAsyncIteration:
                self._ended = True
                chunks = body.end()
                self.whole = answered(self.response.http_response, body.whole) if body.whole is not None else None
            except self.broken as error:
                if body.complete:
                    break
                if self._begun and isinstance(error, TimeoutError):
                    raise UpstreamFailed("the upstream stopped in the middle of the answer", "stalled") from None
                raise self.failure(error) from None
            else:
                portion = self._portion()
                chunks = body.feed(portion)
                if body.held is not None:
                    self.claim(len(portion))
                elif not chunks:
                    await asyncio.sleep(0)  # one read may bring 25,000 comments, which are looked through in 0.2 s
            if chunks:
                self._begun = True
                return chunks
        if body.failure is not None:
            raise self.failure(body.failure)
        raise StopAsyncIteration

    def _portion(self) -> bytes:
        """The next whole events of what has come, about `PORTION` bytes."""
        begin, data = self._read, self._data
        end = data.find(b"\n\n", begin + PORTION) + 2
        self._read = end = end if end > 2 else len(data)
        return data[begin:end]

    async def aclose(self) -> None:
        self.patience.close()
        try:
            if self.body.done:
                # HTTP/1.1 can use a connection again only if the body was read to its end, which follows `[DONE]` closely.
                with suppress(*self.broken):
                    async with asyncio.timeout(0.05):
                        async for _ in self._bytes:
                            pass
        finally:
            await self.response.close()


def answered(response: "httpx2.Response", body: bytes) -> Whole:
    """An HTTP answer whose body has been read."""
    content_type = response.headers.get("content-type", "")
    told = content_type if content_type and content_type.isascii() else "application/json"
    return Whole(response.status_code, body, {"content-type": told, **limits(response)})


def limits(response: "httpx2.Response") -> dict[str, str]:
    """What an answer says of the upstream's limits."""
    return {name: value for name, value in response.headers.items() if name.startswith(_LIMITS) and value.isascii()}

"""The bytes of a compressed answer -> what they say, in pieces that are never large (RFC 9110, 8.4.1: gzip, deflate).

In:  the stream of an HTTP answer, and its content coding. Out: pieces of `PIECE` bytes at the most, so that whoever reads them
can stop at a limit: 64 KiB of zeros that were compressed unpack to 64 MiB. httpx2 decodes each piece that it reads whole.

Limit: of several gzip members the first. Other codings are not decoded.
"""

import zlib
from collections.abc import AsyncIterator
from typing import Final

import httpx2

PIECE: Final = 64 * 1024

GZIP_OR_ZLIB: Final = 32 + zlib.MAX_WBITS
CODINGS: Final = ("gzip", "x-gzip", "deflate")


def decode(response: httpx2.Response) -> None:
    """Have the answer's stream yield what its bytes say, and httpx2 decode nothing."""
    if response.headers.pop("content-encoding", "").strip().lower() in CODINGS:
        response.stream = Decoded(response.stream)


class Layer(httpx2.AsyncByteStream):
    """A stream above that of an answer; closing it closes that."""

    def __init__(self, stream: object) -> None:
        assert isinstance(stream, httpx2.AsyncByteStream)
        self._stream = stream

    async def aclose(self) -> None:
        await self._stream.aclose()


class Decoded(Layer):
    """Raises httpx2.DecodingError for bytes that are not what they should be."""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        decoder = None
        async for data in self._stream:
            if decoder is None and data:  # gzip begins with 1F (RFC 1952, 2.3.1), zlib with a nibble 8 (RFC 1950, 2.2)
                headed = data[0] == 0x1F or data[0] & 15 == zlib.DEFLATED  # some leave zlib's head out
                decoder = zlib.decompressobj(GZIP_OR_ZLIB if headed else -zlib.MAX_WBITS)
            try:
                while data and decoder is not None and not decoder.eof:
                    yield decoder.decompress(data, PIECE)
                    data = decoder.unconsumed_tail
            except zlib.error as error:
                raise httpx2.DecodingError(str(error)) from error

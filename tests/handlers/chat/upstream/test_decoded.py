"""Compressed answers: what they say arrives, and one that would unpack to much is read up to a limit."""

import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import httpx2
import pytest

from handlers.chat.formats.openai import OpenAI
from handlers.chat.items import Chunk, UpstreamFailed
from handlers.chat.upstream.decoded import PIECE, Decoded
from handlers.chat.upstream.failures import MAX_SAID
from tests.support.chat import MESSAGES, chat
from tests.support.upstream import DONE, Script, chunk, finish, reply

BODY = {"model": "test", "messages": MESSAGES}
ANSWER = b"".join([chunk("forty"), chunk("-two"), finish(), DONE])
GZIP = {"content-encoding": "gzip"}


def bare(data: bytes) -> bytes:
    """deflate as RFC 1951 has it, which some take the coding of that name for."""
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


@cache
def bomb(mebibytes: int, before: bytes = b"") -> bytes:
    """Blanks that are short on the wire."""
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    return b"".join([packer.compress(before), *(packer.compress(b" " * (1 << 20)) for _ in range(mebibytes)), packer.flush()])


class Pieces(httpx2.AsyncByteStream):
    def __init__(self, *pieces: bytes) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress, bare])
async def test_what_was_compressed_is_read_however_it_is_cut(pack: Any, size: int) -> None:
    packed = pack(ANSWER * 1000)
    pieces = [b"", *(packed[begin : begin + size] for begin in range(0, len(packed), size))]
    unpacked = [piece async for piece in Decoded(Pieces(*pieces))]
    assert b"".join(unpacked) == ANSWER * 1000
    assert max(map(len, unpacked)) <= PIECE


async def test_no_piece_is_larger_than_others_however_much_it_unpacks_to() -> None:
    packed, size = bomb(64), 0
    assert len(packed) < 70_000
    tracemalloc.start()
    try:
        async for piece in Decoded(Pieces(packed)):
            size += len(piece)
        assert (size, tracemalloc.get_traced_memory()[1] < 1 << 20) == (64 << 20, True)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("data", [b"\x1fno", gzip.compress(b"x", mtime=0)[:-9] + b"no" * 9])
async def test_what_is_not_what_it_says_is_an_error(data: bytes) -> None:
    with pytest.raises(httpx2.DecodingError):
        [piece async for piece in Decoded(Pieces(data))]


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP", "deflate"])
async def test_a_compressed_stream_is_an_answer(coding: str) -> None:
    packed = zlib.compress(ANSWER) if coding == "deflate" else gzip.compress(ANSWER)
    async with chat(reply(packed[:20], packed[20:], headers={"content-encoding": coding})) as c:
        items = await c.items()
    assert "".join(item.text for item in items if isinstance(item, Chunk)) == "forty-two"


BOMBS: dict[str, tuple[Script, str]] = {
    "an error": (Script([bomb(64)], 400, "application/json", GZIP), "bad_request"),
    "an answer": (Script([bomb(64)], 200, "application/json", GZIP), "not_a_stream"),
    "an event": (Script([bomb(64, b"data: ")], 200, "text/event-stream", GZIP), "bad_chunk"),
    "another coding": (Script([bomb(64)], 200, "application/json", {"content-encoding": "br"}), "not_a_stream"),
}


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(("script", "code"), BOMBS.values(), ids=BOMBS.keys())
async def test_what_would_unpack_to_64_mib_is_a_failure_and_does_not(script: Script, code: str, streamed: bool) -> None:
    async with chat(script, script) as c:
        tracemalloc.start()
        try:
            with pytest.raises(UpstreamFailed) as raised:
                if streamed:
                    await c.items()
                else:
                    await c.answer(format=OpenAI).whole()
            assert tracemalloc.get_traced_memory()[1] < 48 << 20, "a whole answer may have 16 MiB, and is copied twice"
        finally:
            tracemalloc.stop()
    assert raised.value.code in ({code} if streamed else {code, "not_a_stream"})
    if raised.value.said is not None:
        assert len(raised.value.said.body) < 2 * MAX_SAID

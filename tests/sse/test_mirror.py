"""How much of a stream that runs elsewhere is read at once, and what it is charged."""

from collections.abc import Sequence
from typing import Any

import pytest

from sse.budget import Budget
from sse.entries import BATCH, PORTION, record
from sse.formats import Format
from sse.mirror import FEW, Mirror
from sse.stream import MAX_EVENT, Opening, Stream


async def nobody(stream: Stream, what: str, args: Sequence[Any]) -> Any:
    raise AssertionError("nothing is asked")


def mirrored(format: Format | None = None) -> Mirror:
    opening = Opening(None, format or Format())
    known = {name: getattr(opening, name) for name in ("id", "identity", "metadata", "kind", "key", "claim")}
    return Mirror({**known, "owner": "there", "created": 0.0, "format": record(opening)}, lambda _: None, Budget(), nobody)


def read(mirror: Mirror, sizes: list[int]) -> list[int]:
    """Give it all of these events as Redis would; how many it took at a time."""
    counts, more = [], True
    while more:
        [(name, _, after, _, _, count)] = mirror.commands()
        assert name == "XRANGE"
        first = int(after.removesuffix("-0"))
        reply = [(b"%d-0" % number, {b"": b"x" * size}) for number, size in enumerate(sizes, 1)][first - 1 : first - 1 + count]
        counts.append(len(reply))
        more = mirror.replied(reply)
    return counts


@pytest.mark.parametrize(
    ("sizes", "counts"),
    {
        "no event": ([], [0]),
        "small ones": ([100] * 1200, [FEW, 32, 128, BATCH, BATCH, 32]),
        "larger ones": ([PORTION // 10] * 25, [FEW, 10, 7]),
        "the largest": ([MAX_EVENT] * 10, [FEW, 1, 1, 0]),
        "small ones behind large ones": ([PORTION] * 8 + [100] * 30, [FEW, 1, 4, 16, 9]),
    }.values(),
)
async def test_large_events_are_read_a_few_at_a_time(sizes: list[int], counts: list[int]) -> None:
    mirror = mirrored()
    assert read(mirror, sizes) == counts
    assert mirror.log.last == len(sizes)
    assert mirror.loaded.is_set()


async def test_reading_goes_on_where_it_has_ended() -> None:
    mirror = mirrored()
    read(mirror, [100] * 3)
    assert read(mirror, [100] * 5) == [2]
    assert mirror.log.last == 5


async def test_a_large_opening_is_charged_also_where_nobody_has_got_it_yet() -> None:
    class Large(Format):
        def opening(self, stream_id: str) -> bytes | None:
            return b"data: %b\n\n" % (b"x" * 100_000)

    mirror = mirrored(Large())
    assert mirror.kept.size - mirrored().kept.size > 99_000
    mirror.discard()
    assert mirror.kept.size == 0

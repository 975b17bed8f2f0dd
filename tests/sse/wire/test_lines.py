"""Lines, cut anywhere. The vectors have the cases; here is what they can't show."""

import pytest

from sse.errors import EventTooLong
from sse.wire.lines import LineSplitter

BOM = "a\n".encode("utf-8-sig")


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        pytest.param([b"a\r", b"\nb\n"], [[b"a"], [b"b"]], id="an LF after a CR in the chunk before belongs to it"),
        pytest.param([b"a\r", b"", b"\nb\n"], [[b"a"], [], [b"b"]], id="an empty chunk between CR and LF is nothing"),
        pytest.param([b"a\r", b"\n", b"\n"], [[b"a"], [], [b""]], id="only one LF belongs to a CR"),
        pytest.param([b"a\r", b"\r", b"\n"], [[b"a"], [b""], []], id="a CR after a CR ends an empty line"),
        pytest.param([b"a\r", b"b\r\n"], [[b"a"], [b"b"]], id="another byte after a CR begins a line"),
        pytest.param([b"a\r\n", b"\n"], [[b"a"], [b""]], id="an LF after a CR LF is an end of its own"),
        pytest.param([b"a", b"b", b"c\nd", b"\n"], [[], [], [b"abc"], [b"d"]], id="a line comes in pieces"),
        pytest.param([BOM[:1], BOM[1:2], BOM[2:]], [[], [], [b"a"]], id="a BOM comes in pieces"),
        pytest.param([BOM[:2], b"x\n"], [[], [b"\xef\xbbx"]], id="half a BOM and another byte is text"),
        pytest.param([b"", BOM], [[], [b"a"]], id="an empty chunk before the BOM changes nothing"),
        pytest.param([BOM, BOM], [[b"a"], [BOM[:-1]]], id="a BOM later on is text"),
    ],
)
def test_chunks_are_cut_into_lines(chunks: list[bytes], lines: list[list[bytes]]) -> None:
    splitter = LineSplitter(100)
    assert [splitter.feed(chunk) for chunk in chunks] == lines
    splitter.check()


@pytest.mark.parametrize(
    ("chunks", "lines"),
    [
        pytest.param([b"abc\nabcd\nab\n"], [b"abc"], id="in the middle of a chunk"),
        pytest.param([b"abc\nabcd"], [b"abc"], id="not yet ended"),
        pytest.param([b"ab", b"cd"], [], id="in pieces"),
        pytest.param([b"ab", b"cd\nab\n"], [], id="in pieces and ended"),
        pytest.param([b"abc", b"d\n"], [], id="ended by a chunk that is shorter than the limit"),
    ],
)
def test_line_over_the_limit_is_reported_after_the_lines_before_it(chunks: list[bytes], lines: list[bytes]) -> None:
    splitter = LineSplitter(3)
    assert [line for chunk in chunks for line in splitter.feed(chunk)] == lines
    with pytest.raises(EventTooLong, match="3 bytes"):
        splitter.check()


def test_lines_of_exactly_the_limit_pass() -> None:
    splitter = LineSplitter(3)
    assert splitter.feed(b"abc\nabc\r\nab") == [b"abc", b"abc"]
    assert splitter.feed(b"c") == []
    splitter.check()
    assert splitter.feed(b"\n") == [b"abc"]

r"""Bytes, cut anywhere -> lines.

In:  the chunks of a body, as they come. Out: the complete lines, as bytes without what ended them.
HTML Standard, section 9.2.5 "Parsing an event stream", which says of lines:

    stream      = [ BOM ] *( line end-of-line ) [ line ]   one BOM (EF BB BF) at the very start is dropped, no other
    end-of-line = CR LF / LF / CR                          and nothing else: U+0085, U+2028, U+2029, VT, FF are text
    line        = any bytes but CR and LF

CR and LF never occur inside of a UTF-8 sequence, so lines are cut first and decoded after; a sequence that was cut by
the end of a chunk is whole again by then.

A CR ends its line at once, although an LF that belongs to it may follow: waiting for the next byte would hold back the
event until the server sends more. The byte before decides what a byte means:

    before     CR                    LF                    any other
    CR         ends an empty line    belongs to that CR    begins a line
    any other  ends the line         ends the line         belongs to the line

At the start of a stream, `held` is the part of a BOM that has arrived:

    held       next is the BOM's next byte    any other
    -          hold it                        no BOM: it all belongs to the first line
    EF         hold it                        the same
    EF BB      the BOM is dropped             the same
"""

from sse.errors import EventTooLong

_BOM = b"\xef\xbb\xbf"
_CR = 0x0D
_LF = 0x0A


class LineSplitter:
    """Cuts one stream into lines, in time that is linear in its bytes however they are cut.

    limit: bytes; a longer line is never given out, and nothing after it.
    """

    __slots__ = ("_after_cr", "_limit", "_pending", "_start", "_too_long")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._start: bytes | None = b""  # the part of a BOM that has arrived; None: the start is over
        self._after_cr = False
        self._pending = bytearray()  # the line that has not ended yet
        self._too_long = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The lines that end in this chunk, up to the first that is over the limit, which `check` then reports."""
        if self._start is not None:
            chunk = self._without_bom(chunk)
        if self._after_cr and chunk:
            self._after_cr = False
            if chunk[0] == _LF:
                chunk = chunk[1:]
        if _CR in chunk:
            self._after_cr = chunk[-1] == _CR
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        longest = len(self._pending) + len(chunk)  # the most that a line can have now
        lines = chunk.split(b"\n")
        rest = lines.pop()
        if self._pending and lines:
            self._pending += lines[0]
            lines[0] = bytes(self._pending)
            self._pending.clear()
        if rest:
            self._pending += rest
        return lines if longest <= self._limit else self._within_limit(lines)

    def check(self) -> None:
        """Raises EventTooLong if a line was over the limit, complete or not."""
        if self._too_long:
            raise EventTooLong(f"a line of the event stream is longer than {self._limit} bytes")

    def _without_bom(self, chunk: bytes) -> bytes:
        start = (self._start or b"") + chunk
        if _BOM.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(_BOM)

    def _within_limit(self, lines: list[bytes]) -> list[bytes]:
        for number, line in enumerate(lines):
            if len(line) > self._limit:
                self._too_long = True
                return lines[:number]
        self._too_long = len(self._pending) > self._limit
        return lines

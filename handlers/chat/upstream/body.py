"""An upstream's body -> chunks. Sans-IO: bytes in, `Chunk`s out; knows no socket, no SDK and no clock.

What an OpenAI-compatible server streams is one `data` line for each `chat.completion.chunk` object, and `data: [DONE]`:

    in the body                                    comes out as (failures: their code)
    an event with data                             what `chunks` makes of it
    an event without                               nothing: it keeps the connection alive
    `event: error`; a line `error: …`, or one of   upstream_error
      JSON that says error
    `[DONE]`, or the end after a finish_reason     the end
    the end without either                         cut
    `[DONE]` before any choice; no byte            empty

A body that doesn't look like an event stream is read to its end, and is then

    JSON that says error                           upstream_error
    where one piece was asked for: any object      no chunk; `whole` has it, untouched
    where a stream was: a whole `chat.completion`  one chunk that says all
    anything else                                  not_a_stream

Limit: an object of more than `MAX_VALUES` in one piece is passed on unseen: to look into 16 MiB of it would hold up the event
loop.
"""

from typing import Final

from handlers.chat.items import Chunk, UpstreamFailed
from handlers.chat.upstream.chunks import from_whole, loads, parse
from handlers.chat.upstream.failures import one_line, read, reported, says_error
from sse.errors import EventTooLong
from sse.wire.document import too_many
from sse.wire.lines import LineSplitter
from sse.wire.parser import DEFAULT_LIMIT, Parser

FIELDS: Final = (b":", b"data:", b"event:", b"id:", b"retry:", b"error:")
"""How an event stream begins, after what may stand before it."""

BEFORE: Final = b"\xef\xbb\xbf\r\n"
"""The bytes of a byte order mark and of empty lines."""

CUT: Final = "the upstream's answer ended before it was complete"

MAX_WHOLE: Final = 16 << 20
"""Bytes of an answer in one piece."""


class Body:
    """Reads one body. several: whether more than one choice was asked for. one_piece: whether no stream was.

    done: `[DONE]` has come; what follows is no part of the answer. complete: the answer is whole, with or without it.
    failure: what is wrong with the body; set behind the last chunk before it. held: all that has come; None: it is an event
    stream. whole: the answer as it came, if one piece was asked for and has come.
    """

    def __init__(self, *, several: bool = False, one_piece: bool = False) -> None:
        self.done = False
        self.complete = False
        self.failure: UpstreamFailed | None = None
        self.held: bytearray | None = bytearray()
        self.whole: bytes | None = None
        self._several = several
        self._one_piece = one_piece
        self._lines = LineSplitter(DEFAULT_LIMIT)
        self._parser = Parser()
        self._between = True  # no event is begun
        self._events = False
        self._choice = False
        self._aside = b""  # the last event without a choice

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that `data` completes."""
        chunks: list[Chunk] = []
        try:
            if self.held is not None:
                data = self._begin(self.held, data)
            for type, text in self._dispatch(data):
                if self.done:
                    break
                self._take(type, text, chunks)
        except UpstreamFailed as failure:
            self.failure = UpstreamFailed(failure.message, failure.code)  # a copy: the traceback holds this
        except EventTooLong as error:
            self.failure = UpstreamFailed(f"the upstream sent too much in one event: {error}", "bad_chunk")
        return chunks

    def end(self) -> list[Chunk]:
        """The body has ended: the chunks that it comes to only now. Without an end of its own, that is a failure."""
        try:
            if self.held is not None:
                return self._read(bytes(self.held))
            if not self.complete and self.failure is None:
                self._unfinished()
        except UpstreamFailed as failure:
            self.failure = UpstreamFailed(failure.message, failure.code)  # a copy: the traceback holds this
        except EventTooLong:
            self.failure = UpstreamFailed(CUT, "cut")
        return []

    def _begin(self, held: bytearray, data: bytes) -> bytes:
        """What is to be read as events: nothing, unless it looks like that."""
        held += data
        if held[:100].lstrip(BEFORE).startswith(FIELDS):
            self.held = None
            return bytes(held)
        if len(held) > MAX_WHOLE:
            raise UpstreamFailed(f"the upstream's answer has over {MAX_WHOLE} bytes: {one_line(held)}", "not_a_stream")
        return b""

    def _dispatch(self, data: bytes) -> list[tuple[str, bytes]]:
        """The events that `data` completes: type and data. Events of one line, as nearly all are, need no parser."""
        if self._between and (lone := _lone_lines(data)):
            return lone
        self._between = data.endswith(b"\n\n")
        events: list[tuple[str, bytes]] = []
        for line in self._lines.feed(data):
            if line.startswith(b"error:") or (line.startswith(b"{") and says_error(read(line))):
                events.append(("error", line.removeprefix(b"error:")))
            events += [(event.type, event.data.encode()) for event in self._parser.feed(line + b"\n")]
        self._lines.check()
        return events

    def _take(self, type: str, text: bytes, chunks: list[Chunk]) -> None:
        """One event."""
        self._events = True
        if text.startswith(b"[DONE]"):
            if not self._choice:
                raise self._ended("the upstream's answer ended before it had begun", "empty")
            self.done = self.complete = True
        elif type == "error":
            raise reported(read(text))
        elif text.strip():
            chunk = parse(text, several=self._several, first=not self._choice)
            if chunk is not None:
                chunks.append(chunk)
                self.complete = self.complete or chunk.finish_reason is not None
            if chunk is None or not chunk.value.get("choices"):
                self._aside = text
            else:
                self._choice = True

    def _read(self, whole: bytes) -> list[Chunk]:
        """What a body is that is no event stream."""
        body = whole.lstrip(BEFORE)
        if not body.strip():
            raise UpstreamFailed("the upstream answered 200 with an empty body", "empty")
        value = read(body)
        if says_error(value):
            raise reported(value)
        choices = value.get("choices") if isinstance(value, dict) else None
        choices = choices if isinstance(choices, list) else []
        if self._one_piece and (isinstance(value, dict) or (body.lstrip().startswith(b"{") and too_many(body))):
            for choice in choices:
                if isinstance(choice, dict) and choice.get("error"):
                    raise reported(choice)
            self.whole = whole
            return []
        if choices:
            self.complete = True
            return [from_whole(loads(body)[0], several=self._several)]
        raise UpstreamFailed(f"the upstream's answer is not an event stream: {one_line(body)}", "not_a_stream")

    def _unfinished(self) -> None:
        """Say what is wrong with an event stream that ended too early: what it says itself, if it says so without an end."""
        for type, text in self._dispatch(b"\n\n"):
            if type == "error" or says_error(read(text)):
                raise reported(read(text))
            if text.startswith(b"[DONE]") and self._choice:
                return
        if not self._events:
            raise UpstreamFailed("the upstream's answer is not an event stream", "not_a_stream")
        raise self._ended(CUT, "cut")

    def _ended(self, message: str, code: str) -> UpstreamFailed:
        """The failure; where no choice came, with what came in its place: nobody knows all the ways to say error."""
        return UpstreamFailed(f"{message}: {one_line(self._aside)}" if self._aside and not self._choice else message, code)


def _lone_lines(data: bytes) -> list[tuple[str, bytes]] | None:
    """The events, if each of them is a lone `data` line and nothing else is there."""
    if not data.startswith(b"data: ") or not data.endswith(b"\n\n") or b"\r" in data:
        return None
    texts = data[6:-2].split(b"\n\ndata: ")
    # Two LF for each text, and so none within: one look at them all takes a third of what a look at each does.
    return [("message", text) for text in texts] if data.count(b"\n") == 2 * len(texts) else None

"""How what happened to a stream is written as events: the format, a class whose defaults are the plain format.

In:  what a source yielded, and how its stream began and ended. Out: whole encoded events without their id line, which the
stream writes in front of them. A format belongs to one stream, and is chosen when that is opened.

    the stream                 plain
    a watcher is new           event: connected {"status": "ok", "stream"}     without a number: it stands at the position of
                                                                               the newcomer
    an item                    an unnamed message, its JSON
    an item can't be written   event: item_error {"error"}
    events are lost            event: gap {"first", "last"}
    the source ended           data: [DONE]
    it was stopped             event: cancelled {"reason"}
    the source failed          event: error {"error", "code", "fatal": true}

Each of the last three ends the stream, once. A method may return one event, or several; of several, each becomes an entry of
the log with a number of its own, and the last one of an end is the terminal event.
"""

from collections.abc import Sequence
from typing import Any, Final, TypeAlias

from sse.errors import SourceFailed
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps

DONE: Final = b"data: [DONE]\n\n"

Written: TypeAlias = bytes | Sequence[bytes]
"""One whole event without its id line, or several; empty where there is nothing to write."""


LOST: Final = ("The process that ran this stream is gone.", "producer_lost")
"""The message and the code of a failure."""


class Format:
    """What a stream asks of its format. A format overrides what it writes otherwise.

    name: for state documents and logs. ids: whether events carry ids; without them nothing can be resumed. headers: what the
    answers that carry it say besides their own. transliterated: whether a stream may say it in ASCII (`Opening.ascii`).
    tells_opener: whether the request that opens the stream is told the opening, as all other newcomers are. from_first: whether
    newcomers are told the gap if the first events are no longer held; otherwise they start at the oldest one that is.

    Limit: a source that never waits, and whose items all write nothing, holds the event loop.
    """

    name: str = "plain"
    ids: bool = True
    headers: tuple[tuple[bytes, bytes], ...] = ()
    transliterated: bool = True
    tells_opener: bool = True
    from_first: bool = False

    def opening(self, stream_id: str) -> bytes | None:
        """What a newcomer is told before the first event."""
        return encode_json(dumps({"status": "ok", "stream": stream_id}), "connected")

    def item(self, item: Any) -> Written:
        """What the source yielded."""
        return encode_json(dumps(item))

    def item_error(self, error: str) -> bytes:
        """One item could not be written; the stream goes on."""
        return encode_json(dumps({"error": error}), "item_error")

    def gap(self, first: int, last: int) -> bytes:
        """The events `first` to `last` are no longer held."""
        return encode_json(dumps({"first": first, "last": last}), "gap")

    def done(self) -> Written:
        """The end, after the source's."""
        return DONE

    def cancelled(self, reason: str) -> Written:
        """The end of a stream that was stopped; reason is a `stream.Trigger`'s value."""
        return encode_json(dumps({"reason": reason}), "cancelled")

    def failed(self, failure: SourceFailed) -> Written:
        """The end of a stream whose source failed."""
        return encode_json(dumps({"error": failure.message, "code": failure.code, "fatal": True}), "error")

    def lost(self) -> Written:
        """The end that other processes write when the one that ran the stream is gone. Asked for before the stream begins."""
        return self.failed(SourceFailed(*LOST, retryable=True))

    def apology(self) -> bytes:
        """An error of ours while one watcher was served, as an event without an id: the stream itself goes on."""
        return b"".join(events_of(self.failed(internal())))


def events_of(written: Written) -> list[bytes]:
    """What a method of a format has returned, as a list."""
    return [written] if isinstance(written, bytes) else [*written]


def internal() -> SourceFailed:
    """A defect of ours: what it was stands in the log, and is not told."""
    return SourceFailed("internal error", "internal")

"""The format: how a stream's items, gaps and end are written as events. The class's defaults are the plain format.

In:  an item of the source, a gap, or an end. Out: whole encoded events without their id line, which the stream writes in front
of them. A format belongs to one stream, and is chosen when that is opened.

    what happens               what the plain format writes
    a watcher is new           event: connected {"status": "ok", "stream"}     not in the log: its id is the position at which
                                                                               the newcomer starts
    an item                    an unnamed message, its JSON
    an item can't be written   event: item_error {"error"}
    events are lost            event: gap {"first", "last"}
    the source ended           data: [DONE]
    it was stopped             event: cancelled {"reason"}
    the source failed          event: error {"error", "code", "fatal": true}

One of the last three ends the stream. A method may return one event or several. Each becomes an entry of the log with a number
of its own; the last event of an end is the terminal event.
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
    """The plain format, and the base of all others: a format overrides the methods whose output differs.

    name: for state documents and logs. ids: whether events carry ids; without them a stream can't be resumed. headers: added to
    the answers in this format. transliterated: whether `Opening.ascii` applies to it. greets: whether newcomers get an opening.
    tells_opener: whether the request that opens the stream gets that too. from_first: whether newcomers get a gap if the first
    events are no longer held; otherwise they start at the oldest event that is held.

    Limit: a source that never waits, with items for which nothing is written, holds the event loop.
    """

    name: str = "plain"
    ids: bool = True
    headers: tuple[tuple[bytes, bytes], ...] = ()
    transliterated: bool = True
    greets: bool = True
    tells_opener: bool = True
    from_first: bool = False

    def opening(self, stream_id: str) -> bytes | None:
        """The event that a newcomer gets before the first event of the log, if any."""
        return encode_json(dumps({"status": "ok", "stream": stream_id}), "connected") if self.greets else None

    def item(self, item: Any) -> Written:
        """The events for an item that the source yielded."""
        return b"data: %b\n\n" % dumps(item)  # `encode_json` without the call: 4 % of the cost of a burst

    def item_error(self, error: str) -> bytes:
        """The event for an item that could not be written; the stream goes on."""
        return encode_json(dumps({"error": error}), "item_error")

    def gap(self, first: int, last: int) -> bytes:
        """The event that says that the events `first` to `last` are no longer held."""
        return encode_json(dumps({"first": first, "last": last}), "gap")

    def done(self) -> Written:
        """The end of a stream whose source has ended."""
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
        """The event for a defect while one watcher was served. It has no id, since the stream itself goes on."""
        return b"".join(events_of(self.failed(internal())))


def events_of(written: Written) -> list[bytes]:
    """The result of a format's method as a list of events."""
    return [written] if isinstance(written, bytes) else [*written]


def internal() -> SourceFailed:
    """The failure that clients are told of a defect. Only the log has the details."""
    return SourceFailed("internal error", "internal")

"""Formats: how what happened to a stream is written as events; and `Plain`, the one that most streams use.

In:  what a source yielded, and how its stream began and ended. Out: whole encoded events without their id line, which the
stream writes in front of them. A format belongs to one stream and is chosen when that is opened.

    plain   event: connected {"status": "ok", "stream"}    then unnamed messages, one an item
            event: item_error {"error"}                    in the place of an item that can't be written
            event: gap {"first", "last"}                   events that are no longer held
            and exactly one of
            data: [DONE] · event: cancelled {"reason"} · event: error {"error", "code", "fatal": true}
"""

from typing import Any, Protocol

from sse.errors import SourceFailed
from sse.wire.encoder import encode_json
from sse.wire.payload import dumps, to_ascii

DONE = b"data: [DONE]\n\n"


class Format(Protocol):
    """What a stream asks of its format. Every method returns one whole event without its id line, and never an empty one.

    Limit: a source that never waits, and whose items all write nothing, holds the event loop.
    """

    name: str
    ids: bool  # whether events carry ids; without them nothing can be resumed

    def opening(self, stream_id: str) -> bytes | None:
        """What a newcomer is told before the first event. Not numbered: it stands at the position of the newcomer."""

    def item(self, item: Any) -> bytes | None:
        """What the source yielded; None where there is nothing to write."""

    def item_error(self, error: str) -> bytes:
        """One item could not be written; the stream goes on."""

    def gap(self, first: int, last: int) -> bytes:
        """The events `first` to `last` are no longer held."""

    def done(self) -> bytes:
        """The terminal event after the source's end."""

    def cancelled(self, reason: str) -> bytes:
        """The terminal event of a stream that was stopped; reason is a `stream.Trigger`'s value."""

    def failed(self, failure: SourceFailed) -> bytes:
        """The terminal event of a stream whose source failed."""


class Plain:
    """Unnamed JSON messages with `[DONE]` at the end. ascii: transliterate every text (extra `ascii`)."""

    name = "plain"
    ids = True

    def __init__(self, *, ascii: bool = False) -> None:
        self._ascii = ascii

    def opening(self, stream_id: str) -> bytes | None:
        return encode_json(dumps({"status": "ok", "stream": stream_id}), "connected")

    def item(self, item: Any) -> bytes | None:
        return encode_json(dumps(to_ascii(item) if self._ascii else item))

    def item_error(self, error: str) -> bytes:
        return self._event("item_error", {"error": error})

    def gap(self, first: int, last: int) -> bytes:
        return self._event("gap", {"first": first, "last": last})

    def done(self) -> bytes:
        return DONE

    def cancelled(self, reason: str) -> bytes:
        return self._event("cancelled", {"reason": reason})

    def failed(self, failure: SourceFailed) -> bytes:
        return self._event("error", {"error": failure.message, "code": failure.code, "fatal": True})

    def _event(self, name: str, payload: dict[str, Any]) -> bytes:
        return encode_json(dumps(to_ascii(payload) if self._ascii else payload), name)

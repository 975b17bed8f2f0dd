"""Spans: parts of an answer that begin and end, for clients that refuse events that are out of order.

In:  the events of a stream as they are written. Out: the events that a watcher needs after a gap. With them, every part that
has begun for the watcher also ends, and no part goes on that has not begun for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class _Span:
    """begins, ends: events, with their numbers in the stream. closer: what ends it, if nothing else does."""

    closer: bytes
    begins: list[tuple[int, bytes]] = field(default_factory=list)
    ends: tuple[int, bytes] | None = None


class Spans:
    """Every event of the stream passes through here once, and is numbered by that; the methods return it."""

    def __init__(self) -> None:
        self.number = 0
        self._open: dict[str, _Span] = {}
        self._all: list[_Span] = []

    def __contains__(self, id: str) -> bool:
        """Whether it is open."""
        return id in self._open

    def event(self, event: bytes) -> bytes:
        """An event that neither begins nor ends anything."""
        self.number += 1
        return event

    def begin(self, id: str, event: bytes, closer: bytes = b"") -> bytes:
        """Begin something, or go on with its beginning."""
        span = self._open.get(id)
        if span is None:
            span = self._open[id] = _Span(closer)
            self._all.append(span)
        span.begins.append((self.number + 1, event))
        return self.event(event)

    def end(self, id: str, event: bytes = b"") -> bytes:
        """End something that is open, with this event or its closer."""
        span = self._open.pop(id)
        span.ends = (self.number + 1, event or span.closer)
        return self.event(span.ends[1])

    def end_all(self) -> Iterator[bytes]:
        """End whatever is open and has a closer, the newest first."""
        for id in [id for id, span in self._open.items() if span.closer][::-1]:
            yield self.end(id)

    def across(self, first: int, last: int) -> list[bytes]:
        """The events that a watcher gets in place of the events `first` to `last`."""
        over, begun = [], []
        for span in self._all:
            end = span.ends[0] if span.ends is not None else last + 1
            if end > last:
                begun += [event for number, event in span.begins if first <= number <= last]
            elif span.begins[0][0] < first <= end and span.ends is not None:
                over.append(span.ends)
        return [*(event for _, event in sorted(over)), *begun]

    def gap(self, first: int, last: int, event: bytes) -> bytes:
        """The same, with the event that says so; behind the stream's beginning, where that is lost too."""
        events, begun = self.across(first, last), 1 if first == 1 else 0
        return b"".join([*events[:begun], event, *events[begun:]])

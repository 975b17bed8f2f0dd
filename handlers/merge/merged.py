"""Several streams as one, which `sse.watch` follows like a single stream. There is no second log.

Each event is taken from its stream's log and keeps its name. Its data becomes `{"stream", "data"}`, where data that isn't JSON
is a text. Its id holds one position for each stream.

    Watcher (the connection) ◄──wake── Part ◄──wake── EventLog of a stream      a Part is that log's watcher
             └─────────take──► Merged ──► Part ──take──► EventLog               each in turn
"""

from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, Final, TypeAlias

import orjson

from sse.budget import Budget, Charge
from sse.log import GATHER, Watcher
from sse.stream import Stream
from sse.timers import Timers
from sse.wire.encoder import encode, encode_json
from sse.wire.event import Event, MessageEvent
from sse.wire.parser import Parser
from sse.wire.payload import dumps

GONE: Final = {"error": "The stream is unknown or has expired.", "code": "stream_gone", "fatal": True}

Rewritten: TypeAlias = tuple[str, bytes]
"""An event's position in the ids, and the event without its id line."""


class Part:
    """One of the merged streams, as its log's watcher. stream: None if it isn't held.

    position: number of the last event taken. over: whether the terminal event was taken. told: its position in the ids.
    """

    def __init__(self, name: str, stream: Stream | None, position: int, *, over: bool) -> None:
        self.name = name
        self.stream = stream
        self.position = position
        self.offset = 0
        self.over = over
        self.told = "end" if over else str(position)
        self._whole: Watcher | None = None  # while attached

    def place(self, from_now: bool) -> None:
        """Set the position at which a newcomer to this stream begins."""
        if self.stream is not None and not self.over:
            self.position = self.stream.position(from_now)
            self.told = str(self.position)

    def attach(self, whole: Watcher) -> None:
        if self.stream is not None and not self.over:
            self._whole = whole
            self.stream.attach(self)

    def detach(self) -> None:
        if self._whole is not None and self.stream is not None:
            self._whole = None
            self.stream.detach(self)

    def wake(self) -> None:
        if self._whole is not None:
            self._whole.wake()

    def ready(self) -> bool:
        """Whether there is an event to take. If not, `wake` is called when there is."""
        return not self.over and (self.stream is None or self.stream.ready(self))

    def take(self) -> Sequence[Rewritten]:
        """Take its next events. A stream that is over is detached, so that it can expire."""
        if self.over:
            return ()
        if self.stream is None:
            self.over = True
            return (("end", encode_json(dumps({"stream": self.name, "data": GONE}), "error")),)
        taken = self.stream.take(self, whole=True)
        events = rewrite(self.name, taken) if len(taken) <= GATHER else rewrite_large(self.name, taken)
        if self.stream.finished(self):
            self.over = True
            self.detach()
        return events


def rewrite(name: str, events: bytes) -> Sequence[Rewritten]:
    """The events of the stream `name` as they are written when it is one of several."""
    return [(event.last_event_id.rpartition(".")[2], _packed(name, event)) for event in Parser().feed(events)]


rewrite_large = lru_cache(maxsize=1)(rewrite)
"""Once for all who watch the same streams: a hundred that rewrite an event of 2 MiB each would hold up the event loop."""


def _packed(name: str, event: MessageEvent) -> bytes:
    data: Any = event.data
    with suppress(orjson.JSONDecodeError):
        orjson.loads(event.data)
        data = orjson.Fragment(event.data)
    return encode_json(dumps({"stream": name, "data": data}), None if event.type == "message" else event.type)


class Merged:
    """Several streams, watched as one by one connection. The parts hold its position; a watcher's own number counts events.

    budget: charged for what doesn't fit into one message, until it is taken.
    """

    id = "merged"
    crowd = None
    """Each merge is watched by one connection, and their bytes differ."""

    def __init__(self, parts: Sequence[Part], budget: Budget, timers: Timers) -> None:
        self.timers = timers
        self._parts = parts
        self._turn = 0
        self._pieces: deque[bytes] = deque()  # taken from the parts, and not yet by the watcher
        self._charge = Charge(budget)

    def position(self, from_now: bool) -> int:
        for part in self._parts:
            part.place(from_now)
        return 0

    def preamble(self, position: int, retry: int | None, *, newcomer: bool) -> tuple[bytes]:  # noqa: ARG002
        return (encode(Event(id=self._id().decode(), retry=retry)),)

    def attach(self, watcher: Watcher) -> None:
        for part in self._parts:
            part.attach(watcher)

    def detach(self, watcher: Watcher) -> None:  # noqa: ARG002
        rewrite_large.cache_clear()
        for part in self._parts:
            part.detach()

    def ready(self, watcher: Watcher) -> bool:  # noqa: ARG002
        # every part is asked, so that each will wake us
        return any([part.ready() for part in self._parts]) or bool(self._pieces)  # noqa: C419

    def take(self, watcher: Watcher) -> bytes:
        """Take up to `GATHER` bytes of what is ready. Raises Full if there is no room to keep the rest."""
        if not self._pieces:
            pieces = self._helpings(watcher)
            size = sum(map(len, pieces))
            if size <= GATHER:
                return b"".join(pieces)
            self._charge.claim(size)
            self._pieces += pieces
        body = bytearray()
        while self._pieces and len(body) < GATHER:
            begin, watcher.offset = watcher.offset, watcher.offset + GATHER - len(body)
            body += self._pieces[0][begin : watcher.offset]
            if watcher.offset >= len(self._pieces[0]):
                self._pieces.popleft()
                watcher.offset = 0
        if not self._pieces:
            self._charge.clear()
        return bytes(body)

    def _helpings(self, watcher: Watcher) -> list[bytes]:
        """One helping from each stream in turn, each time beginning with the next stream, so that none starves another."""
        pieces: list[bytes] = []
        size = 0
        for _ in self._parts:
            part = self._parts[self._turn]
            self._turn = (self._turn + 1) % len(self._parts)
            for told, event in part.take():
                part.told = told
                pieces += (b"id: %b\n" % self._id(), event)
                watcher.position += 1
                size += len(event)
            if size >= GATHER:
                break
        return pieces

    def finished(self, watcher: Watcher) -> bool:  # noqa: ARG002
        return not self._pieces and all(part.over for part in self._parts)

    def apology(self) -> bytes:
        return encode_json(dumps({"error": "internal error", "code": "internal"}), "error")

    def _id(self) -> bytes:
        return "-".join([part.told for part in self._parts]).encode()

"""Several streams as one, which `sse.watch` follows like a single stream. There is no second log.

Each event is taken from its stream's log and keeps its name. Its data becomes `{"stream", "data"}`, where data that isn't JSON
is a text. Its id holds one position for each stream.

    Watcher (the connection) ◄──wake── Part ◄──wake── EventLog of a stream      a Part is that log's watcher
             └─────────take──► Merged ──► Part ──take──► EventLog               each in turn
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import orjson

from sse.log import GATHER, Watcher
from sse.stream import Stream
from sse.wire.encoder import encode, encode_json
from sse.wire.event import Event, MessageEvent
from sse.wire.parser import Parser
from sse.wire.payload import dumps


class Part:
    """One of the merged streams, as its log's watcher. stream: None if it isn't held.

    position: number of the last event taken. over: whether the terminal event was taken. told: its position in the ids.
    """

    def __init__(self, name: str, stream: Stream | None, position: int, *, over: bool) -> None:
        self.name = name
        self.stream = stream
        self.position = position
        self.over = over
        self.told = "end" if over else str(position)
        self._whole: Watcher | None = None  # while attached
        self._parser = Parser()

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

    def take(self) -> Sequence[MessageEvent]:
        """Take its next events. A stream that is over is detached, so that it can expire."""
        if self.over:
            return ()
        if self.stream is None:
            self.over = True
            gone = dumps({"error": "The stream is unknown or has expired.", "code": "stream_gone", "fatal": True})
            return (MessageEvent("error", gone.decode(), f"{self.name}.end"),)
        events = self._parser.feed(self.stream.take(self))
        if self.stream.finished(self):
            self.over = True
            self.detach()
        return events


class Merged:
    """Several streams, watched as one by one connection. The parts hold its position; a watcher's own number isn't used."""

    id = "merged"

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._turn = 0

    def position(self, from_now: bool) -> int:
        for part in self._parts:
            part.place(from_now)
        return 0

    def preamble(self, position: int, retry: int | None, *, newcomer: bool) -> bytes:  # noqa: ARG002
        return encode(Event(id=self._id(), retry=retry))

    def attach(self, watcher: Watcher) -> None:
        for part in self._parts:
            part.attach(watcher)

    def detach(self, watcher: Watcher) -> None:  # noqa: ARG002
        for part in self._parts:
            part.detach()

    def ready(self, watcher: Watcher) -> bool:  # noqa: ARG002
        return any([part.ready() for part in self._parts])  # noqa: C419 - every part is asked, so that each will wake us

    def take(self, watcher: Watcher) -> bytes:  # noqa: ARG002
        """One helping from each stream in turn, each time beginning with the next stream, so that none starves another."""
        body = b""
        for _ in self._parts:
            part = self._parts[self._turn]
            self._turn = (self._turn + 1) % len(self._parts)
            body += b"".join([self._encode(part, event) for event in part.take()])
            if len(body) >= GATHER:
                break
        return body

    def finished(self, watcher: Watcher) -> bool:  # noqa: ARG002
        return all(part.over for part in self._parts)

    def apology(self) -> bytes:
        return encode_json(dumps({"error": "internal error", "code": "internal"}), "error")

    def _encode(self, part: Part, event: MessageEvent) -> bytes:
        part.told = event.last_event_id.rpartition(".")[2]
        data: Any = event.data
        with suppress(orjson.JSONDecodeError):
            orjson.loads(event.data)
            data = orjson.Fragment(event.data)
        json = dumps({"stream": part.name, "data": data})
        return b"id: %b\n%b" % (self._id().encode(), encode_json(json, None if event.type == "message" else event.type))

    def _id(self) -> str:
        return "-".join([part.told for part in self._parts])

"""A stream that runs in another process, as an ordinary stream here: a backend fills it, and watchers follow it.

In:  the stream's announcement (`record` has its format's part), and its entries as they are read. Out: a `Mirror`.
An entry is a number with an event's bytes, as the process that runs the stream has encoded it; the terminal event's is `END`,
and says how the stream ended.

A gap is asked of the process that runs the stream, since its format may know what was open there. One that can't be asked any
more, since the stream has ended, is told as it was recorded when the stream began (`Limit:` without what was open).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self, TypeAlias

import orjson

from sse.budget import Budget
from sse.errors import Problem, SourceFailed
from sse.formats import LOST, Format, events_of
from sse.log import Watcher
from sse.stream import Opening, State, Stream, Trigger
from sse.wire.document import weight
from sse.wire.payload import dumps

Entries: TypeAlias = Sequence[tuple[bytes, Mapping[bytes, bytes]]]
"""Ids `<number>-0` and fields: the event is the one without a name."""

Ask: TypeAlias = Callable[[Stream, str, Sequence[Any]], Awaitable[Any]]

IDLE: Final = 1.0
"""Seconds that a stream which runs elsewhere is followed while nobody watches it here."""

END: Final = 18446744073709551615
"""2^64-1: the number under which a terminal event is kept, above that of every event."""

FIRST, LAST = 111111111111111, 222222222222222  # stand for the numbers in a recorded gap


def record(opening: Opening) -> dict[str, Any]:
    """The events that the format of a stream writes for a newcomer, for a gap, and if the process is lost; as JSON."""
    format, head = opening.format, f"id: {opening.id}.end\n" if opening.format.ids else ""
    said = opening.said
    *before, terminal = map(said, events_of(format.lost()))
    return {
        "name": format.name,
        "ids": format.ids,
        "tells_opener": format.tells_opener,
        "from_first": format.from_first,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in format.headers],
        "opening": said(format.opening(opening.id) or b"").decode(),
        "gap": said(format.gap(FIRST, LAST)).decode(),
        "apology": said(format.apology()).decode(),
        "lost": b"".join(before).decode() + head + terminal.decode(),
    }


class Recorded(Format):
    """The format of a stream that runs elsewhere: its events as that process has written them."""

    def __init__(self, recorded: Mapping[str, Any]) -> None:
        self.name, self.ids = recorded["name"], recorded["ids"]
        self.tells_opener, self.from_first = recorded["tells_opener"], recorded["from_first"]
        self.headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in recorded["headers"])
        self._recorded = recorded

    def opening(self, stream_id: str) -> bytes | None:  # noqa: ARG002
        return self._recorded["opening"].encode() or None

    def gap(self, first: int, last: int) -> bytes:
        gap: str = self._recorded["gap"]
        return gap.replace(str(FIRST), str(first)).replace(str(LAST), str(last)).encode()

    def apology(self) -> bytes:
        apology: str = self._recorded["apology"]
        return apology.encode()


class Mirror(Stream):
    """A stream that runs elsewhere. document: its announcement. ask: asks the process that runs it (`Backend.ask`).

    owner: the process that runs it. result: what it has come to; None while it runs. loaded: once its log has caught up.
    seen: when it was last read. gone: nobody can find it any more: if there is no end to be read, it is lost.
    """

    elsewhere = True

    def __init__(self, document: Mapping[str, Any], drop: Callable[[Stream], None], budget: Budget, ask: Ask) -> None:
        known = {name: document[name] for name in ("id", "identity", "metadata", "kind", "key", "claim")}
        opening = Opening(None, Recorded(document["format"]), linger=IDLE, keep=IDLE, result=lambda: None, **known)
        super().__init__(opening, budget, on_idle=drop)
        self.created = document["created"]
        self.document = document
        self.owner: str = document["owner"]
        self.result: Any = None
        self.loaded = asyncio.Event()
        self.gone = False
        self.seen = time.monotonic()
        self._ask = ask
        self._gaps: dict[Watcher, asyncio.Task[tuple[int, bytes]]] = {}

    @property
    def newest(self) -> int:
        """Unknown while it runs: its owner may have told clients of more than is here."""
        return END if self.state is State.RUNNING else super().newest

    def ready(self, watcher: Watcher) -> bool:
        asked = self._gaps.get(watcher)
        return self.log.ready(watcher) if asked is None else asked.done()

    def take(self, watcher: Watcher, *, whole: bool = False) -> bytes:
        """As the log does, but for a gap: that is asked for first, and the watcher is woken when it is there."""
        first, last, asked = watcher.position + 1, self.log.first - 1, self._gaps.get(watcher)
        if asked is None and first <= last and not watcher.offset and self.state is State.RUNNING:
            asked = self._gaps[watcher] = asyncio.create_task(self._gap(first, last))
            asked.add_done_callback(lambda _: watcher.wake())
        if asked is None:
            return self.log.take(watcher, whole=whole)
        return self.log.tell(watcher, *self._gaps.pop(watcher).result()) if asked.done() else b""

    async def _gap(self, first: int, last: int) -> tuple[int, bytes]:
        """The number of the last lost event, and the event that says that they are lost."""
        said: str | None = None
        with suppress(Problem):
            said = await self._ask(self, "gap", (first, last))
        return last, said.encode() if said else self.gap(first, last)

    def detach(self, watcher: Watcher) -> None:
        if (asked := self._gaps.pop(watcher, None)) is not None:
            asked.cancel()
        super().detach(watcher)

    def fill(self, entries: Entries) -> None:
        """Append entries that were read."""
        self.seen = time.monotonic()
        for entry_id, fields in entries:
            if self.log.closed:
                return
            number = int(entry_id.partition(b"-")[0])
            if number == END:
                end = orjson.loads(fields[b"end"])
                if self.log.last < end["last"]:
                    self.log.skip(end["last"])
                self.over(fields[b""], end)
                return
            if number != self.log.last + 1:
                self.log.skip(number - 1)
            self.log.append(fields[b""])
            self.last_event = self._loop.time()

    def sketch(self, oldest: Entries, newest: Entries) -> Self:
        """Fill it with its oldest event and its two newest ones, newest first: to be described, not to be watched."""
        self.fill(newest[::-1])
        self.discard()
        self.log.first = int(oldest[0][0].partition(b"-")[0]) if oldest else 1
        return self

    def over(self, terminal: bytes, end: Mapping[str, Any]) -> None:
        """The stream has ended in its process: end it here."""
        self.result = end["result"]
        self.state, self.reason, self.ended = State(end["state"]), end["reason"], end["ended"]
        self.failure = SourceFailed(*end["error"]) if end["error"] else None
        if self.result is not None:
            self.kept.add(weight(dumps(self.result)))
        self._set_timer(IDLE)
        self.log.close(terminal)
        self.loaded.set()


def loss(document: Mapping[str, Any]) -> tuple[list[bytes], dict[str, Any]]:
    """The end of a stream whose process is gone: its terminal event, and how it ended."""
    end = {"state": State.FAILED, "reason": Trigger.SOURCE_FAILED, "ended": time.time(), "error": LOST, "result": None}
    return [document["format"]["lost"].encode()], {**end, "last": 0}

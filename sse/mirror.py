"""A stream that runs in another process, as an ordinary stream here: it is read from Redis, and watchers follow it.

In:  the stream's announcement, and its entries as they are read. Out: a `Mirror`.
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
from sse.entries import BATCH, END, PORTION, Command, Recorded, after
from sse.errors import Problem, SourceFailed
from sse.log import Watcher
from sse.stream import Opening, State, Stream
from sse.wire.document import weight
from sse.wire.payload import dumps

Entries: TypeAlias = Sequence[tuple[bytes, Mapping[bytes, bytes]]]
"""Ids `<number>-0` and fields: the event is the one without a name."""

Ask: TypeAlias = Callable[[Stream, str, Sequence[Any]], Awaitable[Any]]

FEW: Final = 8
"""Events that are read at first, when their size isn't known."""

IDLE: Final = 1.0
"""Seconds that a stream which runs elsewhere is followed while nobody watches it here."""


class Mirror(Stream):
    """A stream that runs elsewhere, and its part in the pipelines. document: its announcement. ask: as of `Backend.ask`.

    owner: the process that runs it. result: what it has come to; None while it runs. loaded: once its log has caught up.
    seen: when it was last read.
    """

    elsewhere = True

    def __init__(self, document: Mapping[str, Any], drop: Callable[[Stream], None], budget: Budget, ask: Ask) -> None:
        known = {name: document[name] for name in ("id", "identity", "metadata", "kind", "key", "claim")}
        opening = Opening(None, Recorded(document["format"]), linger=IDLE, keep=IDLE, result=lambda: None, **known)
        super().__init__(opening, budget, on_idle=drop)
        self._set_timer(None)  # until it is loaded
        self.kept.add(len(document["format"]["opening"]))  # the rest of the document is small
        self.created = document["created"]
        self.document = document
        self.owner: str = document["owner"]
        self.result: Any = None
        self.loaded = asyncio.Event()
        self.seen = time.monotonic()
        self._ask = ask
        self._count = FEW  # events to be read at once
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

    def commands(self) -> list[Command]:
        """Those that read what is new."""
        return [after(self.id, self.log.last, self._count)]

    def replied(self, reply: Entries) -> bool:
        """Returns whether there is more to read."""
        if self.discarded or self.log.closed:
            return False
        self.fill(reply)
        count, size = self._count, sum(len(fields[b""]) for _, fields in reply)
        if size:
            self._count = max(1, min(BATCH, 4 * count, PORTION * len(reply) // size))
        if len(reply) == count:
            return True
        if not self.loaded.is_set():
            self.loaded.set()
            self.wait(IDLE)
        return False

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

    def sketch(self, oldest: Sequence[Any], newest: Sequence[Any]) -> Self:
        """Fill it with its oldest event and its two newest ones (`entries.sketch`): to be described, not to be watched."""
        self.fill([(entry_id, dict(zip(words[::2], words[1::2], strict=True))) for entry_id, words in newest[::-1]])
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

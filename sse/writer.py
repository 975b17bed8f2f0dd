"""The writing half of the Redis backend: the copies in Redis of the streams that run here, and messages to other processes.

In:  streams and their logs; commands. Out: one pipeline at a time.

    EventLog ──wake──► Replica ──┐
    EventLog ──wake──► Replica ──┼──► Writer ──► Redis
    answers, farewells ──────────┘

The log serves the watchers here first, and wakes its Replica as it wakes any watcher. Messages are sent behind events that were
written before them. The reply to each write says what Redis has, so that an error needs no care: the write is repeated. If
Redis lags by more than the log's bounds, the log keeps the events that Redis lacks, and the producer waits (`EventLog.room`).
If Redis doesn't answer at all, the producer goes on, and readers get a gap for the events dropped meanwhile.
"""

import asyncio
import time
from contextlib import suppress
from itertools import islice
from typing import Any

from redis.exceptions import ResponseError

from sse import entries
from sse.connections import Connections, run
from sse.entries import BATCH, BURIED, NEW, STREAMS, Command
from sse.errors import Full, SourceFailed
from sse.formats import LOST
from sse.mirror import END
from sse.stream import Opening, Stream, Trigger


class Writer:
    """process: this one. replicas: by stream id, those of all streams held here that this process has run."""

    def __init__(self, process: str, connections: Connections) -> None:
        self.process = process
        self.connections = connections
        self.replicas: dict[str, Replica] = {}
        self._announced: dict[str, bool] = {}  # streams about to begin, and whether Redis knows it
        self._dirty: dict[Replica, None] = {}
        self._outbox: list[Command] = []
        self._news = asyncio.Event()

    async def announce(self, opening: Opening) -> None:
        """Let a stream be found from now on; if Redis doesn't answer, from its first events on."""
        self._announced[opening.id] = False
        with suppress(Full):
            async with self.connections.asking() as redis:
                await run(redis, entries.announce(opening, self.process, time.time()))
                self._announced[opening.id] = True

    def begin(self, stream: Stream) -> None:
        replica = Replica(stream, self, announced=self._announced.pop(stream.id, False))
        self.replicas[stream.id] = stream.log.replica = replica
        replica.go_on()

    def forget(self, stream_id: str, claim: str) -> None:
        """The stream is held here no more, or never began."""
        if (replica := self.replicas.pop(stream_id, None)) is not None:
            self._dirty.pop(replica, None)
            if replica.stream.log.closed and not replica.done:
                replica.sure = False  # a write may be under way
                if self.connections.link.up:  # otherwise its events would be kept here for as long as Redis is away
                    self.send(*replica.commands())
                self.send(*replica.end())
            replica.leave()
        elif self._announced.pop(stream_id, None) is not None or claim:
            self.send(*entries.erase(stream_id, claim))

    def send(self, *commands: Command) -> None:
        self._outbox += commands
        self._news.set()

    def wake(self, *replicas: "Replica") -> None:
        """These have something to write."""
        self._dirty.update(dict.fromkeys(replicas))
        self._news.set()

    def compare(self, age: int) -> None:
        """Find out what Redis has of each stream. age: of the lease, or `NEW` or `BURIED`."""
        for replica in list(self.replicas.values()):
            replica.sure = False
            replica.announced &= age != NEW
            if age == BURIED:
                replica.lost()
            replica.wake()

    async def step(self) -> None:
        """Write what has gathered."""
        await self._news.wait()
        self._news.clear()
        commands: list[Command] = []
        goals: dict[Replica, int] = {}
        for replica in list(islice(self._dirty, STREAMS)):
            del self._dirty[replica]
            commands += replica.commands()
            goals[replica] = len(commands) - 1
        outbox = len(self._outbox)
        replies = await run(self.connections.tasks, [*commands, *self._outbox], errors=True)
        del self._outbox[:outbox]
        for replica, goal in goals.items():
            if replica.stream.log.replica is replica and not isinstance(replies[goal], ResponseError):
                replica.written(replies[goal])
        if self._dirty or self._outbox:
            self._news.set()
        for reply in replies:
            if isinstance(reply, ResponseError) and "equal or smaller" not in str(reply):
                raise reply

    async def finish(self) -> None:
        """Write all that is left."""
        self.wake(*self.replicas.values())  # what was under way may have been lost
        while self._news.is_set():
            await self.step()


class Replica:
    """The copy in Redis of a stream that runs here.

    announced: whether Redis knows the stream. position: the newest number there. sure: there has been no trouble since that was
    true. done: its end is there.
    """

    offset = 0

    def __init__(self, stream: Stream, writer: Writer, *, announced: bool) -> None:
        self.stream = stream
        self.announced = announced
        self.position = 0
        self.sure = self.done = False
        self._of = entries.document(stream.opening)
        self._writer = writer

    @property
    def awaited(self) -> bool:
        return self._writer.connections.link.up

    @property
    def lag(self) -> int:
        """Events that Redis doesn't have yet."""
        return 0 if self.done else self.stream.log.last - self.position

    def wake(self) -> None:
        """Called by the log."""
        self._writer.wake(self)

    def leave(self) -> None:
        """The log has no copy any more, and nothing refers to the stream in a circle: so it is freed at once."""
        self.stream.log.replica = None
        self.stream.log.detach(self)

    def go_on(self) -> None:
        """Write if there is something to write; otherwise the log wakes this later."""
        if not self.announced or self.stream.log.ready(self):
            self.wake()

    def commands(self) -> list[Command]:
        """Those that write what Redis lacks. The reply to the last one is for `written`."""
        stream, log = self.stream, self.stream.log
        before, events = log.after(self.position, BATCH)
        about = entries.announce(stream.opening, self._writer.process, stream.created) if not self.announced else []
        end = self._end() if log.closed and events and before + len(events) == log.last else None
        newest = "" if self.sure else self.position
        return [*about, *entries.write(self._of, events, end, newest, before + 1, log.first)]

    def end(self) -> list[Command]:
        """Those that write the end, whatever of the events is there."""
        _, [terminal] = self.stream.log.after(self.stream.log.last - 1, 1)
        return entries.write(self._of, [terminal], self._end())

    def _end(self) -> dict[str, Any]:
        stream, failure = self.stream, self.stream.failure
        result = stream.opening.result() if stream.opening.result is not None else None
        error = (failure.message, failure.code) if failure is not None else None
        end = {"state": stream.state, "reason": stream.reason, "ended": stream.ended, "last": stream.newest}
        return {**end, "error": error, "result": result}

    def written(self, newest: bytes | None) -> None:
        """newest: the id of the newest entry that Redis has; None: Redis doesn't know the stream."""
        number = int(newest.partition(b"-")[0]) if newest is not None else 0
        self.announced = self.sure = newest is not None
        self.done = number == END
        if self.done:
            self.position = self.stream.log.last
            self.lost()
        else:
            self.position = number
            self.go_on()
        self.stream.log.wake_producers()

    def lost(self) -> None:
        """Unless this process has ended the stream, another one has."""
        self.stream.end(Trigger.SOURCE_FAILED, SourceFailed(*LOST, retryable=True))

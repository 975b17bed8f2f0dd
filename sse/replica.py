"""The copy in Redis of a stream that runs here.

In:  the stream and its log. Out: its part in each pipeline.

The log serves the watchers here first, and wakes its Replica as it wakes any watcher. What is written is what the log has and
Redis hasn't, by number. What Redis has is asked at the beginning and after trouble; after that, each write's reply says it. So
an error, a Redis that was restarted empty and a failover need no care of their own.

If Redis lags by more than the log's bounds, the log keeps the events that Redis lacks, and the producer waits
(`EventLog.room`). If Redis doesn't answer at all, the producer goes on, and readers get a gap for the events dropped meanwhile.
"""

from typing import Any

from sse import entries
from sse.entries import BATCH, END, PORTION, Command
from sse.errors import SourceFailed
from sse.formats import LOST
from sse.pipeline import Pipeline
from sse.stream import Stream, Trigger


class Replica:
    """owner: the id of this process. position: the number of the newest event there. done: the end is there.

    known: whether Redis knows the stream; None: that, and the position, have to be asked.
    """

    offset = 0

    def __init__(self, stream: Stream, owner: str, pipeline: Pipeline) -> None:
        self.stream = stream
        self.position = 0
        self.known: bool | None = None
        self.done = False
        self._owner, self._pipeline = owner, pipeline
        self._of = entries.document(stream.opening)
        stream.log.replica = self
        self.wake()

    @property
    def awaited(self) -> bool:
        return self._pipeline.link.up

    @property
    def lag(self) -> int:
        """Events that Redis doesn't have yet."""
        return self.stream.log.last - self.position

    def wake(self) -> None:
        """Called by the log."""
        self._pipeline.wake(self)

    def ask(self) -> None:
        """Redis may have lost something, or got what was thought to be lost."""
        self.known = None
        self.wake()

    def commands(self) -> list[Command]:
        """Those that write what Redis lacks, or ask what it has."""
        stream, log = self.stream, self.stream.log
        if self.known is None:
            return entries.write(self._of, [])
        before, events = log.after(self.position, BATCH, PORTION)
        about = entries.announce(stream.opening, self._owner, stream.created) if not self.known else []
        end = self._end() if log.closed and events and before + len(events) == log.last else None
        return [*about, *entries.write(self._of, events, end, before + 1, log.first)]

    def replied(self, newest: bytes | None) -> bool:
        """newest: the id of the newest entry that Redis has; None: it doesn't know the stream. Returns whether it lacks any.

        If it doesn't, the log wakes this when there is more.
        """
        log = self.stream.log
        if log.replica is not self:
            return False
        self.known = newest is not None
        number = int(newest.partition(b"-")[0]) if newest is not None else 0
        self.done = number == END
        if self.done:
            self.lose()
        self.position = log.last if self.done else number
        log.wake_producers()
        return not self.known or (not self.done and log.ready(self))

    def lose(self) -> None:
        """Unless this process has ended the stream, another one has."""
        self.stream.end(Trigger.SOURCE_FAILED, SourceFailed(*LOST, retryable=True))

    def leave(self) -> None:
        """The stream is held here no more. Write its end, whatever Redis has of it.

        Nothing refers to the stream in a circle afterwards: so it is freed at once.
        """
        log = self.stream.log
        log.replica = None
        log.detach(self)
        self._pipeline.forget(self)
        if not log.closed or self.done:
            return
        _, [terminal] = log.after(log.last - 1, 1)
        # As many of its events as a write has, since they are held beside the account: while Redis is away, for as long as that
        # lasts, and so none. Readers are told of a gap.
        before, events = (
            log.after(self.position, min(BATCH, log.last - 1 - self.position), PORTION) if self.awaited else (0, [])
        )
        self._pipeline.send(*entries.write(self._of, [*events, terminal], self._end(), before + 1))

    def _end(self) -> dict[str, Any]:
        stream, failure = self.stream, self.stream.failure
        result = stream.opening.result() if stream.opening.result is not None else None
        error = (failure.message, failure.code) if failure is not None else None
        end = {"state": stream.state, "reason": stream.reason, "ended": stream.ended, "last": stream.newest}
        return {**end, "error": error, "result": result}

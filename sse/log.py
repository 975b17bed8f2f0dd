"""The event log: a stream's events so far, encoded once however many watchers it has.

In:  whole events, as bytes, in order; each gets the next number, from 1. The terminal event is the last entry.
Out: body messages. A watcher takes what is ready after its position, gathered up to 16 KiB; a larger event goes in slices.

Bounds: the budget's events and bytes; past either, the oldest events go. A watcher whose next event is gone takes a `gap`
event instead, once, and goes on with the oldest one held. The producer waits in `room` for the watcher that is furthest ahead
and for no other one; without watchers it only gives other tasks a turn. There is no timer and no poll here: appending wakes
the watchers that found nothing to take, and taking wakes the producer.
"""

import asyncio
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Protocol

from sse.budget import EVENT, Budget
from sse.errors import Full

GATHER = 16 * 1024
"""Bytes of one body message at the most; before a watcher's first events its opening comes on top."""

AHEAD = GATHER * 3 // 4
"""Bytes a producer may be ahead of its first watcher. Less than GATHER: all of it fits into that watcher's next message."""


class Watcher(Protocol):
    """What the log knows of a watcher, and how to tell it that there is more to take.

    position: the number of the last event it took. offset: how many bytes of the next event it took.
    """

    position: int
    offset: int

    def wake(self) -> None: ...


class Replica(Protocol):
    """The log's copy elsewhere: the number of the last event there, and whether to wait for it."""

    position: int

    @property
    def awaited(self) -> bool:
        """Whether the log keeps what the copy lacks, and its producer waits. False: what is dropped is lost there."""


class EventLog:
    """first, last: numbers of the oldest event held and of the newest (`first == last + 1` while there is none).

    written: bytes appended, ever.
    """

    __slots__ = ("_base", "_ends", "_events", "_gap", "_idle", "_lead", "_producers", "budget", "closed", "first", "free",
                 "gaps", "last", "replay", "replica", "watchers", "written")  # fmt: skip

    def __init__(
        self, gap: Callable[[int, int], bytes], budget: Budget | None = None, *, start: int = 0, replay: bool = True
    ) -> None:
        """gap: (first, last missing) -> the encoded event that says so. start: the number before the first event's.

        replay: whether events are kept for watchers that come back; else the events that the one watcher has taken are dropped.
        """
        self.first = start + 1
        self.last = start
        self.closed = False
        self.gaps = 0
        self.written = 0
        self.budget = budget or Budget()
        self.replay = replay
        self.replica: Replica | None = None
        self.watchers: dict[Watcher, None] = {}
        self._gap = gap
        self._events: list[bytes] = []  # _events[i] is number last - len + 1 + i; those before `first` are emptied
        self._ends: list[int] = []  # bytes appended up to the end of that event: gathering is one bisection
        self._base = 0  # bytes dropped, ever
        self.free = AHEAD  # appending beyond this many bytes means waiting in room()
        self._lead = -1  # the furthest position of a watcher
        self._idle: dict[Watcher, None] = {}
        self._producers: list[asyncio.Future[None]] = []

    @property
    def size(self) -> int:
        """Bytes held."""
        return self.written - self._base

    # -- the producer's side

    @property
    def full(self) -> bool:
        """Whether the producer should await `room` before it appends more."""
        return self.written >= self.free

    @property
    def waiting(self) -> bool:
        """Whether a producer waits for a watcher."""
        return bool(self._producers)

    def append(self, event: bytes) -> int:
        """Add one encoded event, wake the watchers that have nothing else to do, and return its number."""
        budget = self.budget
        self.last = number = self.last + 1
        self.written = written = self.written + len(event)
        self._events.append(event)
        self._ends.append(written)
        if number - self.first >= budget.events or written - self._base > budget.bytes:
            self._shrink()
        budget.used = used = budget.used + len(event) + EVENT
        if used > budget.mark:
            budget.room()
        if self._idle:
            idle, self._idle = self._idle, {}
            for watcher in idle:
                watcher.wake()
        return number

    def close(self, terminal: bytes) -> None:
        """Add the terminal event. Never waits; nothing is appended after it."""
        if self._lead > self.last:  # a watcher is ahead of this copy of the log: the events between will never come
            for watcher in self.watchers:
                watcher.position = min(watcher.position, self.last)
            self._pace()
        self.closed = True
        self.append(terminal)
        self.wake_producers()

    async def room(self) -> None:
        """Wait until the watcher furthest ahead has taken what it was given; without watchers, give other tasks a turn.

        Before that, wait until the replica is within the log's bounds again.
        """
        if self.replica is not None:
            while self._behind(self.replica) and not self.closed:
                await self._turn()
            self._pace()
        if not self.watchers:
            self.free = self.written + AHEAD
            await asyncio.sleep(0)
        while self.full and not self.closed and self.watchers:
            await self._turn()

    async def _turn(self) -> None:
        """Wait to be woken."""
        turn = asyncio.get_running_loop().create_future()
        self._producers.append(turn)
        try:
            await turn
        finally:
            self._producers.remove(turn)

    def _behind(self, replica: Replica) -> bool:
        """Whether the producer waits for the replica."""
        over = self.last - self.first >= self.budget.events or self.size > self.budget.bytes
        return over and replica.position < self.last and replica.awaited

    def wake_producers(self) -> None:
        """There may be room."""
        for turn in self._producers:
            if not turn.done():
                turn.set_result(None)

    # -- the watchers' side

    def attach(self, watcher: Watcher) -> None:
        """Let `watcher` follow from its position on."""
        self.watchers[watcher] = None
        self._moved(watcher.position)

    def detach(self, watcher: Watcher) -> None:
        """Forget `watcher`. If it was furthest ahead, the next one now sets the pace."""
        self._idle.pop(watcher, None)
        if self.watchers.pop(watcher, self) is self or watcher.position < self._lead:
            return
        if not any(other.position == self._lead for other in self.watchers):
            self._pace()
            if not self.watchers:
                self.wake_producers()

    def _pace(self) -> None:
        """Find the watcher furthest ahead anew."""
        self._lead = -1
        for watcher in self.watchers:
            self._moved(watcher.position)

    def ready(self, watcher: Watcher) -> bool:
        """Whether there is something to take; if not, `watcher` will be woken when there is."""
        if watcher.position < self.last:
            return True
        self._idle[watcher] = None
        return False

    def spare(self, watcher: Watcher) -> None:
        """`watcher` needs no waking any more: it stands in a crowd, which is woken for it."""
        self._idle.pop(watcher, None)

    def take(self, watcher: Watcher, *, whole: bool = False) -> bytes:
        """Return what is ready for `watcher` and move its position behind it. If nothing is, it will be woken later.

        An event of over `GATHER` bytes comes in slices, unless it is to be `whole`; the position moves with the last slice.
        Raises Full if such an event was dropped after its first slice: nothing else can follow a part of it.
        """
        if not self.ready(watcher):
            return b""
        position = watcher.position
        if position + 1 < self.first:
            if watcher.offset:
                raise Full("memory")
            return self.tell(watcher, self.first - 1, self._gap(position + 1, self.first - 1))
        begin = position - self.last + len(self._events)
        body = self._events[begin]
        end = len(self._events)
        if end > begin + 1 or len(body) > GATHER:
            end = bisect_right(self._ends, self._ends[begin] - len(body) + GATHER, begin)
        if end > begin + 1:
            body = b"".join(self._events[begin:end])
        elif end == begin:
            end += 1
            if not whole:
                begun, watcher.offset = watcher.offset, watcher.offset + GATHER
                if watcher.offset < len(body):
                    return body[begun : watcher.offset]
                body, watcher.offset = body[begun:], 0
        watcher.position = position + end - begin
        self._moved(watcher.position)
        if not self.replay and end == len(self._events):
            self.clear()
        return body

    def tell(self, watcher: Watcher, last: int, gap: bytes) -> bytes:
        """Move `watcher` behind the lost event `last`; `gap` says so. Returns that."""
        self.gaps += 1
        watcher.position = last
        self._moved(last)
        return gap

    def _moved(self, position: int) -> None:
        """A watcher has come to `position`. The one furthest ahead sets how far the producer may go; with none, it goes on."""
        if position > self._lead:
            self._lead = position
            if position >= self.last:  # further ahead than this copy of the log, where the stream runs elsewhere
                self.free = AHEAD + self.written
            else:
                index = position - self.last + len(self._events)
                self.free = AHEAD + (self._base if position < self.first else self._ends[index - 1])
            if self._producers and not self.full:
                self.wake_producers()

    def after(self, number: int, limit: int, size: int = sys.maxsize) -> tuple[int, list[bytes]]:
        """For the replica: of the events held after `number`, at most `limit`, and `size` bytes or one event.

        And the number before the first of them.
        """
        position = max(number, self.first - 1)
        begin = position - self.last + len(self._events)
        before = self._ends[begin - 1] if begin else self._base
        end = max(begin + 1, bisect_right(self._ends, before + size, begin))
        return position, self._events[begin : min(end, begin + limit)]

    # -- forgetting

    def drop(self, upto: int) -> None:
        """Forget the events up to and including number `upto`, but not the terminal event."""
        first = min(upto, self.last - self.closed) + 1
        if first <= self.first:
            return
        offset = len(self._events) - self.last
        for index in range(self.first - 1 + offset, first - 1 + offset):
            self._events[index] = b""
        freed = self._ends[first - 2 + offset] - self._base
        self._base += freed
        self.budget.used -= freed + EVENT * (first - self.first)
        self.first = first
        empty = first - 1 + offset
        if empty > len(self._events) // 2:  # amortised: each event is moved once at the most
            del self._events[:empty]
            del self._ends[:empty]

    def drop_taken(self) -> None:
        """Forget the events that every watcher has taken. Without watchers, forget none: one may be about to come back."""
        self.drop(min((watcher.position for watcher in self.watchers), default=0))

    def drop_led(self) -> None:
        """Forget the events that the watcher furthest ahead has taken, or without watchers `drop_old`. The others get a gap."""
        self.drop(max((watcher.position for watcher in self.watchers), default=self.last - 1))

    def drop_old(self) -> None:
        """Forget all events but the newest."""
        self.drop(self.last - 1)

    def drop_all(self) -> None:
        """Forget all events but a terminal one."""
        self.drop(self.last)

    def skip(self, number: int) -> None:
        """The events up to `number` are lost: go on after it. Watchers that lack them get a gap."""
        self.clear()
        self.last, self.first = number, number + 1

    def clear(self) -> None:
        """Forget all events, also the newest. The log can't be followed any more."""
        self.budget.used -= self.size + EVENT * (self.last - self.first + 1)
        self._base = self.written
        self._events.clear()
        self._ends.clear()
        self.first = self.last + 1

    def _shrink(self) -> None:
        """Drop the oldest until both bounds are kept; of a long log a few more, so that not every `append` has to.

        The newest is kept, whatever its size.
        """
        budget = self.budget
        excess = self.written - budget.bytes
        offset = len(self._events) - self.last
        by_bytes = bisect_left(self._ends, excess, self.first - 1 + offset) + 1 - offset if excess > self._base else 0
        upto = min(max(by_bytes, self.last - budget.events + budget.events // 64), self.last - 1)
        if self.replica is not None and self.replica.position < upto and self.replica.awaited:
            upto, self.free = self.replica.position, 0  # it is in `room` that the producer waits
        self.drop(upto)

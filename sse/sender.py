"""The sender: sends the events of a stream's log over one connection, and notices when the client leaves or stalls.

In:  a stream, or several as one, and a server's receive and send (asgiref `specs/www.rst`). Out: an `Outcome`.

The request's task awaits `receive()` from its first moment to its last. So a client that leaves is noticed at once, whether
the sender is idle or in the middle of a send. The log wakes us, and nothing is polled.

    by itself   takes what is ready after its own position, and sends it; under another server than ours, in a task that exists
                only while there is something to send
    in the      it has taken everything, and has no position, timer or message of its own (`crowd`)
    crowd

A sender is in the crowd whenever it can be. It leaves the crowd when a message isn't taken at once, and is back when it has
caught up. One wait at a time serves it while it is by itself: for the heartbeat, or for the end of a `send` that is pending.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from enum import Enum
from typing import Any, NamedTuple, Protocol

from sse.asgi import Attendance, Message, Receive, Send, stopped
from sse.crowd import Crowd
from sse.eager import begin
from sse.errors import Full
from sse.log import Watcher
from sse.timers import Timers
from sse.wire.encoder import HEARTBEAT

logger = logging.getLogger("sse")


class Followed(Protocol):
    """A source of events for a watcher: a stream, or several as one.

    timers: of the event loop. crowd: of the watchers that have taken everything; None where each watcher follows by itself.
    """

    @property
    def id(self) -> str: ...

    @property
    def timers(self) -> Timers: ...

    @property
    def crowd(self) -> Crowd | None: ...

    def position(self, from_now: bool) -> int:
        """Where a newcomer starts: at the oldest event held, or at the live end."""

    def preamble(self, position: int, retry: int | None, *, newcomer: bool) -> tuple[bytes, ...]:
        """The bytes before the first event, a slice of a body message each."""

    def attach(self, watcher: Watcher) -> None:
        """`watcher` follows from its position on, and is woken when there is something to take."""

    def detach(self, watcher: Watcher) -> None:
        """It is gone."""

    def ready(self, watcher: Watcher) -> bool:
        """Whether there is something to take; if not, `watcher` will be woken when there is."""

    def take(self, watcher: Watcher) -> bytes:
        """The bytes that are ready for `watcher`; empty when nothing is."""

    def finished(self, watcher: Watcher) -> bool:
        """Whether it has taken the terminal event."""

    def apology(self) -> bytes:
        """An error of ours, as an event."""


class Outcome(Enum):
    """How a watcher's connection ended."""

    COMPLETE = "complete"  # the terminal event was sent
    GONE = "gone"  # the client went away
    STALLED = "stalled"  # one send was pending for the send timeout, or an event went while the client took it
    FAILED = "failed"  # a defect of ours
    DROPPED = "dropped"  # the server cancelled the request, or was asked to let the client go


class Pace(NamedTuple):
    """heartbeat, send_timeout: seconds. retry: the reconnection time told to clients, in milliseconds; None: not told."""

    heartbeat: float = 15.0
    send_timeout: float = 30.0
    retry: int | None = 2000


class Sender:
    """Follows one stream's log from `position` on. sent: bytes handed to the server so far; send_time: seconds that took."""

    __slots__ = ("_ahead", "_at_once", "_attendance", "_before", "_begin", "_crowd", "_dropped", "_head", "_loop", "_outcome",
                 "_pace", "_pending", "_position", "_sender", "_sent", "_timers", "offset", "send", "send_time", "stream",
                 "write")  # fmt: skip

    def __init__(
        self,
        stream: Followed,
        position: int,
        send: Send,
        pace: Pace,
        *,
        at_once: bool = False,
        write: Callable[[bytes], bool] | None = None,
    ) -> None:
        """at_once: whether `send` may be called in the turn in which an event is appended (`eager`). write: as a `Member`'s."""
        self.stream = stream
        self.offset = 0
        self.send_time = 0.0
        self._position = self._begin = position
        self._sent = 0
        self._crowd: Crowd | None = None  # where it stands
        self._head: Message | None = None  # until it is sent
        self._ahead: tuple[bytes, ...] = ()  # the bytes before the first event, until they are sent
        self._before = 0  # what the crowd had been sent when this one joined
        self.send = send
        self.write = write
        self._at_once = at_once
        self._pace = pace
        self._timers = stream.timers
        self._loop = asyncio.get_running_loop()
        self._sender: asyncio.Task[None] | None = None
        self._pending = False
        self._dropped = False
        self._outcome: Outcome | None = None

    @property
    def position(self) -> int:
        """The number of the last event it took."""
        return self._position if self._crowd is None else self._crowd.position

    @position.setter
    def position(self, position: int) -> None:
        self._position = position

    @property
    def sent(self) -> int:
        return self._sent if self._crowd is None else self._sent + self._crowd.sent - self._before

    @property
    def events(self) -> int:
        """How many events it has taken, including those that a gap replaced."""
        return self.position - self._begin

    async def follow(self, receive: Receive, start: Message, first: tuple[bytes, ...]) -> Outcome:
        """Send all there is and will be, until the end, or until the client goes. No await before the watcher is attached."""
        self._attendance = Attendance(receive)
        self.stream.attach(self)
        try:
            self._head, self._ahead = start, first
            del start, first  # not kept for as long as we wait
            self._loop.call_soon(self._go_on)  # by then a source that need not wait has yielded, and one write does for all
            await self._attendance.until_gone()
            self._outcome = self._outcome or Outcome.GONE
            return self._outcome
        finally:
            self._outcome = self._outcome or Outcome.DROPPED
            self._leave_crowd()
            self.stream.detach(self)
            self._timers[self._pace.heartbeat].end(self)
            self._timers[self._pace.send_timeout].end(self)
            if self._sender is not None:
                await stopped(self._sender)

    def wake(self) -> None:
        """Called by the log when there is something to take."""
        self._leave_crowd()
        if not self._busy:
            self._put()

    def drop(self) -> None:
        """End this connection's body after what is ready; the client may come back for the rest."""
        self._dropped = True
        self._leave_crowd()
        self._go_on()

    # -- in the crowd

    def _rest(self) -> None:
        """Everything was sent that there is for now: wait for more in the crowd, or else by itself."""
        crowd = self.stream.crowd if self._at_once and not self._dropped else None
        if crowd is not None and crowd.join(self, self._pace.heartbeat):
            self._crowd, self._before = crowd, crowd.sent
            return
        self._timers[self._pace.heartbeat].begin(self)
        self._loop.call_soon(self._go_on)  # events of this turn of the loop gather, and other tasks get a turn

    def _leave_crowd(self) -> None:
        if self._crowd is not None:
            self._crowd.leave(self)
            self._left()

    def _left(self) -> None:
        crowd, self._crowd = self._crowd, None
        assert crowd is not None
        self._position, self.offset = crowd.position, crowd.offset
        self._sent += crowd.sent - self._before

    def let_go(self, message: Message, pending: Awaitable[None]) -> None:
        """The crowd has left it behind: `pending` is what remains of its `send` of this message."""
        self._left()
        self._run(self._flush((message,), pending))

    # -- by itself

    @property
    def _busy(self) -> bool:
        """Whether something is about to be sent, or nothing will be any more."""
        return self._sender is not None or self._outcome is not None

    def _go_on(self) -> None:
        """Send what has gathered since the last message; without any, the log will wake us."""
        if not self._busy and self._crowd is None and (self._head or self._dropped or self.stream.ready(self)):
            self._put()

    def _take(self) -> Iterator[Message]:
        """The messages that are due: the head, if it is, and what is ready."""
        head, self._head = self._head, None
        if head is not None:
            yield head
        while len(self._ahead) > 1:
            body, *rest = self._ahead
            self._ahead = tuple(rest)
            yield {"type": "http.response.body", "body": body, "more_body": True}
        body = self.stream.take(self)
        if self._ahead:
            body, self._ahead = self._ahead[0] + body, ()
        dropped = self._dropped and not self.offset
        if body or dropped or head is not None:
            more = not dropped and not self.stream.finished(self)
            yield {"type": "http.response.body", "body": body, "more_body": more}

    def _put(self, *messages: Message) -> None:
        self._timers[self._pace.heartbeat].end(self)
        self._run(self._flush(messages))

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        # Not create_task: an eager task factory would bring it to its end before it is assigned.
        if not self._at_once:
            self._sender = asyncio.Task(work, loop=self._loop)
        elif (sender := begin(work, self._loop)) is not None:
            self._sender = sender
            self._timers[self._pace.send_timeout].begin(self)  # only here: few sends wait

    async def _flush(self, messages: tuple[Message, ...], pending: Awaitable[None] | None = None) -> None:
        """Send these messages, or if there are none, what there is to take. pending: the rest of a send that has begun."""
        try:
            more = True
            for message in messages or self._take():
                await self._send_one(message, pending)
                more = message.get("more_body", True)
            if not more:
                self._finish(Outcome.COMPLETE if self.stream.finished(self) else Outcome.DROPPED)
            elif self._outcome is None:
                self._rest()
        except OSError:  # "send should raise a server-specific subclass of OSError" (asgiref specs/www.rst, since 2.4)
            self._finish(Outcome.GONE)
        except Full:  # what is left of an event can't be had: the client may come back for what follows
            self._finish(Outcome.STALLED)
        except Exception:
            logger.exception("a watcher of stream %.8s… failed", self.stream.id)
            await self._apologise()
        finally:
            self._sender = None

    async def _send_one(self, message: Message, pending: Awaitable[None] | None = None) -> None:
        begin = self._loop.time()
        self._pending = True
        if self._sender is not None:
            self._timers[self._pace.send_timeout].begin(self)
        await (pending or self.send(message))
        if self._sender is not None:
            self._timers[self._pace.send_timeout].end(self)
        self._pending = False
        self.send_time += self._loop.time() - begin
        self._sent += len(message.get("body", b""))

    async def _apologise(self) -> None:
        """Send a defect as an event, since the answer has begun; inside an event, nothing. The client may come back."""
        try:
            told = b"" if self.offset else b"".join((*self._ahead, self.stream.apology()))
            await self._send_one({"type": "http.response.body", "body": told})
        except Exception as error:
            logger.warning("and could not be told: %r", error)
        self._finish(Outcome.FAILED)

    def time_is_up(self) -> None:
        """One send was pending for the send timeout; or nothing was sent for the interval of the heartbeat."""
        if self._pending:
            self._finish(Outcome.STALLED)
        elif not self._busy and not self.offset:
            self._put({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})

    def _finish(self, outcome: Outcome) -> None:
        if self._outcome is None:
            self._outcome = outcome
            if outcome is not Outcome.COMPLETE or not self._at_once:  # our own server ends the wait when the answer is complete
                self._attendance.leave()

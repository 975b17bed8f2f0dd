"""The sender: sends the events of a stream's log over one connection, and notices when the client leaves or stalls.

In:  a stream, or several as one, and a server's receive and send (asgiref `specs/www.rst`). Out: an `Outcome`.

The request's task awaits `receive()` from its first moment to its last. So a client that leaves is noticed at once, whether
the sender is idle or in the middle of a send. Sending is done by a task that exists only while there is something to send;
the log wakes us, and nothing is polled. One timer, re-armed only when it fires, serves the heartbeat and notices a `send` that
stays pending.
"""

import asyncio
import logging
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from sse.asgi import Attendance, Message, Receive, Send
from sse.eager import begin
from sse.errors import Full
from sse.log import Watcher
from sse.wire.encoder import HEARTBEAT

logger = logging.getLogger("sse")


class Followed(Protocol):
    """A source of events for a watcher: a stream, or several as one."""

    @property
    def id(self) -> str: ...

    def position(self, from_now: bool) -> int:
        """Where a newcomer starts: at the oldest event held, or at the live end."""

    def preamble(self, position: int, retry: int | None, *, newcomer: bool) -> bytes:
        """The bytes before the first event."""

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


@dataclass(frozen=True, slots=True)
class Pace:
    """heartbeat, send_timeout: seconds. retry: the reconnection time told to clients, in milliseconds; None: not told."""

    heartbeat: float = 15.0
    send_timeout: float = 30.0
    retry: int | None = 2000


class Sender:
    """Follows one stream's log from `position` on. sent: bytes handed to the server so far; send_time: seconds that took."""

    __slots__ = ("_at_once", "_attendance", "_begin", "_dropped", "_loop", "_outcome", "_pace", "_pending", "_send", "_sender",
                 "_stamp", "_timer", "offset", "position", "send_time", "sent", "stream")  # fmt: skip

    def __init__(self, stream: Followed, position: int, send: Send, pace: Pace, *, at_once: bool = False) -> None:
        self.stream = stream
        self.position = position
        self.offset = 0
        self.sent = 0
        self.send_time = 0.0
        self._begin = position
        self._send = send
        self._at_once = at_once
        self._pace = pace
        self._loop = asyncio.get_running_loop()
        self._sender: asyncio.Task[None] | None = None
        self._stamp = self._loop.time()  # when the pending send began, or the last one ended
        self._pending = False
        self._dropped = False
        self._outcome: Outcome | None = None

    @property
    def events(self) -> int:
        """How many events it has taken, including those that a gap replaced."""
        return self.position - self._begin

    async def follow(self, receive: Receive, start: Message, first: bytes) -> Outcome:
        """Send all there is and will be, until the end, or until the client goes. No await before the watcher is attached."""
        self._attendance = Attendance(receive)
        self._timer = self._loop.call_later(min(self._pace.heartbeat, self._pace.send_timeout), self._tick)
        self.stream.attach(self)
        try:
            self._put(start, {"type": "http.response.body", "body": first, "more_body": True})
            del start, first  # not kept for as long as we wait
            await self._attendance.until_gone()
            self._outcome = self._outcome or Outcome.GONE
            return self._outcome
        finally:
            self._outcome = self._outcome or Outcome.DROPPED
            self.stream.detach(self)
            self._timer.cancel()
            if self._sender is not None:
                self._sender.cancel()
                await asyncio.wait((self._sender,))

    def wake(self) -> None:
        """Called by the log when there is something to take."""
        if self._sender is None and self._outcome is None:
            self._put()

    def drop(self) -> None:
        """End this connection's body after what is ready; the client may come back for the rest."""
        self._dropped = True
        self._go_on()

    def _go_on(self) -> None:
        """Send what has gathered since the last message; without any, the log will wake us."""
        if self._sender is None and self._outcome is None and (self._dropped or self.stream.ready(self)):
            self._put()

    def _take(self) -> tuple[Message, ...]:
        body = self.stream.take(self)
        dropped = self._dropped and not self.offset
        more = not dropped and not self.stream.finished(self)
        return ({"type": "http.response.body", "body": body, "more_body": more},) if body or dropped else ()

    def _put(self, *messages: Message) -> None:
        work = self._flush(messages)
        # Not create_task: an eager task factory would bring it to its end before it is assigned.
        self._sender = begin(work, self._loop) if self._at_once else asyncio.Task(work, loop=self._loop)

    async def _flush(self, messages: tuple[Message, ...]) -> None:
        """Send these messages, or if there are none, what there is to take."""
        try:
            more = True
            for message in messages or self._take():
                await self._send_one(message)
                more = message.get("more_body", True)
            if not more:
                self._finish(Outcome.COMPLETE if self.stream.finished(self) else Outcome.DROPPED)
            self._loop.call_soon(self._go_on)  # events of this turn of the loop gather, and other tasks get a turn
        except OSError:  # "send should raise a server-specific subclass of OSError" (asgiref specs/www.rst, since 2.4)
            self._finish(Outcome.GONE)
        except Full:  # what is left of an event can't be had: the client may come back for what follows
            self._finish(Outcome.STALLED)
        except Exception:
            logger.exception("a watcher of stream %.8s… failed", self.stream.id)
            await self._apologise()
        finally:
            self._sender = None

    async def _send_one(self, message: Message) -> None:
        self._stamp = begin = self._loop.time()
        self._pending = True
        await self._send(message)
        self._stamp = self._loop.time()
        self._pending = False
        self.send_time += self._stamp - begin
        self.sent += len(message.get("body", b""))

    async def _apologise(self) -> None:
        """Send a defect as an event, since the answer has begun; inside an event, nothing. The client may come back."""
        try:
            await self._send_one({"type": "http.response.body", "body": b"" if self.offset else self.stream.apology()})
        except Exception as error:
            logger.warning("and could not be told: %r", error)
        self._finish(Outcome.FAILED)

    def _tick(self) -> None:
        """The heartbeat, when nothing was sent for its interval; the end, when one send was pending for the send timeout."""
        pace = self._pace
        quiet = self._loop.time() - self._stamp
        due = (pace.send_timeout if self._pending else pace.heartbeat) - quiet
        if due > 0:
            pass
        elif self._pending:
            self._finish(Outcome.STALLED)
            return
        else:
            if self._sender is None and self._outcome is None and not self.offset:  # otherwise something is about to be sent
                self._put({"type": "http.response.body", "body": HEARTBEAT, "more_body": True})
            due = pace.heartbeat
        self._timer = self._loop.call_later(min(due, pace.heartbeat, pace.send_timeout), self._tick)

    def _finish(self, outcome: Outcome) -> None:
        if self._outcome is None:
            self._outcome = outcome
            self._attendance.leave()

"""The parts of ASGI that the other modules share: its types, the lifespan, and waiting for a client to leave.

In:  receive and send (asgiref `specs/main.rst`, `specs/www.rst`, `specs/lifespan.rst`). Out: whether the client has left. Only
this module, `http`, `chunks`, `sender` and `watch` await receive and send.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sse.errors import Disconnected

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

T = TypeVar("T")

CONNECTION = "sidestream.connection"
"""The scope extension of our own server:

    open     called when an event stream begins
    abort    drops the connection
    write    (chunk: bytes) -> bool: writes one chunk of the body, with its size, as RFC 9112, 7.1 frames it. False: it was not
             written, since the client is slow or gone; `send` knows which. Missing where the body has no chunks (HTTP/1.0)

Its presence also says that no middleware wraps the server's `send`, so that events may be sent at once (`eager`).
"""


@dataclass(slots=True, eq=False)
class Attendance:
    """Lets the request's own task await `receive()` until the client is gone, or until `leave` is called elsewhere.

    This is how a disconnect is noticed. The request's task waits here for the whole life of its answer, and another task sends;
    that one exists only while there is something to send.
    """

    receive: Receive
    _task: asyncio.Task[Any] | None = None
    _left: bool = False

    async def until_gone(self) -> bool:
        """True when the client is gone, False when `leave` was called."""
        if self._left:
            return False
        self._task = task = asyncio.current_task()
        assert task is not None
        before = task.cancelling()
        try:
            while (await self.receive())["type"] != "http.disconnect":
                pass
        except asyncio.CancelledError:
            # The cancellation by `leave` is taken back, as asyncio.timeout does. One from outside is passed on.
            if not self._left or task.uncancel() > before:
                raise
            return False
        finally:
            self._task = None
        return True

    def leave(self) -> None:
        """End the wait. Called from a task or a callback other than the one that waits; calling it again does nothing."""
        self._left = True
        if self._task is not None:
            self._task.cancel()
            self._task = None


async def attended(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` while the client is there. If it leaves, cancel `work`, wait for its end, and raise Disconnected."""
    attendance = Attendance(receive)
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: attendance.leave())
    try:
        gone = await attendance.until_gone()
    finally:
        await stopped(task)
    try:
        if gone and (task.cancelled() or task.exception() is not None):
            raise Disconnected("before the answer was complete")
        return task.result()
    finally:
        del task  # a task holds its error, which holds this function's variables


async def stopped(task: asyncio.Task[Any]) -> None:
    """Cancel a task, unless it has ended, and wait for its end. Raises nothing that it raises."""
    if not task.done():
        task.cancel()
        await asyncio.wait((task,))


async def lifespan(receive: Receive, send: Send, start: Callable[[], None], stop: Callable[[], Awaitable[None]]) -> None:
    """The lifespan protocol (asgiref `specs/lifespan.rst`). start: may raise ValueError, whose text the server prints."""
    while True:
        message = await receive()
        if message["type"] == "lifespan.startup":
            try:
                start()
            except ValueError as error:
                await send({"type": "lifespan.startup.failed", "message": str(error)})
                return
            await send({"type": "lifespan.startup.complete"})
        elif message["type"] == "lifespan.shutdown":
            await stop()
            await send({"type": "lifespan.shutdown.complete"})
            return

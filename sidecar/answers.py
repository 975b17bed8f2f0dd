"""What a handler returns, and the answers that are more than one `sse.http.Response`."""

from collections.abc import Awaitable
from typing import Protocol

from sidecar.counts import Counts
from sse.asgi import Send
from sse.errors import Problem
from sse.http import Request, Response
from sse.resume import GONE_ID
from sse.sender import Outcome, Sender
from sse.store import Store
from sse.watch import EventStream, head
from sse.wire.encoder import encode
from sse.wire.event import Event
from sse.wire.payload import dumps


class Reply(Protocol):
    """An answer, ready to be sent."""

    @property
    def status(self) -> int: ...

    def __call__(self, request: Request, send: Send) -> Awaitable[None]: ...


class Watching:
    """An event stream response that counts as a watcher for as long as it lasts. outcome: how it ended, once it has."""

    __slots__ = ("_counts", "_store", "outcome", "response")

    status = 200

    def __init__(self, store: Store, counts: Counts, response: EventStream) -> None:
        self.response = response
        self.outcome: Outcome | None = None
        self._store = store
        self._counts = counts
        response.done = self._done

    async def __call__(self, request: Request, send: Send) -> None:
        with self._store.watching():
            self._counts.watching.add(self.response)
            try:
                await self.response(request, send)
            finally:
                self._counts.watching.discard(self.response)

    def _done(self, sender: Sender, outcome: Outcome) -> None:
        self.outcome = outcome
        self._counts.unwatched(sender, outcome)


class Head:
    """What HEAD gets where GET would have opened a stream: nothing is opened."""

    status = 200

    async def __call__(self, request: Request, send: Send) -> None:
        await head(send, request.answer_headers)


def gone(request: Request) -> Response:
    """A stream that isn't held. To an event stream client an event says so, and its reconnect is answered 204."""
    message = "The stream is unknown or has expired."
    if request.accepts("text/event-stream"):
        data = dumps({"error": message, "code": "stream_gone", "fatal": True})
        return one_event(Event(data, "error", GONE_ID))
    raise Problem(404, message, code="stream_gone")


def one_event(event: Event) -> Response:
    """An event stream that says this and ends."""
    return Response(200, encode(event), {"content-type": "text/event-stream"})

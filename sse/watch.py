"""The event stream response: one watcher of one stream, over one connection (HTML 9.2, asgiref `specs/www.rst`).

In:  a stream and the position from which to follow it. Out: headers and a first body message at once, then the events
that the stream's log has ready (`sender`), until the terminal event or until the client leaves.

Limit: only the server can abort the connection of a stalled client. Our own server gives the means (`sidestream.connection` in
the scope's extensions). Under another one the connection's memory is held until the kernel or a proxy closes it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sse.asgi import CONNECTION, Receive, Scope, Send
from sse.formats import Format
from sse.http import ALWAYS, Headers, Request, Response, deliver
from sse.sender import Followed, Outcome, Pace, Sender
from sse.stream import Opening, Stream

HEADERS = (
    (b"content-type", b"text/event-stream"),  # no charset: it is always UTF-8 (9.2.5)
    *ALWAYS,
    (b"x-accel-buffering", b"no"),  # nginx buffers otherwise
)

DEFAULT_PACE = Pace()


@dataclass(slots=True, eq=False)
class EventStream:
    """An HTTP answer that follows `stream` from `position` on. newcomer: whether to write the format's opening.

    sender: sends the events; None before the answer begins. outcome: how the connection ended; None before that.
    """

    stream: Followed
    position: int
    newcomer: bool = True
    pace: Pace = DEFAULT_PACE
    headers: Headers = ()
    sender: Sender | None = None
    outcome: Outcome | None = None

    async def __call__(self, request: Request, send: Send, headers: Headers = ()) -> None:
        connection = request.scope.get("extensions", {}).get(CONNECTION, {})
        self.sender = sender = Sender(
            self.stream, self.position, send, self.pace, at_once=bool(connection), write=connection.get("write")
        )
        self.outcome = Outcome.DROPPED
        if "open" in connection:
            connection["open"]()
        self.begun()
        request.forget()
        try:
            self.outcome = await sender.follow(
                request.receive,
                {"type": "http.response.start", "status": 200, "headers": [*HEADERS, *self.headers, *headers]},
                self.stream.preamble(self.position, self.pace.retry, newcomer=self.newcomer),
            )
        finally:
            self.over()
        if self.outcome is Outcome.STALLED and "abort" in connection:
            connection["abort"]()

    def begun(self) -> None:
        """It has a sender now."""

    def over(self) -> None:
        """It has an outcome now."""


async def watch(
    scope: Scope,
    receive: Receive,
    send: Send,
    source: AsyncIterator[Any],
    *,
    format: Format | None = None,
    pace: Pace = DEFAULT_PACE,
) -> None:
    """Answer one HTTP request with the events of `source`, in any ASGI app. A source that was started is closed at its return.

    The source lives as long as the connection: nothing is kept to be resumed. HEAD is answered without starting it. So is
    an EventSource that reconnects after the end: it is answered 204, which makes it stop (9.2.3).
    """
    request = Request(scope, receive)
    if (request.header(b"last-event-id") or "").endswith(".end"):
        return await Response(204)(request, send)
    if request.method == "HEAD":
        return await head(request, send)
    stream = Stream(Opening(source, format or Format(), linger=0, keep=0, listed=False))
    try:
        await EventStream(stream, 0, pace=pace)(request, send)
    finally:
        await stream.closed()


async def head(request: Request, send: Send, headers: Headers = ()) -> None:
    """Answer HEAD: the headers of the answer to GET, without a body (RFC 9110, 9.3.2)."""
    start = {"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]}
    await deliver(request, send, (start, {"type": "http.response.body", "body": b""}))

"""The event stream response: one watcher of one stream, over one connection (HTML 9.2, asgiref `specs/www.rst`).

In:  a stream and the position from which to follow it. Out: headers and a first body message at once, then whatever the
stream's log has ready (`sender`), until the terminal event or until the client goes.

Limit: a stalled client's connection can be aborted only by the server. Ours hands us the means (`sidestream.connection` in the
scope's extensions); under another one its memory is held until the kernel or a proxy gives up on it.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from sse.asgi import Receive, Scope, Send
from sse.formats import Format
from sse.http import ALWAYS, Headers, Request, Response
from sse.sender import Followed, Outcome, Pace, Sender
from sse.stream import Opening, Stream

HEADERS = (
    (b"content-type", b"text/event-stream"),  # 9.2.5: always UTF-8, so nothing is gained by saying it
    *ALWAYS,
    (b"x-accel-buffering", b"no"),  # nginx buffers otherwise
)

CONNECTION = "sidestream.connection"
"""The scope extension of our own server: {"open": called when an event stream begins, "abort": drops the connection}.

That it is there says also that nothing stands around the server's `send`, so that events may be sent at once (`eager`).
"""


DEFAULT_PACE = Pace()


@dataclass(slots=True, eq=False)
class EventStream:
    """An HTTP answer that follows `stream` from `position` on. newcomer: whether to say the format's opening.

    sender: what follows it, from the first moment on. outcome: how the connection ended, once it has.
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
        self.sender = sender = Sender(self.stream, self.position, send, self.pace, at_once=bool(connection))
        self.outcome = Outcome.DROPPED
        if "open" in connection:
            connection["open"]()
        self.outcome = await sender.follow(
            request.receive,
            {"type": "http.response.start", "status": 200, "headers": [*HEADERS, *self.headers, *headers]},
            self.stream.preamble(self.position, self.pace.retry, newcomer=self.newcomer),
        )
        if self.outcome is Outcome.STALLED and "abort" in connection:
            connection["abort"]()


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

    The source lives as long as the connection: nothing is kept to be resumed. HEAD is answered without starting it, and so is
    an EventSource that comes back after the end, which has to be told to stop (204, 9.2.3).
    """
    request = Request(scope, receive)
    if (request.header(b"last-event-id") or "").endswith(".end"):
        return await Response(204)(request, send)
    if request.method == "HEAD":
        return await head(send)
    stream = Stream(Opening(source, format or Format(), linger=0, keep=0, listed=False))
    try:
        await EventStream(stream, 0, pace=pace)(request, send)
    finally:
        await stream.closed()


async def head(send: Send, headers: Headers = ()) -> None:
    """RFC 9110, 9.3.2: the headers that GET would have had, and the end."""
    await send({"type": "http.response.start", "status": 200, "headers": [*HEADERS, *headers]})
    await send({"type": "http.response.body", "body": b""})

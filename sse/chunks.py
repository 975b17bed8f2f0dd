"""A body that is sent chunk by chunk as it is made, for answers whose events are not kept in a log.

In:  an async generator of bytes. Out: a body message for each chunk (asgiref `specs/www.rst`), with the server's backpressure.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing

from sse.asgi import Send, attended
from sse.http import ALWAYS, Headers, Request, deliver


class Chunks:
    """An answer that is sent as it is made: a body message for each chunk that `source` yields, while the client is there.

    headers: names in lower case. The source is closed when it ends and when the client leaves or stops reading.
    """

    status = 200

    def __init__(self, source: AsyncGenerator[bytes, None], headers: Mapping[str, str]) -> None:
        self._source = source
        self.headers = dict(headers)

    async def __call__(self, request: Request, send: Send, headers: Headers = ()) -> None:
        own = [(name.encode("ascii"), value.encode("latin-1")) for name, value in self.headers.items()]
        start = {"type": "http.response.start", "status": self.status, "headers": [*own, *ALWAYS, *headers]}
        async with aclosing(self._source):
            # Without a message of the body a server keeps the head to itself (asgiref specs/www.rst).
            await deliver(request, send, (start, {"type": "http.response.body", "body": b"", "more_body": True}))
            if request.method != "HEAD":
                await attended(request.receive, self._send(request, send))
        await deliver(request, send, ({"type": "http.response.body", "body": b""},))

    async def _send(self, request: Request, send: Send) -> None:
        async for chunk in self._source:
            await deliver(request, send, ({"type": "http.response.body", "body": chunk, "more_body": True},))

"""One client connection: HTTP/1.1 as uvicorn's HttpToolsProtocol speaks it, within limits that uvicorn leaves to a proxy.

    MAX_TARGET     bytes of the request target (RFC 9112, 3.2)    414
    MAX_HEAD       bytes of all of the head (RFC 9112, 2.1)       431
    HEAD_TIMEOUT   seconds until the head is there                the connection is closed: 408 would look like the next
                                                                  request's answer

The time counts from the connection's first moment, and on a connection that is used again from a request's first byte. What is
left of a request's body after its answer has as long: nobody holds a connection by sending slowly.

Event streams get the means to abort a stalled client's connection (uvicorn would wait for its flush for ever), and a request
behind an open stream closes the connection: uvicorn stops reading there, which hides the disconnect.
"""

import asyncio
import socket
import struct
from contextlib import suppress
from http import HTTPStatus
from typing import Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sse.watch import CONNECTION

MAX_TARGET: Final = 8 * 1024
MAX_HEAD: Final = 32 * 1024
HEAD_TIMEOUT: Final = 10.0


class Refused(Exception):
    """Raised while the parser is fed, it ends that. status: what is answered, where there is room for an answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Connection(HttpToolsProtocol):
    """One client connection."""

    _answering: RequestResponseCycle | None = None  # uvicorn's `cycle` is the newest, and may wait behind this one
    _streaming = False  # the answer is an event stream
    _timer: asyncio.TimerHandle | None = None
    _head_open = False  # a head has begun, and not ended
    _head = 0  # bytes of it that the parser has told us: of a field, when that is complete
    _pending = 0  # bytes that came since a head or a message was complete

    @property
    def busy(self) -> bool:
        """Whether an answer is incomplete, so that nothing else may be written."""
        return self._answering is not None and not self._answering.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        if self._answering is not None and self.busy:  # uvicorn tells the newest only
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._pending += len(data)
        try:
            self.parser.feed_data(data)
            if self._head_open and self._pending > MAX_HEAD:
                raise Refused(431)
        except httptools.HttpParserUpgrade:
            self._unsupported_upgrade_warning()
        except (Refused, httptools.HttpParserError) as error:
            cause = error if isinstance(error, Refused) else error.__context__
            self._refuse(cause.status if isinstance(cause, Refused) else 400)
        else:
            if self._head_open or not self.busy:
                self._hurry()

    def _refuse(self, status: int) -> None:
        """Answer what can't be read, and close. In the middle of an answer there is no room for another one."""
        self._relax()
        if self.busy:
            self.transport.abort()
            return
        phrase = HTTPStatus(status).phrase.encode()
        head = b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, phrase, len(phrase)) + phrase)
        self.transport.close()

    # -- the parser tells, in this order

    def on_message_begin(self) -> None:
        self._head = 0
        self._head_open = True
        super().on_message_begin()
        self.scope["extensions"] = {CONNECTION: {"open": self._open, "abort": self._abort}}

    def on_url(self, url: bytes) -> None:
        self._grow(len(url), MAX_TARGET, 414)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value) + len(b": \r\n"), MAX_HEAD, 431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_open = False
        self._pending = 0
        self._relax()
        super().on_headers_complete()
        self._refuse_pipelined()

    def on_message_complete(self) -> None:
        self._pending = 0
        self._relax()
        super().on_message_complete()

    def _grow(self, size: int, limit: int, status: int) -> None:
        self._head += size
        if self._head > limit:
            raise Refused(status)

    # -- the answer

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def _open(self) -> None:
        """An event stream begins."""
        self._streaming = True
        self._refuse_pipelined()

    def _refuse_pipelined(self) -> None:
        # RFC 9112, 9.3.2: a client that pipelines has to expect the connection to close before all is answered
        if self._streaming and self.pipeline:
            self.transport.abort()

    def _abort(self) -> None:
        """The client of the stream has stalled: don't wait for it to take what is buffered."""
        if self._answering is not None:
            self._answering.disconnected = True
        # Closed with RST: after FIN the kernel would keep what it holds for the client, which may be megabytes, for minutes
        with suppress(OSError, ValueError):  # it is closed already
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def on_response_complete(self) -> None:
        self._streaming = False
        super().on_response_complete()
        if self.cycle.more_body and not self.transport.is_closing():
            self._hurry()

    # -- time

    def _hurry(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT, self._expire)

    def _relax(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if not self.busy:  # otherwise it is a request behind another one, whose turn hasn't come
            self.transport.abort()

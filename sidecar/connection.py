"""One client connection: HTTP/1.1 as uvicorn's HttpToolsProtocol speaks it, within bounds from its first byte to its last.

What a client sends (sections of RFC 9112):

    MAX_TARGET      bytes of a request target (3.2)                                         414
    MAX_HEAD        bytes of a head (2.1)                                                   431
    MAX_FIELDS      header fields; an empty one takes 170 bytes of memory                   431
                    bytes in a row that are neither head nor content: empty lines (2.2),
                    chunk extensions (7.1.1), zeros before a chunk's size, a trailer        closed
    MAX_REST        bytes that come of a request when its answer has begun                  closed
    HEAD_TIMEOUT    seconds for a head, and for that rest                                   closed
    MAX_PIPELINED   requests that wait behind another one (9.3.2)                           closed

Until its answer begins, a body is bounded by its reader (`sse.http`): uvicorn stops reading while nobody takes the body. A
status is sent only where the client can't take it for the answer to another request, as it could a 408. "Closed" means a reset:
after a FIN the kernel would keep the bytes that it holds for the client, perhaps megabytes, for minutes.

What else this changes in uvicorn, and why:

    Host            exactly one, and well formed, else 400 (3.2)
    trailer fields  are dropped (7.1.2; RFC 9110, 6.5.1): uvicorn takes them for header fields
    Upgrade         is ignored (RFC 9110, 7.8): uvicorn logs advice, and loses the body, which Java's HttpClient sends with it
    HTTP/1.0        gets no chunks (7.1): an answer without a length ends with the connection (6.3)
    event streams   can abort a connection whose client has stalled: uvicorn would wait for its flush for ever. No request may
                    follow one whose stream is open: uvicorn would stop reading, and so would not see the disconnect. Many
                    clients get a chunk that is framed once (`sse.crowd`)

Limit: a client that closes its own side of the connection behind its request is taken for one that has left (RFC 9112, 9.6,
lets it wait for the answer): an event stream could not tell the one from the other.
Limit: a target in absolute form is served by its path, and the Host header counts instead of the target's host (3.2.2).
"""

import asyncio
import logging
import re
import socket
import struct
from collections.abc import Awaitable
from contextlib import suppress
from functools import cached_property, partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sse.asgi import CONNECTION, Message, Receive, Scope, Send

MAX_TARGET: Final = 8 * 1024
MAX_HEAD: Final = 32 * 1024
MAX_FIELDS: Final = 100
MAX_REST: Final = 16 * 1024 * 1024
HEAD_TIMEOUT: Final = 10.0
MAX_PIPELINED: Final = 16
MAX_BUFFERED: Final = 16 * 1024
"""Bytes that may wait for the kernel to take them; above that, nothing more is sent. It is what a stalled client costs."""

EMPTY_LINE: Final = len(b"\r\n")
"""Bytes that may follow a request whose answer is an event stream: some clients send an empty line too many (2.2)."""

_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?")  # RFC 9110, 7.2
_FRAMING: Final = (b"content-length", b"transfer-encoding")

logger = logging.getLogger("sidestream")


class Refused(httptools.HttpParserError):
    """Raised in a callback of the parser, it stops the parsing. Its argument: the status to answer, if that is possible."""


class Pipeline(list[Any]):
    """Requests that wait, of which there are a few at the most: an empty deque takes 600 bytes more for each connection."""

    __slots__ = ()

    def appendleft(self, waiting: Any) -> None:
        self.insert(0, waiting)


class Flow(FlowControl):
    """uvicorn's, with an event that is made for the first client that is slow: 700 bytes less for each other one."""

    _is_writable_event = cached_property(lambda _: asyncio.Event())

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = self.write_paused = False


class Connection(HttpToolsProtocol):
    """One client connection."""

    # 1.2 KiB less for each connection: a class whose instances have more than 30 attributes shares no keys between their dicts,
    # and uvicorn's have 26.
    __slots__ = ("_answering", "_head", "_head_open", "_held", "_pending", "_rest", "_streaming", "_timer")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._answering: RequestResponseCycle | None = None  # uvicorn's `cycle` is the newest; it may wait behind this one
        self._streaming = False  # the answer is an event stream
        self._timer: asyncio.TimerHandle | None = None
        self._head_open = False  # a head has begun, perhaps with an empty line, and has not ended
        self._head = 0  # bytes of it that the parser has reported; it reports a field when that is complete
        self._pending = 0  # bytes received since the last complete head, piece of content or message
        self._rest = 0  # bytes of a request that arrived after its answer had begun
        self._held = b""  # the head of an answer whose body has not begun
        self.pipeline = Pipeline()  # type: ignore[assignment]

    @property
    def busy(self) -> bool:
        """Whether an answer is incomplete. Nothing else may be written until it is complete."""
        return self._answering is not None and not self._answering.response_complete

    @property
    def _unread(self) -> bool:
        """Whether the rest of a body is still to come although its answer has begun. Nobody reads that rest."""
        return self.cycle is not None and self.cycle.response_started and self.cycle.more_body

    # -- the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = Flow(transport)
        transport.set_write_buffer_limits(MAX_BUFFERED)
        if self.client is not None:  # RFC 4291, 2.5.5.2: how a socket for both versions shows an IPv4 address
            self.client = (self.client[0].removeprefix("::ffff:"), self.client[1])
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        self._unset_keepalive_if_required()  # uvicorn does so unless it was reset
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.scope["extensions"] = {}  # breaks the cycles of references to this connection
            self._answering.transport = self.transport
            if self.busy:  # uvicorn tells only the newest request
                self._answering.disconnected = True
                self._answering.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        self._pending += len(data)
        if self._unread:
            self._rest += len(data)
        elif not self.busy:
            self._head_open = True
        try:
            self._feed(data)
            behind = self._streaming and not self._unread
            if self._pending > (EMPTY_LINE if behind else MAX_HEAD) or self._rest > MAX_REST:
                raise Refused(431)
        except httptools.HttpParserError as error:  # the parser wraps what a callback raises
            self._refuse(next((cause.args[0] for cause in (error, error.__context__) if isinstance(cause, Refused)), 400))
        else:
            self._watch_the_clock()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # The parser stops here, as if no body followed. Another parser reads the body, and no further request.
            self.cycle.keep_alive = False
            framing = b"".join(b"%b: %b\r\n" % field for field in self.headers if field[0] in _FRAMING)
            self.parser = httptools.HttpRequestParser(
                SimpleNamespace(on_body=self.on_body, on_message_complete=self.on_message_complete)
            )
            self.parser.feed_data(b"POST / HTTP/1.1\r\nconnection: close\r\n%b\r\n%b" % (framing, data[upgrade.args[0] :]))

    def _refuse(self, status: int) -> None:
        """Answer a request that can't be read, and close. In the middle of another answer or body, close without an answer."""
        logger.info("a request was refused: %d", status)
        if self.busy or self._unread:
            self._abort()
            return
        phrase = HTTPStatus(status).phrase.encode()
        head = b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, phrase, len(phrase)) + phrase)
        self.transport.close()
        self._hurry()  # the client has HEAD_TIMEOUT to take the answer

    def _abort(self) -> None:
        """Reset the connection; bytes that the client has not taken are dropped."""
        if self._answering is not None:
            self._answering.disconnected = True
        with suppress(OSError, ValueError):  # it is closed already
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # -- the parser's callbacks, in the order in which it calls them

    def on_message_begin(self) -> None:
        if self._streaming or len(self.pipeline) == MAX_PIPELINED:
            raise Refused(503)
        self._head = 0
        self._head_open = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._grow(len(url), MAX_TARGET, 414)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_open:  # otherwise the field is of a trailer
            if len(self.headers) == MAX_FIELDS:
                raise Refused(431)
            self._grow(len(name) + len(value) + len(b": \r\n"), MAX_HEAD, 431)
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        hosts = [value for name, value in self.headers if name == b"host"]
        if len(hosts) > 1 or (not hosts and self.parser.get_http_version() != "1.0") or not all(map(_HOST.fullmatch, hosts)):
            raise Refused(400)
        self._head_open = False
        self._pending = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._pending = 0
        if not self.cycle.response_started:
            super().on_body(body)

    def on_message_complete(self) -> None:
        self._pending = self._rest = 0
        if not self.parser.should_upgrade():
            super().on_message_complete()
            self.cycle.more_body = False  # uvicorn sets it only while the answer is incomplete

    def _grow(self, size: int, limit: int, status: int) -> None:
        self._head += size
        if self._head > limit:
            raise Refused(status)

    # -- the answer

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        own: dict[Any, Any] = {"open": self._open, "abort": self._abort}
        cycle.scope["extensions"] = {CONNECTION: own}
        if cycle.scope["http_version"] == "1.0":
            app = partial(_unframed, cycle, app)
        else:
            own["write"] = self._write
        if not cycle.waiting_for_100_continue:
            cycle.transport = self  # type: ignore[assignment]
        super()._start_asgi_task(cycle, app)

    # The transport, as an answer sees it until its body begins. "The protocol server must not start sending the response to the
    # client until it has received at least one Response Body event" (asgiref specs/www.rst), and both go out in one write.

    def write(self, data: bytes) -> None:
        if self._held:
            self._release(data)
        else:
            self._held = data

    def close(self) -> None:
        self._release()
        self.transport.close()

    def is_closing(self) -> bool:
        return self.transport.is_closing()

    def _release(self, body: bytes = b"") -> None:
        if self._answering is not None:
            self._answering.transport = self.transport
        self.transport.write(self._held + body)
        self._held = b""

    def _write(self, chunk: bytes) -> bool:
        """Write a chunk of an answer that has begun and goes on. Whatever else there is to know about it, `send` does."""
        if self.flow.write_paused or self.transport.is_closing():
            return False
        self.transport.write(chunk)
        return True

    def _open(self) -> None:
        """An event stream begins, which may take hours: nothing more is asked of the head, and it may have 32 KiB."""
        self._streaming = True
        if self._answering is not None:
            self._answering.scope["headers"].clear()  # type: ignore[attr-defined]  # it is uvicorn's list
        if self.pipeline or self._head_open:
            self._abort()

    def on_response_complete(self) -> None:
        self._streaming = False
        if self._held:  # the answer to HEAD
            self._release()
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch_the_clock()

    # -- time

    def _watch_the_clock(self) -> None:
        """Set the timer while a head, or the rest of a body, is incomplete."""
        if self._head_open or self._unread:
            self._hurry()
        else:
            self._relax()

    def _hurry(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT, self._expire)

    def _relax(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        self._timer = None
        if not (self._head_open and self.busy):  # a request that waits behind a busy one has time
            self._abort()


def _unframed(cycle: RequestResponseCycle, app: Any, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
    """Run `app`. An answer without a Content-Length ends with the connection (6.3): uvicorn is told that there is one, and that
    each message has all that is still to come.
    """

    def send_unframed(message: Message) -> Awaitable[None]:
        cycle.chunked_encoding = False
        cycle.expected_content_length = len(message.get("body", b""))
        return send(message)

    return app(scope, receive, send_unframed)  # type: ignore[no-any-return]

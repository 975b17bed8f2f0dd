"""One client connection: HTTP/1.1 as uvicorn's HttpToolsProtocol speaks it, within bounds from its first byte to its last.

What a client sends (sections of RFC 9112):

    MAX_TARGET      bytes of a request target (3.2)                                         414
    MAX_HEAD        bytes of a head (2.1)                                                   431
                    bytes in a row that are neither head nor content: empty lines (2.2),
                    chunk extensions (7.1.1), zeros before a chunk's size, a trailer        closed
    MAX_REST        bytes that come of a request when its answer has begun                  closed
    HEAD_TIMEOUT    seconds for a head, and for that rest                                   closed
    MAX_PIPELINED   requests that wait behind another one (9.3.2)                           closed

Until its answer begins, a body is bounded by whoever reads it (`sse.http`); what is not read, uvicorn doesn't take. A status is
said only where it can't be read as the answer to something else, as 408 could. "Closed" is a reset: after FIN the kernel would
keep what it holds for the client, which may be megabytes, for minutes.

What this adds to uvicorn besides, and why:

    Host            exactly one, and well formed, else 400 (3.2)
    trailer fields  are dropped (7.1.2; RFC 9110, 6.5.1): uvicorn takes them for header fields
    Upgrade         is ignored (RFC 9110, 7.8): uvicorn logs advice, and loses the body, which Java's HttpClient sends with it
    HTTP/1.0        gets no chunks (7.1): an answer without a length ends with the connection (6.3)
    event streams   can abort a connection whose client has stalled: uvicorn would wait for its flush for ever. Behind a request
                    whose stream is open nothing may follow: uvicorn stops reading there, which hides the disconnect

Limit: a target in absolute form is served by its path; Host counts, although the target's host should (3.2.2).
"""

import asyncio
import logging
import re
import socket
import struct
from collections.abc import Awaitable
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Final

import httptools
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from sse.asgi import Message, Receive, Scope, Send
from sse.watch import CONNECTION

MAX_TARGET: Final = 8 * 1024
MAX_HEAD: Final = 32 * 1024
MAX_REST: Final = 16 * 1024 * 1024
HEAD_TIMEOUT: Final = 10.0
MAX_PIPELINED: Final = 16
EMPTY_LINE: Final = len(b"\r\n")
"""Bytes that may follow a request whose answer is an event stream: some clients say a line too many (2.2)."""

_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(:[0-9]*)?")  # RFC 9110, 7.2
_FRAMING: Final = (b"content-length", b"transfer-encoding")

logger = logging.getLogger("sidestream")


class Refused(httptools.HttpParserError):
    """Raised while the parser is fed, it ends that, with the status that is answered where there is room for an answer."""


class Connection(HttpToolsProtocol):
    """One client connection."""

    _answering: RequestResponseCycle | None = None  # uvicorn's `cycle` is the newest, and may wait behind this one
    _streaming = False  # the answer is an event stream
    _timer: asyncio.TimerHandle | None = None
    _head_open = False  # a head has begun, if only with an empty line, and not ended
    _head = 0  # bytes of it that the parser has told us: of a field, when that is complete
    _pending = 0  # bytes that came since a head, a piece of content or a message was complete
    _rest = 0  # bytes of a request that came when its answer had begun

    @property
    def busy(self) -> bool:
        """Whether an answer is incomplete, so that nothing else may be written."""
        return self._answering is not None and not self._answering.response_complete

    @property
    def _unread(self) -> bool:
        """Whether more is due of a request whose answer has begun, which nobody reads."""
        return self.cycle is not None and self.cycle.response_started and self.cycle.more_body

    # -- the transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.client is not None:  # RFC 4291, 2.5.5.2: what an IPv4 address looks like to a socket that listens on both
            self.client = (self.client[0].removeprefix("::ffff:"), self.client[1])
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        self._unset_keepalive_if_required()  # uvicorn does so unless it was reset
        self.pipeline.clear()
        if self._answering is not None:
            self._answering.scope["extensions"] = {}  # it leads back here
            if self.busy:  # uvicorn tells the newest only
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
        except httptools.HttpParserError as error:  # in a callback ours is the context of another one
            self._refuse(next((cause.args[0] for cause in (error, error.__context__) if isinstance(cause, Refused)), 400))
        else:
            self._watch_the_clock()

    def _feed(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            # There the parser stops, as if no body followed: another one reads that, and nothing behind it.
            self.cycle.keep_alive = False
            framing = b"".join(b"%b: %b\r\n" % field for field in self.headers if field[0] in _FRAMING)
            self.parser = httptools.HttpRequestParser(
                SimpleNamespace(on_body=self.on_body, on_message_complete=self.on_message_complete)
            )
            self.parser.feed_data(b"POST / HTTP/1.1\r\nconnection: close\r\n%b\r\n%b" % (framing, data[upgrade.args[0] :]))

    def _refuse(self, status: int) -> None:
        """Answer what can't be read, where that is not in the middle or the rest of something else, and close."""
        logger.info("a request was refused: %d", status)
        if self.busy or self._unread:
            self._abort()
            return
        phrase = HTTPStatus(status).phrase.encode()
        head = b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (status, phrase, len(phrase)) + phrase)
        self.transport.close()
        self._hurry()  # to be taken

    def _abort(self) -> None:
        """Let go of the client, without waiting for it to take what is buffered."""
        if self._answering is not None:
            self._answering.disconnected = True
        with suppress(OSError, ValueError):  # it is closed already
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    # -- the parser tells, in this order

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
        if self._head_open:  # otherwise it is of a trailer
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
            self.cycle.more_body = False  # uvicorn says so only while the answer is incomplete

    def _grow(self, size: int, limit: int, status: int) -> None:
        self._head += size
        if self._head > limit:
            raise Refused(status)

    # -- the answer

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        cycle.scope["extensions"] = {CONNECTION: {"open": self._open, "abort": self._abort}}
        super()._start_asgi_task(cycle, partial(self._unframed, app) if cycle.scope["http_version"] == "1.0" else app)

    def _open(self) -> None:
        """An event stream begins."""
        self._streaming = True
        if self.pipeline or self._head_open:
            self._abort()

    def on_response_complete(self) -> None:
        self._streaming = False
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch_the_clock()

    def _unframed(self, app: Any, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Run `app`, with an answer that ends with the connection unless it says its length.

        uvicorn frames no answer to HEAD, and writes nothing of its content: taken for one, the content is written here.
        """
        inner = dict(scope)

        def send_unframed(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.body":
                if scope["method"] != inner["method"] and not self.transport.is_closing():
                    self.transport.write(message.get("body", b""))
            elif not any(name == b"content-length" for name, _ in message["headers"]):
                scope["method"] = "HEAD"
            return send(message)

        return app(inner, receive, send_unframed)  # type: ignore[no-any-return]

    # -- time

    def _watch_the_clock(self) -> None:
        """What is begun is to be ended soon."""
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
        if not (self._head_open and self.busy):  # otherwise it is a request behind another one, whose turn hasn't come
            self._abort()

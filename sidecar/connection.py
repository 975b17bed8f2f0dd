"""Limits on the head of a request (RFC 9112, 2.1: request line and fields), which uvicorn leaves to a proxy.

    MAX_TARGET     bytes of the request target        414
    MAX_HEAD       bytes of all of the head           431
    HEAD_TIMEOUT   seconds until the head is there    the connection is closed: 408 would look like the next request's answer

The time counts from the connection's first moment, and on a connection that is used again from a request's first byte. What is
left of a request's body after its answer has as long: nobody holds a connection by sending slowly.
"""

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_TARGET: Final = 8 * 1024
MAX_HEAD: Final = 32 * 1024
HEAD_TIMEOUT: Final = 10.0

_REFUSALS: Final = {400: b"Bad Request", 414: b"URI Too Long", 431: b"Request Header Fields Too Large"}


class TooLong(Exception):
    """Raised in a callback of the parser, it ends the parsing; uvicorn then calls `send_400_response`."""


class BoundedHeads(HttpToolsProtocol):
    """One client connection, up to where its requests begin."""

    _timer: asyncio.TimerHandle | None = None
    _head_open = False  # a head has begun, and not ended
    _size = 0  # bytes of it that the parser has told us
    _fed = 0  # bytes that came since it began: the parser tells of a field when that is complete
    _completed = False  # a request has come to its end in what was fed last
    _refusal = 400

    @property
    def busy(self) -> bool:
        """Whether an answer is incomplete, so that nothing else may be written."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._hurry()

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._completed = False
        super().data_received(data)
        if self._head_open and not self._completed:  # otherwise part of this belongs to the request before
            self._fed += len(data)
        if self.transport.is_closing():
            return
        if self._head_open and self._fed > MAX_HEAD:
            self._refusal = 431
            self.send_400_response("")
        elif self._head_open or not self.busy:
            self._hurry()

    def on_message_begin(self) -> None:
        self._size = self._fed = 0
        self._head_open = True
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._grow(len(url), MAX_TARGET, 414)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._grow(len(name) + len(value) + len(b": \r\n"), MAX_HEAD, 431)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._head_open = False
        self._relax()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.more_body and not self.transport.is_closing():
            self._hurry()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._completed = True
        self._relax()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        """Refuse what can't be read, and close. In the middle of an answer there is no room for another one."""
        self._relax()
        if self.busy:
            self.transport.abort()
            return
        phrase = _REFUSALS[self._refusal]
        head = b"HTTP/1.1 %d %b\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (self._refusal, phrase, len(phrase)) + phrase)
        self.transport.close()

    def _grow(self, size: int, limit: int, status: int) -> None:
        self._size += size
        if self._size > limit:
            self._refusal = status
            raise TooLong

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

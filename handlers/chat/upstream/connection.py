"""A connection to an upstream, and the exchanges on it, one after the other: HTTP/1.1 (RFC 9112) as a client.

In:  a request, as bytes. Out: an exchange: the response's status and headers, and its body as it arrives.

httptools, which is uvicorn's parser too, reads the response. Nothing here has a task of its own. What arrives together is
handed on in one piece: whoever waits is woken once for it. Where nobody reads, reading from the socket pauses.

Deviation: a header that is folded over several lines is refused; RFC 9112, 5.2 wants a space in its place.
Limit: trailers are dropped, and of transfer codings `chunked` alone is undone (httpx2's own transport refuses the others).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, TypeAlias, cast

import httpx2
from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

MAX_HEAD: Final = 100 << 10
"""Bytes of a head with the 1xx responses before it, of chunk extensions or of trailers: of all that holds no byte of a body."""

READ: Final = 64 << 10
"""Bytes of one read. A body waits for its reader with as many before reading pauses, and so with twice as many at the most."""

_DELIMITERS: Final = {b"content-length", b"transfer-encoding"}

Origin: TypeAlias = tuple[str, str, int]
"""Scheme, host and port."""

_buffer: Final = memoryview(bytearray(READ))
"""What is read into, by all connections: what it holds is taken out before anything else is read."""


class Connection(asyncio.BufferedProtocol):
    """A connection to `origin`. idle: called when an exchange has left it for the next one. lost: called when it has ended.

    transport: asyncio's, of the socket.
    """

    def __init__(self, origin: Origin, idle: Callable[["Connection"], None], lost: Callable[["Connection"], None]) -> None:
        self.origin = origin
        self._idle = idle
        self._lost = lost
        self._exchange: Exchange | None = None
        self.transport: asyncio.Transport

    def ask(self, request: bytes) -> "Exchange":
        """Send a request."""
        self._exchange = exchange = Exchange(self)
        # All of the request is written at once, as it is in memory anyway, and only the response is waited for: it may come
        # before an upstream has read the whole of a request that it refuses.
        self.transport.write(request)
        if self.transport.is_closing():  # it has ended before there was anybody to be told
            exchange.end(None)
        return exchange

    def leave(self, exchange: "Exchange", *, reusable: bool) -> None:
        """The exchange is done with. Unless the connection can be used again, it closes at once: the upstream is to stop."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        if reusable and not self.transport.is_closing() and not self.transport.get_write_buffer_size():
            self._idle(self)
        else:
            self.abort()

    def abort(self) -> None:
        self.transport.abort()

    # -- what asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return _buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._exchange is None:  # a response that nobody has asked for, such as 408 for a connection that was idle
            self.abort()
        else:
            self._exchange.feed(_buffer[:nbytes])

    def eof_received(self) -> None:
        if self._exchange is not None:
            self._exchange.end(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._exchange is not None:
            self._exchange.end(exc)
        self._lost(self)


class Exchange(httpx2.AsyncByteStream):
    """One request and its response; iterating gives the body. For one task. Raises httpx2's TransportErrors.

    status, headers: of the response, once `head` has returned. begun: whether a byte of it has come.
    """

    def __init__(self, connection: Connection) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.begun = False
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        # A parser for each response: a trailer that is left in it would become a header of the next one.
        self._parser: Any = HttpResponseParser(self)
        # RFC 9112: chunked wins over a length (6.3; the connection is not used again then), LF alone may end a line of the head
        # (2.2), and blanks may follow a chunk's size (7.1.1).
        self._parser.set_dangerous_leniencies(
            lenient_chunked_length=True, lenient_optional_cr_before_lf=True, lenient_spaces_after_chunk_size=True
        )
        self._parts: list[bytes] = []
        self._size = 0
        self._without_body = 0
        self._complete = False
        self._until_close = False
        self._reusable = False
        self._paused = False
        self._failure: tuple[type[Exception], str] | None = None  # an error would refer to what refers to it
        self._waiter: asyncio.Future[None] | None = None

    # -- the reader's side

    async def head(self) -> None:
        """Wait for the final status and its headers."""
        while not self.status:
            await self._wait()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            if self._parts:
                yield self._take()
            elif self._complete:
                return
            else:
                await self._wait()

    async def aclose(self) -> None:
        self._connection.leave(self, reusable=self._complete and self._reusable and not self._paused)
        self._parser = None  # it refers back

    def _take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._paused:
            self._paused = False
            self._connection.transport.resume_reading()
        return data

    async def _wait(self) -> None:
        """Until something has come. Raises what has failed, if nothing can come any more."""
        if self._failure is not None:
            kind, message = self._failure
            raise kind(message)
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    # -- the connection's side

    def feed(self, data: memoryview) -> None:
        """Bytes of the response."""
        self.begun = True
        self._without_body += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as error:
            self._fail(httpx2.RemoteProtocolError, f"this is no HTTP/1.1: {error}")
            return
        if self._without_body > MAX_HEAD:
            self._fail(httpx2.RemoteProtocolError, f"over {MAX_HEAD} bytes of head, chunk extensions or trailers")
        elif self._size > READ and not self._paused:
            self._paused = True
            self._connection.transport.pause_reading()
        self._wake()

    def end(self, error: Exception | None) -> None:
        """The connection has ended. Without an error, that is the end of a body that has no other one (RFC 9112, 6.3)."""
        if self._failure is None and self._until_close and error is None:
            self._complete = True
            self._wake()
        elif error is not None:
            self._fail(httpx2.ReadError, str(error))
        else:
            when = "in the middle of its response" if self.begun else "without a response"
            self._fail(httpx2.RemoteProtocolError, f"the server closed the connection {when}")

    def _fail(self, kind: type[Exception], message: str) -> None:
        """The first failure counts. What came before it is still handed on, and a response that is whole stays so."""
        self._failure = self._failure or (kind, message)
        self._connection.abort()
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # -- what httptools calls

    def on_message_begin(self) -> None:
        if self._complete:
            raise HttpParserError("more than one response")

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:
            self.headers.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:  # RFC 9110, 15.2: the final one follows
            self.headers.clear()
            return
        delimiters = {name.lower() for name, _ in self.headers} & _DELIMITERS
        self.status = status
        self._until_close = not delimiters
        self._reusable = self._parser.should_keep_alive() and len(delimiters) < 2
        self._without_body = 0

    def on_body(self, data: bytes) -> None:
        self._parts.append(data)
        self._size += len(data)
        self._without_body = 0

    def on_message_complete(self) -> None:
        self._complete = bool(self.status)

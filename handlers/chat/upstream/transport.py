"""The transport under the SDK's HTTP client: a pool of connections, HTTP/1.1 and TLS over asyncio.

In:  httpx2's request. Out: httpx2's response, or one of httpx2's TransportErrors, as from the transport that httpx2 brings.
That one reads an answer through h11, which takes 40 µs a chunk.

Nothing waits for a connection: how many answers run at once is decided by the store, and a wait in here would be blamed on the
upstream. Redirects and cookies are httpx2's, retries of what failed are the SDK's.

Limit: of a request's timeouts only that of connecting is kept: `openai_sdk` and `patience` have their own for what follows.
Limit: HTTP/2 and proxies are left to httpx2's own transport (`client`); HEAD, CONNECT and bodies of unknown length to nobody,
since the SDK sends none.
"""

import asyncio
import re
import ssl
from typing import Any, Final

import httpx2

from handlers.chat.upstream.addresses import connected
from handlers.chat.upstream.connection import Connection, Origin

MAX_IDLE: Final = 100
IDLE: Final = 5.0
"""How many connections are kept for the next answers, and how long each, in seconds. Both are the SDK's own figures."""

STALE: Final = 1.0
"""Seconds within which a connection that the upstream had closed while it was idle says so."""

_PORTS: Final = {"http": 80, "https": 443}
_HEADER: Final = re.compile(rb"[!#-'*+\-.0-9A-Z^-z|~]+: [^\x00-\x08\x0a-\x1f\x7f]*")
"""RFC 9110, 5: a field's name is a token, and its value holds no control character."""


class Transport(httpx2.AsyncBaseTransport):
    """Certificates come from the environment, as for httpx2's own transport. Raises OSError if they can't be read."""

    def __init__(self, *, tls: bool = True, max_idle: int = MAX_IDLE, idle: float = IDLE, stale: float = STALE) -> None:
        """tls: whether to read the certificates now, which takes 40 ms; otherwise in the first connection that needs them."""
        self._max_idle, self._idle_time, self._stale = max_idle, idle, stale
        self._tls = _tls() if tls else None
        self._idle: dict[Connection, asyncio.TimerHandle] = {}  # the one that was used last is the last
        self._closed = False

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        origin, sent = _origin(request.url), _written(request, await request.aread())
        timeout = request.extensions.get("timeout", {}).get("connect")
        loop = asyncio.get_running_loop()
        for idle in (self._idle_to(origin), None):
            connection = idle or await self._connected(origin, timeout)
            exchange, asked = connection.ask(sent), loop.time()
            try:
                await exchange.head()
            except (httpx2.ReadError, httpx2.RemoteProtocolError):
                await exchange.aclose()
                # Only what can't have been read is sent again: a POST costs money (RFC 9112, 9.3.1).
                if idle is None or exchange.begun or loop.time() - asked > self._stale:
                    raise
            except BaseException:
                await exchange.aclose()
                raise
            else:
                return httpx2.Response(exchange.status, headers=exchange.headers, stream=exchange)
        raise AssertionError("a connection that is new is the last one")

    async def aclose(self) -> None:
        """Close the connections that are idle, and each of the others once its answer is done with."""
        self._closed = True
        for connection in list(self._idle):
            self._taken(connection).abort()

    async def _connected(self, origin: Origin, timeout: float | None) -> Connection:
        """A new connection. timeout: seconds for all of it, names and TLS included."""
        scheme, host, port = origin
        options: dict[str, Any] = {}
        if scheme == "https":
            self._tls = self._tls or _tls()
            options = {"ssl": self._tls, "server_hostname": host}
        try:
            async with asyncio.timeout(timeout):
                options["sock"] = await connected(host, port)
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: Connection(origin, self._keep, self._forget), **options
                )
        except TimeoutError as error:
            raise httpx2.ConnectTimeout(f"no connection to {host} in time") from error
        except OSError as error:
            raise httpx2.ConnectError(str(error)) from error
        return connection

    # -- the connections that are idle

    def _idle_to(self, origin: Origin) -> Connection | None:
        for connection in reversed(self._idle):
            if connection.origin == origin and not connection.transport.is_closing():
                return self._taken(connection)
        return None

    def _keep(self, connection: Connection) -> None:
        if self._closed:
            connection.abort()
            return
        self._idle[connection] = asyncio.get_running_loop().call_later(self._idle_time, connection.abort)
        if len(self._idle) > self._max_idle:
            self._taken(next(iter(self._idle))).abort()

    def _taken(self, connection: Connection) -> Connection:
        self._idle.pop(connection).cancel()
        return connection

    def _forget(self, connection: Connection) -> None:
        if connection in self._idle:
            self._taken(connection)


def _tls() -> ssl.SSLContext:
    context = httpx2.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _origin(url: httpx2.URL) -> Origin:
    if url.scheme not in _PORTS:
        raise httpx2.UnsupportedProtocol(f"{url.scheme}:// is neither http:// nor https://")
    return url.scheme, url.raw_host.decode("ascii"), url.port or _PORTS[url.scheme]


def _written(request: httpx2.Request, content: bytes) -> bytes:
    """The request's bytes. Raises LocalProtocolError for what HTTP/1.1 can't say."""
    headers = [b"%b: %b" % header for header in request.headers.raw]
    if wrong := [header for header in headers if not _HEADER.fullmatch(header)]:
        raise httpx2.LocalProtocolError(f"the header {wrong[0].partition(b':')[0]!r} can't be sent")
    if request.method in ("HEAD", "CONNECT") or "transfer-encoding" in request.headers:
        raise httpx2.LocalProtocolError("neither HEAD, CONNECT nor a body of unknown length can be sent")
    return b"\r\n".join([b"%b %b HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path), *headers, b"", content])

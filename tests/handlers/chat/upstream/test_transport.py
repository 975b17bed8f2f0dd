"""The transport on real sockets, against servers that say all that HTTP allows, and what it doesn't.

What httpx2's own transport does too is asked of both, on the same servers: whichever serves, an upstream's failure is the same.
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from handlers.chat.upstream.connection import MAX_HEAD, READ
from handlers.chat.upstream.transport import Transport
from tests.support.peers import Answer, Peer, Serving, certificate, hang, one_after_the_other, peer, says, server_context
from tests.support.require import missing

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
HELLO = OK + b"Content-Length: 5\r\n\r\nhello"


@pytest.fixture(params=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("empty")


@pytest.fixture(autouse=True)
def no_authorities(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    """To load those that the system trusts takes 60 ms, for each transport."""
    trusting(monkeypatch, SSL_CERT_DIR=str(empty))


@pytest.fixture
async def ours(anyio_backend: Any) -> AsyncIterator[Transport]:
    async with Transport() as transport:
        yield transport


@pytest.fixture(params=[Transport, httpx2.AsyncHTTPTransport], ids=["ours", "httpx2's"])
async def either(anyio_backend: Any, request: pytest.FixtureRequest) -> AsyncIterator[httpx2.AsyncBaseTransport]:
    async with request.param() as transport:
        yield transport


def asking(url: str, content: bytes = b"", headers: dict[str, str] | None = None, **timeouts: float) -> httpx2.Request:
    limits = {"connect": 5.0, "read": None, "write": None, "pool": None, **timeouts}
    return httpx2.Request("POST", url, content=content, headers=headers, extensions={"timeout": limits})


async def fetched(transport: httpx2.AsyncBaseTransport, url: str, **options: Any) -> httpx2.Response:
    """The whole response."""
    response = await transport.handle_async_request(asking(url, **options))
    await response.aread()
    await response.aclose()
    return response


async def pieces(response: httpx2.Response, into: list[bytes]) -> None:
    """The body as it is handed on."""
    assert isinstance(response.stream, httpx2.AsyncByteStream)
    async for data in response.stream:
        into.append(data)


# -- responses that are whole

WHOLE: dict[str, tuple[bytes, int, bytes]] = {
    "a length": (HELLO, 200, b"hello"),
    "chunks": (CHUNKED + b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n", 200, b"hello"),
    "chunks with extensions, and trailers": (CHUNKED + b"5;a=b\r\nhello\r\n0\r\nX-T: 1\r\n\r\n", 200, b"hello"),
    "blanks behind a chunk's size": (CHUNKED + b"5  \r\nhello\r\n0\r\n\r\n", 200, b"hello"),
    "a length beside chunks": (
        OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        200,
        b"hello",
    ),
    "LF alone in the head": (b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", 200, b"hello"),
    "neither length nor chunks": (OK + b"\r\nhello", 200, b"hello"),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\n\r\nhello", 200, b"hello"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "no reason": (b"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "1xx before it": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX-Early: 1\r\n\r\n" + HELLO, 200, b"hello"),
    "an offer to upgrade": (OK + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n\r\nhello", 200, b"hello"),
    "a status of nobody's": (b"HTTP/1.1 799 Odd\r\nContent-Length: 5\r\n\r\nhello", 799, b"hello"),
}


@pytest.mark.parametrize("how", ["at once", "byte by byte"])
@pytest.mark.parametrize(("said", "status", "body"), WHOLE.values(), ids=WHOLE.keys())
async def test_a_response_arrives(said: bytes, status: int, body: bytes, how: str, either: httpx2.AsyncBaseTransport) -> None:
    parts = [said] if how == "at once" else [said[index : index + 1] for index in range(len(said))]
    async with peer(says(*parts, then=Serving.close)) as server:
        response = await fetched(either, server.url)
    assert (response.status_code, response.content) == (status, body)
    assert "x-t" not in response.headers
    assert "x-early" not in response.headers


async def test_headers_arrive_as_they_are(either: httpx2.AsyncBaseTransport) -> None:
    said = OK + "X-A:\r\nx-a: b \t\r\nX-B:\t c\r\nX-U: ü\r\nContent-Length: 0\r\n\r\n".encode()
    async with peer(says(said)) as server:
        headers = (await fetched(either, server.url)).headers
    assert headers.get_list("x-a") == ["", "b"]
    assert headers["x-b"] == "c"
    assert dict(headers.raw)[b"X-U"] == "ü".encode()


async def test_the_request_is_sent_as_it_is(either: httpx2.AsyncBaseTransport) -> None:
    async with peer(says(HELLO)) as server:
        await fetched(either, f"{server.url}/a%20b?c=%22", content=b"{}", headers={"X-A": "b"})
        [request] = server.requests
    head, _, body = request.partition(b"\r\n\r\n")
    line, *headers = head.split(b"\r\n")
    host = server.url.removeprefix("http://").encode()
    assert line == b"POST /a%20b?c=%22 HTTP/1.1"
    assert {b"Host: " + host, b"X-A: b", b"Content-Length: 2"} <= set(headers)
    assert body == b"{}"


async def test_a_large_request_and_a_large_response(either: httpx2.AsyncBaseTransport) -> None:
    large = os.urandom(1 << 20) * 8
    async with peer(says(OK + b"Content-Length: %d\r\n\r\n" % len(large), large)) as server:
        response = await fetched(either, server.url, content=large)
        assert server.requests[0].endswith(large)
    assert response.content == large


async def test_what_arrives_together_is_handed_on_together(ours: Transport) -> None:
    handed: list[bytes] = []
    more = asyncio.Event()

    async def answer(connection: Serving) -> None:
        await connection.write(CHUNKED + b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n")
        await more.wait()
        await connection.write(b"1\r\nd\r\n1\r\ne\r\n0\r\n\r\n")

    async with peer(answer) as server:
        response = await ours.handle_async_request(asking(server.url))
        reading = asyncio.create_task(pieces(response, handed))
        while not handed:
            await asyncio.sleep(0)
        assert handed == [b"abc"]
        more.set()
        await reading
    assert handed == [b"abc", b"de"]


async def test_where_nobody_reads_the_server_can_not_go_on_writing(ours: Transport) -> None:
    total, part = 64 << 20, b"x" * (64 << 10)
    written = 0

    async def answer(connection: Serving) -> None:
        nonlocal written
        await connection.write(OK + b"Content-Length: %d\r\n\r\n" % total)
        while written < total:
            await connection.write(part)
            written += len(part)

    async with peer(answer) as slow, peer(says(HELLO)) as quick:
        response = await ours.handle_async_request(asking(slow.url))
        for _ in range(300):  # each is several turns of the loop, in any of which the first could be read
            await fetched(ours, quick.url)
        assert written < total / 2
        size = 0
        assert isinstance(response.stream, httpx2.AsyncByteStream)
        async for data in response.stream:
            assert len(data) <= 2 * READ
            size += len(data)
    assert size == total


# -- responses that are not whole

BROKEN: dict[str, tuple[Answer, type[Exception], bytes]] = {
    "nothing": (says(then=Serving.close), httpx2.RemoteProtocolError, b""),
    "nothing, and a reset": (says(then=Serving.reset), httpx2.ReadError, b""),
    "half a head": (says(b"HTTP/1.1 200 OK\r\nConte", then=Serving.close), httpx2.RemoteProtocolError, b""),
    "100 alone": (says(b"HTTP/1.1 100 Continue\r\n\r\n", then=Serving.close), httpx2.RemoteProtocolError, b""),
    "less than its length": (says(HELLO[:-1], then=Serving.close), httpx2.RemoteProtocolError, b"hell"),
    "half a chunk": (says(CHUNKED + b"5\r\nhel", then=Serving.close), httpx2.RemoteProtocolError, b"hel"),
    "no last chunk": (says(CHUNKED + b"5\r\nhello\r\n", then=Serving.close), httpx2.RemoteProtocolError, b"hello"),
    "a chunk of no size": (says(CHUNKED + b"2\r\nhi\r\nx\r\n"), httpx2.RemoteProtocolError, b"hi"),
    "a chunk without an end": (says(CHUNKED + b"2\r\nhi3\r\n"), httpx2.RemoteProtocolError, b"hi"),
    "a page": (says(b"<html>hello</html>\r\n\r\n"), httpx2.RemoteProtocolError, b""),
    "another version": (says(b"HTTP/2 200 OK\r\n\r\n"), httpx2.RemoteProtocolError, b""),
    "a name with a blank": (says(OK + b"A : b\r\n\r\n"), httpx2.RemoteProtocolError, b""),
    "another transfer coding": (
        says(OK + b"Transfer-Encoding: gzip\r\n\r\nx", then=Serving.close),
        httpx2.RemoteProtocolError,
        b"",
    ),
}


@pytest.mark.parametrize(("answer", "error", "body"), BROKEN.values(), ids=BROKEN.keys())
async def test_a_response_that_breaks_off(
    answer: Answer, error: type[Exception], body: bytes, either: httpx2.AsyncBaseTransport
) -> None:
    handed: list[bytes] = []
    async with peer(answer) as server:
        with pytest.raises(error):
            response = await either.handle_async_request(asking(server.url))
            try:
                await pieces(response, handed)
            finally:
                await response.aclose()
        await server.ended(1)
        assert len(server.requests) == 1
    assert b"".join(handed).startswith(body)


async def test_what_came_before_a_reset_is_handed_on(ours: Transport) -> None:
    """httpx2's own transport reads the socket only when it is asked to, and has lost it by then."""
    handed: list[bytes] = []

    async def answer(connection: Serving) -> None:
        await connection.write(CHUNKED + b"2\r\nhi\r\n")
        while not handed:
            await asyncio.sleep(0)
        await connection.write(b"3\r\n yo\r\n")
        connection.reset()

    async with peer(answer) as server:
        response = await ours.handle_async_request(asking(server.url))
        with pytest.raises(httpx2.ReadError):
            await pieces(response, handed)
    assert b"".join(handed) in (b"hi", b"hi yo")


REFUSED: dict[str, bytes] = {
    "another protocol": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    "a header over two lines": OK + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "a control character": OK + b"A: \x01\r\nContent-Length: 0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
}


@pytest.mark.parametrize("said", REFUSED.values(), ids=REFUSED.keys())
async def test_what_is_refused_closes_the_connection(said: bytes, ours: Transport) -> None:
    async with peer(says(said)) as server:
        with pytest.raises(httpx2.RemoteProtocolError):
            await fetched(ours, server.url)
        await server.ended(1)


ENDLESS: dict[str, tuple[bytes, bytes]] = {
    "headers": (OK, b"A: b\r\n"),
    "one header": (OK + b"A: ", b"x" * 100),
    "one reason": (b"HTTP/1.1 200 ", b"x" * 100),
    "1xx": (b"", b"HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n"),
    "a chunk's extension": (CHUNKED + b"5\r\nhello\r\n5;", b"x" * 100),
    "trailers": (CHUNKED + b"5\r\nhello\r\n0\r\n", b"A: b\r\n"),
    "one trailer": (CHUNKED + b"5\r\nhello\r\n0\r\nA: ", b"x" * 100),
}


@pytest.mark.parametrize(("begin", "more"), ENDLESS.values(), ids=ENDLESS.keys())
async def test_what_is_no_body_has_a_limit(begin: bytes, more: bytes, ours: Transport) -> None:
    async def answer(connection: Serving) -> None:
        await connection.write(begin)
        while True:
            await connection.write(more * 50)

    async with peer(answer) as server:
        with pytest.raises(httpx2.RemoteProtocolError, match=str(MAX_HEAD)):
            await fetched(ours, server.url)
        await server.ended(1)


# -- time, and cancellation

SILENT: dict[str, Answer] = {"nothing": hang, "half a head": says(OK), "half a body": says(CHUNKED + b"2\r\nhi\r\n")}


async def test_a_connection_that_takes_too_long(either: httpx2.AsyncBaseTransport) -> None:
    """TCP connects, and nobody answers TLS."""
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(httpx2.ConnectTimeout):
        await fetched(either, f"https://127.0.0.1:{silent.getsockname()[1]}", connect=0.1)


async def test_nobody_is_there(either: httpx2.AsyncBaseTransport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(httpx2.ConnectError):
        await fetched(either, f"http://127.0.0.1:{port}")


async def test_a_host_of_no_address(either: httpx2.AsyncBaseTransport) -> None:
    with pytest.raises(httpx2.ConnectError):
        await fetched(either, "http://nowhere.invalid")


@pytest.mark.parametrize("answer", SILENT.values(), ids=SILENT.keys())
async def test_cancelling_closes_the_connection(answer: Answer, either: httpx2.AsyncBaseTransport) -> None:
    async with peer(answer) as server:
        asked = asyncio.create_task(fetched(either, server.url))
        await server.came(1)
        asked.cancel()
        await server.ended(1)
        assert await asyncio.wait([asked], timeout=5) == ({asked}, set())
        assert asked.cancelled()


async def test_cancelling_a_connection_that_is_being_made(ours: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        asked = asyncio.create_task(fetched(ours, f"https://127.0.0.1:{silent.getsockname()[1]}"))
        connection, _ = await asyncio.get_running_loop().run_in_executor(None, silent.accept)
        asked.cancel()
        await asyncio.wait([asked])
        connection.settimeout(5)
        with connection:
            while await asyncio.get_running_loop().run_in_executor(None, connection.recv, 4096):
                pass  # the client's side of TLS; then its end


async def test_closing_a_body_before_its_end_closes_the_connection(either: httpx2.AsyncBaseTransport) -> None:
    async with peer(says(CHUNKED + b"2\r\nhi\r\n")) as server:
        response = await either.handle_async_request(asking(server.url))
        await response.aclose()
        await server.ended(1)


# -- connections that are used again

AGAIN: dict[str, tuple[Answer, int]] = {
    "a length": (says(HELLO), 1),
    "chunks": (says(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"), 1),
    "trailers": (says(CHUNKED + b"5\r\nhello\r\n0\r\nContent-Length: 1\r\n\r\n"), 1),
    "no content": (says(b"HTTP/1.1 204 No Content\r\n\r\n"), 1),
    "1xx": (says(b"HTTP/1.1 100 Continue\r\n\r\n" + HELLO), 1),
    "HTTP/1.0 that stays": (says(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"), 1),
    "HTTP/1.0": (says(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"), 2),
    "the server says close": (says(OK + b"Connection: close\r\nContent-Length: 5\r\n\r\nhello"), 2),
    "the server closes": (says(HELLO, then=Serving.close), 2),
    "the server resets": (says(HELLO, b"", then=Serving.reset), 2),
    "bytes too many": (says(HELLO + b"!"), 2),
    "a response too many": (says(HELLO + HELLO), 2),
    "bytes too many, later": (says(HELLO, b"HTTP/1.1 408 Request Timeout\r\n\r\n"), 2),
}


@pytest.mark.parametrize(("answer", "connections"), AGAIN.values(), ids=AGAIN.keys())
async def test_when_a_connection_is_used_again(answer: Answer, connections: int, ours: Transport) -> None:
    async with peer(answer) as server:
        assert (await fetched(ours, server.url)).content in (b"hello", b"")
        await server.ended(connections - 1)
        assert (await fetched(ours, server.url)).content in (b"hello", b"")
        assert len(server.connections) == connections


async def test_a_length_beside_chunks_ends_the_connection(ours: Transport) -> None:
    said = OK + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    async with peer(says(said)) as server:
        await fetched(ours, server.url)
        await server.ended(1)


async def test_a_request_that_is_refused_unread_gets_its_answer(ours: Transport) -> None:
    """The connection is not used again: the rest of the request is still on its way."""

    class Deaf(Serving):
        def data_received(self, data: bytes) -> None:
            self.transport.pause_reading()
            self.transport.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 5\r\n\r\nlarge")

    serving = Peer(hang)
    async with await asyncio.get_running_loop().create_server(lambda: Deaf(serving), "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        response = await fetched(ours, url, content=b"x" * (32 << 20))
        assert (response.status_code, response.content) == (413, b"large")
        await fetched(ours, url)
        assert len(serving.connections) == 2
        for connection in serving.connections:
            connection.transport.abort()
        await serving.ended(2)


async def test_each_origin_has_connections_of_its_own(either: httpx2.AsyncBaseTransport) -> None:
    async with peer(says(HELLO)) as one, peer(says(HELLO)) as other:
        for server in (one, other, one, other):
            await fetched(either, server.url)
        assert [len(server.connections) for server in (one, other)] == [1, 1]


async def test_no_answer_waits_for_a_connection(ours: Transport) -> None:
    async with peer(hang) as server:
        asked = [asyncio.create_task(fetched(ours, server.url)) for _ in range(300)]
        await server.came(300)
        for one in asked:
            one.cancel()
        await server.ended(300)


async def test_connections_that_are_idle_are_closed_in_time(anyio_backend: Any) -> None:
    async with Transport(idle=0.05) as transport, peer(says(HELLO)) as server:
        await fetched(transport, server.url)
        await server.ended(1)


async def test_so_many_connections_are_kept_and_no_more(anyio_backend: Any) -> None:
    async with Transport(max_idle=2) as transport, peer(says(HELLO)) as server:
        responses = [await transport.handle_async_request(asking(server.url)) for _ in range(4)]
        for response in responses:
            await response.aread()
            await response.aclose()
        await server.ended(2)
        assert [connection.transport.is_closing() for connection in server.connections] == [True, True, False, False]


async def test_closing_the_transport_closes_its_connections(anyio_backend: Any) -> None:
    transport = Transport()
    async with peer(says(HELLO)) as server:
        await fetched(transport, server.url)
        running = await transport.handle_async_request(asking(server.url))
        late = await transport.handle_async_request(asking(server.url))
        await running.aread()
        await running.aclose()
        await transport.aclose()
        await server.ended(1)
        assert await late.aread() == b"hello"
        await late.aclose()
        await server.ended(2)


# -- a connection that the server had closed while it was idle


@pytest.mark.parametrize("how", [Serving.close, Serving.reset])
async def test_a_request_on_a_stale_connection_is_sent_again(how: Any, ours: Transport) -> None:
    async with peer(one_after_the_other(says(HELLO), says(then=how), says(HELLO))) as server:
        await fetched(ours, server.url)
        assert (await fetched(ours, server.url, content=b"once more")).content == b"hello"
        assert len(server.connections) == 2
        assert server.requests[1] == server.requests[2]


async def test_it_is_sent_again_once(ours: Transport) -> None:
    async with peer(one_after_the_other(says(HELLO), says(then=Serving.close), says(then=Serving.close))) as server:
        await fetched(ours, server.url)
        with pytest.raises(httpx2.RemoteProtocolError):
            await fetched(ours, server.url)
        assert len(server.requests) == 3


@pytest.mark.parametrize("said", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"], ids=["a byte", "100"])
async def test_it_is_not_sent_again_once_the_server_has_begun_to_answer(said: bytes, ours: Transport) -> None:
    async with peer(one_after_the_other(says(HELLO), says(said, then=Serving.close))) as server:
        await fetched(ours, server.url)
        with pytest.raises(httpx2.RemoteProtocolError):
            await fetched(ours, server.url)
        assert len(server.requests) == 2


async def test_it_is_not_sent_again_after_a_while(anyio_backend: Any) -> None:
    """A server that closes then has read the request, and perhaps done what it asks for."""

    async def late(connection: Serving) -> None:
        await asyncio.sleep(0.02)
        connection.close()

    async with Transport(stale=0.01) as transport, peer(one_after_the_other(says(HELLO), late)) as server:
        await fetched(transport, server.url)
        with pytest.raises(httpx2.RemoteProtocolError):
            await fetched(transport, server.url)
        assert len(server.requests) == 2


# -- what can't be sent

UNSENDABLE: dict[str, tuple[dict[str, Any], type[Exception]]] = {
    "a header of two lines": ({"headers": {"X-A": "b\r\nX-C: d"}}, httpx2.LocalProtocolError),
    "a name with a blank": ({"headers": {"X A": "b"}}, httpx2.LocalProtocolError),
    "NUL in a header": ({"headers": {"X-A": "\0"}}, httpx2.LocalProtocolError),
}


@pytest.mark.parametrize(("options", "error"), UNSENDABLE.values(), ids=UNSENDABLE.keys())
async def test_what_can_not_be_sent_is_not(
    options: dict[str, Any], error: type[Exception], either: httpx2.AsyncBaseTransport
) -> None:
    async with peer(says(HELLO)) as server:
        with pytest.raises(error):
            await fetched(either, server.url, **options)
        assert server.requests == []


async def test_another_scheme_is_not_asked(either: httpx2.AsyncBaseTransport) -> None:
    with pytest.raises(httpx2.UnsupportedProtocol):
        await fetched(either, "ftp://127.0.0.1")


@pytest.mark.parametrize("method", ["HEAD", "CONNECT"])
async def test_a_method_that_is_not_spoken_is_not_sent(method: str, ours: Transport) -> None:
    with pytest.raises(httpx2.LocalProtocolError):
        await ours.handle_async_request(httpx2.Request(method, "http://127.0.0.1:1"))


async def test_a_body_of_unknown_length_is_not_sent(ours: Transport) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"a"

    with pytest.raises(httpx2.LocalProtocolError):
        await ours.handle_async_request(httpx2.Request("POST", "http://127.0.0.1:1", content=body()))


# -- addresses


async def test_a_server_on_ipv6(either: httpx2.AsyncBaseTransport) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        missing("this machine has no IPv6")
    async with peer(says(HELLO), host="::1") as server:
        assert (await fetched(either, server.url)).content == b"hello"


async def test_a_host_of_several_addresses_of_which_one_answers(either: httpx2.AsyncBaseTransport) -> None:
    async with peer(says(HELLO)) as server:
        assert (await fetched(either, server.url.replace("127.0.0.1", "localhost"))).content == b"hello"


# -- TLS


@pytest.fixture(scope="module")
def trusted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return certificate(tmp_path_factory.mktemp("tls"), "DNS:localhost")


@pytest.fixture
def tls(trusted: Path) -> tuple[Path, ssl.SSLContext]:
    return trusted, server_context(trusted)


def trusting(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


Made = pytest.mark.parametrize("made", [Transport, httpx2.AsyncHTTPTransport], ids=["ours", "httpx2's"])


@Made
@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR"])
async def test_a_server_whose_certificate_is_trusted(
    made: Any, variable: str, tls: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusted, context = tls
    if variable == "SSL_CERT_DIR":
        trusted = trusted.parent
    trusting(monkeypatch, **{variable: str(trusted)})
    large = b"x" * (4 << 20)
    said = OK + b"Content-Length: %d\r\n\r\n" % len(large) + large
    async with made() as transport, peer(says(said), tls=context) as server:
        for _ in range(2):
            assert (await fetched(transport, server.url.replace("127.0.0.1", "localhost"), content=large)).content == large
        assert server.names == ["localhost"]
        [connection] = server.connections
        assert connection.transport.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert [request.endswith(large) for request in server.requests] == [True, True]


@Made
async def test_a_certificate_that_nobody_vouches_for_is_refused(made: Any, tls: tuple[Path, ssl.SSLContext]) -> None:
    async with made() as transport, peer(says(HELLO), tls=tls[1]) as server:
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await fetched(transport, server.url.replace("127.0.0.1", "localhost"))
        assert server.requests == []


async def test_certificates_that_are_read_only_when_they_are_needed_are_read_then(
    tls: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Transport(tls=False) as transport, peer(says(HELLO), tls=tls[1]) as server:
        url = server.url.replace("127.0.0.1", "localhost")
        with pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"):
            await fetched(transport, url)
    trusting(monkeypatch, SSL_CERT_FILE=str(tls[0]))
    async with Transport(tls=False) as transport, peer(says(HELLO), tls=tls[1]) as server:
        assert (await fetched(transport, server.url.replace("127.0.0.1", "localhost"))).status_code == 200


@Made
async def test_a_certificate_for_another_host_is_refused(
    made: Any, tls: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting(monkeypatch, SSL_CERT_FILE=str(tls[0]))
    async with made() as transport, peer(says(HELLO), tls=tls[1]) as server:
        with pytest.raises(httpx2.ConnectError, match="mismatch"):
            await fetched(transport, server.url)
        assert server.requests == []


@Made
async def test_a_server_that_speaks_no_tls(made: Any, anyio_backend: Any) -> None:
    async def answer(connection: Serving) -> None:
        raise AssertionError("no request comes")

    async with made() as transport, peer(answer) as server:
        server_says_so = says(b"HTTP/1.1 400 Bad Request\r\n\r\n", then=Serving.close)
        server.answer = server_says_so
        asked = asyncio.create_task(fetched(transport, server.url.replace("http:", "https:")))
        while not server.connections:
            await asyncio.sleep(0)
        await server_says_so(server.connections[0])
        with pytest.raises(httpx2.ConnectError):
            await asked


TLS_BROKEN: dict[str, tuple[Answer, bytes]] = {
    "nothing": (says(then=Serving.close), b""),
    "less than its length": (says(HELLO[:-1], then=Serving.close), b"hell"),
    "no last chunk": (says(CHUNKED + b"5\r\nhello\r\n", then=Serving.close), b"hello"),
    "cut": (says(CHUNKED + b"5\r\nhello\r\n", then=Serving.cut), b"hello"),
    "a reset": (says(CHUNKED + b"5\r\nhello\r\n", then=Serving.reset), b""),
}


@Made
@pytest.mark.parametrize(("answer", "body"), TLS_BROKEN.values(), ids=TLS_BROKEN.keys())
async def test_a_response_over_tls_that_breaks_off(
    made: Any, answer: Answer, body: bytes, tls: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting(monkeypatch, SSL_CERT_FILE=str(tls[0]))
    handed: list[bytes] = []
    async with made() as transport, peer(answer, tls=tls[1]) as server:
        with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
            response = await transport.handle_async_request(asking(server.url.replace("127.0.0.1", "localhost")))
            try:
                await pieces(response, handed)
            finally:
                await response.aclose()
        await server.ended(1)
    assert b"".join(handed).startswith(body)


@Made
async def test_cancelling_closes_a_connection_over_tls(
    made: Any, tls: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting(monkeypatch, SSL_CERT_FILE=str(tls[0]))
    async with made() as transport, peer(says(CHUNKED), tls=tls[1]) as server:
        asked = asyncio.create_task(fetched(transport, server.url.replace("127.0.0.1", "localhost")))
        await server.came(1)
        asked.cancel()
        await server.ended(1)
        await asyncio.wait([asked])


async def test_a_body_without_an_end_of_its_own_ends_with_tls(
    ours: Transport, tls: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    trusting(monkeypatch, SSL_CERT_FILE=str(tls[0]))
    async with Transport() as transport, peer(says(OK + b"\r\nhello", then=Serving.close), tls=tls[1]) as server:
        assert (await fetched(transport, server.url.replace("127.0.0.1", "localhost"))).content == b"hello"


def test_certificates_that_can_not_be_read_are_an_error_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    trusting(monkeypatch, SSL_CERT_FILE="/nowhere.pem")
    with pytest.raises(OSError, match="No such file"):
        Transport()

"""What a connection permits its client: every limit with its status, and an end to whatever is sent without one."""

import asyncio
import gc
import json
import re
import socket
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import pytest

from app import Sidestream
from sidecar import connection
from sidecar.connection import MAX_FIELDS, MAX_HEAD, MAX_PIPELINED, MAX_REST, MAX_TARGET
from sidecar.settings import Settings
from sse.asgi import CONNECTION, Receive, Scope, Send, lifespan
from sse.chunks import Chunks
from sse.errors import Disconnected
from sse.http import Request, json_response
from tests.support.app import serving
from tests.support.require import missing, require
from tests.support.sockets import Client, Cut

SETTINGS = Settings(drain=0, max_body=1 << 20)
HOST = b"Host: 127.0.0.1\r\n"
PROBE = b"GET /healthz HTTP/1.1\r\n" + HOST
WHOLE = PROBE + b"\r\n"
STREAM = b"GET /stream?count=2&interval=60 HTTP/1.1\r\n" + HOST
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"

SLOP = 2 << 20
"""Bytes that the kernel may hold for the server, and that it may have read before it looks."""


@pytest.fixture(scope="module")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The event loop that `python app.py` runs on."""
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(scope="module")
async def port() -> AsyncIterator[int]:
    async with serving(Sidestream(SETTINGS), SETTINGS) as (_, port):
        yield port


class Echo:
    """An application that answers with what it was asked. /wait: only when `proceed` is set."""

    def __init__(self) -> None:
        self.proceed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await lifespan(receive, send, lambda: None, self.drain)
            return
        request = Request(scope, receive)
        try:
            body = await request.body(limit=1 << 30)
        except Disconnected:
            return
        if request.path == "/wait":
            await self.proceed.wait()
        asked = {"method": request.method, "client": scope["client"][0], "body": body.decode()}
        await json_response({**asked, "headers": [name.decode() for name, _ in scope["headers"]]})(request, send)

    def start(self) -> None:
        pass

    def example(self, url: str) -> str:
        return url

    async def drain(self) -> None:
        self.proceed.set()


@pytest.fixture
async def echo() -> Echo:
    return Echo()


@pytest.fixture
async def echo_port(echo: Echo) -> AsyncIterator[int]:
    async with serving(echo, SETTINGS) as (_, port):
        yield port


async def begun(client: Client, request: bytes) -> None:
    """Send a request, if any; read its whole answer, or the first event of a stream."""
    await client.send(request)
    if request:
        answer = await client.answer()
        await (answer.event() if request.startswith(STREAM) else answer.whole())


# -- the head of an answer, which waits for its body


@pytest.mark.parametrize(
    ("request_line", "end"),
    [
        (b"GET /bench?events=1", b"data: [DONE]\n\n\r\n0\r\n\r\n"),
        (b"GET /healthz", b"}\n"),
        (b"HEAD /healthz", b"\r\n\r\n"),
        (b"HEAD /stream", b"\r\n\r\n"),
        (b"OPTIONS /healthz", b"\r\n\r\n"),
    ],
)
async def test_the_head_and_what_is_there_of_the_body_arrive_together(port: int, request_line: bytes, end: bytes) -> None:
    async with Client(port) as client:
        for _ in range(2):  # the next request on the connection too
            await client.send(request_line + b" HTTP/1.1\r\n" + HOST + b"\r\n")
            answer = await client.receive()
            assert answer.startswith(b"HTTP/1.1 20")
            assert answer.endswith(end)


async def test_who_asks_first_whether_to_go_on_is_told_at_once(echo_port: int) -> None:
    async with Client(echo_port) as client:
        await client.send(POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert await client.receive() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hi")
        assert (await (await client.answer()).json())["body"] == "hi"


async def test_an_answer_that_is_sent_as_it_is_made_begins_before_its_first_piece_is_there() -> None:
    proceed = asyncio.Event()

    class Slow(Echo):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                await super().__call__(scope, receive, send)
            else:
                await Chunks(self.pieces(), {"content-type": "text/plain"})(Request(scope, receive), send)

        async def pieces(self) -> AsyncGenerator[bytes, None]:
            await proceed.wait()
            yield b"piece"

    async with serving(Slow(), SETTINGS) as (_, slow), Client(slow) as client:
        await client.send(WHOLE)
        answer = await client.answer()
        proceed.set()
        assert (answer.status, await answer.whole()) == (200, b"piece")


async def test_the_head_of_an_answer_that_fails_before_its_body_is_sent() -> None:
    class Failing(Echo):
        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "lifespan":
                return await super().__call__(scope, receive, send)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            raise ZeroDivisionError

    async with serving(Failing(), SETTINGS) as (_, failing), Client(failing) as client:
        await client.send(WHOLE)
        assert (await client.receive()).startswith(b"HTTP/1.1 200 OK\r\n")
        assert await client.receive() == b""


# -- chunks that are framed once for all watchers


class Watched(Sidestream):
    """chunks: whether the server offers to write chunks. written: how many of them it has."""

    def __init__(self, *, chunks: bool) -> None:
        super().__init__(SETTINGS)
        self.chunks = chunks
        self.written = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            own = scope["extensions"][CONNECTION]
            write = own.pop("write")

            def counted(chunk: bytes) -> bool:
                self.written += 1
                return bool(write(chunk))

            if self.chunks:
                own["write"] = counted
        await super().__call__(scope, receive, send)


async def test_the_bytes_on_the_wire_are_the_same_where_the_server_writes_chunks() -> None:
    received = []
    for chunks in (True, False):
        app = Watched(chunks=chunks)
        async with serving(app, SETTINGS) as (_, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /stream?count=30&interval=0.001 HTTP/1.1\r\n" + HOST + b"X-Request-ID: a\r\n\r\n")
            answer = await reader.readuntil(b"0\r\n\r\n")
            writer.close()
        assert (app.written > 25) is chunks
        head, _, body = re.sub(rb'"stream":"[^"]{22}"', b"", answer).partition(b"\r\n\r\n")
        received.append((re.sub(rb"\r\ndate: [^\r]*", b"", head), body))

    assert received[0] == received[1]


# -- the limits of a head


def target(size: int) -> bytes:
    return b"GET /" + b"x" * (size - 1) + b" HTTP/1.1\r\n" + HOST + b"\r\n"


def fields(size: int) -> bytes:
    """A head of fields of 1,000 bytes each, `size` bytes in all."""
    start = len(b"/healthz" + HOST)
    count, rest = divmod(size - start, 1000)
    field = b"X: " + b"y" * 995 + b"\r\n"
    return PROBE + field * count + (b"X: " + b"y" * (rest - 5) + b"\r\n" if rest else b"") + b"\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        pytest.param(target(MAX_TARGET), 404, id="the longest target"),
        pytest.param(target(MAX_TARGET + 1), 414, id="too long a target"),
        pytest.param(fields(MAX_HEAD - 100), 200, id="many fields"),
        pytest.param(fields(MAX_HEAD + 100), 431, id="too many fields"),
        pytest.param(PROBE + b"X:\r\n" * (MAX_FIELDS - 1) + b"\r\n", 200, id="as many fields as there may be"),
        pytest.param(PROBE + b"X:\r\n" * MAX_FIELDS + b"\r\n", 431, id="a field more"),
        pytest.param(PROBE + b"X: " + b"y" * (2 * MAX_HEAD), 431, id="a field without an end"),
        pytest.param(PROBE + b"no field\r\n\r\n", 400, id="no field"),
        pytest.param(b"GET /healthz HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(PROBE + b"host: 127.0.0.1\r\n\r\n", 400, id="two Hosts"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, id="a Host that is none"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: a, b\r\n\r\n", 400, id="two Hosts in one"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: u@a\r\n\r\n", 400, id="a Host with a user"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost: [::1]:8090\r\n\r\n", 200, id="an address as Host"),
        pytest.param(b"GET /healthz HTTP/1.1\r\nHost:\r\n\r\n", 200, id="an empty Host"),
        pytest.param(b"GET /healthz HTTP/1.0\r\n\r\n", 200, id="HTTP/1.0 without Host"),
        pytest.param(b"GET /healthz HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400, id="HTTP/1.0 with two"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, id="HTTP/2"),
        pytest.param(b"CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", 400, id="CONNECT"),
    ],
)
async def test_each_limit_has_its_status(port: int, head: bytes, status: int) -> None:
    async with Client(port) as client:
        for begin in range(0, len(head), 20_000):
            await client.send(head[begin : begin + 20_000])
        answer = await client.answer()
        assert answer.status == status
        await answer.whole()
        if status in (400, 414, 431):
            assert answer.headers["connection"] == "close"
            await client.closed()


async def test_a_request_may_come_a_byte_at_a_time(echo_port: int) -> None:
    async with Client(echo_port) as client:
        for byte in b"\r\n" + POST + CHUNKED + b"3;x=y\r\nabc\r\n002\r\nde\r\n0\r\nX: y\r\n\r\n":
            await client.send(bytes((byte,)))
            await asyncio.sleep(0)
        assert (await (await client.answer()).json())["body"] == "abcde"


# -- what has no end

ENDLESS = [
    # what is sent before, what is sent again and again, how much of that is taken
    pytest.param(b"", b"\r\n", MAX_HEAD, id="empty lines"),
    pytest.param(WHOLE, b"\r\n", MAX_HEAD, id="empty lines after an answer"),
    pytest.param(STREAM + b"\r\n", b"\r\n", 0, id="empty lines behind a stream"),
    pytest.param(STREAM + b"\r\n", WHOLE, 0, id="requests behind a stream"),
    pytest.param(STREAM + b"\r\n", b"x", 0, id="nonsense behind a stream"),
    pytest.param(STREAM + b"Connection: close\r\n\r\n", WHOLE, 0, id="requests behind a stream that was to be the last"),
    pytest.param(STREAM + CHUNKED + b"0\r\nX: ", b"y", MAX_HEAD, id="a trailer field of a watcher"),
    pytest.param(STREAM + CHUNKED + b"0\r\n", b"X: y\r\n", MAX_HEAD, id="trailer fields of a watcher"),
    pytest.param(STREAM + CHUNKED + b"5;", b"x", MAX_HEAD, id="a chunk extension of a watcher"),
    pytest.param(STREAM + CHUNKED, b"0", MAX_HEAD, id="zeros before the size of a watcher's chunk"),
    pytest.param(STREAM + CHUNKED, b"f" * 20, 0, id="digits of a watcher's chunk"),
    pytest.param(STREAM + CHUNKED, b"1\r\nx\r\n", MAX_REST, id="small chunks of a watcher"),
    pytest.param(STREAM + CHUNKED, b"1;" + b"x" * 2000 + b"\r\nx\r\n", MAX_REST, id="a watcher's chunks with extensions"),
    pytest.param(STREAM + b"Content-Length: 99999999999\r\n\r\n", b"x", MAX_REST, id="content of a watcher"),
    pytest.param(PROBE + b"Content-Length: 99999999999\r\n\r\n", b"x", MAX_REST, id="content after an answer"),
    pytest.param(PROBE + CHUNKED + b"0\r\nX: ", b"y", MAX_HEAD, id="a trailer field after an answer"),
]


class Laggard:
    """Measures the longest time that the event loop's thread computed before it came round."""

    def __init__(self) -> None:
        self._lag = 0.0
        self._task = asyncio.ensure_future(self._measure())

    async def _measure(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self._lag = max(self._lag, now - last)
            last = now

    async def stop(self) -> float:
        """The seconds."""
        self._task.cancel()
        await asyncio.wait((self._task,))
        return self._lag


async def sent_until_closed(client: Client, piece: bytes, most: int) -> int:
    """Bytes that could be sent, in blocks of 64 KiB, until the server closed."""
    block = piece * max(1, 65536 // len(piece))
    closed = asyncio.ensure_future(client.closed())
    sent = 0
    try:
        while sent < most and not closed.done():
            sending = asyncio.ensure_future(client.send(block))
            await asyncio.wait((sending, closed), return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
                sent += len(block)
            sending.cancel()
    except OSError:
        pass
    closed.cancel()
    return sent


@pytest.mark.parametrize(("before", "piece", "bound"), ENDLESS)
async def test_what_has_no_end_is_cut(port: int, before: bytes, piece: bytes, bound: int) -> None:
    async with Client(port) as client:
        await begun(client, before)
        laggard = Laggard()
        assert await sent_until_closed(client, piece, bound + 2 * SLOP) <= bound + SLOP
        assert await laggard.stop() < 0.25


@pytest.mark.parametrize(
    ("before", "piece"),
    [(b"0\r\nX: ", b"y"), (b"0\r\n", b"X: y\r\n"), (b"5;", b"x"), (b"", b"0")],
    ids=["a trailer field", "trailer fields", "a chunk extension", "zeros before a chunk's size"],
)
async def test_what_has_no_end_is_cut_while_it_is_read(echo_port: int, before: bytes, piece: bytes) -> None:
    async with Client(echo_port) as client:
        await client.send(POST + CHUNKED + before)
        assert await sent_until_closed(client, piece, 2 * SLOP) <= SLOP


async def test_what_nobody_reads_is_not_taken(echo: Echo, echo_port: int) -> None:
    """An application that waits for something else leaves a body where it is."""
    async with Client(echo_port) as client:
        await client.send(b"POST /wait HTTP/1.1\r\n" + HOST + b"\r\n" + POST + b"Content-Length: 99999999\r\n\r\n")
        sending = asyncio.ensure_future(sent_until_closed(client, b"x", 99_999_999))
        done, _ = await asyncio.wait((sending,), timeout=0.5)
        assert not done
        sending.cancel()
        await asyncio.wait((sending,))


@pytest.mark.parametrize("count", [MAX_PIPELINED, MAX_PIPELINED + 1])
async def test_so_many_requests_may_wait_behind_one(echo: Echo, echo_port: int, count: int) -> None:
    asked = [f"GET /wait?{number} HTTP/1.1\r\n".encode() + HOST + b"\r\n" for number in range(count + 1)]
    async with Client(echo_port) as client:
        await client.send(b"".join(asked))
        if count > MAX_PIPELINED:
            await client.closed()
            return
        echo.proceed.set()
        for _ in asked:
            assert (await (await client.answer()).json())["method"] == "GET"


async def test_requests_after_the_last_are_not_answered(echo_port: int) -> None:
    async with Client(echo_port) as client:
        await client.send(b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\n" + WHOLE * 3)
        assert (await (await client.answer()).json())["method"] == "GET"
        with pytest.raises((Cut, ConnectionResetError)):
            await client.answer()


# -- time


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.2)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize(
    ("before", "slowly"),
    [
        pytest.param(b"", PROBE, id="fields of the first request"),
        pytest.param(b"", b"\r\n" * 100, id="empty lines before it"),
        pytest.param(WHOLE, PROBE, id="fields of a second request"),
        pytest.param(WHOLE, b"\r\n" * 100, id="empty lines before that"),
        pytest.param(STREAM + b"\r\n", PROBE, id="a request behind a stream"),
        pytest.param(STREAM + b"\r\n", b"\r\n" * 100, id="empty lines behind a stream"),
        pytest.param(STREAM + CHUNKED, b"1\r\nx\r\n" * 20, id="content of a watcher"),
        pytest.param(STREAM + CHUNKED + b"0\r\n", b"X: y\r\n" * 20, id="a trailer of a watcher"),
        pytest.param(STREAM + CHUNKED + b"5;", b"x" * 100, id="a chunk extension of a watcher"),
        pytest.param(PROBE + CHUNKED, b"1\r\nx\r\n" * 20, id="content after an answer"),
    ],
)
async def test_a_byte_at_a_time_holds_no_connection(port: int, before: bytes, slowly: bytes) -> None:
    loop = asyncio.get_running_loop()
    async with Client(port) as client:
        await begun(client, before)
        begin = loop.time()
        gone = asyncio.ensure_future(client.closed())
        for byte in slowly:
            if gone.done():
                break
            try:
                await client.send(bytes((byte,)))
            except OSError:
                break
            await asyncio.wait((gone,), timeout=0.05)
        await gone
        assert loop.time() - begin < 2


@pytest.mark.usefixtures("hurried")
async def test_who_says_nothing_is_let_go(port: int) -> None:
    async with Client(port) as client:
        await client.closed()


@pytest.mark.usefixtures("hurried")
async def test_a_body_that_nobody_wants_has_as_long_as_a_head(port: int) -> None:
    async with Client(port) as client:
        await client.send(PROBE + b"Content-Length: 1000000\r\n\r\nsome of it")
        assert (await (await client.answer()).json())["status"] == "ok"
        await client.closed()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("more", [b"", b"\r\n"], ids=["nothing", "an empty line"])
async def test_an_event_stream_has_all_the_time_there_is(port: int, more: bytes) -> None:
    """RFC 9112, 2.2: an empty line too many is passed over, as some clients send one behind a body."""
    async with Client(port) as client:
        answer = await client.get("/stream?count=3&interval=0.3")
        await client.send(more)
        assert [event.data for event in await answer.events()][-1] == "[DONE]"


async def test_a_body_that_is_too_large_is_read_on_so_that_its_sender_can_read_why(port: int) -> None:
    async with Client(port) as client:
        await client.send(b"POST /chat HTTP/1.1\r\n" + HOST + b"Content-Length: 8000000\r\n\r\n")
        for _ in range(8):
            await client.send(b"x" * 1_000_000)
        answer = await client.answer()
        assert answer.status == 413
        await answer.whole()
        assert (await (await client.get("/healthz")).json())["status"] == "ok"


async def test_nonsense_in_the_middle_of_an_answer_ends_it_and_is_not_answered_within(port: int) -> None:
    async with Client(port) as client:
        answer = await client.get("/stream?count=2&interval=60")
        await answer.event()
        await client.send(b"\x00nonsense\r\n\r\n")
        with pytest.raises((Cut, ConnectionResetError)):
            while await answer.read():
                pass


async def test_nonsense_in_the_rest_of_a_body_is_not_answered_once_more(port: int) -> None:
    async with Client(port) as client:
        await begun(client, PROBE + CHUNKED)
        await client.send(b"nonsense\r\n")
        with pytest.raises((Cut, ConnectionResetError)):
            await client.answer()


# -- what is no header field


async def test_the_fields_of_a_trailer_are_no_header_fields(echo_port: int) -> None:
    trailer = b"Authorization: Bearer t\r\nHost: evil\r\nX-Forwarded-For: 10.0.0.1\r\n"
    async with Client(echo_port) as client:
        await client.send(POST + CHUNKED + b"3\r\nabc\r\n0\r\n" + trailer + b"\r\n")
        asked = await (await client.answer()).json()
        assert (asked["body"], asked["headers"]) == ("abc", ["host", "transfer-encoding"])


async def test_a_token_in_a_trailer_permits_nothing() -> None:
    settings = Settings(token=("t",), drain=0)
    async with serving(Sidestream(settings), settings) as (_, port), Client(port) as client:
        await client.send(b"GET /streams HTTP/1.1\r\n" + HOST + CHUNKED + b"0\r\nAuthorization: Bearer t\r\n\r\n")
        assert (await client.answer()).status == 401


# -- Upgrade

H2C = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAEAAEAAAAIAAAAA\r\n"
"""What Java's HttpClient sends with requests in plain text, whatever their method."""


@pytest.mark.parametrize("pieces", [1, 3], ids=["at once", "in pieces"])
@pytest.mark.parametrize(
    ("head", "content", "body"),
    [
        (b"GET / HTTP/1.1\r\n" + HOST + H2C + b"\r\n", b"", ""),
        (b"GET / HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"", ""),
        (POST + H2C + b"Content-Length: 5\r\n\r\n", b"hello", "hello"),
        (POST + H2C + CHUNKED, b"3\r\nhel\r\n2\r\nlo\r\n0\r\nX: y\r\n\r\n", "hello"),
    ],
    ids=["GET h2c", "GET websocket", "POST h2c", "POST h2c in chunks"],
)
async def test_an_upgrade_is_passed_over(
    echo_port: int, head: bytes, content: bytes, body: str, pieces: int, caplog: pytest.LogCaptureFixture
) -> None:
    """RFC 9110, 7.8: "A server MAY ignore a received Upgrade header field"."""
    async with Client(echo_port) as client:
        for piece in [head + content] if pieces == 1 else [head, content[:4], content[4:]]:
            await client.send(piece)
            await asyncio.sleep(0.01)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"], (await answer.json())["body"]) == (200, "close", body)
        await client.closed()
    assert [record for record in caplog.records if record.levelname != "INFO"] == []


JAVA = """
import java.net.URI;
import java.net.http.*;

public class Post {
    public static void main(String[] uri) throws Exception {
        HttpRequest.BodyPublisher body = HttpRequest.BodyPublishers.ofString("hello");
        HttpRequest request = HttpRequest.newBuilder(URI.create(uri[0])).POST(body).build();
        HttpClient client = HttpClient.newHttpClient();
        for (int i = 0; i < 2; i++)
            System.out.print(client.send(request, HttpResponse.BodyHandlers.ofString()).body());
    }
}
"""


@pytest.mark.e2e
async def test_javas_client_gets_its_body_through(echo_port: int, tmp_path: Path) -> None:
    require("javac")
    source = tmp_path / "Post.java"
    source.write_text(JAVA)
    run = await asyncio.create_subprocess_exec(
        "java", str(source), f"http://127.0.0.1:{echo_port}/", stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(60):
        told, _ = await run.communicate()
    answers = [json.loads(line) for line in told.splitlines()]
    assert [(answer["body"], "upgrade" in answer["headers"]) for answer in answers] == [("hello", True)] * 2


async def test_nothing_is_answered_behind_an_upgrade(echo_port: int) -> None:
    async with Client(echo_port) as client:
        await client.send(b"POST /wait HTTP/1.1\r\n" + HOST + H2C + b"Content-Length: 2\r\n\r\nhi")
        await client.send(POST + b"Content-Length: 2\r\n\r\nho")
        await client.closed()


# -- HTTP/1.0


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_http_1_0_gets_a_stream_that_ends_with_the_connection(port: int, method: str) -> None:
    async with Client(port) as client:
        await client.send(f"{method} /stream?count=3&interval=0 HTTP/1.0\r\n".encode() + HOST + b"\r\n")
        head = await client.until(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        body = b""
        while piece := await client.receive():
            body += piece
        if method == "HEAD":
            assert body == b""
        else:
            assert re.findall(rb"^id: (.*)$", body, re.MULTILINE) == [b"0", b"1", b"2", b"3", b"end"]
            assert body.endswith(b"data: [DONE]\n\n")


async def test_http_1_0_gets_a_whole_answer_with_its_length(port: int) -> None:
    async with Client(port) as client:
        await client.send(b"GET /healthz HTTP/1.0\r\n\r\n")
        answer = await client.answer()
        assert int(answer.headers["content-length"]) > 0
        assert (await answer.json())["status"] == "ok"
        await client.closed()


async def test_a_client_of_http_1_0_that_reads_nothing_is_let_go() -> None:
    settings = Settings(drain=0, send_timeout=0.3)
    async with serving(Sidestream(settings), settings) as (server, port), Client(port, receive_buffer=4096) as client:
        await client.send(b"GET /bench?events=100000&size=1000 HTTP/1.0\r\n" + HOST + b"\r\n")
        await client.until(b"\r\n\r\n")
        async with asyncio.timeout(5):
            while server.server_state.connections:
                await asyncio.sleep(0.01)


# -- who it is, and what is left of it


async def test_a_client_by_ipv4_has_an_ipv4_address_where_one_socket_listens_on_both(echo: Echo) -> None:
    """Otherwise no network of IPv4 in `SIDESTREAM_TRUSTED_PROXIES` would match."""
    try:
        socket.create_server(("::", 0), family=socket.AF_INET6).close()
    except OSError:
        missing("there is no IPv6")
    settings = Settings(host="::", token=("off",), trusted_proxies=("127.0.0.0/8",), drain=0)
    async with serving(echo, settings) as (_, port), Client(port) as client:
        assert (await (await client.get("/")).json())["client"] == "127.0.0.1"
        answer = await client.get("/", {"X-Forwarded-For": "192.0.2.1"})
        assert (await answer.json())["client"] == "192.0.2.1"


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("path", ["/healthz", "/stream?count=0", "/stream?count=2&interval=60"])
async def test_nothing_is_left_of_a_connection_without_a_garbage_collection(path: str) -> None:
    async with serving(Sidestream(SETTINGS), SETTINGS) as (server, port):
        async with Client(port) as client:
            await (await client.get(path)).read()
            left = [weakref.ref(connection) for connection in server.server_state.connections]
        assert len(left) == 1
        async with asyncio.timeout(5):
            while left[0]() is not None:
                await asyncio.sleep(0.01)

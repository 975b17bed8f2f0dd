"""The limits on a request's head: each with its status, and time that runs out on whoever sends slowly."""

import asyncio

import pytest

from app import Sidestream
from sidecar import connection
from sidecar.settings import Settings
from tests.support.app import serving
from tests.support.sockets import Client, Cut

PROBE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n"
WHOLE = PROBE + b"\r\n"


def target(size: int) -> bytes:
    return b"GET /" + b"x" * (size - 1) + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


def fields(size: int) -> bytes:
    """A head of fields of 1,000 bytes each, `size` bytes in all."""
    start = len(b"/healthz" + b"Host: 127.0.0.1\r\n")
    count, rest = divmod(size - start, 1000)
    field = b"X: " + b"y" * 995 + b"\r\n"
    return PROBE + field * count + (b"X: " + b"y" * (rest - 5) + b"\r\n" if rest else b"") + b"\r\n"


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (target(connection.MAX_TARGET), 404),
        (target(connection.MAX_TARGET + 1), 414),
        (fields(connection.MAX_HEAD - 100), 200),
        (fields(connection.MAX_HEAD + 100), 431),
        (PROBE + b"X: " + b"y" * (2 * connection.MAX_HEAD), 431),
        (b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nno field\r\n\r\n", 400),
    ],
    ids=["the longest target", "too long a target", "many fields", "too many fields", "a field without an end", "no field"],
)
async def test_each_limit_has_its_status(head: bytes, status: int) -> None:
    settings = Settings(drain=0)
    async with serving(Sidestream(settings), settings) as (_, port), Client(port) as client:
        for begin in range(0, len(head), 20_000):
            await client.send(head[begin : begin + 20_000])
        answer = await client.answer()
        assert answer.status == status
        await answer.whole()
        if status in (400, 414, 431):
            assert answer.headers["connection"] == "close"
            await client.closed()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_TIMEOUT", 0.2)


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("before", [b"", WHOLE], ids=["at its first request", "when it is used again"])
@pytest.mark.parametrize("slowly", [PROBE, b"\r\n" * 100], ids=["fields", "empty lines"])
async def test_a_byte_at_a_time_holds_no_connection(before: bytes, slowly: bytes) -> None:
    settings = Settings(drain=0)
    loop = asyncio.get_running_loop()
    async with serving(Sidestream(settings), settings) as (_, port), Client(port) as client:
        if before:
            await client.send(before)
            await (await client.answer()).whole()
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
async def test_who_says_nothing_is_let_go() -> None:
    settings = Settings(drain=0)
    async with serving(Sidestream(settings), settings) as (_, port), Client(port) as client:
        await client.closed()


@pytest.mark.usefixtures("hurried")
async def test_a_body_that_nobody_wants_has_as_long_as_a_head() -> None:
    settings = Settings(drain=0)
    async with serving(Sidestream(settings), settings) as (_, port), Client(port) as client:
        await client.send(PROBE + b"Content-Length: 1000000\r\n\r\nsome of it")
        assert (await (await client.answer()).json())["status"] == "ok"
        await client.closed()


@pytest.mark.usefixtures("hurried")
async def test_an_event_stream_has_all_the_time_there_is() -> None:
    settings = Settings(drain=0)
    async with serving(Sidestream(settings), settings) as (_, port), Client(port) as client:
        answer = await client.get("/stream?count=3&interval=0.3")
        assert [event.data for event in await answer.events()][-1] == "[DONE]"


async def test_nonsense_in_the_middle_of_an_answer_ends_it_and_is_not_answered_within() -> None:
    settings = Settings(drain=0)
    async with serving(Sidestream(settings), settings) as (_, port), Client(port) as client:
        answer = await client.get("/stream?count=2&interval=60")
        await answer.event()
        await client.send(b"\x00nonsense\r\n\r\n")
        with pytest.raises((Cut, ConnectionResetError)):
            while await answer.read():
                pass

"""A body that is sent as it is made."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from sse.chunks import Chunks
from sse.errors import Disconnected
from sse.http import ALWAYS, Request
from tests.support.asgi import Connection, http_scope
from tests.support.clock import idle, now

pytestmark = pytest.mark.virtual_time


class Source:
    """Chunks a second apart. closed: whether the generator was."""

    closed = False

    async def __call__(self) -> AsyncGenerator[bytes, None]:
        try:
            for chunk in (b"one", b"two"):
                await asyncio.sleep(1)
                yield chunk
        finally:
            self.closed = True


async def answered(chunks: Chunks, connection: Connection, method: str = "GET") -> None:
    await chunks(Request(http_scope(method=method), connection.receive), connection.send, ((b"x-more", b"1"),))


async def test_each_chunk_is_a_body_message_of_its_own_as_soon_as_it_is_there() -> None:
    source, connection = Source(), Connection()
    task = asyncio.ensure_future(answered(Chunks(source(), {"content-type": "text/event-stream"}), connection))
    await idle()
    assert connection.bodies == [b""]  # which sends the head
    assert connection.headers == dict([(b"content-type", b"text/event-stream"), *ALWAYS, (b"x-more", b"1")])
    await asyncio.sleep(1.5)
    assert connection.bodies == [b"", b"one"]
    await task
    assert (connection.bodies, connection.complete, source.closed, now()) == ([b"", b"one", b"two", b""], True, True, 2)


async def test_when_the_client_goes_the_source_is_closed_at_once() -> None:
    source, connection = Source(), Connection()
    task = asyncio.ensure_future(answered(Chunks(source(), {}), connection))
    await asyncio.sleep(1.5)
    connection.disconnect()
    with pytest.raises(Disconnected):
        await task
    assert (connection.bodies, source.closed, now()) == ([b"", b"one"], True, 1.5)


async def test_head_gets_the_headers_and_starts_nothing() -> None:
    source, connection = Source(), Connection()
    await answered(Chunks(source(), {}), connection, "HEAD")
    assert (connection.status, connection.bodies, connection.complete, now()) == (200, [b"", b""], True, 0)


async def test_a_client_that_was_gone_from_the_first_gets_nothing() -> None:
    source, connection = Source(), Connection()
    connection.disconnect()
    with pytest.raises(Disconnected):
        await answered(Chunks(source(), {}), connection)

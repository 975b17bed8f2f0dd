import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sse.testing import Answer, FakeServer, OpenedStream, ReceivedRequest, open_stream
from sse.wire.event import MessageEvent

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

START = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}


def body(data: bytes, more: bool = True) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def endless(scope: Message, receive: Receive, send: Send) -> None:
    """Two events, and then nothing until the client has gone."""
    await send(START)
    await send(body(b"id: 1\ndata: a\n\n"))
    await send(body(b"data: b\n\ndata: cut o"))
    while (await receive())["type"] != "http.disconnect":
        pass


async def complete(scope: Message, receive: Receive, send: Send) -> None:
    await send(START)
    await send(body(b"data: a\n\n"))
    await send(body(b"data: b\n\n", more=False))


async def test_events_come_out_while_the_app_is_still_running() -> None:
    async with open_stream(endless, "/") as stream:
        assert (stream.status, stream.headers) == (200, {"content-type": "text/event-stream"})
        assert await stream.next() == MessageEvent("message", "a", "1")
        assert await stream.next() == MessageEvent("message", "b", "1")
        assert stream.raw.endswith(b"cut o")
        assert not stream.complete


async def test_iteration_ends_with_the_body() -> None:
    async with open_stream(complete, "/") as stream:
        assert [event.data async for event in stream] == ["a", "b"]
        assert stream.complete


async def test_what_did_not_come_is_told_with_what_was_sent_so_far() -> None:
    async with open_stream(endless, "/") as stream:
        await stream.next()
        await stream.next()
        with pytest.raises(AssertionError, match=r"no event within 0\.01 s; the app is running.*status 200.*cut o"):
            await stream.next(timeout=0.01)


async def test_an_event_that_can_not_come_any_more_is_not_waited_for() -> None:
    async with open_stream(complete, "/", timeout=60) as stream:
        assert [await stream.next(), await stream.next()] == [("message", "a", ""), ("message", "b", "")]
        with pytest.raises(AssertionError, match="the app has ended"):
            await stream.next()


async def test_the_scope_says_what_was_asked() -> None:
    seen: list[Message] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.extend((scope, await receive()))
        await complete(scope, receive, send)

    async with open_stream(
        app, "/a%20b?x=1&y=%C3%A4", method="POST", headers={"Last-Event-ID": "ä.1"}, json={"k": [1]}, spec_version="2.4"
    ):
        pass
    scope, request = seen
    assert (scope["type"], scope["method"], scope["path"], scope["raw_path"]) == ("http", "POST", "/a b", b"/a%20b")
    assert (scope["query_string"], scope["asgi"]["spec_version"]) == (b"x=1&y=%C3%A4", "2.4")
    assert dict(scope["headers"]) == {
        b"host": b"testserver",
        b"content-length": b"10",
        b"content-type": b"application/json",
        b"last-event-id": "ä.1".encode(),
    }
    assert request == {"type": "http.request", "body": b'{"k": [1]}', "more_body": False}


@pytest.mark.parametrize(("spec_version", "raises"), [("2.3", False), ("2.4", True)])
async def test_send_after_a_disconnect_is_silent_or_raises_as_the_spec_version_says(spec_version: Any, raises: bool) -> None:
    raised: list[bool] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        try:
            await send(body(b"data: late\n\n"))
        except OSError:
            raised.append(True)
        else:
            raised.append(False)

    async with open_stream(app, "/", spec_version=spec_version) as stream:
        stream.disconnect()
    assert (raised, stream.raw) == ([raises], b"")


async def test_what_send_raised_after_the_disconnect_may_pass_through_the_app() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        await endless(scope, receive, ignore)
        await send(body(b""))

    async def ignore(message: Message) -> None:
        pass

    async with open_stream(app, "/", spec_version="2.4") as stream:
        assert stream.status == 200


async def test_an_app_that_does_not_end_after_the_disconnect_is_reported_and_cancelled() -> None:
    cancelled = asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    with pytest.raises(AssertionError, match=r"went on for 0\.01 s after the disconnect"):
        async with open_stream(app, "/", timeout=0.01):
            pass
    await asyncio.wait_for(cancelled.wait(), 5)


async def test_what_the_app_raised_is_raised_at_the_end() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with open_stream(app, "/") as stream:
            assert [event async for event in stream] == []


async def test_an_app_that_never_answers_is_reported() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    with pytest.raises(AssertionError, match=r"no answer within 0\.01 s.*status 0"):
        async with open_stream(app, "/", timeout=0.01):
            pytest.fail("there is no answer to enter with")
    async with open_stream(app, "/", wait=False) as stream:
        assert (stream.status, stream.headers) == (0, {})


@pytest.mark.parametrize(
    "messages",
    [
        pytest.param([body(b"")], id="a body before the start"),
        pytest.param([START, START], id="two starts"),
        pytest.param([START, body(b"", more=False), body(b"")], id="a body after the last"),
    ],
)
async def test_messages_out_of_turn_are_refused(messages: list[Message]) -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    with pytest.raises(AssertionError, match="out of turn"):
        async with open_stream(app, "/", wait=False) as stream:
            assert [event async for event in stream] == []


@pytest.mark.parametrize("release", [OpenedStream.go_on_reading, OpenedStream.disconnect], ids=["reads", "disconnects"])
async def test_a_client_that_stops_reading_holds_up_send(release: Callable[[OpenedStream], None]) -> None:
    turn, sent = asyncio.Event(), asyncio.Event()

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await send(START)
        await turn.wait()
        await send(body(b"data: a\n\n", more=False))
        sent.set()

    async with open_stream(app, "/") as stream:
        stream.stop_reading()
        turn.set()
        with pytest.raises(AssertionError, match="no event"):
            await stream.next(timeout=0.01)
        assert not sent.is_set()
        release(stream)
        await asyncio.wait_for(sent.wait(), 5)


@asynccontextmanager
async def connection(
    server: FakeServer, request: bytes = b"GET /x HTTP/1.1\r\nHost: h\r\n\r\n"
) -> AsyncIterator[asyncio.StreamReader]:
    """A connection on which `request` was sent."""
    host, port = server.url.removeprefix("http://").rstrip("/").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(request)
        async with asyncio.timeout(5):
            yield reader
    finally:
        writer.close()


async def ask(server: FakeServer) -> bytes:
    """Everything that one connection to the server is sent, until it is closed."""
    async with connection(server) as reader:
        return await reader.read()


async def test_consecutive_connections_get_consecutive_answers_and_204_after_the_last() -> None:
    async with FakeServer(Answer(b"data: a\n\n"), lambda request: Answer(status=503, headers={"X-At": request.path})) as s:
        first, second, third = [await ask(s) for _ in range(3)]
    assert first.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    assert first.endswith(b"\r\n\r\n9\r\ndata: a\n\n\r\n0\r\n\r\n")
    assert second.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"X-At: /x\r\n" in second
    assert third.startswith(b"HTTP/1.1 204 No Content\r\n")
    assert third.endswith(b"\r\n\r\n")


async def test_requests_are_recorded() -> None:
    async with FakeServer() as server:
        request = b"POST /jobs?x HTTP/1.1\r\nHost: h\r\nContent-Length: 2\r\nX-Two: a: b\r\n\r\n{}"
        async with connection(server, request) as reader:
            await reader.read()
        expected = {"host": "h", "content-length": "2", "x-two": "a: b"}
        assert server.requests == [ReceivedRequest("POST", "/jobs?x", expected, b"{}")]


async def test_a_cut_ends_the_connection_without_completing_the_body() -> None:
    async with FakeServer(Answer(b"data: a\n", then="cut")) as server:
        assert (await ask(server)).endswith(b"\r\n\r\n8\r\ndata: a\n\r\n")


async def test_a_reset_is_seen_as_one() -> None:
    async with FakeServer(Answer(then="reset"), Answer(status=None, then="reset")) as server:
        for _ in range(2):
            with pytest.raises(ConnectionResetError):
                await ask(server)


async def test_no_answer_and_a_cut_is_an_empty_answer() -> None:
    async with FakeServer(Answer(status=None, then="cut")) as server:
        assert await ask(server) == b""


async def test_an_event_among_the_pieces_is_waited_for() -> None:
    go = asyncio.Event()
    async with FakeServer(Answer([b"data: a\n\n", go, b"data: b\n\n"])) as server, connection(server) as reader:
        await reader.readuntil(b"data: a\n\n\r\n")
        go.set()
        assert await reader.read() == b"9\r\ndata: b\n\n\r\n0\r\n\r\n"


async def test_a_hang_lasts_until_the_client_leaves() -> None:
    async with FakeServer(Answer(then="hang")) as server:
        async with connection(server) as reader:
            await reader.readuntil(b"\r\n\r\n")
            assert not server.requests[0].left.is_set()
        await asyncio.wait_for(server.requests[0].left.wait(), 5)


async def test_a_server_that_is_left_closes_what_hangs() -> None:
    async with FakeServer(Answer(then="hang")) as server:
        hanging = connection(server)
        reader = await hanging.__aenter__()
        await reader.readuntil(b"\r\n\r\n")
    assert await reader.read() == b""
    await hanging.__aexit__(None, None, None)

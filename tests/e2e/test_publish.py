"""Publishing over real sockets: events as they arrive, a slow watcher holds the publisher, an end stops it; and curl."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.support.require import require
from tests.support.servers import Server, sidecar
from tests.support.sockets import Answer, Client, complaints, fetch, get_json, resident

MEBIBYTE = 1 << 20
STREAM = "text/event-stream"
JSON = "application/json"


@pytest.fixture
async def process() -> AsyncIterator[Server]:
    async with sidecar(SIDESTREAM_REPLAY_BYTES="1MiB", SIDESTREAM_SEND_TIMEOUT="20") as process:
        yield process


async def opened(process: Server) -> dict[str, Any]:
    status, body = await fetch(process.port, "/streams", method="POST")
    assert status == 201
    document: dict[str, Any] = json.loads(body)
    return document


async def state(process: Server, stream: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = await get_json(process.port, stream["url"], {"Accept": JSON})
    return document


async def delete(process: Server, stream: dict[str, Any]) -> None:
    assert (await fetch(process.port, stream["url"], method="DELETE"))[0] == 204


class Publisher:
    """One publish request, whose body is sent in chunks (RFC 9112, 7.1) for as long as the test likes."""

    def __init__(self, client: Client, stream: dict[str, Any]) -> None:
        self.client = client
        self.path = f"{stream['url']}/events"

    async def begin(self) -> None:
        headers = f"Host: 127.0.0.1:{self.client.port}\r\nContent-Type: {STREAM}\r\nTransfer-Encoding: chunked"
        await self.client.send(f"POST {self.path} HTTP/1.1\r\n{headers}\r\n\r\n".encode())

    async def send(self, body: bytes) -> None:
        await self.client.send(b"%x\r\n%b\r\n" % (len(body), body))

    async def end(self) -> tuple[int, Any]:
        await self.client.send(b"0\r\n\r\n")
        return await self.answer()

    async def answer(self) -> tuple[int, Any]:
        answer = await self.client.answer("POST")
        return answer.status, await answer.json()


async def test_an_event_reaches_its_watcher_before_the_body_ends(process: Server) -> None:
    stream = await opened(process)
    async with Client(process.port) as watching, Client(process.port) as publishing:
        watched = await watching.get(stream["url"])
        publisher = Publisher(publishing, stream)
        await publisher.begin()
        for number in range(1, 4):
            await publisher.send(b"event: step\nda")
            await publisher.send(b"ta: %d\n\n" % number)
            event = await watched.event()
            assert (event.type, event.data, event.last_event_id) == ("step", str(number), f"{stream['stream_id']}.{number}")
        assert await publisher.end() == (200, {"first": 1, "last": 3, "events": 3, "skipped": 0})
        assert (await publishing.request("POST", f"{stream['url']}/close")).status == 204  # the same connection goes on
        assert [event.type for event in await watched.events()] == ["end"]


EVENT = b"data: " + b"x" * 1000 + b"\n\n"
BLOCK = EVENT * 64


async def publish_until_blocked(publisher: Publisher, seconds: float) -> int:
    """Publish as fast as the connection takes it; the bytes that were sent when it has taken none for so long."""
    sent = 0
    while True:
        sending = asyncio.ensure_future(publisher.send(BLOCK))
        await asyncio.wait((sending,), timeout=seconds)
        if not sending.done():
            sending.cancel()
            await asyncio.wait((sending,))
            return sent
        await sending
        sent += len(BLOCK)


async def test_a_publisher_faster_than_its_watcher_is_made_to_wait_and_memory_stays(process: Server) -> None:
    stream = await opened(process)
    async with Client(process.port, receive_buffer=4096) as watching, Client(process.port) as publishing:
        watched = await watching.get(stream["url"])
        before = resident(process.pid)
        publisher = Publisher(publishing, stream)
        await publisher.begin()
        sent = await publish_until_blocked(publisher, 1.0)
        stalled = await state(process, stream)
        print(f"blocked after {sent / MEBIBYTE:.1f} MiB, of which {stalled['events']} events were taken from the socket")
        assert sent < 64 * MEBIBYTE  # what the kernel holds, on both connections
        assert stalled["waits_for"] == "watcher"
        assert stalled["bytes"] <= MEBIBYTE
        assert resident(process.pid) - before < 16 * MEBIBYTE
        for _ in range(stalled["events"] + 1):  # it reads again, and the publisher goes on
            await watched.event()
        assert (await state(process, stream))["events"] > stalled["events"]
        await delete(process, stream)


@pytest.mark.parametrize("body", [b"", b"data: half"], ids=["before the body", "in the middle of an event"])
async def test_a_publisher_that_is_idle_is_told_410_at_once_and_its_connection_closed(process: Server, body: bytes) -> None:
    stream = await opened(process)
    async with Client(process.port) as watching, Client(process.port) as publishing:
        watched = await watching.get(stream["url"])
        publisher = Publisher(publishing, stream)
        await publisher.begin()
        await publisher.send(b"data: first\n\n" + body)
        await watched.event()
        begin = time.monotonic()
        await delete(process, stream)
        status, problem = await publisher.answer()
        assert (status, problem["reason"], problem["events"]) == (410, "deleted", 1)
        assert await publishing.receive() == b""
        assert time.monotonic() - begin < 1
    assert complaints(process.stderr) == []


async def test_a_publisher_that_is_blocked_is_told_410(process: Server) -> None:
    stream = await opened(process)
    async with Client(process.port, receive_buffer=4096) as watching, Client(process.port) as publishing:
        watched: Answer = await watching.get(stream["url"])
        publisher = Publisher(publishing, stream)
        await publisher.begin()
        await publish_until_blocked(publisher, 0.3)
        await delete(process, stream)
        status, problem = await publisher.answer()
        assert (status, problem["reason"]) == (410, "deleted")
        await publishing.closed()
        *_, last = await watched.events()
        assert last.type == "cancelled"
    assert complaints(process.stderr) == []


async def test_sigterm_ends_a_stream_whose_publisher_is_still_there(process: Server) -> None:
    stream = await opened(process)
    async with Client(process.port) as watching, Client(process.port) as publishing:
        watched = await watching.get(stream["url"])
        publisher = Publisher(publishing, stream)
        await publisher.begin()
        await publisher.send(b"data: first\n\n")
        await watched.event()
        begin = time.monotonic()
        assert await process.stop() == 0
        assert time.monotonic() - begin < 3
        assert [event.data for event in await watched.events()] == ['{"reason":"shutting_down"}']
        assert (await publisher.answer())[0] == 410
    assert complaints(process.stderr) == []


# -- curl


async def curl(*arguments: str) -> asyncio.subprocess.Process:
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(require("curl"), "-sS", *arguments, stdin=pipe, stdout=pipe, stderr=pipe)


async def test_curl_uploads_what_is_piped_in_as_it_comes(process: Server) -> None:
    stream = await opened(process)
    url = f"{process.url}{stream['url']}/events"
    upload = await curl("-T", "-", "-H", f"content-type: {STREAM}", url)
    assert upload.stdin is not None
    async with Client(process.port) as client:
        watched = await client.get(stream["url"])
        for number in range(3):
            upload.stdin.write(b"id: odd\ndata: %d\n\n" % number)
            assert (await watched.event()).data == str(number)
    async with asyncio.timeout(10):
        out, err = await upload.communicate(b"")
    assert (json.loads(out), err) == ({"first": 1, "last": 3, "events": 3, "skipped": 0}, b"")


async def test_another_server_s_event_stream_is_piped_in(process: Server) -> None:
    stream = await opened(process)
    source = await curl("-N", f"{process.url}/chat?prompt=hello")
    upload = await curl("-T", "-", "-H", f"content-type: {STREAM}", f"{process.url}{stream['url']}/events")
    async with asyncio.timeout(20):
        piped, _ = await source.communicate()
        out, _ = await upload.communicate(piped)
    assert json.loads(out)["parameter"] == "event"  # `connected` is this server's own to say
    plain = piped.partition(b"\n\n")[2]
    upload = await curl("-T", "-", "-H", f"content-type: {STREAM}", f"{process.url}{stream['url']}/events")
    out, _ = await upload.communicate(plain)
    answer = json.loads(out)
    assert answer["events"] == answer["last"] == plain.count(b"\n\n") > 2


async def test_curl_learns_that_the_stream_is_gone_while_it_uploads(process: Server) -> None:
    stream = await opened(process)
    url = f"{process.url}{stream['url']}/events"
    # With `-` curl waits for its input only, and would learn it with the next event; with `.` it looks at the answer too
    upload = await curl("-T", ".", "-H", f"content-type: {STREAM}", "-w", "%{http_code}", "-o", "/dev/null", url)
    assert upload.stdin is not None
    async with Client(process.port) as client:
        watched = await client.get(stream["url"])
        upload.stdin.write(b"data: 1\n\n")
        await watched.event()
        await delete(process, stream)
    async with asyncio.timeout(10):  # its input stays open: it ends because it is told to
        assert upload.stdout is not None
        assert await upload.stdout.read() == b"410"
        await upload.wait()

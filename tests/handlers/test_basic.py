"""GET /stream: its bytes, its numbers, and how it is resumed by them alone."""

import asyncio
from collections.abc import Mapping

import pytest

from app import Sidestream
from handlers import basic
from sidecar.settings import Settings
from sse.testing import open_stream
from tests.support.app import EVENT_STREAM, HOST, ask
from tests.support.clock import now

pytestmark = pytest.mark.virtual_time


@pytest.fixture
def sidestream() -> Sidestream:
    return Sidestream(Settings())


def update(number: int) -> bytes:
    return b'id: %d\ndata: {"count":%d,"message":"Update %d"}\n\n' % (number, number, number)


END = b"id: end\ndata: [DONE]\n\n"


async def test_the_whole_stream_byte_for_byte(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/stream?count=3", headers=EVENT_STREAM)
    opening, _, rest = answer.body.partition(b"\n\n")
    assert opening.startswith(b'id: 0\nretry: 2000\nevent: connected\ndata: {"status":"ok","stream":"')
    assert rest == update(1) + update(2) + update(3) + END
    assert len(answer.headers["x-request-id"]) == 16
    assert answer.headers == {
        "x-request-id": answer.headers["x-request-id"],
        "content-type": "text/event-stream",
        "cache-control": "no-store, no-transform",
        "x-content-type-options": "nosniff",
        "x-accel-buffering": "no",
    }


async def test_ten_messages_half_a_second_apart_unless_asked_otherwise(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/stream")
    assert answer.body.endswith(update(10) + END)
    assert now() == pytest.approx(4.5)


async def test_the_interval_lies_between_messages(sidestream: Sidestream) -> None:
    begin = now()
    await ask(sidestream, "/stream?count=5&interval=2")
    assert now() - begin == pytest.approx(8)


@pytest.mark.parametrize(
    ("last", "rest"),
    [("1", update(2) + update(3) + END), ("2", update(3) + END), ("3", END), ("0003", END)],
)
async def test_it_goes_on_after_the_number(sidestream: Sidestream, last: str, rest: bytes) -> None:
    answer = await ask(sidestream, "/stream?count=3", headers={"last-event-id": last})
    assert answer.body == b"id: %d\nretry: 2000\n\n" % int(last) + rest


async def test_a_client_that_has_only_the_opening_begins_again(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/stream?count=1", headers={"last-event-id": "0"})
    assert answer.body.startswith(b"id: 0\nretry: 2000\nevent: connected\n")
    assert answer.body.endswith(update(1) + END)


async def test_a_finished_stream_is_204(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/stream?count=3", headers={"last-event-id": "end"})
    assert (answer.status, answer.body) == (204, b"")


async def test_no_messages_is_the_end_at_once(sidestream: Sidestream) -> None:
    assert (await ask(sidestream, "/stream?count=0")).body.endswith(b"\n\n" + END)


async def test_the_header_wins_over_the_query(sidestream: Sidestream) -> None:
    path = "/stream?count=3&last_event_id=1"
    assert (await ask(sidestream, path)).body.endswith(b"\n\n" + update(2) + update(3) + END)
    assert (await ask(sidestream, path, headers={"last-event-id": "2"})).body.endswith(b"\n\n" + update(3) + END)
    assert (await ask(sidestream, path, headers={"last-event-id": "end"})).status == 204


@pytest.mark.parametrize(
    ("path", "headers", "parameter"),
    [
        ("/stream?count=x", {}, "count"),
        ("/stream?count=", {}, "count"),
        ("/stream?count=-1", {}, "count"),
        ("/stream?count=1.5", {}, "count"),
        ("/stream?count=1_0", {}, "count"),
        ("/stream?count=%2B5", {}, "count"),
        ("/stream?count=%205", {}, "count"),
        ("/stream?count=%D9%A5", {}, "count"),
        ("/stream?count=1000001", {}, "count"),
        ("/stream?count=" + "9" * 5000, {}, "count"),
        ("/stream?count=1%0A2", {}, "count"),
        ("/stream?interval=x", {}, "interval"),
        ("/stream?interval=", {}, "interval"),
        ("/stream?interval=-0.1", {}, "interval"),
        ("/stream?interval=nan", {}, "interval"),
        ("/stream?interval=inf", {}, "interval"),
        ("/stream?interval=3601", {}, "interval"),
        ("/stream?interval=%200.5", {}, "interval"),
        ("/stream?count=3", {"last-event-id": "4"}, "last_event_id"),
        ("/stream?count=3", {"last-event-id": "-1"}, "last_event_id"),
        ("/stream?count=3", {"last-event-id": "x"}, "last_event_id"),
        ("/stream?count=3", {"last-event-id": "١"}, "last_event_id"),
        ("/stream?count=3", {"last-event-id": "id.2"}, "last_event_id"),
        ("/stream?count=3&last_event_id=1%0A", {}, "last_event_id"),
        ("/stream?count=3&last_event_id=99999999", {}, "last_event_id"),
    ],
    ids=str,
)
async def test_what_cannot_be_read_is_a_400_that_names_it(
    sidestream: Sidestream, path: str, headers: Mapping[str, str], parameter: str
) -> None:
    answer = await ask(sidestream, path, headers=headers)
    assert (answer.status, answer.headers["content-type"]) == (400, "application/problem+json")
    assert answer.json["parameter"] == parameter


@pytest.mark.parametrize("path", ["/stream?%ff", "/stream?" + "a=1&" * 200])
async def test_a_strange_query_is_read_or_refused_but_never_an_error(sidestream: Sidestream, path: str) -> None:
    assert (await ask(sidestream, path + "&count=0")).status in (200, 400)


async def test_a_client_that_leaves_stops_the_source(sidestream: Sidestream) -> None:
    headers = {"host": HOST, **EVENT_STREAM}
    async with open_stream(sidestream, "/stream?count=9&interval=60", headers=headers) as stream:
        await stream.next()
        (running,) = sidestream.service.store.running.values()
    async with asyncio.timeout(1):
        await running.closed()
    assert running.reason == "abandoned"
    assert sidestream.service.store.running == {}


async def test_the_source_counts_from_where_it_is_told() -> None:
    assert [item["count"] async for item in basic.updates(3, 5, 1)] == [3, 4, 5]
    assert [item async for item in basic.updates(6, 5, 1)] == []
    assert now() == pytest.approx(2)


async def test_an_idle_stream_sends_heartbeats() -> None:
    sidestream = Sidestream(Settings(heartbeat=15))
    answer = await ask(sidestream, "/stream?count=2&interval=50", timeout=60)
    assert answer.body.count(b"\n\n:\n:\n:\nid: 2\n") == 1

"""Publishing over HTTP, in process: opening, numbering, limits, rights, and ends in the middle of a body."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import pytest

from app import Sidestream
from handlers.publish.bodies import MAX_LIST
from sidecar.settings import Settings
from sse.asgi import Message
from sse.budget import Charge
from sse.stream import MAX_EVENT, State, Stream, Trigger
from sse.testing import open_stream
from tests.support.app import EVENT_STREAM, HOST, JSON, Answer, ask
from tests.support.asgi import Connection, http_scope
from tests.support.clock import idle, now
from tests.support.streams import open_in

pytestmark = pytest.mark.virtual_time

LINES = {"content-type": "application/jsonl"}
STREAM = {"content-type": "text/event-stream"}


@pytest.fixture
async def sidestream() -> AsyncIterator[Sidestream]:
    sidestream = Sidestream(Settings())
    yield sidestream
    await sidestream.stop()


async def opened(sidestream: Sidestream, **wishes: Any) -> Stream:
    answer = await ask(sidestream, "/streams", method="POST", json=wishes)
    assert answer.status == 201, answer.body
    stream = sidestream.service.store.streams.get(answer.json["stream_id"])
    assert stream is not None
    return stream


async def post(sidestream: Sidestream, stream: Stream, body: Any, query: str = "", **headers: str) -> Answer:
    """Publish: a value as JSON, bytes as they are with the content type that is given."""
    path = f"/streams/{stream.id}/events{query}"
    if isinstance(body, bytes):
        return await ask(sidestream, path, method="POST", body=body, headers=headers)
    return await ask(sidestream, path, method="POST", json=body, headers=headers)


async def events(sidestream: Sidestream, stream: Stream) -> list[tuple[str, str, str]]:
    """All events of a stream that has ended: (number, type, data)."""
    answer = await ask(sidestream, f"/streams/{stream.id}", headers=EVENT_STREAM)
    return [(event.last_event_id.rpartition(".")[2], event.type, event.data) for event in answer.events]


async def close(sidestream: Sidestream, stream: Stream) -> Answer:
    return await ask(sidestream, f"/streams/{stream.id}/close", method="POST")


class Arriving:
    """One publish request whose body arrives when the test says so. unread: what has arrived and was not asked for."""

    def __init__(self, sidestream: Sidestream, stream: Stream, headers: Mapping[str, str], query: bytes = b"") -> None:
        self.connection = Connection([])
        self.unread: asyncio.Queue[Message] = asyncio.Queue()
        raw = [(name.encode(), value.encode()) for name, value in {"host": HOST, **headers}.items()]
        scope = http_scope(f"/streams/{stream.id}/events", method="POST", query=query, headers=raw)
        self.answer = asyncio.ensure_future(sidestream(scope, self._receive, self.connection.send))

    async def _receive(self) -> Message:
        return await self.unread.get()

    def arrive(self, body: bytes, *, more: bool = True) -> None:
        self.unread.put_nowait({"type": "http.request", "body": body, "more_body": more})

    def vanish(self) -> None:
        self.unread.put_nowait({"type": "http.disconnect"})

    async def answered(self) -> tuple[int, Any]:
        async with asyncio.timeout(5):
            await self.answer
        return self.connection.status, json.loads(self.connection.body)


# -- opening


async def test_a_stream_is_opened_with_201_its_location_and_its_key(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/streams", method="POST")
    document = answer.json
    assert (answer.status, answer.headers["location"]) == (201, f"/streams/{document['stream_id']}")
    stream = sidestream.service.store.streams.get(document["stream_id"])
    assert stream is not None
    assert document == {"stream_id": stream.id, "url": f"/streams/{stream.id}", "key": stream.key}
    assert (stream.opening.linger, stream.state, stream.format.name) == (None, State.RUNNING, "published")


async def test_wishes_are_kept(sidestream: Sidestream) -> None:
    stream = await opened(sidestream, linger=2.5, ttl=60, metadata={"user": "Jörg", "n": [1]})
    assert (stream.opening.linger, stream.opening.metadata) == (2.5, {"user": "Jörg", "n": [1]})
    document = (await ask(sidestream, f"/streams/{stream.id}", headers=JSON)).json
    assert (document["metadata"], document["format"]) == ({"user": "Jörg", "n": [1]}, "published")


@pytest.mark.parametrize(
    ("wishes", "parameter"),
    [
        ({"linger": -1}, "linger"),
        ({"linger": "5"}, "linger"),
        ({"linger": True}, "linger"),
        ({"ttl": 86401}, "ttl"),
        ({"ttl": [5]}, "ttl"),
        ({"metadata": "x" * 1023}, "metadata"),
        ({"metdata": 1}, "metdata"),
    ],
    ids=["negative", "a text", "a flag", "too long", "a list", "too large", "unknown"],
)
async def test_a_bad_wish_is_named(sidestream: Sidestream, wishes: Any, parameter: str) -> None:
    answer = await ask(sidestream, "/streams", method="POST", json=wishes)
    assert (answer.status, answer.json["parameter"]) == (422, parameter)
    assert sidestream.service.store.streams == {}


async def test_metadata_may_have_a_kibibyte_and_wishes_are_an_object(sidestream: Sidestream) -> None:
    await opened(sidestream, metadata="x" * 1022)
    assert (await ask(sidestream, "/streams", method="POST", json=[1])).status == 400


async def test_it_goes_on_unwatched_unless_a_linger_says_otherwise(sidestream: Sidestream) -> None:
    stream, short = await opened(sidestream), await opened(sidestream, linger=0)
    await short.closed()
    assert (stream.state, short.state, short.reason) == (State.RUNNING, State.CANCELLED, "abandoned")


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/jsonl"}], ids=["JSON", "lines"])
async def test_integers_keep_all_their_digits(sidestream: Sidestream, headers: dict[str, str]) -> None:
    number = "123456789012345678901234567890"
    stream = await opened(sidestream)
    body = b'{"data": {"id": %b}}' % number.encode()
    answer = await post(sidestream, stream, body, **({"content-type": "application/json"} | headers))
    assert answer.status == 200
    await close(sidestream, stream)
    assert (await events(sidestream, stream))[0] == ("1", "message", f'{{"id":{number}}}')


@pytest.mark.parametrize("kind", ["application/jsonl", "text/event-stream"])
async def test_what_is_not_complete_is_charged(sidestream: Sidestream, kind: str) -> None:
    """A hundred publishers that each hold back the end of an event of 2 MiB would take 200 MiB."""
    stream, budget = await opened(sidestream), sidestream.service.store.budget
    request = Arriving(sidestream, stream, {"content-type": kind})
    before = budget.used
    request.arrive(b"data: " + b"x" * 50_000)
    await idle()
    assert budget.used >= before + 50_000
    request.arrive(b"y" * 50_000)
    await idle()
    assert budget.used >= before + 100_000

    filler = Charge(budget)
    filler.add(budget.limit - budget.used)
    request.arrive(b"z" * 50_000)
    await request.answer
    assert (request.connection.status, request.connection.headers[b"connection"]) == (503, b"close")
    assert json.loads(request.connection.body)["limit"] == "memory"
    filler.clear()
    assert budget.used == before


async def test_an_idempotency_key_names_the_same_stream(sidestream: Sidestream) -> None:
    answers = [await ask(sidestream, "/streams?key=k", method="POST", json={"ttl": ttl}) for ttl in (5, 5, 6)]
    assert [answer.status for answer in answers] == [201, 201, 422]
    assert answers[0].json == answers[1].json


async def test_without_a_publisher_it_fails(sidestream: Sidestream) -> None:
    stream = await opened(sidestream, ttl=30)
    await stream.closed()
    assert now() == 30
    (error,) = await events(sidestream, stream)
    assert error[:2] == ("end", "error")
    assert json.loads(error[2]) == {"error": "no publisher for 30 s", "code": "publisher_gone", "fatal": True}


# -- whole bodies


async def test_one_event_then_a_list(sidestream: Sidestream) -> None:
    stream = await opened(sidestream)
    one = await post(sidestream, stream, {"event": "add", "data": {"n": 1}})
    assert (one.status, one.json) == (200, {"first": 1, "last": 1, "events": 1, "skipped": 0})
    many = await post(sidestream, stream, [{"data": "zwei"}, {"event": "add", "data": 3, "id": "x", "retry": 1}])
    assert many.json == {"first": 2, "last": 3, "events": 2, "skipped": 0}
    assert (await post(sidestream, stream, [])).json == {"first": None, "last": 3, "events": 0, "skipped": 0}
    assert (await close(sidestream, stream)).status == 204
    assert await events(sidestream, stream) == [
        ("1", "add", '{"n":1}'),
        ("2", "message", "zwei"),
        ("3", "add", "3"),
        ("end", "end", "{}"),
    ]


@pytest.mark.parametrize(
    ("bad", "status"),
    [({"event": "end"}, 422), ({"event": 1}, 422), ({"x": 1}, 422), (7, 422), ({"data": "x" * MAX_EVENT}, 413)],
    ids=["a reserved name", "no name", "an unknown member", "no object", "too large"],
)
async def test_a_list_is_all_or_nothing(sidestream: Sidestream, bad: Any, status: int) -> None:
    stream = await opened(sidestream)
    answer = await post(sidestream, stream, [{"data": 1}, bad, {"data": 3}])
    assert (answer.status, answer.json["events"], stream.log.last) == (status, 0, 0)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"data: x\n\n", {}, 415),
        (b"data: x\n\n", {"content-type": "text/plain"}, 415),
        (b"{", {"content-type": "application/json"}, 400),
        (b"", {"content-type": "application/json"}, 422),
        (b"[" + b"{}," * MAX_LIST + b"{}]", {"content-type": "application/json"}, 413),
    ],
    ids=["no type", "another type", "no JSON", "nothing", "too many"],
)
async def test_a_body_that_can_t_be_read(sidestream: Sidestream, body: bytes, headers: dict[str, str], status: int) -> None:
    stream = await opened(sidestream)
    answer = await post(sidestream, stream, body, **headers)
    assert (answer.status, stream.log.last) == (status, 0)
    if status == 415:
        assert answer.headers["accept"] == "application/json, application/jsonl, application/x-ndjson, text/event-stream"


@pytest.mark.parametrize("path", ["events", "close"])
async def test_only_a_published_stream_can_be_published_to(sidestream: Sidestream, path: str) -> None:
    other = open_in(sidestream.service.store)
    unknown = await ask(sidestream, f"/streams/unknown/{path}", method="POST", json={})
    assert (unknown.status, unknown.json["code"]) == (404, "stream_gone")
    assert (await ask(sidestream, f"/streams/{other.id}/{path}", method="POST", json={})).status == 409
    assert other.state is State.RUNNING


# -- bodies that arrive bit by bit


@pytest.mark.parametrize(
    ("headers", "pieces"),
    [
        (LINES, [b'{"data"', b': "a"}\n{"data": "b"}', b'\n{"data": "c"}']),
        ({"content-type": "application/x-ndjson; charset=utf-8"}, [b'{"data"', b': "a"}\n{"data": "b"}', b'\n{"data": "c"}']),
        (STREAM, [b"id: 9\ndata", b": a\n\ndata: b\n", b"\nretry: 1\ndata: c\n\n"]),
    ],
    ids=["JSON lines", "ndjson", "an event stream"],
)
async def test_events_are_seen_before_their_body_ends(
    sidestream: Sidestream, headers: dict[str, str], pieces: Iterable[bytes]
) -> None:
    stream = await opened(sidestream)
    first, second, third = pieces
    async with open_stream(sidestream, f"/streams/{stream.id}", headers={"host": HOST, **EVENT_STREAM}) as watched:
        publishing = Arriving(sidestream, stream, headers)
        publishing.arrive(first)
        publishing.arrive(second)
        assert (await watched.next()).data == "a"
        publishing.arrive(third, more=False)
        assert [(await watched.next()).last_event_id for _ in range(2)] == [f"{stream.id}.2", f"{stream.id}.3"]
        assert await publishing.answered() == (200, {"first": 1, "last": 3, "events": 3, "skipped": 0})
    await close(sidestream, stream)
    assert [event[1:] for event in await events(sidestream, stream)][:3] == [("message", text) for text in "abc"]


async def test_each_event_is_limited_and_the_body_is_not(sidestream: Sidestream) -> None:
    stream = await opened(sidestream)
    event = b"data: " + b"x" * 1_000_000 + b"\n\n"
    publishing = Arriving(sidestream, stream, STREAM)
    for _ in range(17):  # more than MAX_BODY
        publishing.arrive(event)
    publishing.arrive(b"", more=False)
    assert await publishing.answered() == (200, {"first": 1, "last": 17, "events": 17, "skipped": 0})
    publishing = Arriving(sidestream, stream, STREAM)
    publishing.arrive(event + b"data: " + b"x" * MAX_EVENT)
    publishing.arrive(b"x" * 1000)
    status, document = await publishing.answered()
    assert (status, document["first"], document["events"]) == (413, 18, 1)
    assert publishing.connection.headers[b"connection"] == b"close"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        (STREAM, b"data: a\n\nevent: gap\ndata: b\n\n", 422),
        (LINES, b'{"data": "a"}\n{"event": "gap"}\n', 422),
        (LINES, b'{"data": "a"}\nnonsense\n', 400),
    ],
    ids=["a reserved name in an event stream", "a reserved name in a line", "no JSON"],
)
async def test_what_came_before_an_error_stays_and_is_told(
    sidestream: Sidestream, headers: dict[str, str], body: bytes, status: int
) -> None:
    stream = await opened(sidestream)
    publishing = Arriving(sidestream, stream, headers)
    publishing.arrive(body)  # and never ends
    answered, document = await publishing.answered()
    assert (answered, document["first"], document["last"], document["events"]) == (status, 1, 1, 1)
    assert publishing.connection.headers[b"connection"] == b"close"
    assert stream.state is State.RUNNING


async def test_a_publisher_that_vanishes_in_the_middle_leaves_the_stream_to_its_ttl(
    sidestream: Sidestream, caplog: pytest.LogCaptureFixture
) -> None:
    stream = await opened(sidestream, ttl=30)
    publishing = Arriving(sidestream, stream, STREAM)
    publishing.arrive(b"data: a\n\ndata: half")
    await asyncio.sleep(100)  # longer than the ttl, which stands still
    assert (stream.state, stream.log.last) == (State.RUNNING, 1)
    publishing.vanish()
    await publishing.answer
    await stream.closed()
    assert stream.failure is not None
    assert (stream.failure.code, publishing.connection.sent, caplog.records) == ("publisher_gone", [], [])
    assert now() == 100 + 30


async def test_a_publisher_faster_than_its_watchers_is_not_read(sidestream: Sidestream) -> None:
    stream = await opened(sidestream)
    event = b"data: " + b"x" * 990 + b"\n\n"
    async with open_stream(sidestream, f"/streams/{stream.id}", headers={"host": HOST, **EVENT_STREAM}) as watched:
        watched.stop_reading()
        publishing = Arriving(sidestream, stream, STREAM)
        for _ in range(100):
            publishing.arrive(event)
        await idle()  # the publisher has gone on as far as it may
        assert stream.log.waiting
        assert stream.log.last < 50
        assert publishing.unread.qsize() > 50
        document = (await ask(sidestream, f"/streams/{stream.id}", headers=JSON)).json
        assert document["waits_for"] == "watcher"
        publishing.arrive(b"", more=False)
        watched.go_on_reading()
        assert (await publishing.answered())[1]["events"] == 100
    assert stream.log.last == 100


# -- ?first=N


async def test_what_is_there_already_is_skipped(sidestream: Sidestream) -> None:
    stream = await opened(sidestream)
    batch = [{"data": number} for number in (1, 2, 3)]
    assert (await post(sidestream, stream, batch, "?first=1")).json == {"first": 1, "last": 3, "events": 3, "skipped": 0}
    assert (await post(sidestream, stream, batch, "?first=1")).json == {"first": None, "last": 3, "events": 0, "skipped": 3}
    more = [*batch, {"data": 4}]
    assert (await post(sidestream, stream, more, "?first=1")).json == {"first": 4, "last": 4, "events": 1, "skipped": 3}
    lines = b"".join(b'{"data": %d}\n' % number for number in range(3, 7))
    answer = await post(sidestream, stream, lines, "?first=3", **LINES)
    assert answer.json == {"first": 5, "last": 6, "events": 2, "skipped": 2}
    await close(sidestream, stream)
    assert [event[::2] for event in await events(sidestream, stream)][:-1] == [(str(n), str(n)) for n in range(1, 7)]


@pytest.mark.parametrize(("body", "headers"), [([{"data": 5}], {}), (b"data: 5\n\n", STREAM)], ids=["JSON", "an event stream"])
async def test_a_hole_is_409_with_the_last_number(sidestream: Sidestream, body: Any, headers: dict[str, str]) -> None:
    stream = await opened(sidestream)
    await post(sidestream, stream, [{}, {}, {}])
    answer = await post(sidestream, stream, body, "?first=5", **headers)
    assert (answer.status, answer.json["last"], answer.json["events"], stream.log.last) == (409, 3, 0, 3)


@pytest.mark.parametrize("first", ["0", "x", "-1", "1.5", "", str(10**15)])
async def test_a_bad_first_is_named(sidestream: Sidestream, first: str) -> None:
    stream = await opened(sidestream)
    answer = await post(sidestream, stream, {}, f"?first={first}")
    assert (answer.status, answer.json["parameter"]) == (400, "first")


# -- the end


@pytest.mark.parametrize("trigger", [Trigger.DELETED, Trigger.SOURCE_ENDED, Trigger.SHUTTING_DOWN])
@pytest.mark.parametrize("body", [b"", b"data: a\n\nda"], ids=["before the body", "in the middle"])
async def test_an_end_stops_a_publisher_that_is_idle_in_its_body(sidestream: Sidestream, trigger: Trigger, body: bytes) -> None:
    stream = await opened(sidestream)
    publishing = Arriving(sidestream, stream, STREAM)
    publishing.arrive(body)
    await idle()
    count = stream.log.last
    stream.end(trigger)
    status, document = await publishing.answered()
    assert (status, document["reason"], document["last"]) == (410, trigger.value, count)
    assert publishing.connection.headers[b"connection"] == b"close"


async def test_an_end_stops_a_publisher_that_waits_for_a_watcher(sidestream: Sidestream) -> None:
    stream = await opened(sidestream)
    async with open_stream(sidestream, f"/streams/{stream.id}", headers={"host": HOST, **EVENT_STREAM}) as watched:
        watched.stop_reading()
        publishing = Arriving(sidestream, stream, STREAM)
        publishing.arrive(b"data: xxxxxxxxxx\n\n" * 10_000)
        await idle()
        assert stream.log.waiting
        stream.end(Trigger.DELETED)
        status, document = await publishing.answered()
        assert (status, document["events"]) == (410, stream.log.last - 1)
        watched.go_on_reading()
        assert [event async for event in watched][-1].type == "cancelled"


async def test_after_the_end_publishing_is_410(sidestream: Sidestream) -> None:
    stream = await opened(sidestream)
    await post(sidestream, stream, {"data": 1})
    stream.end(Trigger.DELETED)
    answer = await post(sidestream, stream, {"data": 2})
    assert (answer.status, answer.json["reason"], answer.headers["connection"]) == (410, "deleted", "close")


async def test_closing_is_idempotent_and_no_way_to_end_well_what_has_ended_otherwise(sidestream: Sidestream) -> None:
    stream = await opened(sidestream)
    assert [(await close(sidestream, stream)).status for _ in range(3)] == [204, 204, 204]
    assert stream.state is State.DONE
    deleted = await opened(sidestream)
    deleted.end(Trigger.DELETED)
    assert ((await close(sidestream, deleted)).status, deleted.state) == (410, State.CANCELLED)


async def test_closing_reaches_the_watchers(sidestream: Sidestream) -> None:
    stream = await opened(sidestream)
    async with open_stream(sidestream, f"/streams/{stream.id}", headers={"host": HOST, **EVENT_STREAM}) as watched:
        await close(sidestream, stream)
        (end,) = [event async for event in watched]
        assert (end.type, end.data, end.last_event_id) == ("end", "{}", f"{stream.id}.end")
        assert watched.complete


# -- rights


async def test_where_a_token_is_set_opening_takes_it_and_publishing_takes_it_or_the_key() -> None:
    sidestream = Sidestream(Settings(token=("secret",)))
    bearer = {"authorization": "Bearer secret"}
    assert (await ask(sidestream, "/streams", method="POST")).status == 401
    mine, other = [(await ask(sidestream, "/streams", method="POST", headers=bearer)).json for _ in range(2)]
    for action, expected in (("events", 200), ("close", 204)):
        for method in ("POST", "PUT") if action == "events" else ("POST",):
            answers = [
                await ask(sidestream, f"{mine['url']}/{action}", method=method, json={}, headers=headers)
                for headers in ({}, {"stream-key": other["key"]}, {"stream-key": mine["key"]}, bearer)
            ]
            assert [answer.status for answer in answers] == [401, 401, expected, expected]
    await sidestream.stop()

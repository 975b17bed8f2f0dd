"""Opening, finding and resuming, over HTTP: the table of last event IDs, idempotency keys, and what happens without room."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest

from app import Sidestream
from sidecar import answers
from sidecar.access import Right
from sidecar.request import Reply, Request
from sidecar.routes import Route
from sidecar.settings import Settings
from sse.asgi import Message
from sse.errors import Problem
from sse.formats import Format
from sse.store import Backend, Holder
from sse.stream import Opening, Stream, Trigger
from sse.testing import open_stream
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser
from tests.support.app import EVENT_STREAM, HOST, JSON, Answer, Extended, Runs, ask
from tests.support.asgi import Connection, http_scope
from tests.support.streams import open_in

OPENED = EVENT_STREAM | {"host": HOST}
THREE = "GET /numbers?count=3 "
"""What a stream is opened with by that request, as `identify` has it."""


@pytest.fixture
def runs() -> Runs:
    """The routes /numbers, which open streams through `answers.open`."""
    return Runs()


@pytest.fixture
def sidestream(runs: Runs) -> Sidestream:
    return Extended(Settings(replay_events=16), *runs.routes())


def numbered(sidestream: Sidestream, count: int, *, identity: str = "") -> Stream:
    """A stream that has said `count` things and waits."""
    stream = open_in(sidestream.service.store, identity=identity)
    for number in range(1, count + 1):
        stream.emit(number)
    return stream


def numbers(events: list[MessageEvent]) -> list[str]:
    """The events' ids, without the stream's, and the types that aren't `message`."""
    return [e.last_event_id.rpartition(".")[2] + (f" {e.type}" if e.type != "message" else "") for e in events]


async def seen(sidestream: Sidestream, path: str, last: str | None, count: int) -> list[str]:
    """The first `count` events that a watcher of a running stream gets."""
    headers = OPENED if last is None else OPENED | {"last-event-id": last}
    async with open_stream(sidestream, path, headers=headers) as stream:
        assert stream.status == 200
        return numbers([await stream.next() for _ in range(count)])


# -- the table of last event IDs: a stream that runs


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, ["0 connected", "1", "2", "3", "4", "5", "6"]),
        ("0", ["1", "2", "3", "4", "5", "6"]),
        ("3", ["4", "5", "6"]),
        ("5", ["6"]),
        ("005", ["6"]),
    ],
    ids=["none", "zero", "held", "the newest", "written with zeros"],
)
async def test_a_running_stream_goes_on_after_what_the_client_has(
    sidestream: Sidestream, last: str | None, expected: list[str]
) -> None:
    stream = numbered(sidestream, 5)
    headers = OPENED if last is None else OPENED | {"last-event-id": f"{stream.id}.{last}"}
    async with open_stream(sidestream, f"/streams/{stream.id}", headers=headers) as watched:
        stream.emit(6)
        assert numbers([await watched.next() for _ in expected]) == expected


async def test_a_client_that_is_far_behind_is_told_the_gap(sidestream: Sidestream) -> None:
    stream = numbered(sidestream, 40)
    oldest = stream.log.first
    async with open_stream(
        sidestream, f"/streams/{stream.id}", headers=OPENED | {"last-event-id": f"{stream.id}.2"}
    ) as watched:
        gap = await watched.next()
        assert (gap.type, gap.data) == ("gap", f'{{"first":3,"last":{oldest - 1}}}')
        assert gap.last_event_id == f"{stream.id}.{oldest - 1}"
        assert (await watched.next()).last_event_id == f"{stream.id}.{oldest}"


async def test_a_newcomer_starts_at_the_oldest_held_without_a_gap(sidestream: Sidestream) -> None:
    stream = numbered(sidestream, 40)
    before = stream.log.first - 1
    assert await seen(sidestream, f"/streams/{stream.id}", None, 2) == [f"{before} connected", str(before + 1)]


async def test_from_now_starts_at_the_end(sidestream: Sidestream) -> None:
    stream = numbered(sidestream, 5)
    async with open_stream(sidestream, f"/streams/{stream.id}?from=now", headers=OPENED) as watched:
        assert (await watched.next()).type == "connected"
        stream.emit(6)
        assert (await watched.next()).last_event_id == f"{stream.id}.6"


async def test_an_id_counts_more_than_from_now(sidestream: Sidestream) -> None:
    stream = numbered(sidestream, 5)
    headers = OPENED | {"last-event-id": f"{stream.id}.3"}
    async with open_stream(sidestream, f"/streams/{stream.id}?from=now", headers=headers) as watched:
        assert (await watched.next()).last_event_id == f"{stream.id}.4"


# -- a stream that has ended


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (None, ["0 connected", "1", "2", "3", "end"]),
        ("1", ["2", "3", "end"]),
        ("3", ["end"]),
        ("4", ["end"]),
        ("99", ["end"]),
    ],
    ids=["none", "held", "the newest", "that of its end", "ahead"],
)
async def test_an_ended_stream_gives_the_terminal_event_at_least(
    sidestream: Sidestream, last: str | None, expected: list[str]
) -> None:
    stream = numbered(sidestream, 3)
    stream.end(Trigger.SOURCE_ENDED)
    headers = {} if last is None else {"last-event-id": f"{stream.id}.{last}"}
    answer = await ask(sidestream, f"/streams/{stream.id}", headers=EVENT_STREAM | headers)
    assert numbers(answer.events) == expected
    assert answer.last_event_id == f"{stream.id}.end"


# -- every row that isn't a stream, on the route that opens and on the one that watches


@dataclass(frozen=True)
class Row:
    last: str  # {id}: the stream's, {other}: another's
    opens: tuple[int, str]  # status and detail
    watches: tuple[int, str]
    accept: Mapping[str, str] = field(default_factory=lambda: EVENT_STREAM)


CONFLICT = (409, "The last event ID belongs to another stream, or is ahead of this one.")
MALFORMED = (400, "The last event ID is not one of this server's.")
GONE = (404, "The stream is unknown or has expired.")
FINISHED = (204, "")

ROWS = {
    "ahead": Row("{id}.4", CONFLICT, CONFLICT),
    "another stream": Row("{other}.1", CONFLICT, CONFLICT),
    "end": Row("{id}.end", FINISHED, FINISHED),
    "another's end": Row("{other}.end", FINISHED, FINISHED),
    "unknown end": Row("gone.end", FINISHED, FINISHED),
    # A path names its stream itself, and an ID of any other one is none of it
    "unknown, to a program": Row("unknown.1", GONE, CONFLICT, {}),
    "malformed": Row("no-id", MALFORMED, MALFORMED),
    "no number": Row("{id}.", MALFORMED, MALFORMED),
    "negative": Row("{id}.-1", MALFORMED, MALFORMED),
    "other digits": Row("{id}.١", MALFORMED, MALFORMED),
    "a number of 20 digits": Row("{id}." + "1" * 20, MALFORMED, MALFORMED),
    "20 kB": Row("x" * 20_000 + ".1", MALFORMED, MALFORMED),
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
@pytest.mark.parametrize("as_query", [False, True], ids=["header", "query"])
@pytest.mark.parametrize("where", ["opens", "watches"])
async def test_a_last_event_id_that_names_nothing_here(
    sidestream: Sidestream, runs: Runs, row: Row, where: str, as_query: bool
) -> None:
    stream, other = numbered(sidestream, 3, identity=THREE), numbered(sidestream, 3)
    last = row.last.format(id=stream.id, other=other.id)
    path, (status, detail) = ("/numbers?count=3", row.opens) if where == "opens" else (f"/streams/{stream.id}?", row.watches)
    headers = dict(row.accept)
    if as_query:
        path += f"&last_event_id={quote(last)}"
    else:
        headers["last-event-id"] = last
    answer = await ask(sidestream, path, headers=headers)
    assert answer.status == status
    if detail:
        assert (answer.headers["content-type"], answer.json["detail"]) == ("application/problem+json", detail)
    assert (runs.opened, stream.resumes, other.resumes) == (0, 0, 0)


@pytest.mark.parametrize("where", ["opens", "watches"])
async def test_an_event_source_is_told_that_its_stream_is_gone_and_then_to_stop(
    sidestream: Sidestream, runs: Runs, where: str
) -> None:
    path = "/numbers?count=3" if where == "opens" else "/streams/unknown"
    answer = await ask(sidestream, path, headers=EVENT_STREAM | {"last-event-id": "unknown.7"})
    (event,) = answer.events
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert (event.type, event.last_event_id) == ("error", "gone.end")
    assert event.data == '{"error":"The stream is unknown or has expired.","code":"stream_gone","fatal":true}'
    again = await ask(sidestream, path, headers=EVENT_STREAM | {"last-event-id": event.last_event_id})
    assert (again.status, again.body) == (204, b"")
    assert runs.opened == 0


async def test_watching_an_unknown_stream_without_a_last_event_id(sidestream: Sidestream) -> None:
    answer = await ask(sidestream, "/streams/unknown", headers=EVENT_STREAM)
    assert [event.last_event_id for event in answer.events] == ["gone.end"]
    answer = await ask(sidestream, "/streams/unknown")
    assert (answer.status, answer.json["code"]) == (404, "stream_gone")


async def test_the_header_wins_over_the_query(sidestream: Sidestream) -> None:
    stream = numbered(sidestream, 5)
    path = f"/streams/{stream.id}?last_event_id={stream.id}.1"
    assert await seen(sidestream, path, f"{stream.id}.3", 2) == ["4", "5"]
    assert await seen(sidestream, path, None, 2) == ["2", "3"]
    assert await seen(sidestream, path, "", 2) == ["2", "3"]


# -- the route that opens


async def test_an_event_source_that_comes_back_finds_its_stream(sidestream: Sidestream, runs: Runs) -> None:
    async with open_stream(sidestream, "/numbers?count=5&interval=3600&run=a", headers=OPENED) as stream:
        connected = await stream.next()
        first = await stream.next()
    stream_id = connected.last_event_id.removesuffix(".0")
    assert first.last_event_id == f"{stream_id}.1"
    headers = OPENED | {"last-event-id": first.last_event_id}
    async with open_stream(sidestream, "/numbers?run=a&interval=3600&count=5", headers=headers) as stream:
        found = sidestream.service.store.streams[stream_id]
        assert (found.resumes, len(found.log.watchers)) == (1, 1)
        found.end(Trigger.DELETED)
        assert (await stream.next()).type == "cancelled"
    assert runs.opened == 1


@pytest.mark.parametrize("path", ["/numbers?count=4", "/numbers?count=3&run=b"])
async def test_a_last_event_id_is_good_for_the_request_that_got_it_only(sidestream: Sidestream, runs: Runs, path: str) -> None:
    opened = await ask(sidestream, "/numbers?count=3", headers=EVENT_STREAM)
    stream_id = opened.last_event_id.removesuffix(".end")
    answer = await ask(sidestream, path, headers=EVENT_STREAM | {"last-event-id": f"{stream_id}.1"})
    assert answer.status == 409
    assert runs.opened == 1


async def test_a_path_that_names_nothing_is_gone_whatever_the_last_event_id_names(sidestream: Sidestream) -> None:
    stream = numbered(sidestream, 3)
    headers = {"last-event-id": f"{stream.id}.1"}
    assert (await ask(sidestream, "/streams/other", headers=headers)).status == 404
    answer = await ask(sidestream, "/streams/other", headers=EVENT_STREAM | headers)
    assert [event.last_event_id for event in answer.events] == ["gone.end"]
    assert stream.resumes == 0


async def test_a_post_is_resumed_by_the_same_post(sidestream: Sidestream, runs: Runs) -> None:
    opened = await ask(sidestream, "/numbers?count=3", method="POST", body=b"one", headers=EVENT_STREAM)
    last = {"last-event-id": opened.last_event_id.replace(".end", ".2")}
    again = await ask(sidestream, "/numbers?count=3", method="POST", body=b"one", headers=EVENT_STREAM | last)
    other = await ask(sidestream, "/numbers?count=3", method="POST", body=b"two", headers=EVENT_STREAM | last)
    assert (numbers(again.events), other.status, runs.opened) == (["3", "end"], 409, 1)


async def test_whoever_opens_is_told_where_it_is_and_its_key(sidestream: Sidestream, runs: Runs) -> None:
    answer = await ask(sidestream, "/numbers?count=1", headers=EVENT_STREAM)
    stream = next(iter(sidestream.service.store.streams.values()))
    assert answer.headers["location"] == f"/streams/{stream.id}"
    assert answer.headers["stream-key"] == stream.key
    watched = await ask(sidestream, f"/streams/{stream.id}", headers=EVENT_STREAM)
    assert "stream-key" not in watched.headers


async def test_accept_json_opens_without_watching(sidestream: Sidestream, runs: Runs) -> None:
    answer = await ask(sidestream, "/numbers?count=3", headers=JSON)
    stream = next(iter(sidestream.service.store.streams.values()))
    assert answer.status == 202
    assert answer.json == {"stream_id": stream.id, "url": f"/streams/{stream.id}", "key": stream.key}
    assert answer.headers["location"] == answer.json["url"]
    watched = await ask(sidestream, answer.json["url"], headers=EVENT_STREAM)
    assert numbers(watched.events) == ["0 connected", "1", "2", "3", "end"]
    assert runs.opened == 1


async def test_a_stream_that_expires_while_a_body_arrives_is_gone(sidestream: Sidestream, runs: Runs) -> None:
    """It was found when the request began, and the watcher would have got a gap and no end."""
    opened = await ask(sidestream, "/numbers?count=3", method="POST", body=b"one", headers=EVENT_STREAM)
    (stream,) = sidestream.service.store.streams.values()
    last = opened.last_event_id.replace(".end", ".1").encode()
    connection = Connection([b"o", b"ne"])
    received = connection.receive

    async def receive() -> Message:
        sidestream.service.store.forget(stream)
        return await received()

    headers = [(b"host", HOST.encode()), (b"last-event-id", last), (b"accept", b"text/event-stream")]
    scope = http_scope("/numbers", method="POST", query=b"count=3", headers=headers)
    await sidestream(scope, receive, connection.send)
    assert [event.last_event_id for event in connection.events] == ["gone.end"]
    assert (runs.opened, sidestream.service.store.watchers) == (1, 0)


async def test_head_of_a_stream_says_what_get_would_and_watches_nothing(sidestream: Sidestream) -> None:
    stream = numbered(sidestream, 2)
    headers = OPENED | {"x-request-id": "mine"}
    for path, last in ((f"/streams/{stream.id}", ""), (f"/streams/{stream.id}", f"{stream.id}.1")):
        async with open_stream(sidestream, path, headers=headers | {"last-event-id": last}) as watched:
            got = (watched.status, watched.headers)
        before = stream.resumes
        answer = await ask(sidestream, path, method="HEAD", headers=headers | {"last-event-id": last})
        assert (answer.status, answer.headers, answer.body) == (*got, b"")
        assert answer.headers["location"] == f"/streams/{stream.id}"
        assert (stream.resumes, stream.log.watchers, sidestream.service.store.watchers) == (before, {}, 0)


async def test_head_needs_no_room() -> None:
    sidestream = Sidestream(Settings(max_watchers=1, max_streams=1))
    stream = numbered(sidestream, 2)
    _seat = sidestream.service.store.seat()
    for path in (f"/streams/{stream.id}", "/stream", "/chat?prompt=hi"):
        assert (await ask(sidestream, path, method="HEAD", headers=EVENT_STREAM)).status == 200


async def test_head_opens_nothing(sidestream: Sidestream, runs: Runs) -> None:
    answer = await ask(sidestream, "/numbers?count=3", method="HEAD", headers=EVENT_STREAM)
    assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream", b"")
    assert (runs.opened, sidestream.service.store.streams) == (0, {})


async def test_a_cut_at_any_byte_loses_nothing_and_doubles_nothing(runs: Runs) -> None:
    """What a client has at the cut, and what its last event ID gets it, are the whole stream."""
    sidestream, path = Extended(Settings(), *runs.routes()), "/numbers?count=300"
    body = (await ask(sidestream, path, headers=EVENT_STREAM)).body
    whole = Parser().feed(body)
    parser, had, rest = Parser(), 0, {}
    for offset in range(body.index(b"\n\n") + 2):
        had += len(parser.feed(body[offset : offset + 1]))
    for offset in range(body.index(b"\n\n") + 2, len(body) + 1):
        last = parser.last_event_id
        if last not in rest:
            answer = await ask(sidestream, path, headers=EVENT_STREAM | {"last-event-id": last})
            rest[last] = Parser().feed(answer.body) if answer.status == 200 else []
            assert answer.status == (204 if last.endswith(".end") else 200)
        assert len(whole) == had + len(rest[last])
        assert rest[last][:1] == whole[had : had + 1]
        had += len(parser.feed(body[offset : offset + 1]))
    assert all(events == whole[len(whole) - len(events) :] for events in rest.values())
    assert (len(rest), runs.opened) == (302, 1)


# -- idempotency keys


def by_header(key: str) -> tuple[str, dict[str, str]]:
    return "/numbers?count=3", {"idempotency-key": key}


def by_query(key: str) -> tuple[str, dict[str, str]]:
    return f"/numbers?count=3&key={key}", {}


KeyWay = Callable[[str], tuple[str, dict[str, str]]]


@pytest.mark.parametrize("way", [by_header, by_query])
@pytest.mark.parametrize("accept", [EVENT_STREAM, JSON], ids=["event stream", "json"])
async def test_the_same_key_finds_the_same_stream(
    sidestream: Sidestream, runs: Runs, way: KeyWay, accept: Mapping[str, str]
) -> None:
    path, headers = way("k1")
    answers = [await ask(sidestream, path, headers={**accept, **headers}) for _ in range(3)]
    assert [answer.status for answer in answers] == [answers[0].status] * 3
    assert (runs.opened, len(sidestream.service.store.streams)) == (1, 1)
    assert answers[0].headers["location"] == answers[2].headers["location"]


async def test_a_connection_that_broke_before_its_first_message_comes_back_by_key(sidestream: Sidestream, runs: Runs) -> None:
    headers = OPENED
    async with open_stream(sidestream, "/numbers?count=3&key=k1", headers=headers, wait=False) as lost:
        lost.stop_reading()
    answer = await ask(sidestream, "/numbers?count=3&key=k1", headers=EVENT_STREAM)
    assert numbers(answer.events) == ["0 connected", "1", "2", "3", "end"]
    assert runs.opened == 1


@pytest.mark.parametrize(
    "other",
    [
        {"path": "/numbers?count=4"},
        {"body": b"another body"},
    ],
    ids=["another query", "another body"],
)
async def test_the_same_key_with_another_request_is_422(
    sidestream: Sidestream, runs: Runs, other: Mapping[str, object]
) -> None:
    sent = {"path": "/numbers?count=3", "body": b"a body"}
    headers = JSON | {"idempotency-key": "k1"}
    await post(sidestream, sent, headers)
    answer = await post(sidestream, {**sent, **other}, headers)
    assert (answer.status, answer.json["parameter"], runs.opened) == (422, "key", 1)


async def post(sidestream: Sidestream, sent: Mapping[str, object], headers: Mapping[str, str]) -> Answer:
    body = sent["body"]
    assert isinstance(body, bytes)
    return await ask(sidestream, str(sent["path"]), method="POST", headers=headers, body=body)


@pytest.mark.parametrize(
    ("method", "path", "caller", "key"),
    [
        ("GET", "/numbers?count=3", "two", "k1"),
        ("POST", "/numbers?count=3", "one", "k1"),
        ("GET", "/merge", "one", "k1"),
        ("GET", "/numbers?count=3", "one", "k2"),
    ],
    ids=["another caller", "another method", "another route", "another key"],
)
async def test_a_key_is_its_callers_own_on_its_own_route(runs: Runs, method: str, path: str, caller: str, key: str) -> None:
    sidestream = Extended(Settings(token=("one", "two")), *runs.routes())
    first = await ask(sidestream, "/numbers?count=3", headers=JSON | {"idempotency-key": "k1", "authorization": "Bearer one"})
    headers = JSON | {"idempotency-key": key, "authorization": f"Bearer {caller}"}
    answer = await ask(sidestream, path, method=method, headers=headers)
    assert answer.status == first.status == 202
    assert answer.json["stream_id"] != first.json["stream_id"]
    assert len(sidestream.service.store.streams) == 2
    await sidestream.stop()


async def test_a_key_over_256_characters_is_400(sidestream: Sidestream, runs: Runs) -> None:
    answer = await ask(sidestream, "/numbers", headers={"idempotency-key": "k" * 257})
    assert (answer.status, answer.json["parameter"], runs.opened) == (400, "key", 0)


async def test_a_key_expires_with_its_stream(runs: Runs) -> None:
    sidestream = Extended(Settings(keep=0), *runs.routes())
    path, headers = by_header("k1")
    first = await ask(sidestream, path, headers={**EVENT_STREAM, **headers})
    while sidestream.service.store.streams:
        await asyncio.sleep(0)
    again = await ask(sidestream, "/numbers?count=2", headers={**EVENT_STREAM, **headers})
    assert (first.status, again.status, runs.opened) == (200, 200, 2)


@pytest.mark.parametrize("full", ["streams", "watchers", "draining"])
async def test_a_stream_is_found_by_its_key_where_no_other_could_be_opened(runs: Runs, full: str) -> None:
    sidestream = Extended(Settings(max_streams=1), *runs.routes())
    path, headers = "/numbers?count=3&interval=3600", JSON | {"idempotency-key": "k1"}
    first = await ask(sidestream, path, headers=headers)
    store = sidestream.service.store
    match full:
        case "watchers":
            _seats = [store.seat() for _ in range(store.limits.watchers)]
        case "draining":
            store.draining = True
    assert (await ask(sidestream, "/numbers", headers=EVENT_STREAM)).status == 503
    again = await ask(sidestream, path, headers=headers)
    assert (again.status, again.json) == (202, first.json)
    assert runs.opened <= 1


async def test_a_key_is_free_again_when_its_stream_could_not_be_opened(runs: Runs) -> None:
    failures: list[Exception] = [Problem(429, "Not now."), RuntimeError("a defect")]

    async def flaky(request: Request) -> Reply:
        def propose(**facts: Any) -> Opening:
            if failures:
                raise failures.pop(0)
            return Opening(None, Format(), **facts)

        return await answers.open(request, propose)

    sidestream = Extended(Settings(max_streams=1), Route("GET", "/flaky", flaky, Right.TOKEN))
    store, headers = sidestream.service.store, JSON | {"idempotency-key": "k1"}
    assert [(await ask(sidestream, "/flaky", headers=headers)).status for _ in range(2)] == [429, 500]
    with store.reserve():
        assert (await ask(sidestream, "/flaky", headers=headers)).status == 503
    assert (await ask(sidestream, "/flaky?other=1", headers=headers)).status == 202
    assert (await ask(sidestream, "/flaky", headers=headers)).status == 422
    assert (store.busy, store.watchers) == (1, 0)


class Gate(Backend):
    """A fake of a backend whose answers to claims are under way until they are let through."""

    def __init__(self) -> None:
        super().__init__()
        self.claimed = asyncio.Event()
        self.open = asyncio.Event()

    async def claim(self, key: str, holder: Holder, instead_of: str = "") -> Holder:
        held = await super().claim(key, holder, instead_of)
        if held is holder:
            self.claimed.set()
            await self.open.wait()
        return held


async def test_while_a_stream_is_being_opened_the_same_key_is_told_to_come_back(runs: Runs) -> None:
    """Another stream for the same key would be one too many (409 in draft-ietf-httpapi-idempotency-key-header)."""
    gate = Gate()
    sidestream = Extended(Settings(), *runs.routes(), backend=gate)
    path, headers = "/numbers?count=3&interval=3600", JSON | {"idempotency-key": "k1"}
    first = asyncio.create_task(ask(sidestream, path, headers=headers))
    await gate.claimed.wait()
    early = await ask(sidestream, path, headers=headers)
    assert (early.status, early.headers["retry-after"], early.json["parameter"]) == (409, "1", "key")
    assert (await ask(sidestream, "/numbers?count=4", headers=headers)).status == 422
    gate.open.set()
    opened = await first
    late = await ask(sidestream, path, headers=headers)
    assert (opened.status, late.status, late.json) == (202, 202, opened.json)
    assert len(sidestream.service.store.streams) == 1


# -- no room


def refusal(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.headers["retry-after"], answer.json["limit"]


@pytest.mark.parametrize("accept", [EVENT_STREAM, JSON, {}], ids=["event stream", "json", "none"])
async def test_over_the_limit_of_streams_nothing_is_opened(runs: Runs, accept: Mapping[str, str]) -> None:
    sidestream = Extended(Settings(max_streams=1), *runs.routes())
    stream = numbered(sidestream, 1)
    assert refusal(await ask(sidestream, "/numbers", headers=accept)) == (503, "5", "streams")
    assert runs.opened == 0
    stream.end(Trigger.DELETED)
    assert (await ask(sidestream, "/numbers", headers=accept)).status in (200, 202)


async def test_while_draining_nothing_is_opened_and_what_runs_can_be_resumed(sidestream: Sidestream, runs: Runs) -> None:
    stream = numbered(sidestream, 2)
    sidestream.service.store.draining = True
    assert refusal(await ask(sidestream, "/numbers", headers=EVENT_STREAM)) == (503, "5", "shutting down")
    assert await seen(sidestream, f"/streams/{stream.id}", f"{stream.id}.1", 1) == ["2"]
    assert runs.opened == 0


async def test_over_the_limit_of_watchers_a_first_connection_is_refused(runs: Runs) -> None:
    sidestream = Extended(Settings(max_watchers=1), *runs.routes())
    stream = numbered(sidestream, 2)
    async with open_stream(sidestream, f"/streams/{stream.id}", headers=OPENED):
        for path in ("/numbers", "/stream", f"/streams/{stream.id}"):
            assert refusal(await ask(sidestream, path, headers=EVENT_STREAM)) == (503, "5", "watchers")
        assert (await ask(sidestream, "/numbers", headers=JSON)).status == 202  # nobody watches here
    assert (await ask(sidestream, "/stream?count=0", headers=EVENT_STREAM)).status == 200
    assert runs.opened <= 1


@pytest.mark.parametrize("path", ["/stream?count=9", "/streams/{id}", "/numbers?count=3"])
async def test_an_event_source_that_comes_back_without_room_is_told_to_try_again(runs: Runs, path: str) -> None:
    sidestream = Extended(Settings(max_watchers=1), *runs.routes())
    stream = numbered(sidestream, 2, identity=THREE)
    last = "1" if path.startswith("/stream?") else f"{stream.id}.1"
    async with open_stream(sidestream, f"/streams/{stream.id}", headers=OPENED):
        answer = await ask(sidestream, path.format(id=stream.id), headers=EVENT_STREAM | {"last-event-id": last})
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert answer.body == b"retry: 5000\n\n"
        program = await ask(sidestream, path.format(id=stream.id), headers={"last-event-id": last})
        assert refusal(program) == (503, "5", "watchers")
    assert runs.opened == 0


@pytest.mark.parametrize(("retry", "told"), [(2000, 5000), (60000, 60000)])
async def test_a_private_stream_that_comes_back_while_draining_is_told_to_try_again(retry: int, told: int) -> None:
    sidestream = Sidestream(Settings(retry=retry))
    sidestream.service.store.draining = True
    answer = await ask(sidestream, "/stream", headers=EVENT_STREAM | {"last-event-id": "1"})
    assert (answer.status, answer.body) == (200, b"retry: %d\n\n" % told)


async def test_a_watcher_counts_for_as_long_as_its_connection_lasts(sidestream: Sidestream) -> None:
    store = sidestream.service.store
    stream = numbered(sidestream, 1)
    async with open_stream(sidestream, f"/streams/{stream.id}", headers=OPENED):
        async with open_stream(sidestream, "/stream?interval=3600", headers=OPENED):
            assert store.watchers == 2
        assert store.watchers == 1
    assert store.watchers == 0


@pytest.mark.parametrize("path", ["/streams/{id}", "/stream?interval=3600", "/merge?streams={id}"])
async def test_a_watcher_whose_connection_fails_is_counted_no_longer(sidestream: Sidestream, path: str) -> None:
    class Failing(Connection):
        async def receive(self) -> Message:
            if self.sent:
                raise RuntimeError("no")
            await self.arrived.get()
            return await self.receive()

    stream, connection = numbered(sidestream, 1), Failing()
    path, _, query = path.format(id=stream.id).partition("?")
    scope = http_scope(path, query=query.encode(), headers=[(b"host", HOST.encode())])
    with pytest.raises(RuntimeError, match="no"):
        await sidestream(scope, connection.receive, connection.send)
    service = sidestream.service
    assert (service.store.watchers, len(service.counts.watching)) == (0, 0)
    assert service.counts.outcomes["dropped"] == 1

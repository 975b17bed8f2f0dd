"""Several streams over one connection: ids with all positions, cuts anywhere, and one that ends or is gone among others."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import cycle
from typing import Any

import pytest

from app import Sidestream
from handlers.merge import routes as merge
from handlers.publish.source import Published
from sidecar.settings import Settings
from sse.errors import SourceFailed
from sse.formats import Format
from sse.stream import Stream, Trigger
from sse.testing import open_stream
from sse.wire.encoder import encode
from sse.wire.event import Event, MessageEvent
from sse.wire.parser import Parser
from tests.support.app import EVENT_STREAM, HOST, Answer, ask
from tests.support.streams import open_in


@pytest.fixture
async def sidestream() -> AsyncIterator[Sidestream]:
    sidestream = Sidestream(Settings(replay_events=200))
    yield sidestream
    await sidestream.stop()


def opened(sidestream: Sidestream, count: int = 0, *, end: bool = False, **options: Any) -> Stream:
    """A stream of the numbers from 1 to `count`."""
    stream = open_in(sidestream.service.store, **{"linger": None, **options})
    for number in range(1, count + 1):
        stream.emit({"n": number})
    if end:
        stream.end(Trigger.SOURCE_ENDED)
    return stream


def url(*streams: Stream | str) -> str:
    return "/merge?streams=" + ",".join(stream if isinstance(stream, str) else stream.id for stream in streams)


async def merged(sidestream: Sidestream, *streams: Stream | str, **headers: str) -> Answer:
    """The whole answer, of streams that have all ended."""
    return await ask(sidestream, url(*streams), headers=EVENT_STREAM | headers)


def watch(sidestream: Sidestream, *streams: Stream | str, **headers: str) -> Any:
    headers = {"host": HOST, **EVENT_STREAM, **headers}
    return open_stream(sidestream, url(*streams), headers=headers)


def unpacked(event: MessageEvent) -> tuple[str, str, Any]:
    """(stream, type, data)"""
    payload = json.loads(event.data)
    assert list(payload) == ["stream", "data"]
    return payload["stream"], event.type, payload["data"]


def of(stream: Stream | str, events: list[MessageEvent]) -> list[tuple[str, Any]]:
    """What came of one stream: (type, data)."""
    name = stream if isinstance(stream, str) else stream.id
    return [(type, data) for source, type, data in map(unpacked, events) if source == name]


def numbers(count: int) -> list[tuple[str, Any]]:
    return [("message", {"n": number}) for number in range(1, count + 1)]


END = ("message", "[DONE]")


# -- what is said


async def test_each_event_says_its_stream_and_its_id_holds_a_position_for_each(sidestream: Sidestream) -> None:
    a, b = opened(sidestream, 2, end=True), opened(sidestream, 1, end=True)
    answer = await merged(sidestream, a, b)
    assert answer.body.startswith(b"id: 0-0\nretry: 2000\n\n")
    assert [(event.last_event_id, unpacked(event)) for event in answer.events] == [
        ("1-0", (a.id, "message", {"n": 1})),
        ("2-0", (a.id, "message", {"n": 2})),
        ("end-0", (a.id, "message", "[DONE]")),
        ("end-1", (b.id, "message", {"n": 1})),
        ("end-end", (b.id, "message", "[DONE]")),
    ]


async def test_events_keep_their_names_and_data_that_is_no_json_stays_a_text(sidestream: Sidestream) -> None:
    stream = opened(sidestream, format=Published())
    posted = [
        Event("plain text", "add"),
        Event("[DONE]"),
        Event('{"a":\n 1,\r "ü": [1.50, 12345678901234567890]}', "json"),
        Event('"a text"'),
        Event("two\nlines"),
        Event(""),
    ]
    for event in posted:
        stream.emit(encode(event))
    stream.end(Trigger.SOURCE_FAILED, SourceFailed("no luck", "unlucky"))
    answer = await merged(sidestream, stream)
    assert of(stream, answer.events) == [
        ("add", "plain text"),
        ("message", "[DONE]"),
        ("json", {"a": 1, "ü": [1.5, 12345678901234567890]}),
        ("message", "a text"),
        ("message", "two\nlines"),
        ("message", ""),
        ("error", {"error": "no luck", "code": "unlucky", "fatal": True}),
    ]
    assert b"1.50, 12345678901234567890" in answer.body  # as it was said, not read and written again


async def test_a_gap_of_a_laggard_is_passed_on(sidestream: Sidestream) -> None:
    long, short = opened(sidestream, 500, end=True), opened(sidestream, 1, end=True)
    answer = await merged(sidestream, long, short, **{"last-event-id": "5-0"})
    gap, *rest = of(long, answer.events)
    assert gap == ("gap", {"first": 6, "last": long.log.first - 1})
    assert answer.events[0].last_event_id == f"{long.log.first - 1}-0"
    assert rest == [*numbers(500)[long.log.first - 1 :], END]
    assert of(short, answer.events) == [*numbers(1), END]


async def test_from_now_leaves_out_what_was_said_before(sidestream: Sidestream) -> None:
    streams = [opened(sidestream, 3), opened(sidestream, 5)]
    headers = {"host": HOST, **EVENT_STREAM}
    async with open_stream(sidestream, url(*streams) + "&from=now", headers=headers) as watched:
        streams[1].emit("new")
        assert unpacked(event := await watched.next()) == (streams[1].id, "message", "new")
        assert event.last_event_id == "3-6"


# -- resuming


async def test_cut_after_every_event_each_comes_once_and_in_order(sidestream: Sidestream) -> None:
    """Cut also in the middle of the next event, and with new events between the connections."""
    streams = [opened(sidestream, count) for count in (5, 1, 9)]
    counts = [5, 1, 9]
    seen: list[MessageEvent] = []
    last, answers = "", 0
    for turn in cycle(range(3)):
        if answers in (4, 8, 12):  # meanwhile
            counts[turn] += 1
            streams[turn].emit({"n": counts[turn]})
        if answers == 14:
            for stream in streams:
                stream.end(Trigger.SOURCE_ENDED)
        headers = {"last-event-id": last} if last else {}
        async with watch(sidestream, *streams, **headers) as watched:
            answers += 1
            if watched.status == 204:
                break
            event = await watched.next()
            cut = watched.raw.index(b"\n\n", watched.raw.index(b"\ndata:")) + 2
        parser = Parser(last_event_id=last)
        assert parser.feed(watched.raw[: cut + 7]) == [event]
        seen.append(event)
        last = parser.last_event_id
        assert answers < 100
    assert last == "end-end-end"
    for stream, count in zip(streams, counts, strict=True):
        assert of(stream, seen) == [*numbers(count), END]


async def test_cut_before_the_first_event_it_comes_back_to_all(sidestream: Sidestream) -> None:
    streams = [opened(sidestream, 2, end=True), opened(sidestream, 3, end=True)]
    answer = await merged(sidestream, *streams, **{"last-event-id": "0-0"})
    assert [of(stream, answer.events) for stream in streams] == [[*numbers(2), END], [*numbers(3), END]]


async def test_all_ends_are_204(sidestream: Sidestream) -> None:
    assert (await merged(sidestream, "a", "b", **{"last-event-id": "end-end"})).status == 204
    assert (await ask(sidestream, url("a") + "&last_event_id=end")).status == 204


@pytest.mark.parametrize(
    "last", ["1", "1-1-1", "x-1", "1-", "-1", "end", "1_1", "1-END", "1-1 ", "1-" + "1" * 16, "gone.end"], ids=repr
)
async def test_a_last_event_id_that_holds_something_else_is_400(sidestream: Sidestream, last: str) -> None:
    answer = await merged(sidestream, opened(sidestream), opened(sidestream), **{"last-event-id": last})
    assert (answer.status, answer.json["parameter"]) == (400, "last_event_id")


async def test_ahead_of_a_running_stream_is_409_and_of_one_that_has_ended_its_end(sidestream: Sidestream) -> None:
    a, b = opened(sidestream, 2), opened(sidestream, 2, end=True)
    answer = await merged(sidestream, a, b, **{"last-event-id": "3-2"})
    assert (answer.status, answer.json["parameter"]) == (409, "last_event_id")
    async with watch(sidestream, a, b, **{"last-event-id": "2-9"}) as watched:
        event = await watched.next()
        assert (event.last_event_id, unpacked(event)) == ("2-end", (b.id, *END))


# -- one of several


async def test_one_that_is_gone_is_reported_and_the_others_go_on(sidestream: Sidestream) -> None:
    a = opened(sidestream, 2, end=True)
    answer = await merged(sidestream, "gone", a, "unknown")
    gone = ("error", {"error": "The stream is unknown or has expired.", "code": "stream_gone", "fatal": True})
    assert [of(stream, answer.events) for stream in ("gone", a, "unknown")] == [[gone], [*numbers(2), END], [gone]]
    assert answer.last_event_id == "end-end-end"


async def test_one_that_expired_between_two_connections_is_reported_too(sidestream: Sidestream) -> None:
    a, b = opened(sidestream, 2), opened(sidestream, 2, end=True)
    sidestream.service.store.forget(b)
    async with watch(sidestream, a, b, **{"last-event-id": "1-1"}) as watched:
        assert [(event.last_event_id, event.type) for event in [await watched.next(), await watched.next()]] == [
            ("2-1", "message"),
            ("2-end", "error"),
        ]


async def test_one_that_is_over_is_not_told_again_though_it_has_expired(sidestream: Sidestream) -> None:
    a = opened(sidestream, 1, end=True)
    answer = await merged(sidestream, "expired", a, **{"last-event-id": "end-0"})
    assert [event.last_event_id for event in answer.events] == ["end-1", "end-end"]


async def test_one_that_has_ended_is_let_go_and_can_expire_while_the_others_are_watched(sidestream: Sidestream) -> None:
    a, b = opened(sidestream), opened(sidestream, keep=0.0)
    async with watch(sidestream, a, b) as watched:
        b.end(Trigger.DELETED)
        assert (await watched.next()).last_event_id == "0-end"
        async with asyncio.timeout(5):
            while sidestream.service.store.streams.get(b.id) is not None:
                await asyncio.sleep(0)
        a.emit(1)
        assert (await watched.next()).last_event_id == "1-end"
    assert (len(a.log.watchers), len(b.log.watchers)) == (0, 0)


async def test_going_away_lets_go_of_the_streams_and_cancels_none(sidestream: Sidestream) -> None:
    streams = [opened(sidestream, 1), opened(sidestream)]
    async with watch(sidestream, *streams) as watched:
        await watched.next()
        assert [len(stream.log.watchers) for stream in streams] == [1, 1]
        assert sidestream.service.store.watchers == 1
    assert [(len(stream.log.watchers), stream.state) for stream in streams] == [(0, "running")] * 2
    assert sidestream.service.store.watchers == 0


async def test_none_can_starve_another(sidestream: Sidestream) -> None:
    async def endless() -> AsyncIterator[str]:
        while True:
            yield "x" * 1000

    greedy = [open_in(sidestream.service.store, endless(), linger=None) for _ in range(2)]
    modest = opened(sidestream, 3)
    async with watch(sidestream, *greedy, modest) as watched:
        seen: dict[str, int] = {}
        while len(seen) < 3 or seen[modest.id] < 4:
            source = unpacked(await watched.next())[0]
            seen[source] = seen.get(source, 0) + 1
            if seen.get(modest.id) == 3:
                modest.emit("one more")
            assert sum(seen.values()) < 1000
        assert min(seen[stream.id] for stream in greedy) > 3
    for stream in greedy:
        stream.end(Trigger.DELETED)
        await stream.closed()


# -- what is refused, and what starts nothing


@pytest.mark.parametrize(
    "streams", ["", "a,,b", "a,b,a", ",".join(f"s{n}" for n in range(33))], ids=lambda text: text[:9] or "none"
)
async def test_a_bad_list_of_streams_is_named(sidestream: Sidestream, streams: str) -> None:
    answer = await ask(sidestream, f"/merge?streams={streams}")
    assert (answer.status, answer.json["parameter"]) == (400, "streams")


async def test_32_streams_are_merged(sidestream: Sidestream) -> None:
    streams = [opened(sidestream, 2, end=True) for _ in range(32)]
    answer = await merged(sidestream, *streams)
    assert [of(stream, answer.events) for stream in streams] == [[*numbers(2), END]] * 32
    assert answer.last_event_id == "-".join(["end"] * 32)


async def test_a_stream_without_ids_can_t_be_merged(sidestream: Sidestream) -> None:
    class WithoutIds(Format):
        ids = False

    answer = await merged(sidestream, opened(sidestream), opened(sidestream, format=WithoutIds()))
    assert (answer.status, answer.json["parameter"]) == (409, "streams")


async def test_head_starts_nothing(sidestream: Sidestream) -> None:
    stream = opened(sidestream, 1)
    for path in (url(stream), "/merge"):
        answer = await ask(sidestream, path, method="HEAD")
        assert (answer.status, answer.headers["content-type"], answer.body) == (200, "text/event-stream", b"")
    assert (len(stream.log.watchers), len(sidestream.service.store.streams)) == (0, 1)


async def test_watching_several_takes_no_token_and_the_demonstration_does() -> None:
    sidestream = Sidestream(Settings(token=("secret",)))
    stream = opened(sidestream, 1, end=True)
    assert (await merged(sidestream, stream)).status == 200
    assert (await ask(sidestream, "/merge")).status == 401
    await sidestream.stop()


# -- the demonstration


async def test_alone_it_is_two_sources_at_different_paces_as_one_plain_stream(
    sidestream: Sidestream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(merge, "PACES", {"A": (6, 0.003), "B": (3, 0.008)})
    answer = await ask(sidestream, "/merge", headers=EVENT_STREAM)
    connected, *values, done = answer.events
    payloads = [json.loads(event.data) for event in values]
    for name, count in (("A", 6), ("B", 3)):
        assert [payload for payload in payloads if payload["source"] == name] == [
            {"source": name, "value": value} for value in range(count)
        ]
    assert [payload["source"] for payload in payloads] != ["A"] * 6 + ["B"] * 3
    assert (connected.type, done.data, done.last_event_id.endswith(".end")) == ("connected", "[DONE]", True)
    again = await ask(sidestream, "/merge", headers=EVENT_STREAM | {"last-event-id": values[4].last_event_id})
    assert [event.last_event_id for event in again.events] == [event.last_event_id for event in (*values[5:], done)]

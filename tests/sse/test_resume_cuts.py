"""Cut anywhere, resume as EventSource does, put the pieces together: each event once, in order; the source ran once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from sse.asgi import Message
from sse.formats import Format
from sse.http import Request
from sse.resume import GONE_ID, Held, Verdict, decide
from sse.stream import State, Stream
from sse.watch import EventStream
from sse.wire.event import MessageEvent
from sse.wire.parser import Parser
from tests.support.asgi import Connection, http_scope
from tests.support.streams import stream_of

COUNT = 300
TEXTS = (
    "plain",
    "Größe",
    "€ 20",
    "日本語",
    "emoji 🙂👩‍🚀",
    "line\nend\r\n",
    "\u2028\u0085 data: x\n\nid: 7",
    "",
    "x" * 300,
)

pytestmark = pytest.mark.virtual_time


@dataclass
class Work:
    """A source, and how often it was started. chunk: after so many items it waits for a turn of the loop."""

    chunk: int = 7
    started: int = 0
    items: list[object] = field(default_factory=list)

    async def __call__(self) -> AsyncIterator[object]:
        self.started += 1
        for number in range(1, COUNT + 1):
            item = {"number": number, "text": TEXTS[number % len(TEXTS)]}
            self.items.append(item)
            yield item
            if number % self.chunk == 0:
                await asyncio.sleep(1)


class Finished(Exception):
    """204: EventSource doesn't come again."""


class Reader:
    """EventSource without its waiting. events: what it dispatched. answers: how often it was answered."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.events: list[MessageEvent] = []
        self.last_event_id = ""
        self.answers = 0

    def after(self) -> int | None:
        """Where the next connection follows from; None at first. Raises Finished."""
        log = self.stream.log
        held = Held(self.stream.id, log.last - log.closed, self.stream.state is not State.RUNNING, same=True)
        answer = decide(self.last_event_id, held)
        if answer.verdict is Verdict.FINISHED:
            raise Finished
        assert answer.verdict is (Verdict.WATCH if self.last_event_id else Verdict.OPEN)
        return answer.after if self.last_event_id else None

    def read(self, body: bytes) -> None:
        """One connection's bytes, up to where it broke. What follows the last empty line is lost (9.2.6)."""
        parser = Parser()
        self.events += parser.feed(body)
        self.last_event_id = parser.last_event_id or self.last_event_id
        self.answers += 1


def response_of(stream: Stream, after: int | None) -> EventStream:
    return EventStream(stream, after or 0, newcomer=after is None)


async def answered(stream: Stream, after: int | None) -> Connection:
    """The whole of an answer, up to the terminal event."""
    connection = Connection()
    await response_of(stream, after)(Request(http_scope(), connection.receive), connection.send)
    assert connection.complete
    return connection


async def finished() -> tuple[Stream, Work, Connection]:
    """A stream that was watched from its first event to its last, and is still held."""
    work = Work()
    stream = stream_of(work(), Format(), linger=30, keep=300)
    return stream, work, await answered(stream, None)


def check(stream: Stream, work: Work, events: list[MessageEvent]) -> None:
    """All of it, each once, in order."""
    assert work.started == 1
    assert [event.last_event_id for event in events] == [f"{stream.id}.{n}" for n in (*range(COUNT + 1), "end")]
    assert [event.type for event in events] == ["connected"] + ["message"] * (COUNT + 1)
    expected = [Format().item(item) for item in work.items]
    assert [b"data: %b\n\n" % event.data.encode() for event in events[1:-1]] == expected
    assert events[-1].data == "[DONE]"


async def test_cut_at_every_byte_from_the_end_of_the_opening_on() -> None:
    """Every cut is made, and every answer that a cut leads to is really given, once for each last event ID."""
    stream, work, whole = await finished()
    body = whole.body
    first = body.index(b"\n\n") + 2
    expected = Parser().feed(body)
    check(stream, work, expected)

    parser = Parser()
    dispatched = len(parser.feed(body[:first]))
    cuts = {(dispatched, parser.last_event_id)}
    for offset in range(first, len(body)):
        dispatched += len(parser.feed(body[offset : offset + 1]))
        cuts.add((dispatched, parser.last_event_id))

    assert len(body) - first > 20_000
    assert len(cuts) == COUNT + 2
    for dispatched, last_event_id in cuts:
        reader = Reader(stream)
        reader.events, reader.last_event_id = expected[:dispatched], last_event_id
        try:
            reader.read((await answered(stream, reader.after())).body)
        except Finished:
            assert dispatched == len(expected)
        assert reader.events == expected


async def test_a_cut_at_a_byte_is_what_a_parser_says_that_has_read_so_far() -> None:
    """The shortcut of the test above, checked: fed at once or byte by byte, a prefix leaves the same behind."""
    _, _, whole = await finished()
    body, parser, count = whole.body, Parser(), 0
    for offset in range(3000):
        count += len(parser.feed(body[offset : offset + 1]))
        fresh = Parser()
        assert (len(fresh.feed(body[: offset + 1])), fresh.last_event_id) == (count, parser.last_event_id)


class Cut(Connection):
    """A connection that breaks after so many bytes of the body; what arrived is in `body`."""

    def __init__(self, stream: Stream, after: int | None, length: int) -> None:
        super().__init__()
        self.left = length
        self.response = response_of(stream, after)

    async def send(self, message: Message) -> None:
        if self.gone.is_set():
            return
        cut = {**message, "body": message.get("body", b"")[: self.left]}
        self.left -= len(cut["body"])
        await super().send(cut)
        if self.left == 0:
            self.disconnect()

    async def __call__(self) -> bytes:
        await self.response(Request(http_scope(), self.receive), self.send)
        return self.body


async def test_cut_after_every_event_while_the_work_goes_on() -> None:
    """One reader whose connection breaks after each single event, while the source is still producing."""
    work = Work()
    stream = stream_of(work(), Format(), linger=30, keep=300)
    reader = Reader(stream)
    reader.read(await Cut(stream, reader.after(), len(b"".join(stream.preamble(0, 2000, newcomer=True))))())
    for number in range(1, COUNT + 1):
        text = Format().item({"number": number, "text": TEXTS[number % len(TEXTS)]})
        assert isinstance(text, bytes)
        event = b"id: %b.%d\n%b" % (stream.id.encode(), number, text)
        preamble = b"".join(stream.preamble(number - 1, 2000, newcomer=False))
        reader.read(await Cut(stream, reader.after(), len(preamble) + len(event))())
        assert len(reader.events) == number + 1
    reader.read((await answered(stream, reader.after())).body)

    check(stream, work, reader.events)
    assert reader.answers == COUNT + 2
    with pytest.raises(Finished):
        reader.after()


@pytest.mark.parametrize("length", [101, 127, 500, 5000])
async def test_connections_that_break_after_so_many_bytes_get_there_in_the_end(length: int) -> None:
    """In the middle of lines, characters and body messages, while the source is still producing."""
    work = Work(chunk=3)
    stream = stream_of(work(), Format(), linger=30, keep=300)
    reader = Reader(stream)
    stuck = 0
    while True:
        try:
            after = reader.after()
        except Finished:
            break
        before = len(reader.events)
        reader.read(await Cut(stream, after, length * (1 + stuck))())
        stuck = stuck + 1 if len(reader.events) == before else 0  # an event may be longer than the cut lets through

    check(stream, work, reader.events)


async def test_several_readers_cut_at_different_places_see_the_same() -> None:
    work = Work()
    stream = stream_of(work(), Format(), linger=30, keep=300)

    async def read(length: int) -> list[MessageEvent]:
        reader = Reader(stream)
        while True:
            try:
                after = reader.after()
            except Finished:
                return reader.events
            reader.read(await Cut(stream, after, length)())

    for events in await asyncio.gather(*[read(length) for length in (900, 1300, 4000, 20_000)]):
        check(stream, work, events)


async def test_a_stream_that_is_gone_is_told_once() -> None:
    """The answer to an expired stream's ID carries an id whose reconnect is answered 204."""
    stream, _, _ = await finished()
    reader = Reader(stream)
    reader.last_event_id = GONE_ID

    with pytest.raises(Finished):
        reader.after()


async def test_nobody_is_left_behind() -> None:
    before = asyncio.all_tasks()
    work = Work()
    stream = stream_of(work(), Format(), linger=30, keep=300)
    reader = Reader(stream)
    for length in range(200, 3000, 400):
        reader.read(await Cut(stream, reader.after(), length)())
    assert stream.state is State.RUNNING
    await asyncio.sleep(31)

    assert stream.reason == "abandoned"
    assert asyncio.all_tasks() == before
    assert stream.log.watchers == {}

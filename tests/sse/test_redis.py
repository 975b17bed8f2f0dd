"""Two stores, as two processes have them, and a real Redis between them."""

import asyncio
import gc
import re
import subprocess
import sys
import time
import weakref
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest

from sse import connections, mirror
from sse import entries as writing
from sse import redis as module
from sse.connections import REQUESTS, TASKS, run
from sse.entries import key_of, loss, opening_of, write
from sse.errors import Full
from sse.formats import Format, Written
from sse.ids import new_id
from sse.redis import Redis
from sse.store import Holder, Limits, Store
from sse.stream import Opening, State, Stream, Trigger
from tests.support.redis import RedisServer, address, redis_server

pytestmark = pytest.mark.e2e


class Reader:
    """A watcher that takes what there is."""

    def __init__(self, stream: Stream, position: int = 0) -> None:
        self.stream = stream
        self.position = position
        self.offset = 0
        self.body = b""
        self._woken = asyncio.Event()

    def wake(self) -> None:
        self._woken.set()

    async def until(self, number: int) -> bytes:
        """All there is, until it has taken this one or the last. Raises TimeoutError when nothing comes for 10 s."""
        self.stream.attach(self)
        try:
            while self.position < number and not self.stream.finished(self):
                if body := self.stream.take(self):
                    self.body += body
                else:
                    self._woken.clear()
                    async with asyncio.timeout(10):
                        await self._woken.wait()
        finally:
            self.stream.detach(self)
        return self.body

    async def whole(self) -> bytes:
        return await self.until(1 << 60)


class Hand:
    """A source in the test's hand: yields what is put, ends with None, and says when it was closed."""

    def __init__(self) -> None:
        self.items: asyncio.Queue[Any] = asyncio.Queue()
        self.closed = asyncio.Event()

    def __aiter__(self) -> "Hand":
        return self

    async def __anext__(self) -> Any:
        item = await self.items.get()
        if item is None:
            raise StopAsyncIteration
        return item

    async def aclose(self) -> None:
        self.closed.set()

    def put(self, *items: Any) -> None:
        for item in items:
            self.items.put_nowait(item)


class Named(Format):
    """Its terminal event says this."""

    def __init__(self, text: str) -> None:
        self.text = text

    def done(self) -> bytes:
        return b"data: %b\n\n" % self.text.encode()


def joined(written: Written) -> bytes:
    return written if isinstance(written, bytes) else b"".join(written)


async def numbers(count: int, wait: float = 0.0) -> AsyncIterator[dict[str, int]]:
    for number in range(1, count + 1):
        if wait:
            await asyncio.sleep(wait)
        yield {"n": number}


def body_of(stream: Stream, count: int, end: bytes = b"data: [DONE]\n\n") -> bytes:
    """What a stream of numbers says, whole."""
    events = [b'id: %b.%d\ndata: {"n":%d}\n\n' % (stream.id.encode(), n, n) for n in range(1, count + 1)]
    return b"".join([*events, b"id: %b.end\n" % stream.id.encode(), end])


def numbers_in(body: bytes) -> list[int]:
    """The numbers of a stream that are there, or told to be missing."""
    told = re.findall(rb'"n":(\d+)|"first":(\d+),"last":(\d+)', body)
    return [n for one, first, last in told for n in range(int(one or first), int(one or last) + 1)]


@asynccontextmanager
async def store(url: str, **limits: Any) -> AsyncIterator[Store]:
    """One process' store, whose backend has been reached."""
    made = Store(Limits(**limits), backend=Redis(url))
    try:
        await eventually(lambda: made.backend.link is not None and made.backend.link.up)
        yield made
    finally:
        await made.drain(0)
        await made.backend.stop()


async def eventually(condition: Any, timeout: float = 10.0) -> None:
    async with asyncio.timeout(timeout):
        while not condition():
            await asyncio.sleep(0.005)


async def opened(at: Store, source: Any, **options: Any) -> Stream:
    with at.reserve():
        opening = Opening(source, **{"format": Format(), "linger": 30, **options})
        await at.backend.announce(opening)
        return at.open(opening)


async def found(at: Store, stream: Stream) -> Stream:
    there = await at.find(stream.id)
    assert there is not None
    assert there.elsewhere
    return there


async def written(at: Store) -> None:
    """Wait until Redis has all that was said here."""
    await eventually(lambda: at.backend.link is not None and at.backend.link.lag == 0)


@dataclass
class Pair:
    server: RedisServer
    here: Store
    there: Store


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    async with redis_server(tmp_path) as server, store(server.url) as here, store(server.url) as there:
        yield Pair(server, here, there)


# -- following


async def test_a_stream_is_followed_elsewhere_to_the_byte(pair: Pair) -> None:
    stream = await opened(pair.here, numbers(300, 0.001))
    bodies = await asyncio.gather(Reader(stream).whole(), Reader(await found(pair.there, stream)).whole())
    assert bodies[0] == bodies[1] == body_of(stream, 300)


async def test_what_a_stream_is_stands_beside_it_everywhere(pair: Pair) -> None:
    source = Hand()
    stream = await opened(
        pair.here, source, metadata={"user": "ü"}, identity="GET /x", kind="job", result=lambda: {"so far": 1}
    )
    there = await found(pair.there, stream)
    assert (there.key, there.opening.identity, there.opening.kind) == (stream.key, "GET /x", "job")
    assert there.opening.metadata == {"user": "ü"}
    assert (there.format.name, there.format.ids) == ("plain", True)
    assert there.format.opening(stream.id) == stream.format.opening(stream.id)
    assert there.format.gap(3, 17) == stream.format.gap(3, 17)
    assert there.format.apology() == stream.format.apology()
    assert await pair.there.ask(there, "result") == {"so far": 1}
    source.put(None)
    await eventually(lambda: there.state is State.DONE)
    assert (there.reason, there.ended) == ("source_ended", stream.ended)
    assert await pair.there.ask(there, "result") == {"so far": 1}


async def test_a_stream_that_has_ended_can_be_read_elsewhere_and_after_its_process(pair: Pair) -> None:
    async with store(pair.server.url) as third:
        stream = await opened(third, numbers(2000))
        await eventually(lambda: stream.state is State.DONE)
    assert await Reader(await found(pair.there, stream)).whole() == body_of(stream, 2000)
    assert await Reader(await found(pair.here, stream), 1990).until(2001) != b""


async def test_one_who_is_ahead_waits_for_what_follows(pair: Pair) -> None:
    """The owner serves before it writes, so that a client can know more than Redis."""
    source = Hand()
    stream = await opened(pair.here, source)
    there = await found(pair.there, stream)
    ahead = asyncio.create_task(Reader(there, 2).whole())
    source.put({"n": 1}, {"n": 2}, {"n": 3}, None)
    assert await ahead == body_of(stream, 3)[len(body_of(stream, 2, b"")) - len(f"id: {stream.id}.end\n") :]


async def test_one_who_is_ahead_of_the_end_gets_the_terminal_event(pair: Pair) -> None:
    source = Hand()
    stream = await opened(pair.here, source)
    there = await found(pair.there, stream)
    ahead = asyncio.create_task(Reader(there, 50).whole())
    source.put({"n": 1}, None)
    assert await ahead == b"id: %b.end\ndata: [DONE]\n\n" % stream.id.encode()


async def test_what_redis_no_longer_has_is_told_as_a_gap(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, store(server.url, events=64) as here, store(server.url) as there:
        source = Hand()
        stream = await opened(here, source)
        for n in range(1, 301):
            source.put({"n": n})
            await asyncio.sleep(0)
        await eventually(lambda: stream.log.last == 300)
        await written(here)
        async with server.client() as client:
            entries: Any = await client.xrange(key_of(stream.id))
        assert int(entries[0][0].partition(b"-")[0]) == stream.log.first > 1
        reader = Reader(await found(there, stream))
        body = await reader.until(300)
        assert b"event: gap" in body
        assert b'{"first":1,"last":%d}' % (stream.log.first - 1) in body


class Counting(Format):
    """One whose gap says what only the process that runs the stream can know."""

    written = 0

    def item(self, item: Any) -> Written:
        self.written += 1
        return super().item(item)

    def gap(self, first: int, last: int) -> bytes:
        return b"event: gap\ndata: %d-%d of %d\n\n" % (first, last, self.written)


async def test_a_gap_is_told_as_the_process_that_runs_the_stream_tells_it(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, store(server.url, events=16) as here, store(server.url) as there:
        source = Hand()
        stream = await opened(here, source, format=Counting())
        source.put(*range(40))
        await eventually(lambda: stream.log.last == 40)
        await written(here)
        first = stream.log.first
        mirror = await found(there, stream)
        reader, other = Reader(mirror), Reader(mirror)
        assert b"id: %b.%d\nevent: gap\ndata: 1-%d of 40\n\n" % (
            stream.id.encode(),
            first - 1,
            first - 1,
        ) in await reader.until(40)
        leaving = asyncio.create_task(other.until(40))
        await asyncio.sleep(0)
        leaving.cancel()
        source.put(None)
        await eventually(lambda: mirror.state is State.DONE)
        assert b"data: 1-%d of 0\n" % (first - 1) in await Reader(mirror).whole(), "it can't be asked any more"


async def test_nothing_depends_on_a_message(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE", 1.0)
    source = Hand()
    stream = await opened(pair.here, source)
    there = await found(pair.there, stream)
    reading = asyncio.create_task(Reader(there).until(1))
    async with pair.server.client() as client:
        # Appended without a word: what a message that was lost looks like
        await client.xadd(key_of(stream.id), {"": b"id: x.1\ndata: 1\n\n"}, id="1-0")
    assert await reading == b"id: x.1\ndata: 1\n\n"


async def test_an_id_that_nobody_knows_is_not_found(pair: Pair) -> None:
    assert await pair.there.find(new_id()) is None
    assert await pair.there.find("*}:opening") is None


async def test_one_that_is_let_go_of_while_it_is_watched_stays_where_it_runs(pair: Pair) -> None:
    source = Hand()
    stream = await opened(pair.here, source)
    there = await found(pair.there, stream)
    watching = asyncio.create_task(Reader(there).whole())
    await eventually(lambda: there.log.watchers)
    await pair.there.drain(0)
    assert await watching == b":\n", "no event, and no end"
    async with store(pair.server.url) as third:
        source.put({"n": 1}, None)
        assert await Reader(await found(third, stream)).whole() == body_of(stream, 1)


async def test_one_that_is_forgotten_at_its_end_is_whole_elsewhere(pair: Pair) -> None:
    source = Hand()
    stream = await opened(pair.here, source, keep=0)
    reading = asyncio.create_task(Reader(await found(pair.there, stream)).whole())
    source.put(*({"n": n} for n in range(1, 51)), None)
    assert await reading == body_of(stream, 50)


async def test_one_that_is_forgotten_while_it_is_written_is_whole_elsewhere(pair: Pair) -> None:
    sources = [Hand() for _ in range(20)]
    streams = [await opened(pair.here, source, keep=0) for source in sources]
    readings = [asyncio.create_task(Reader(await found(pair.there, stream)).whole()) for stream in streams]
    for n in range(1, 21):
        for turns, source in enumerate(sources):
            source.put({"n": n}, *([None] if n == 20 else []))
            await asyncio.sleep(0 if turns % 3 else 0.001)
    assert await asyncio.gather(*readings) == [body_of(stream, 20) for stream in streams]


async def test_what_was_forgotten_before_redis_had_it_is_told_as_a_gap(pair: Pair) -> None:
    source = Hand()
    stream = await opened(pair.here, source, keep=0)
    reading = asyncio.create_task(Reader(await found(pair.there, stream)).whole())
    pair.server.freeze()
    source.put(*({"n": n} for n in range(1, 2001)), None)
    await eventually(lambda: stream.discarded)
    pair.server.thaw()
    assert numbers_in(await reading) == [*range(1, 2001)]


async def test_what_is_written_again_is_left_out_and_the_reply_says_what_is_there(pair: Pair) -> None:
    """So a write can be repeated, even one that arrives late, over a connection that was given up."""
    stream = await opened(pair.here, Hand(), keep=60)
    of, key = writing.document(stream.opening), key_of(stream.id)
    end = {"state": "done", "reason": "source_ended", "ended": 1.0, "error": None, "result": None, "last": 5}
    async with pair.server.client() as client:
        assert (await run(client, write({**of, "id": "unknown"}, [b"1"], first=1)))[-1] is None
        assert (await run(client, write(of, [])))[-1] == b"0-1"
        for events, first in (([b"1", b"2", b"3"], 1), ([b"2", b"3"], 2), ([b"3", b"4", b"5"], 3), ([b"1"], 1)):
            newest = (await run(client, write(of, events, first=first)))[-1]
        assert newest == (await run(client, write(of, [])))[-1] == b"5-0"
        for _ in range(2):
            assert (await run(client, write(of, [b"5", b"end"], end, first=5)))[-1] == b"%d-0" % writing.END
            await client.pexpire(key, 1234)
        assert await client.pttl(key) <= 1234, "the first end says how long it is kept"
        assert (await run(client, write(of, [b"6"], first=6)))[-1] == b"%d-0" % writing.END
        entries: Any = await client.xrange(key, "1-0")
    assert [fields[b""] for _, fields in entries] == [b"1", b"2", b"3", b"4", b"5", b"end"]


async def test_a_stream_is_found_although_it_takes_long_to_read(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "IDLE", 0.05)
    stream = await opened(pair.here, numbers(50_000))
    await eventually(lambda: stream.state is State.DONE)
    await written(pair.here)
    assert await Reader(await found(pair.there, stream)).whole() == body_of(stream, 50_000)


async def test_a_stream_that_was_not_waited_for_gives_its_memory_back(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "IDLE", 0.05)
    stream = await opened(pair.here, numbers(50_000))
    await eventually(lambda: stream.state is State.DONE)
    await written(pair.here)
    finding = asyncio.create_task(pair.there.find(stream.id))
    await eventually(lambda: pair.there.budget.used > 100_000)
    assert not finding.done()
    finding.cancel()
    await eventually(lambda: pair.there.budget.used == 0)


# -- ending


async def test_a_stream_is_cancelled_from_elsewhere(pair: Pair) -> None:
    source = Hand()
    stream = await opened(pair.here, source)
    there = await found(pair.there, stream)
    await pair.there.end(there, Trigger.DELETED)
    assert stream.reason == "deleted"
    async with asyncio.timeout(1):
        await source.closed.wait()
    await eventually(lambda: there.state is State.CANCELLED)


async def test_watchers_elsewhere_count_for_linger(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror, "IDLE", 0.05)
    monkeypatch.setattr(module, "LEASE", 1.0)
    stream = await opened(pair.here, Hand(), linger=0.3)
    watching = asyncio.create_task(Reader(await found(pair.there, stream)).whole())
    await asyncio.sleep(1.0)
    assert stream.state is State.RUNNING
    watching.cancel()
    begin = time.monotonic()
    await eventually(lambda: stream.reason == "abandoned")
    assert 0.3 < time.monotonic() - begin < 2


async def test_the_first_end_that_is_written_stands(pair: Pair) -> None:
    """Whoever has declared a stream lost has ended it: its process can't add to it, and stops."""
    source = Hand()
    stream = await opened(pair.here, source)
    there = await found(pair.there, stream)
    source.put({"n": 1})
    await written(pair.here)
    async with pair.server.client() as client:
        document = orjson.loads(await client.get(opening_of(stream.id)) or b"")
        await run(client, write(document, *loss(document)))
    source.put({"n": 2})
    async with asyncio.timeout(2):
        await source.closed.wait()
    assert (stream.state, stream.failure and stream.failure.code) == (State.FAILED, "producer_lost")
    body = await Reader(there).whole()
    assert body.count(b"\n\n") == 2
    assert b'"code":"producer_lost"' in body
    async with pair.server.client() as client:
        entries: Any = await client.xrange(key_of(stream.id))
    assert [entry[0] for entry in entries][-2:] == [b"1-0", b"18446744073709551615-0"]


async def lose(at: Store) -> None:
    """As kill -9 does to a process."""
    backend = at.backend
    assert isinstance(backend, Redis)
    for task in backend._tasks:
        task.cancel()
    await asyncio.gather(*backend._tasks, return_exceptions=True)
    await backend._connections.close()


async def test_a_process_that_is_gone_is_noticed_by_those_that_watch_and_by_those_that_dont(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = Store(backend=Redis(pair.server.url))
    await eventually(lambda: lost.backend.link is not None and lost.backend.link.up)
    watched, unwatched = await opened(lost, Hand(), keep=60, claim="k"), await opened(lost, Hand(), keep=60)
    there = await found(pair.there, watched)
    reading = asyncio.create_task(Reader(there).whole())
    await eventually(lambda: there.log.watchers)
    begin = time.monotonic()
    await lose(lost)
    body = await asyncio.wait_for(reading, 10)
    assert time.monotonic() - begin < 7
    assert body == b"id: %b.end\n%b" % (watched.id.encode(), joined(Format().lost()))
    again = await found(pair.here, unwatched)
    await eventually(lambda: again.state is State.FAILED)
    assert again.failure is not None
    assert again.failure.code == "producer_lost"
    async with pair.server.client() as client:
        for stream in (watched, unwatched):
            for key in (key_of(stream.id), opening_of(stream.id)):
                assert 0 < await client.pttl(key) <= 60_000
    for stream in (watched, unwatched):
        stream.end(Trigger.DELETED)


async def test_a_question_is_over_when_its_process_is_gone_although_the_stream_is_not_watched_here(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "IDLE", 0.05)
    lost = Store(backend=Redis(pair.server.url))
    await eventually(lambda: lost.backend.link is not None and lost.backend.link.up)
    put, over = asyncio.Event(), asyncio.Event()

    async def asked(stream: Stream, what: str) -> None:
        put.set()
        await over.wait()

    stream = await opened(lost, Hand(), asked=asked)
    there = await found(pair.there, stream)
    await eventually(lambda: there.discarded)
    asking = asyncio.create_task(pair.there.ask(there, "append"))
    await put.wait()
    await lose(lost)
    async with asyncio.timeout(10):
        assert await asking is None
    over.set()
    stream.end(Trigger.DELETED)


async def test_a_stream_that_redis_has_lost_with_its_process_has_an_end(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE", 1.0)
    lost = Store(backend=Redis(pair.server.url))
    await eventually(lambda: lost.backend.link is not None and lost.backend.link.up)
    stream = await opened(lost, Hand())
    reading = asyncio.create_task(Reader(await found(pair.there, stream)).whole())
    await lose(lost)
    async with pair.server.client() as client:
        await client.flushall()
    assert await reading == b"id: %b.end\n%b" % (stream.id.encode(), joined(Format().lost()))
    stream.end(Trigger.DELETED)


async def test_a_process_that_others_have_given_up_stops_also_what_redis_no_longer_has(pair: Pair) -> None:
    """As one that was frozen for longer than the keep of its streams."""
    stream = await opened(pair.here, Hand())
    await written(pair.here)
    assert isinstance(pair.here.backend, Redis)
    async with pair.server.client() as client:
        await run(client, [("DEL", key_of(stream.id), opening_of(stream.id)), writing.bury([pair.here.backend.id.encode()])])
    await eventually(lambda: stream.state is State.FAILED)
    assert stream.failure is not None
    assert stream.failure.code == "producer_lost"


async def test_nobody_is_abandoned_while_redis_is_away(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """One who watches elsewhere may be waiting for Redis too."""
    monkeypatch.setattr(module, "LEASE", 1.0)
    stream = await opened(pair.here, Hand(), linger=0.5)
    reading = asyncio.create_task(Reader(await found(pair.there, stream)).whole())
    pair.server.freeze()
    await eventually(lambda: pair.here.backend.link is not None and not pair.here.backend.link.up)
    await asyncio.sleep(1.0)
    pair.server.thaw()
    await asyncio.sleep(1.0)
    assert stream.state is State.RUNNING
    reading.cancel()
    await eventually(lambda: stream.reason == "abandoned")


# -- keys


async def test_a_key_is_had_by_one(pair: Pair) -> None:
    ids = [new_id() for _ in range(2)]

    async def race(at: Store, stream_id: str) -> Holder:
        holder = await at.backend.claim("key", Holder(stream_id, "digest"))
        if holder.stream_id == stream_id:
            await asyncio.sleep(0.05)  # it takes its time to open it
            await opened(at, Hand(), id=stream_id, claim="key", digest="digest")
        return holder

    holders = await asyncio.gather(race(pair.here, ids[0]), race(pair.there, ids[1]))
    assert holders[0] == holders[1]
    winner = holders[0].stream_id
    for at in (pair.here, pair.there):
        assert await at.find(winner) is not None
        assert await at.backend.holder("key") == Holder(winner, "digest")
    async with pair.server.client() as client:
        assert await client.pttl("sidestream:claim:key") == -1


async def test_a_key_whose_stream_was_never_opened_is_free_again(pair: Pair) -> None:
    await pair.here.backend.claim("key", Holder("a" * 22, ""))
    waiting = asyncio.create_task(pair.there.backend.claim("key", Holder("b" * 22, "")))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    pair.here.backend.forget("a" * 22, "key")
    assert (await waiting).stream_id == "b" * 22


async def test_a_key_that_a_process_has_died_with_is_free_soon(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLAIMED", 300)
    await pair.here.backend.claim("key", Holder("a" * 22, ""))
    assert (await pair.there.backend.claim("key", Holder("b" * 22, ""))).stream_id == "b" * 22


async def test_a_key_is_taken_from_the_one_that_is_named(pair: Pair) -> None:
    stream = await opened(pair.here, Hand(), claim="key")
    assert await pair.here.backend.claim("key", Holder(stream.id, "")) == Holder(stream.id, "")
    assert (await pair.there.backend.claim("key", Holder("b" * 22, ""), instead_of="c" * 22)).stream_id == stream.id
    assert (await pair.there.backend.claim("key", Holder("b" * 22, ""), instead_of=stream.id)).stream_id == "b" * 22


async def test_the_end_of_a_stream_that_was_replaced_leaves_the_key_to_its_successor(pair: Pair) -> None:
    old = await opened(pair.here, Hand(), claim="key")
    new = await opened(pair.there, Hand(), id=(await _taken(pair.there, old)), claim="key")
    old.end(Trigger.REPLACED)
    await written(pair.here)
    async with pair.server.client() as client:
        assert await client.pttl("sidestream:claim:key") == -1
    assert await pair.here.backend.holder("key") == Holder(new.id, "")


async def _taken(at: Store, old: Stream) -> str:
    return (await at.backend.claim("key", Holder(new_id(), ""), instead_of=old.id)).stream_id


# -- Redis in trouble


async def test_while_redis_is_away_watchers_here_go_on_and_those_elsewhere_catch_up(pair: Pair) -> None:
    stream = await opened(pair.here, numbers(400, 0.01))
    there = Reader(await found(pair.there, stream))
    reading = asyncio.create_task(there.whole())
    here = asyncio.create_task(Reader(stream).whole())
    await eventually(lambda: there.position > 10)
    pair.server.freeze()
    before = stream.log.last
    await eventually(lambda: stream.log.last > before + 100)
    assert there.position < before + 10
    with pytest.raises(Full):
        await pair.there.find(new_id())
    pair.server.thaw()
    assert await here == await reading == body_of(stream, 400)


async def test_a_redis_that_was_restarted_empty_is_filled_again(pair: Pair) -> None:
    stream = await opened(pair.here, numbers(300, 0.01), claim="key", digest="digest")
    done = await opened(pair.here, numbers(20))
    await eventually(lambda: done.state is State.DONE)
    await written(pair.here)
    there = Reader(await found(pair.there, stream))
    reading = asyncio.create_task(there.whole())
    await eventually(lambda: there.position > 10)
    await pair.server.kill()
    await pair.server.start()
    assert await reading == body_of(stream, 300)
    async with store(pair.server.url) as third:
        assert await Reader(await found(third, stream)).whole() == body_of(stream, 300)
        assert await Reader(await found(third, done)).whole() == body_of(done, 20)
        assert await third.backend.holder("key") == Holder(stream.id, "digest")


async def test_a_redis_that_was_emptied_is_filled_again(pair: Pair) -> None:
    source = Hand()
    stream = await opened(pair.here, source)
    source.put({"n": 1})
    await written(pair.here)
    async with pair.server.client() as client:
        await client.flushall()
        async with asyncio.timeout(10):
            while not await client.exists(opening_of(stream.id)):
                await asyncio.sleep(0.01)
    source.put(None)
    assert await Reader(await found(pair.there, stream)).whole() == body_of(stream, 1)


async def test_a_producer_waits_for_a_redis_that_lags_by_more_than_the_log(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, store(server.url, events=1000) as here, store(server.url) as there:
        source = Hand()
        stream = await opened(here, source)
        reading = asyncio.create_task(Reader(await found(there, stream)).whole())
        server.freeze()
        source.put(*({"n": n} for n in range(1, 5001)), None)
        await eventually(lambda: stream.log.waiting)
        assert stream.log.last < 5000
        server.thaw()
        body = await reading
        assert numbers_in(body) == [*range(1, 5001)]
        assert b'"n":1}' in body


async def test_a_producer_does_not_wait_for_a_redis_that_is_away_and_the_gap_is_told(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, store(server.url, events=1000) as here, store(server.url) as there:
        source = Hand()
        stream = await opened(here, source)
        reader = Reader(await found(there, stream))
        reading = asyncio.create_task(reader.whole())
        source.put({"n": 1})
        await written(here)
        server.freeze()
        source.put(*({"n": n} for n in range(2, 5001)), None)
        await eventually(lambda: stream.state is State.DONE)
        server.thaw()
        body = await reading
        assert b"event: gap" in body
        assert body.endswith(body_of(stream, 5000)[-2000:])


@pytest.mark.parametrize("command", [("maxmemory", "1"), ("min-replicas-to-write", "1")], ids=["out of memory", "read-only"])
async def test_a_redis_that_takes_nothing_loses_nothing(pair: Pair, command: tuple[str, str]) -> None:
    name, value = command
    stream = await opened(pair.here, numbers(300, 0.01))
    reading = asyncio.create_task(Reader(await found(pair.there, stream)).whole())
    async with pair.server.client() as client:
        await client.config_set(name, value)
        await eventually(lambda: pair.here.backend.link is not None and not pair.here.backend.link.up)
        await asyncio.sleep(1)
        await client.config_set(name, "0")
    assert await reading == body_of(stream, 300)


async def test_what_is_forgotten_while_redis_takes_nothing_has_an_end_elsewhere(pair: Pair) -> None:
    sources = [Hand() for _ in range(20)]
    streams = [await opened(pair.here, source, keep=0) for source in sources]
    readings = [asyncio.create_task(Reader(await found(pair.there, stream)).whole()) for stream in streams]
    async with pair.server.client() as client:
        await client.config_set("maxmemory", "1")
        for source in sources:
            source.put(None)
        await eventually(lambda: all(stream.discarded for stream in streams))
        await eventually(lambda: pair.here.backend.link is not None and not pair.here.backend.link.up)
        await client.config_set("maxmemory", "0")
    assert await asyncio.gather(*readings) == [body_of(stream, 0) for stream in streams]


async def test_a_subscription_that_breaks_begins_anew(pair: Pair) -> None:
    stream = await opened(pair.here, numbers(200, 0.01))
    there = Reader(await found(pair.there, stream))
    reading = asyncio.create_task(there.whole())
    await eventually(lambda: there.position > 10)
    async with pair.server.client() as client:
        await client.client_kill_filter(_type="pubsub")
    assert await reading == body_of(stream, 200)


async def test_connections_that_lead_nowhere_are_made_anew(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, address(server) as front, store(front.url) as here:
        link = here.backend.link
        assert await asyncio.gather(*[here.find(new_id()) for _ in range(REQUESTS)]) == [None] * REQUESTS
        front.forget()
        await eventually(lambda: here.backend.link != link)
        await eventually(lambda: here.backend.link is not None and here.backend.link.up)
        async with asyncio.timeout(2):
            assert await asyncio.gather(*[here.find(new_id()) for _ in range(REQUESTS)]) == [None] * REQUESTS


async def test_a_request_over_a_connection_that_leads_nowhere_is_refused_and_the_next_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "REQUEST", 0.5)
    async with redis_server(tmp_path) as server, address(server) as front, store(front.url) as here:
        await asyncio.gather(*[here.find(new_id()) for _ in range(REQUESTS)])
        front.forget()
        with pytest.raises(Full):
            await here.find(new_id())
        assert await here.find(new_id()) is None


async def test_no_request_gets_a_connection_that_is_being_closed(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        client = connections.client(server.url, 1)
        for turns in range(8):  # of the event loop, between the two
            await run(client, [("PING",)])
            closing = asyncio.create_task(connections.close(client, idle=True))
            for _ in range(turns):
                await asyncio.sleep(0)
            assert await run(client, [("PING",)]) == [True]
            await closing
        await connections.close(client)


async def test_what_was_under_way_in_a_defect_of_the_backend_is_written_after_it(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, address(server) as front, store(front.url) as here, server.client() as client:
        source = Hand()
        stream = await opened(here, source)
        await written(here)
        front.delay = 0.1  # the message is here while the event is on its way to Redis, or its reply on the way back
        source.put({"n": 1})
        await eventually(lambda: stream.log.last == 1)
        [[process]] = await run(client, [("ZRANGE", writing.PROCESSES, 0, -1)])
        await client.publish(writing.channel_of(process.decode()), "not JSON")
        await asyncio.sleep(0.5)
        front.delay = 0.0
        source.put({"n": 2})
        await eventually(lambda: stream.log.last == 2)
        await written(here)
        [entries] = await run(client, [("XRANGE", key_of(stream.id), "1-0", "+")])
        assert [entry_id for entry_id, _ in entries] == [b"1-0", b"2-0"]


async def test_it_can_begin_before_redis_does(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server:
        await server.kill()
        here = Store(backend=Redis(server.url))
        stream = await opened(here, numbers(10))
        with pytest.raises(Full):
            await here.backend.claim("key", Holder("a" * 22, ""))
        assert await Reader(stream).whole() == body_of(stream, 10)
        await server.start()
        async with store(server.url) as there:
            await written(here)
            assert await Reader(await found(there, stream)).whole() == body_of(stream, 10)
        await here.drain(0)
        await here.backend.stop()


# -- what is left


async def test_a_thousand_streams_leave_no_connection_no_task_and_no_channel(pair: Pair) -> None:
    tasks = len(asyncio.all_tasks())
    for _ in range(10):
        streams = [await opened(pair.here, numbers(3, 0.001)) for _ in range(100)]
        mirrors = await asyncio.gather(*[found(pair.there, stream) for stream in streams])
        bodies = await asyncio.gather(*[Reader(there).whole() for there in mirrors])
        assert bodies == [body_of(stream, 3) for stream in streams]
    async with pair.server.client() as client:
        limit = 2 * (TASKS + REQUESTS) + 1
        assert len(await client.client_list()) <= limit
        async with asyncio.timeout(10):
            while len(await client.pubsub_channels()) > 2:
                await asyncio.sleep(0.05)
    await eventually(lambda: not any(stream.elsewhere for stream in pair.there.streams.values()))
    assert len(asyncio.all_tasks()) <= tasks


async def test_what_has_expired_is_freed_at_once_without_the_garbage_collector(pair: Pair) -> None:
    gc.collect()
    gc.disable()
    try:
        stream = await opened(pair.here, numbers(3), keep=0.2)
        there = await found(pair.there, stream)
        await asyncio.gather(Reader(stream).whole(), Reader(there).whole())
        references = [weakref.ref(stream), weakref.ref(there)]
        del stream, there
        await eventually(lambda: not any(reference() for reference in references))
    finally:
        gc.enable()


async def test_what_has_expired_leaves_nothing_in_redis(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "SHORTEST", 1.0)
    for _ in range(50):
        stream = await opened(pair.here, numbers(3), keep=0, claim=new_id())
        await Reader(stream).whole()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(pair.server.client())
        async with asyncio.timeout(10):
            while set(await client.keys()) != {b"sidestream:{all}:processes"}:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("where", ["where it runs", "elsewhere"])
@pytest.mark.parametrize("running", [True, False], ids=["running", "ended"])
async def test_what_is_deleted_leaves_nothing_in_redis_long_before_its_keep(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, where: str, running: bool
) -> None:
    monkeypatch.setattr(writing, "SHORTEST", 1.0)
    id = new_id()
    await pair.here.backend.claim("key", Holder(id, ""))
    stream = await opened(pair.here, Hand() if running else numbers(3), id=id, keep=300, claim="key")
    reading = asyncio.create_task(Reader(await found(pair.there, stream)).whole())
    if not running:
        await reading
    await (pair.here.delete(stream) if where == "where it runs" else pair.there.delete(await found(pair.there, stream)))
    assert (await reading).startswith(body_of(stream, 0 if running else 3, b"event: cancelled" if running else b"data: [DONE]"))
    await eventually(lambda: not {id} & {*pair.here.streams, *pair.there.streams})
    assert await pair.there.find(id) is None
    assert await pair.there.backend.holder("key") is None
    async with pair.server.client() as client, asyncio.timeout(10):
        # An id that is deleted before its end is written stays in `ended` until its keep.
        while set(await client.keys()) - {b"sidestream:{all}:ended"} != {b"sidestream:{all}:processes"}:
            await asyncio.sleep(0.1)


async def test_the_list_is_the_list_of_all(pair: Pair) -> None:
    ours, theirs = await opened(pair.here, numbers(5)), await opened(pair.there, Hand(), metadata=1)
    await written(pair.here)
    [listed] = await pair.there.backend.newest(10)
    assert (listed.id, listed.newest, listed.state, listed.log.first) == (ours.id, 5, State.DONE, 1)
    [listed] = await pair.here.backend.newest(10)
    assert (listed.id, listed.state, listed.opening.metadata) == (theirs.id, State.RUNNING, 1)
    assert pair.here.streams.keys() == {ours.id}


async def test_the_list_takes_none_of_the_events(pair: Pair) -> None:
    source = Hand()
    stream, ended = await opened(pair.here, source), await opened(pair.here, numbers(1), format=Named("x" * (1 << 20)))
    source.put({"x": "y" * (1 << 20)}, {"x": "y" * (1 << 20)})
    await eventually(lambda: (stream.log.last, ended.log.closed) == (2, True))
    await written(pair.here)
    async with pair.server.client() as client:
        before = (await client.info("stats"))["total_net_output_bytes"]
        listed = await pair.there.backend.newest(10)
        assert (await client.info("stats"))["total_net_output_bytes"] - before < 100_000
    assert [(one.id, one.newest, one.state, one.log.first) for one in listed] == [
        (ended.id, 1, State.DONE, 1),
        (stream.id, writing.END, State.RUNNING, 1),
    ]


def test_a_url_that_cant_be_used_is_not_shown() -> None:
    with pytest.raises(ValueError) as raised:
        Redis("redis://user:hush@host:port")
    assert "hush" not in str(raised.value)


async def test_a_wrong_password_is_told_and_not_shown(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, server.client() as client:
        await client.config_set("requirepass", "right")
        with pytest.raises(ValueError) as raised:
            Redis(f"redis://:hush@127.0.0.1:{server.port}").check()
        assert "hush" not in str(raised.value)
        await client.execute_command("AUTH", "right")  # type: ignore[no-untyped-call]
        await client.config_set("requirepass", "")


def test_without_the_setting_redis_is_not_imported() -> None:
    code = (
        "import asyncio, sys; from app import Sidestream; from sidecar.settings import Settings\n"
        "async def main():\n"
        "    sidestream = Sidestream(Settings()); sidestream.start(); await sidestream.stop()\n"
        "asyncio.run(main())\n"
        "ours = {f'sse.{name}' for name in ('redis', 'connections', 'entries', 'mirror', 'pipeline', 'questions', 'replica')}\n"
        "assert not [name for name in sys.modules if name in ours or name.partition('.')[0] == 'redis']"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])

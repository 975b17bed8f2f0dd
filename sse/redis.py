"""Streams of several processes: the backend that keeps them in Redis, as Redis Streams (extra `redis`; Redis 6.2 or newer).

In:  streams that run here, questions for those that run elsewhere. Out: those as ordinary streams (`Mirror`).

    a stream that runs here         EventLog ─► Replica ─► Pipeline ─► Redis
    a stream that runs elsewhere    EventLog ◄─ Mirror ◄─ Pipeline ◄─ Redis

`sse.entries` says what Redis holds, `sse.pipeline` writes and reads it, `sse.questions` has what processes ask each other, and
`sse.connections` how Redis is reached.

Reading. XRANGE fills a Mirror's log from its newest number on. A message on the stream's channel says that there are more
events; it carries none of them. A stream that has been silent for a lease is read without a message; one that Redis no longer
has is lost. A hole in the numbers is a gap. A client may be ahead of a Mirror, since the owner serves before it writes; it
waits, or gets the terminal event.

Leases. A process renews its lease by the clock of Redis, before it announces streams. A process that finds a lease older than
`LEASE` writes the terminal event (`producer_lost`) of all streams of the lease's owner, and notes that, unless its own
connection is younger than a lease: so every process has time to renew after Redis was away. An owner that finds the note stops
its streams. A stream without watchers here is ended after its linger, unless a process is subscribed to its channel.

Limit: back-pressure doesn't cross processes. A source that never waits is slowed down by the watchers of its own process, or by
Redis; a watcher at another process gets a gap when it falls behind by a whole log.
Limit: a key whose process dies before it has opened the stream is held for `CLAIMED`.
Limit: one Redis, or one address that leads to the primary. The owners write again what a failover loses.
"""

import asyncio
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

import orjson

from sse import entries
from sse.connections import TIMEOUT, TROUBLE, Connections, forever, run
from sse.entries import BURIED, LEASE, key_of, loss, opening_of
from sse.errors import Full
from sse.ids import new_id
from sse.mirror import Mirror
from sse.pipeline import Pipeline
from sse.questions import Questions
from sse.replica import Replica
from sse.resume import parse
from sse.store import Backend, Holder, Link, Store
from sse.stream import Opening, State, Stream
from sse.wire.payload import dumps

RENEWAL: Final = 0.5
"""Seconds between two renewals of the lease."""

PAUSE: Final = 0.01
"""Seconds until a key is looked at again whose stream can't be found yet."""

CLAIMED: Final = 15_000
"""Milliseconds that a key is held until its stream is announced, which takes a millisecond, or `REQUEST` if Redis is slow."""


class Redis(Backend):
    """The backend. url: `redis://`, `rediss://` or `unix://`, with credentials where needed. id: this process."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that can't be used; the message doesn't hold it."""
        self.id = new_id()
        self._connections = connections = Connections(url)
        self._pipeline = Pipeline(connections)
        self._questions = Questions(self.id, self._publish, self._say, self._sketch)
        self._redis = connections.tasks
        self._announced: set[str] = set()  # streams that are about to begin here
        self._replicas: dict[str, Replica] = {}
        self._mirrors: dict[str, Mirror] = {}
        self._pubsub = connections.tasks.pubsub()
        self._since = time.monotonic()  # when Redis was there again, or this process was
        self._tasks: set[asyncio.Task[None]] = set()
        self.check = connections.check

    @property
    def link(self) -> Link:
        return replace(self._connections.link, lag=sum(replica.lag for replica in self._replicas.values()))

    def start(self, store: Store) -> None:
        self._store = store
        self._spawn(self._connections.again(self._life))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.add(task := asyncio.create_task(work))
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        self._connections.over = True
        tasks = [*self._tasks, *self._questions.answers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=TIMEOUT)
        with suppress(*TROUBLE):
            async with asyncio.timeout(TIMEOUT if self._connections.link.up else 0):
                self._pipeline.wake(*self._replicas.values())  # what was under way may have been lost
                await self._pipeline.finish()
                await run(self._redis, [("ZREM", entries.PROCESSES, self.id)])
        await self._connections.close()

    # -- streams that run here

    async def announce(self, opening: Opening) -> None:
        self._announced.add(opening.id)
        with suppress(Full):  # Redis gets to know it with its first events
            await self._connections.request(entries.announce(opening, self.id, time.time()))

    def begin(self, stream: Stream) -> None:
        self._announced.discard(stream.id)
        self._replicas[stream.id] = Replica(stream, self.id, self._pipeline)

    def abandon(self, stream: Stream) -> None:
        self._spawn(self._abandon(stream))

    async def _abandon(self, stream: Stream) -> None:
        """End it, unless it is watched elsewhere. While Redis is away, and for a lease afterwards, that isn't known."""
        watched: Any = True
        with suppress(Full):
            [[_, watched]] = await self._connections.request([("PUBSUB", "NUMSUB", key_of(stream.id))])
        if watched or not self._settled:
            stream.wait(LEASE)
        elif not stream.log.watchers:
            stream.abandon()

    def forget(self, stream_id: str, claim: str) -> None:
        if (replica := self._replicas.pop(stream_id, None)) is not None:
            replica.leave()
        elif (mirror := self._mirrors.pop(stream_id, None)) is not None:
            if mirror.state is State.RUNNING:
                self._say(mirror.owner, {"left": stream_id})
        elif stream_id in self._announced or claim:  # it never began
            self._announced.discard(stream_id)
            self._pipeline.send(*entries.erase(stream_id, claim))

    async def erase(self, stream: Stream) -> None:
        await self._connections.request(entries.erase(stream.id, stream.opening.claim))
        if isinstance(stream, Mirror):
            await self._publish(stream.owner, {"deleted": stream.id})

    # -- streams that run elsewhere

    async def find(self, stream_id: str) -> Stream | None:
        if parse(f"{stream_id}.0") is None:
            return None
        async with self._connections.asking() as redis:
            mirror = self._mirrors.get(stream_id)
            if mirror is None:
                [document] = await run(redis, [("GET", opening_of(stream_id))])
                if document is None:
                    return None
                mirror = self._mirrors.get(stream_id) or await self._follow(orjson.loads(document))
            await mirror.loaded.wait()
        if self._store.draining:
            raise Full("shutting down")
        return self._store.streams.setdefault(stream_id, mirror)

    async def _follow(self, document: Mapping[str, Any]) -> Mirror:
        mirror = self._mirrors[document["id"]] = self._mirror(document)
        with suppress(*TROUBLE):  # the subscription begins anew then, with all channels
            if self._pubsub.subscribed:
                await self._pubsub.subscribe(key_of(mirror.id))
        self._pipeline.wake(mirror)
        return mirror

    def _mirror(self, document: Mapping[str, Any]) -> Mirror:
        return Mirror(document, self._drop, self._store.budget, self.ask)

    def _drop(self, stream: Stream) -> None:
        if self._store.streams.get(stream.id) is stream:
            self._store.forget(stream)
        elif self._mirrors.get(stream.id) is stream:
            self.forget(stream.id, "")
            stream.discard()

    async def newest(self, limit: int) -> list[Stream]:
        [ids] = await self._connections.request([("ZREVRANGE", entries.OPENED, 0, limit - 1)])
        return [
            *await self._sketches(stream_id for stream_id in map(bytes.decode, ids) if stream_id not in self._store.streams)
        ]

    async def _sketch(self, stream_id: str) -> Mirror | None:
        return next(iter(await self._sketches([stream_id])), None)

    async def _sketches(self, ids: Iterable[str]) -> list[Mirror]:
        commands = [command for stream_id in ids for command in entries.sketch(stream_id)]
        replies = iter(await self._connections.request(commands))
        read = zip(replies, replies, strict=True)
        return [self._mirror(orjson.loads(opening)).sketch(*ends) for opening, ends in read if opening]

    async def ask(self, stream: Stream, what: str, args: Sequence[Any]) -> Any:
        return await self._questions.ask(stream, what, args)

    async def _publish(self, process: str, message: Mapping[str, Any]) -> None:
        await self._connections.request([("PUBLISH", entries.channel_of(process), dumps(message))])

    def _say(self, process: str, message: Mapping[str, Any]) -> None:
        self._pipeline.send(("PUBLISH", entries.channel_of(process), dumps(message)))

    # -- keys

    async def claim(self, key: str, holder: Holder, instead_of: str = "") -> Holder:
        take = entries.take(key, dumps(holder), "PX", CLAIMED, instead_of=instead_of)
        async with self._connections.asking() as redis:
            while found := (await run(redis, [take]))[0]:
                held = Holder(*orjson.loads(found))
                if held.stream_id in self._store.streams or await run(redis, [("EXISTS", opening_of(held.stream_id))]) == [1]:
                    return held
                await asyncio.sleep(PAUSE)  # about to be announced, or given up: that takes a millisecond
        return holder

    async def holder(self, key: str) -> Holder | None:
        [found] = await self._connections.request([("GET", entries.claim_of(key))])
        return Holder(*orjson.loads(found)) if found is not None else None

    # -- its tasks

    async def _life(self) -> None:
        """From reaching Redis to the first trouble with it."""
        for replica in self._replicas.values():
            replica.stream.log.wake_producers()  # they don't wait for a Redis that is away
        await run(self._redis, [("SCRIPT", "LOAD", script) for script in entries.SCRIPTS], seconds=TIMEOUT)
        await self._renew()
        self._connections.reached()
        async with asyncio.TaskGroup() as tasks:
            for step in (self._lease, self._pipeline.step, self._listen):
                tasks.create_task(forever(step))

    async def _lease(self) -> None:
        """Renew the lease, and look after streams that have been silent for long."""
        await asyncio.sleep(RENEWAL)
        await self._renew()
        running = (mirror for mirror in self._mirrors.values() if mirror.state is State.RUNNING)
        silent = [mirror for mirror in running if time.monotonic() - mirror.seen > LEASE]
        found = await run(self._redis, [("EXISTS", key_of(mirror.id)) for mirror in silent])
        for mirror, there in zip(silent, found, strict=True):
            if self._settled and not there and mirror.state is State.RUNNING:
                [terminal], end = loss(mirror.document)
                mirror.over(terminal, end)
        self._pipeline.wake(*silent)

    async def _renew(self) -> None:
        """Renew the lease. If it had lapsed, or Redis was away, find out how things are; else end what others have left."""
        [(age, lapsed)] = await run(self._redis, [entries.renew(self.id)], seconds=TIMEOUT)
        if not self._connections.link.up or not 0 <= age < LEASE * 1000:
            self._since = time.monotonic()
            for replica in list(self._replicas.values()):
                if age == BURIED:
                    replica.lose()
                replica.ask()
            self._pipeline.wake(*self._mirrors.values())
        elif lapsed and self._settled:
            await self._bury(lapsed)

    @property
    def _settled(self) -> bool:
        """Whether all processes have had time to renew their leases, streams and subscriptions since Redis was away."""
        return self._connections.link.up and time.monotonic() - self._since > LEASE

    async def _bury(self, lapsed: Sequence[bytes]) -> None:
        """End the streams of processes that are gone."""
        [ids] = await run(self._redis, [("ZRANGE", entries.OPENED, 0, -1)])
        openings = await run(self._redis, [("GET", opening_of(stream_id)) for stream_id in map(bytes.decode, ids)])
        gone = {process.decode() for process in lapsed}
        lost = [document for document in map(orjson.loads, filter(None, openings)) if document["owner"] in gone]
        ends = [command for document in lost for command in entries.write(document, *loss(document))]
        await run(self._redis, [*ends, entries.bury(lapsed)])

    async def _listen(self) -> None:
        """Receive the messages of other processes. Leases send messages too, so silence means trouble."""
        own = entries.channel_of(self.id).encode()
        async with self._redis.pubsub() as self._pubsub:
            await self._pubsub.subscribe(own)
            if self._mirrors:  # those that come from here on subscribe themselves
                await self._pubsub.subscribe(*map(key_of, self._mirrors))
            while (message := await self._pubsub.get_message(timeout=LEASE)) is not None:
                if (mirror := self._mirrors.get(entries.id_of(message["channel"]))) is not None:
                    self._pipeline.wake(mirror)
                elif message["type"] == "message" and message["data"]:
                    self._questions.hear(orjson.loads(message["data"]), self._store)
                elif message["type"] == "message":
                    followed = {own, *(key_of(stream_id).encode() for stream_id in self._mirrors)}
                    if left := self._pubsub.channels.keys() - followed:
                        await self._pubsub.unsubscribe(*left)
            raise TimeoutError("no message for as long as a lease lasts")

"""Streams of several processes: the backend that keeps them in Redis, as Redis Streams (extra `redis`; Redis 6.2 or newer).

In:  logs of streams that run here, questions for those that run elsewhere. Out: those as ordinary streams (`Mirror`).

    EventLog ──wake──► Replica ──┐                                    ┌──► Mirror's EventLog ──► watchers here
    EventLog ──wake──► Replica ──┼─► writer ─► Redis ─► subscription ─┼──► Mirror's EventLog ──► watchers here
    answers, farewells ──────────┘   (pipelines)  └─── XRANGE ◄ reader┘

`sse.entries` says what Redis holds, `sse.questions` what processes ask each other, `sse.connections` how Redis is reached.

Writing. The log serves the watchers here first, and wakes its Replica as it wakes any watcher. One task sends the events that
the replicas lack, and every other message, in one pipeline at a time, so that no answer arrives before the events that it
refers to. After an error the newest id of every stream is read first, and writing goes on after it. If Redis lags by more than
the log's bounds, the log keeps the events that Redis lacks, and the producer waits (`EventLog.room`). After `PATIENCE` the
producer goes on, and readers get a gap for the events dropped meanwhile.

Reading. XRANGE fills a Mirror's log from its newest number on. A message on the stream's channel says that there are more
events; it carries none of them. A stream that has been silent for a lease is read without a message. A hole in the numbers is
a gap. A client may be ahead of a Mirror, since the owner serves before it writes; it waits, or gets the terminal event.

Leases. A process renews its lease by the clock of Redis. A process that finds a lease older than `LEASE` writes the terminal
event (`producer_lost`) of all streams of the lease's owner, unless its own connection is younger than a lease: so every process
has time to renew after Redis was away. A process whose own lease had lapsed stops its streams that have a terminal entry.
A stream without watchers here is ended after its linger, unless a process is subscribed to its channel.

Limit: back-pressure doesn't cross processes. A source that never waits is slowed down by the watchers of its own process, or by
Redis; a watcher at another process gets a gap when it falls behind by a whole log.
Limit: a key whose process dies before it has opened the stream is held for `CLAIMED`.
Limit: one Redis, or one address that leads to the primary. The owners write again what a failover loses.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from typing import Any, Final, cast

import orjson
from redis.asyncio.client import Pipeline, PubSub
from redis.exceptions import ResponseError

from sse import entries
from sse.connections import REQUEST, TIMEOUT, TROUBLE, Connections
from sse.entries import Replica, key_of, opening_of
from sse.errors import Full
from sse.ids import new_id
from sse.mirror import Mirror, loss
from sse.questions import Questions
from sse.resume import parse
from sse.store import Backend, Holder, Link, Store
from sse.stream import Opening, State, Stream
from sse.wire.payload import dumps

LEASE: Final = 5.0
"""Seconds after its last renewal that a process counts as gone."""

RENEWAL: Final = 0.5
PATIENCE: Final = 30.0
"""Seconds that Redis may be away before producers go on without it."""

PAUSE: Final = 0.01
"""Seconds until a key is looked at again whose stream can't be found yet."""

CLAIMED: Final = 15_000
"""Milliseconds that a key is held until its stream is announced, which takes a millisecond, or `REQUEST` if Redis is slow."""

STREAMS: Final = 200
"""Streams that are written or read at once."""


class Redis(Backend):
    """The backend. url: `redis://`, `rediss://` or `unix://`, with credentials where needed. id: this process."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that can't be used; the message doesn't hold it."""
        self.id = new_id()
        self._connections = Connections(url)
        self.check = self._connections.check
        self._redis, self._asked = self._connections.tasks, self._connections.requests
        self._replicas: dict[str, Replica] = {}
        self._mirrors: dict[str, Mirror] = {}
        self._announced: dict[str, bytes] = {}  # streams about to begin, and the epoch
        self._dirty: dict[Replica, None] = {}
        self._woken: dict[Mirror, None] = {}
        self._lingering: dict[str, Stream] = {}
        self._outbox: list[Callable[[Pipeline], Any]] = []
        self._pubsub: PubSub | None = None
        self._epoch = b""
        self._unsure = False  # whether it is unknown which events Redis has
        self._renewed = self._away = 0.0  # when its lease was renewed; the longest time without that since `_look`
        self._since = 0.0  # when Redis was there again, or this process was
        self._news, self._more, self._settled = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._questions = Questions(self.id, self._publish, self._say)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def link(self) -> Link:
        return replace(self._connections.link, lag=sum(replica.lag for replica in self._replicas.values()))

    @property
    def patient(self) -> bool:
        """Whether Redis has been away for less than `PATIENCE`."""
        return self._connections.link.up or self._now() - self._connections.down < PATIENCE

    def start(self, store: Store) -> None:
        self._store = store
        self._now = asyncio.get_running_loop().time
        self._connections.down = self._renewed = self._now()
        self._tasks = [asyncio.create_task(self._connections.again(self._renew, away=True))]
        for step in (self._write, self._read, self._listen):
            self._tasks.append(asyncio.create_task(self._connections.again(step)))

    async def stop(self) -> None:
        with suppress(*TROUBLE):
            async with asyncio.timeout(TIMEOUT if self._connections.link.up else 0):
                self._stir()
                await self._settled.wait()
                await entries.leave(self._redis, self.id)
        tasks = [*self._tasks, *self._questions.answers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=TIMEOUT)
        await self._connections.close()

    # -- streams that run here

    async def announce(self, opening: Opening) -> None:
        if self._connections.hopeful:  # otherwise it is announced when Redis is back
            pipe = self._asked.pipeline(transaction=False)
            entries.announce(pipe, opening, self.id, opening.key, time.time())
            self._announced[opening.id] = b""
            with suppress(Full):
                await self._connections.request(pipe.execute(raise_on_error=False))
                self._announced[opening.id] = self._epoch

    def begin(self, stream: Stream) -> None:
        replica = Replica(stream, self, self._announced.pop(stream.id, b""))
        self._replicas[stream.id] = stream.log.replica = replica
        if not replica.epoch or stream.log.ready(replica):
            self.write(replica)

    def abandon(self, stream: Stream) -> None:
        self._lingering[stream.id] = stream
        self._stir()

    def forget(self, stream_id: str, claim: str) -> None:
        mirror, replica = self._mirrors.pop(stream_id, None), self._replicas.pop(stream_id, None)
        if mirror is not None:
            if mirror.state is State.RUNNING:
                self._say(mirror.owner, {"left": stream_id})
        elif replica is not None:
            self._dirty.pop(replica, None)
            if not replica.done and replica.stream.log.closed:  # its end is not there yet
                self._send(replica.ending())
        elif claim or self._announced.pop(stream_id, None) is not None:
            self._send(lambda pipe: entries.erase(pipe, stream_id, claim))

    async def erase(self, stream: Stream) -> None:
        await self._connections.request(entries.delete(self._asked, stream.id, stream.opening.claim))
        if isinstance(stream, Mirror):
            await self._publish(stream.owner, {"deleted": stream.id})

    # -- streams that run elsewhere

    async def find(self, stream_id: str) -> Stream | None:
        if parse(f"{stream_id}.0") is None:
            return None
        if self._store.draining:
            raise Full("shutting down")
        mirror = self._mirrors.get(stream_id)
        if mirror is None:
            document = await self._connections.request(self._asked.get(opening_of(stream_id)))
            if document is None:
                return None
            mirror = self._mirrors.get(stream_id) or await self._follow(orjson.loads(document))
        try:
            async with asyncio.timeout(REQUEST):
                await mirror.loaded.wait()
        except TimeoutError:
            raise Full("store") from None
        return self._store.streams.setdefault(stream_id, mirror)

    async def _follow(self, document: Mapping[str, Any]) -> Mirror:
        mirror = self._mirrors[document["id"]] = Mirror(document, self._drop, self._store.budget, self.ask)
        with suppress(*TROUBLE):  # the subscription begins anew then, with all channels
            if self._pubsub is not None:
                await self._pubsub.subscribe(key_of(mirror.id))
        self._wake(mirror)
        return mirror

    def _drop(self, stream: Stream) -> None:
        if self._store.streams.get(stream.id) is stream:
            self._store.forget(stream)
        elif self._mirrors.get(stream.id) is stream:
            self.forget(stream.id, "")

    async def newest(self, limit: int) -> list[Stream]:
        ids = [name.decode() for name in await self._connections.request(self._asked.zrevrange(entries.OPENED, 0, limit - 1))]
        pipe = self._asked.pipeline(transaction=False)
        for stream_id in (one for one in ids if one not in self._store.streams):
            entries.ask(pipe, stream_id)
        replies = await self._connections.request(pipe.execute())
        documents = [document for document in zip(replies[::3], replies[1::3], replies[2::3], strict=True) if document[0]]
        return [
            Mirror(orjson.loads(opening), self._drop, self._store.budget, self.ask).sketch(*ends)
            for opening, *ends in documents
        ]

    async def ask(self, stream: Stream, what: str, args: Sequence[Any]) -> Any:
        return await self._questions.ask(cast(Mirror, stream), what, args)

    async def _publish(self, process: str, message: Mapping[str, Any]) -> bool:
        return bool(await self._connections.request(self._asked.publish(entries.channel_of(process), dumps(message))))

    # -- keys

    async def claim(self, key: str, holder: Holder, instead_of: str = "") -> Holder:
        value, replaces, request = dumps(holder), entries.held_by(instead_of), self._connections.request
        for _ in range(int(2 * REQUEST / PAUSE)):
            claim = self._asked.eval(entries.CLAIM, 1, entries.claim_of(key), value, replaces, "PX", CLAIMED)
            if (found := await request(claim)) is None:
                return holder
            held = Holder(*orjson.loads(found))
            if held.stream_id in self._store.streams or await request(self._asked.exists(opening_of(held.stream_id))):
                return held
            await asyncio.sleep(PAUSE)  # about to be announced, or given up: that takes a millisecond
        raise Full("store")

    async def holder(self, key: str) -> Holder | None:
        found = await self._connections.request(self._asked.get(entries.claim_of(key)))
        return Holder(*orjson.loads(found)) if found is not None else None

    # -- its tasks

    async def _renew(self) -> None:
        """Renew the lease, see how things are, and wait for the next time, or for trouble."""
        self._connections.trouble.clear()
        if not self._connections.link.up:
            self._go_without()
        age, epoch, lapsed = await entries.renew(self._redis, self.id, int(LEASE * 1000))
        self._away, self._renewed = max(self._away, self._now() - self._renewed), self._now()
        if not self._connections.link.up or not 0 <= age < LEASE * 1000 or epoch != self._epoch:
            self._since, self._epoch, self._unsure = self._now(), epoch, True
            self._stir()
            self._wake(*self._mirrors.values())
            self._connections.reached()
        elif self._now() - self._since > LEASE:
            await self._bury({process.decode() for process in lapsed})
        with suppress(TimeoutError):
            async with asyncio.timeout(RENEWAL):
                await self._connections.trouble.wait()

    def _go_without(self) -> None:
        if self._now() - self._connections.down > LEASE:  # nobody can watch elsewhere
            lingering, self._lingering = self._lingering, {}
            for stream in lingering.values():
                stream.abandon()
        if not self.patient:
            for replica in self._replicas.values():
                replica.stream.log.wake_producers()

    async def _bury(self, lapsed: set[str]) -> None:
        """End the streams of processes that are gone, and look after those that have been silent for a lease."""
        silent = [mirror for mirror in self._running() if self._now() - mirror.seen > LEASE]
        pipe = self._redis.pipeline(transaction=False)
        for mirror in silent:
            pipe.exists(opening_of(mirror.id))
            pipe.zscore(entries.PROCESSES, mirror.owner)
        self._wake(*silent)
        ids = await entries.streams(self._redis) if lapsed else []
        for name in ids:
            pipe.get(opening_of(name.decode()))
        replies = await pipe.execute()
        known = [orjson.loads(document) for document in replies[2 * len(silent) :] if document]
        lost = [document for document in known if document["owner"] in lapsed]
        for mirror, there, owner in zip(silent, replies[::2], replies[1::2], strict=False):
            if there and owner is None:
                lost.append(mirror.document)
            elif not there:
                mirror.over(*loss(mirror.document))
        for document in lost:
            entries.bury(pipe, document, *loss(document))
        if lapsed:
            pipe.zrem(entries.PROCESSES, *lapsed)
        await pipe.execute()

    async def _write(self) -> None:
        """Send the events and messages that have gathered."""
        await self._news.wait()
        if self._unsure:
            await self._look()
        self._news.clear()
        replicas = list(islice(self._dirty, STREAMS))
        outbox, lingering = len(self._outbox), list(self._lingering.values())
        pipe, self._unsure = self._redis.pipeline(transaction=False), True
        for replica in replicas:
            del self._dirty[replica]
        goals = [(replica.commands(pipe), len(pipe)) for replica in replicas]
        for send in self._outbox:
            send(pipe)
        for stream in lingering:
            pipe.pubsub_numsub(key_of(stream.id))
        replies = await pipe.execute(raise_on_error=False)
        del self._outbox[:outbox]
        self._unsure = False
        begin = 0
        for replica, (goal, end) in zip(replicas, goals, strict=True):
            if not any(isinstance(reply, Exception) or reply == -1 for reply in replies[begin:end]):
                replica.written(goal, self._epoch)
            else:
                self._unsure = True
            begin = end
        for stream, reply in zip(lingering, replies[len(replies) - len(lingering) :], strict=True):
            self._lingering.pop(stream.id, None)
            if isinstance(reply, Exception) or reply[0][1]:
                stream.wait(LEASE)  # watched elsewhere
            elif not stream.log.watchers:
                stream.abandon()
        (self._news if self._dirty or self._outbox or self._lingering or self._unsure else self._settled).set()
        for reply in replies:
            if isinstance(reply, ResponseError) and "equal or smaller" not in str(reply):
                raise reply

    async def _look(self) -> None:
        """Find out what Redis has of each stream, and go on from there."""
        replicas, pipe = list(self._replicas.values()), self._redis.pipeline(transaction=False)
        for replica in replicas:
            pipe.eval(entries.NEWEST, 1, key_of(replica.stream.id))
        replies = await pipe.execute()
        forgotten = max(self._away, self._now() - self._renewed) > LEASE + entries.SHORTEST
        for replica, newest in zip(replicas, replies, strict=True):
            replica.found(int(newest.partition(b"-")[0]) if newest else None, self._epoch, forgotten=forgotten)
        self._unsure, self._away = False, 0.0

    async def _read(self) -> None:
        """Read the new events of streams that run elsewhere."""
        await self._more.wait()
        self._more.clear()
        mirrors, pipe = list(islice(self._woken, STREAMS)), self._redis.pipeline(transaction=False)
        for mirror in mirrors:
            pipe.xrange(key_of(mirror.id), f"{mirror.log.last + 1}-0", count=entries.BATCH)
            del self._woken[mirror]
        for mirror, read in zip(mirrors, await pipe.execute(), strict=True):
            if self._mirrors.get(mirror.id) is not mirror or mirror.state is not State.RUNNING:
                continue
            mirror.fill(read)
            if len(read) == entries.BATCH:
                self._wake(mirror)
            else:
                mirror.loaded.set()
        if self._woken:
            self._more.set()

    async def _listen(self) -> None:
        """Receive the messages of other processes. Leases send messages too, so silence means trouble."""
        own = entries.channel_of(self.id).encode()
        async with self._redis.pubsub() as pubsub:
            await pubsub.subscribe(own)
            self._pubsub = pubsub
            try:
                if self._mirrors:
                    await pubsub.subscribe(*map(key_of, self._mirrors))
                while True:
                    async with asyncio.timeout(LEASE):
                        message = await pubsub.get_message(timeout=None)
                    if message is None or message["type"] == "unsubscribe":
                        continue
                    if message["channel"] != own:
                        if (mirror := self._mirrors.get(entries.id_of(message["channel"]))) is not None:
                            self._wake(mirror)
                    elif message["type"] == "message" and message["data"]:
                        self._questions.hear(orjson.loads(message["data"]), self._store)
                    elif left := set(pubsub.channels) - {own, *(key_of(m.id).encode() for m in self._running())}:
                        await pubsub.unsubscribe(*left)
            finally:
                self._pubsub = None

    def _running(self) -> list[Mirror]:
        return [mirror for mirror in self._mirrors.values() if mirror.state is State.RUNNING]

    def write(self, replica: Replica) -> None:
        self._dirty[replica] = None
        self._stir()

    def _send(self, command: Callable[[Pipeline], Any]) -> None:
        self._outbox.append(command)
        self._stir()

    def _say(self, process: str, message: Mapping[str, Any]) -> None:
        self._send(lambda pipe: pipe.publish(entries.channel_of(process), dumps(message)))

    def _stir(self) -> None:
        self._settled.clear()
        self._news.set()

    def _wake(self, *mirrors: Mirror) -> None:
        self._woken.update(dict.fromkeys(mirrors))
        self._more.set()

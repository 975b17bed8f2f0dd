"""The contents of Redis (keys, entries, leases), and the copy there of a stream that runs here.

In:  a stream and its log. Out: commands, most of them in a pipeline that `sse.redis` sends.

Keys. Those of one stream are in one slot of a cluster. Everything that is looked up by name has a key of its own.

    sidestream:{<stream id>}            a Redis Stream: an entry <number>-0 for each event, its bytes in the field ""
    sidestream:{<stream id>}:opening    JSON: what a Mirror is built from, and which process runs the stream; never changed.
                                        A stream that was deleted lacks it
    sidestream:claim:<digest>           JSON: the stream that holds an idempotency or conversation key
    sidestream:{all}:processes          sorted set: processes, by when they last renewed their lease (ms, the clock of Redis)
    sidestream:{all}:streams            sorted set: stream ids, by when they were opened (s)
    sidestream:{all}:ended              sorted set: stream ids, by when their keys expire (ms); an expired one leaves both sets
    sidestream:{all}:epoch              a random text; if it has changed, Redis has lost its data

Order. An id is in `streams` before its keys exist, so that every key can be found and removed. Only the entry 0-1 creates a
stream's key. All other entries need an existing key (NOMKSTREAM), so that nothing is written to a stream that has expired. The
terminal entry has the id `END`-0, the highest there is. The first process to write it decides how the stream ended, since Redis
refuses every entry after it. Its field `end` holds that.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from redis.asyncio import Redis as Client
from redis.asyncio.client import Pipeline

from sse.errors import SourceFailed
from sse.formats import LOST
from sse.ids import new_id
from sse.mirror import END, record
from sse.stream import Opening, Stream, Trigger
from sse.wire.payload import dumps

BATCH: Final = 500
"""Events of one stream, written or read at once."""

SHORTEST: Final = 5.0
"""Seconds for which a stream can be read after its end, at least, so that those who read it get to the end."""

APPEND, CLOSE, NEWEST, CLAIM, RENEW = Path(__file__).with_name("redis.lua").read_text().split("\n------\n")
PREFIX: Final = "sidestream:"
PROCESSES, OPENED, ENDED, EPOCH = (f"{PREFIX}{{all}}:{name}" for name in ("processes", "streams", "ended", "epoch"))


def key_of(stream_id: str) -> str:
    """The stream's key, and its channel."""
    return f"{PREFIX}{{{stream_id}}}"


def id_of(channel: bytes) -> str:
    return channel[len(PREFIX) + 1 : -1].decode()


def opening_of(stream_id: str) -> str:
    return f"{key_of(stream_id)}:opening"


def claim_of(key: str) -> str:
    return f"{PREFIX}claim:{key}"


def held_by(stream_id: str) -> bytes:
    """The beginning of a key's value, if this stream holds the key."""
    return dumps([stream_id])[:-1]


def channel_of(process: str) -> str:
    return f"{PREFIX}process:{process}"


def hold(pipe: Pipeline, of: Mapping[str, Any], *options: Any) -> None:
    """Let a stream take the key that it has claimed, if any, unless another stream holds it. options: of SET."""
    if of["claim"]:
        value, replaces = dumps([of["id"], of["digest"]]), held_by(of["id"])
        pipe.eval(CLAIM, 1, claim_of(of["claim"]), value, replaces, *options)


def document(opening: Opening) -> dict[str, Any]:
    """The members that an opening's key and the end of its stream have in common."""
    names = ("id", "identity", "metadata", "kind", "keep", "claim", "digest")
    return {name: getattr(opening, name) for name in names}


def announce(pipe: Pipeline, opening: Opening, owner: str, key: str, created: float) -> None:
    """Let the stream be found from now on; sent again when Redis has lost it."""
    said = {**document(opening), "owner": owner, "key": key, "created": created, "format": record(opening)}
    pipe.zadd(OPENED, {opening.id: created})
    pipe.set(opening_of(opening.id), dumps(said))
    pipe.xadd(key_of(opening.id), {"": ""}, id="0-1")
    hold(pipe, said)


def bury(pipe: Pipeline, of: Mapping[str, Any], terminal: bytes, end: Mapping[str, Any]) -> None:
    """Write the end of a stream. Its keys expire after its keep, and not before those who read it have the end."""
    shortest, stream_id = int(SHORTEST * 1000), of["id"]
    ms = max(int(of["keep"] * 1000), shortest)
    pipe.zadd(ENDED, {stream_id: int(time.time() * 1000) + ms})
    hold(pipe, of, "XX", "PX", ms)
    pipe.eval(CLOSE, 2, key_of(stream_id), opening_of(stream_id), terminal, dumps(end), ms, shortest)


def erase(pipe: Pipeline, stream_id: str, claim: str) -> None:
    """Remove a stream that was announced or has a key, and never began."""
    pipe.delete(key_of(stream_id), opening_of(stream_id))
    pipe.zrem(OPENED, stream_id)
    if claim:
        pipe.eval(CLAIM, 1, claim_of(claim), "", held_by(stream_id))


async def delete(client: Client, stream_id: str, claim: str) -> None:
    """Let nobody find an ended stream any more. Those who read it get to its end; soon after that nothing of it is left."""
    pipe, ms = client.pipeline(transaction=False), int(SHORTEST * 1000)
    pipe.delete(opening_of(stream_id))
    pipe.pexpire(key_of(stream_id), ms)
    pipe.zrem(OPENED, stream_id)
    pipe.zadd(ENDED, {stream_id: int(time.time() * 1000) + ms}, xx=True)
    if claim:
        pipe.eval(CLAIM, 1, claim_of(claim), "", held_by(stream_id))
    await pipe.execute()


def ask(pipe: Pipeline, stream_id: str) -> None:
    """Read the stream's opening, its oldest event, and its two newest."""
    pipe.get(opening_of(stream_id))
    pipe.xrange(key_of(stream_id), "1-0", count=1)
    pipe.xrevrange(key_of(stream_id), min="1-0", count=2)


async def renew(client: Client, process: str, lease: int) -> tuple[int, bytes, list[bytes]]:
    """Renew a lease. Returns the ms since the last time (-1: never), the epoch, and the processes whose lease has lapsed."""
    command: Any = client.execute_command
    keys = (PROCESSES, OPENED, ENDED, EPOCH)
    age, epoch, lapsed = await command("EVAL", RENEW, len(keys), *keys, process, new_id(), channel_of(process), lease)
    return age, epoch, lapsed


async def leave(client: Client, process: str) -> None:
    """Remove the lease of a process that has ended its streams."""
    command: Any = client.execute_command
    await command("ZREM", PROCESSES, process)


async def streams(client: Client) -> list[bytes]:
    """The ids of all streams."""
    command: Any = client.execute_command
    ids: list[bytes] = await command("ZRANGE", OPENED, 0, -1)
    return ids


class Owner(Protocol):
    """The process that runs a stream. id: its own. patient: whether producers wait for Redis."""

    id: str

    @property
    def patient(self) -> bool: ...

    def write(self, replica: "Replica") -> None:
        """The replica has something to write."""


class Replica:
    """The copy in Redis of a stream that runs here. position: the newest number there. done: its end is there, or can't be."""

    offset = 0

    def __init__(self, stream: Stream, owner: Owner, epoch: bytes) -> None:
        self.stream = stream
        self.position = 0
        self.epoch = epoch  # in which it was announced; empty: not yet
        self.done = False
        self._owner = owner

    @property
    def awaited(self) -> bool:
        return self._owner.patient

    @property
    def lag(self) -> int:
        """Events that Redis doesn't have yet."""
        return 0 if self.done else self.stream.log.last - self.position

    @property
    def _expired(self) -> bool:
        return self.done and time.time() - (self.stream.ended or 0) > self.stream.opening.keep

    def wake(self) -> None:
        """Called by the log."""
        self._owner.write(self)

    def commands(self, pipe: Pipeline) -> int:
        """Write what Redis lacks. Returns the number of the newest event that it has then."""
        stream, log = self.stream, self.stream.log
        if not self.epoch:
            announce(pipe, stream.opening, self._owner.id, stream.key, stream.created)
        position, events = log.after(self.position, BATCH)
        terminal = events.pop() if log.closed and events and position + len(events) == log.last else None
        if events:
            pipe.eval(APPEND, 1, key_of(stream.id), position + 1, log.first, *events)
        if terminal is not None:
            self.close(pipe, terminal)
        return position + len(events) + (terminal is not None)

    def close(self, pipe: Pipeline, terminal: bytes) -> None:
        stream, failure = self.stream, self.stream.failure
        result = stream.opening.result() if stream.opening.result is not None else None
        error = (failure.message, failure.code) if failure is not None else None
        end = {"state": stream.state, "reason": stream.reason, "ended": stream.ended, "error": error, "result": result}
        bury(pipe, document(stream.opening), terminal, end)

    def ending(self) -> Callable[[Pipeline], None]:
        """A function that writes the end, also after the log is gone."""
        _, [terminal] = self.stream.log.after(self.stream.log.last - 1, 1)
        return lambda pipe: self.close(pipe, terminal)

    def written(self, number: int, epoch: bytes) -> None:
        """Redis has all events up to `number`."""
        log, self.position, self.epoch = self.stream.log, number, self.epoch or epoch
        self.done = log.closed and number == log.last
        log.wake_producers()
        if not self.done and log.ready(self):
            self.wake()

    def found(self, newest: int | None, epoch: bytes, *, forgotten: bool) -> None:
        """Redis was asked for the stream. newest: the number of its newest entry there; None: there is none.

        forgotten: this process was away for so long that a stream that others have ended may have expired meanwhile.
        """
        if newest == END or (newest is None and self.epoch == epoch and (forgotten or self._expired)):
            if not self.done:  # another process has ended it; or this one has, and was not told of its success
                self.done = True
                self.stream.end(Trigger.SOURCE_FAILED, SourceFailed(*LOST, retryable=True))
        elif newest is None:
            self.position, self.epoch, self.done = 0, b"", False
            self.wake()
        else:
            self.written(min(newest, self.stream.log.last), epoch)

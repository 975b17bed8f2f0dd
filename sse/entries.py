"""What stands in Redis: keys, entries, leases; and how a stream that runs here gets there and stays the same there.

In:  a stream and its log. Out: commands, most of them in a pipeline that `sse.redis` sends; what they are for stands there.

Keys. One stream's are in one slot; everything that is looked up by name is a key of its own.

    sidestream:{<stream id>}            a Redis Stream: an entry <number>-0 for each event, its bytes in the field ""
    sidestream:{<stream id>}:opening    JSON: what a Mirror is built from, and which process runs the stream; never changed.
                                        A stream that was deleted lacks it
    sidestream:claim:<digest>           JSON: the stream that holds an idempotency or conversation key
    sidestream:{all}:processes          sorted set: processes, by when they last renewed their lease (ms, the clock of Redis)
    sidestream:{all}:streams            sorted set: stream ids, by when they were opened (s)
    sidestream:{all}:ended              sorted set: stream ids, by when their keys expire (ms): who is due leaves both sets
    sidestream:{all}:epoch              a random text: another one means that Redis has lost what it held

Order. An id is in `streams` before it has keys, so that whatever there is can be found and buried. The entry 0-1 makes the
stream key; nothing else can (NOMKSTREAM), so that nobody writes to what has expired. The terminal entry is `END`-0, the
highest id there is: whoever writes it first has written it, Redis refuses everything after it, and its field `end` holds how
the stream ended.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from redis.asyncio import Redis as Client
from redis.asyncio.client import Pipeline

from sse.errors import SourceFailed
from sse.formats import LOST
from sse.mirror import END, record
from sse.stream import Opening, Stream, Trigger, new_id
from sse.wire.payload import dumps

BATCH: Final = 500
"""Events of one stream, written or read at once."""

SHORTEST: Final = 5.0
"""Seconds that a stream can be read after its end, at least: for those who were just reading."""

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
    """How the value of a key begins that this stream holds."""
    return dumps([stream_id])[:-1]


def channel_of(process: str) -> str:
    return f"{PREFIX}process:{process}"


def hold(pipe: Pipeline, of: Mapping[str, Any], *options: Any) -> None:
    """A stream, if it has a key, has it from now on, unless another one has. options: of SET."""
    if of["claim"]:
        value, replaces = dumps([of["id"], of["digest"]]), held_by(of["id"])
        pipe.eval(CLAIM, 1, claim_of(of["claim"]), value, replaces, *options)


def document(opening: Opening) -> dict[str, Any]:
    """What an opening says of the stream."""
    names = ("id", "identity", "metadata", "kind", "keep", "claim", "digest")
    return {name: getattr(opening, name) for name in names}


def announce(pipe: Pipeline, opening: Opening, owner: str, key: str, created: float) -> None:
    """The stream can be found from now on; said again where Redis has lost it."""
    said = {**document(opening), "owner": owner, "key": key, "created": created, "format": record(opening)}
    pipe.zadd(OPENED, {opening.id: created})
    pipe.set(opening_of(opening.id), dumps(said))
    pipe.xadd(key_of(opening.id), {"": ""}, id="0-1")
    hold(pipe, said)


def bury(pipe: Pipeline, of: Mapping[str, Any], terminal: bytes, end: Mapping[str, Any]) -> None:
    """The stream's end, and when its keys expire: not before everybody has read it."""
    shortest, stream_id = int(SHORTEST * 1000), of["id"]
    ms = max(int(of["keep"] * 1000), shortest)
    pipe.zadd(ENDED, {stream_id: int(time.time() * 1000) + ms})
    hold(pipe, of, "XX", "PX", ms)
    pipe.eval(CLOSE, 2, key_of(stream_id), opening_of(stream_id), terminal, dumps(end), ms, shortest)


def erase(pipe: Pipeline, stream_id: str, claim: str) -> None:
    """It was announced, or has a key, and never began."""
    pipe.delete(key_of(stream_id), opening_of(stream_id))
    pipe.zrem(OPENED, stream_id)
    if claim:
        pipe.eval(CLAIM, 1, claim_of(claim), "", held_by(stream_id))


async def delete(client: Client, stream_id: str, claim: str) -> None:
    """Nobody finds an ended stream any more; who reads it comes to its end, soon after which nothing of it is left."""
    pipe, ms = client.pipeline(transaction=False), int(SHORTEST * 1000)
    pipe.delete(opening_of(stream_id))
    pipe.pexpire(key_of(stream_id), ms)
    pipe.zrem(OPENED, stream_id)
    pipe.zadd(ENDED, {stream_id: int(time.time() * 1000) + ms}, xx=True)
    if claim:
        pipe.eval(CLAIM, 1, claim_of(claim), "", held_by(stream_id))
    await pipe.execute()


def ask(pipe: Pipeline, stream_id: str) -> None:
    """What it is, its oldest event, its two newest."""
    pipe.get(opening_of(stream_id))
    pipe.xrange(key_of(stream_id), "1-0", count=1)
    pipe.xrevrange(key_of(stream_id), min="1-0", count=2)


async def renew(client: Client, process: str, lease: int) -> tuple[int, bytes, list[bytes]]:
    """Renew a lease: ms since the last time or -1, the epoch, the processes whose lease has lapsed."""
    command: Any = client.execute_command
    keys = (PROCESSES, OPENED, ENDED, EPOCH)
    age, epoch, lapsed = await command("EVAL", RENEW, len(keys), *keys, process, new_id(), channel_of(process), lease)
    return age, epoch, lapsed


async def leave(client: Client, process: str) -> None:
    """A process ends, and has ended its streams."""
    command: Any = client.execute_command
    await command("ZREM", PROCESSES, process)


async def streams(client: Client) -> list[bytes]:
    """The ids of all."""
    command: Any = client.execute_command
    ids: list[bytes] = await command("ZRANGE", OPENED, 0, -1)
    return ids


class Owner(Protocol):
    """The process that runs a stream. id: its own. patient: whether producers wait for Redis."""

    id: str

    @property
    def patient(self) -> bool: ...

    def write(self, replica: "Replica") -> None:
        """There is something to write."""


class Replica:
    """A stream that runs here, as Redis has it. position: the newest number there. done: its end is there, or can't be."""

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
        """What Redis lacks; the number that it has when that is written."""
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
        """What writes the end, whatever becomes of the log."""
        _, [terminal] = self.stream.log.after(self.stream.log.last - 1, 1)
        return lambda pipe: self.close(pipe, terminal)

    def written(self, number: int, epoch: bytes) -> None:
        """Redis has everything up to there."""
        log, self.position, self.epoch = self.stream.log, number, self.epoch or epoch
        self.done = log.closed and number == log.last
        log.wake_producers()
        if not self.done and log.ready(self):
            self.wake()

    def found(self, newest: int | None, epoch: bytes, *, forgotten: bool) -> None:
        """What Redis has of it, now that it was asked: the number of the newest entry; None: nothing.

        forgotten: this process was away for so long that a stream that others have ended may have expired meanwhile.
        """
        if newest == END or (newest is None and self.epoch == epoch and (forgotten or self._expired)):
            if not self.done:  # somebody has ended it, unless we have and weren't told
                self.done = True
                self.stream.end(Trigger.SOURCE_FAILED, SourceFailed(*LOST, retryable=True))
        elif newest is None:
            self.position, self.epoch, self.done = 0, b"", False
            self.wake()
        else:
            self.written(min(newest, self.stream.log.last), epoch)

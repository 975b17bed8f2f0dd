"""The contents of Redis: its keys, and the commands that write and read them.

In:  what a stream is opened with, its events, its end. Out: keys and commands, which others send; a stream's format as another
process knows it (`Recorded`).

Keys. Those of one stream are in one slot of a cluster. Everything that is looked up by name has a key of its own.

    sidestream:{<stream id>}            a Redis Stream: an entry <number>-0 for each event, its bytes in the field ""
    sidestream:{<stream id>}:opening    JSON: what a Mirror is built from, and which process runs the stream; never changed.
                                        A stream that was deleted lacks it
    sidestream:claim:<digest>           JSON: the stream that holds an idempotency or conversation key
    sidestream:{all}:processes          sorted set: processes, by when they last renewed their lease (ms, the clock of Redis);
                                        for a day, those whose streams others have ended, by minus when that was
    sidestream:{all}:streams            sorted set: stream ids, by when they were opened (s)
    sidestream:{all}:ended              sorted set: stream ids, by when their keys expire (ms); an expired one leaves both sets

Order. An id is in `streams` before its keys exist, so that every key can be found and removed. Only the entry 0-1 creates a
stream's key. All other entries need an existing key, so that nothing is written to a stream that has expired. The terminal
entry has the id `END`-0, the highest there is. The first process to write it decides how the stream ended, since Redis refuses
every entry after it. Its field `end` holds that.

A write leaves out the events that are there already, and its reply is the newest entry. So a write can be repeated after any
error, and one without events asks what is there.
"""

import time
from collections.abc import Mapping, Sequence
from hashlib import sha1
from pathlib import Path
from typing import Any, Final, TypeAlias

from sse.formats import LOST, Format, events_of
from sse.stream import Opening, State, Trigger
from sse.wire.payload import dumps

Command: TypeAlias = tuple[Any, ...]
"""A command of Redis and its arguments."""

Said: TypeAlias = Mapping[str, Any]
"""What a stream is, or how it has ended."""

BATCH: Final = 500
"""Events of one stream, written or read at once: so many, or fewer."""

PORTION: Final = 1 << 20
"""Bytes of those, about; an event may have 8 MiB."""

STREAMS: Final = 200
"""Streams that are written or read at once."""

LEASE: Final = 5.0
"""Seconds after its last renewal that a process counts as gone."""

END: Final = 18446744073709551615
"""2^64-1: the number of a terminal entry, above that of every event."""

NEW, BURIED = -1, -2
"""A process that Redis doesn't know, since it begins or Redis has lost its data; one whose streams others have ended."""

SHORTEST: Final = 5.0
"""Seconds for which a stream can be read after its end, at least, so that those who read it get to the end."""

SCRIPTS: Final = Path(__file__).with_name("redis.lua").read_text().split("\n------\n")
"""To be loaded before commands are sent that use them."""

WRITE, CLAIM, RENEW, SKETCH = (sha1(script.encode()).hexdigest() for script in SCRIPTS)
PREFIX: Final = "sidestream:"
PROCESSES, OPENED, ENDED = (f"{PREFIX}{{all}}:{name}" for name in ("processes", "streams", "ended"))


def key_of(stream_id: str) -> str:
    """The stream's key, and its channel."""
    return f"{PREFIX}{{{stream_id}}}"


def id_of(channel: bytes) -> str:
    return channel[len(PREFIX) + 1 : -1].decode()


def opening_of(stream_id: str) -> str:
    return f"{key_of(stream_id)}:opening"


def claim_of(key: str) -> str:
    return f"{PREFIX}claim:{key}"


def channel_of(process: str) -> str:
    return f"{PREFIX}process:{process}"


def document(opening: Opening) -> dict[str, Any]:
    """The members of an opening that are needed until the end of its stream."""
    names = ("id", "identity", "metadata", "kind", "keep", "claim", "digest")
    return {name: getattr(opening, name) for name in names}


def announce(opening: Opening, owner: str, created: float) -> list[Command]:
    """Let the stream be found from now on. The same commands again do no harm, but for an error of the entry that is there."""
    said = {**document(opening), "owner": owner, "key": opening.key, "created": created, "format": record(opening)}
    return [
        ("ZADD", OPENED, created, opening.id),
        ("SET", opening_of(opening.id), dumps(said)),
        ("XADD", key_of(opening.id), "0-1", "", ""),
        *_hold(said),
    ]


def write(of: Said, events: Sequence[bytes], end: Said | None = None, first: int = 0, oldest: int = 0) -> list[Command]:
    """Append events; the reply to the last command is the id of the newest entry then, None if there is no such stream.

    of: the stream's `document`. end: how it ended, if it has; then the last event is the terminal one. first: the first event's
    number. oldest: the oldest to be kept.
    """
    shortest, over = int(SHORTEST * 1000), []
    ms = max(int(of["keep"] * 1000), shortest)
    if end is not None:  # its keys expire after its keep, and not before those who read it have the end
        over = [("ZADD", ENDED, _now() + ms, of["id"]), *_hold(of, "XX", "PX", ms)]
    arguments = (first, oldest, dumps(end) if end is not None else "", ms, shortest)
    return [*over, ("EVALSHA", WRITE, 2, key_of(of["id"]), opening_of(of["id"]), *arguments, *events)]


def erase(stream_id: str, claim: str) -> list[Command]:
    """Let nobody find a stream any more: it has ended, or never began. Those who read it get to its end."""
    shortest = int(SHORTEST * 1000)
    return [
        ("DEL", opening_of(stream_id)),
        ("PEXPIRE", key_of(stream_id), shortest),
        ("ZREM", OPENED, stream_id),
        ("ZADD", ENDED, "XX", _now() + shortest, stream_id),
        *([take(claim, b"", instead_of=stream_id)] if claim else []),
    ]


def take(claim: str, value: bytes, *options: Any, instead_of: str) -> Command:
    """Set a key, unless it belongs to another stream; without a value, remove it. options: of SET."""
    replaces = dumps([instead_of])[:-1]  # how the values of that stream begin
    return ("EVALSHA", CLAIM, 1, claim_of(claim), value, replaces, *options)


def _hold(of: Said, *options: Any) -> list[Command]:
    """Let a stream take the key that it has claimed, if any."""
    value = dumps([of["id"], of["digest"]])
    return [take(of["claim"], value, *options, instead_of=of["id"])] if of["claim"] else []


def _now() -> int:
    return int(time.time() * 1000)


def sketch(stream_id: str) -> list[Command]:
    """Read the stream's opening; and of its oldest event and its two newest ones all but what they say, which may be large."""
    return [("GET", opening_of(stream_id)), ("EVALSHA", SKETCH, 1, key_of(stream_id))]


def after(stream_id: str, number: int, count: int) -> Command:
    """Read so many of the stream's events after this number."""
    return ("XRANGE", key_of(stream_id), f"{number + 1}-0", "+", "COUNT", count)


def renew(process: str) -> Command:
    """Renew a lease. The reply: the ms since the last time, `NEW` or `BURIED`, and the processes whose lease has lapsed."""
    return ("EVALSHA", RENEW, 3, PROCESSES, OPENED, ENDED, process, channel_of(process), int(LEASE * 1000))


def bury(processes: Sequence[bytes]) -> Command:
    """Note that the streams of these processes were ended."""
    return ("ZADD", PROCESSES, *(word for process in processes for word in (-_now(), process)))


def loss(document: Mapping[str, Any]) -> tuple[list[bytes], dict[str, Any]]:
    """The end of a stream whose process is gone: its terminal event, and how it ended."""
    end = {"state": State.FAILED, "reason": Trigger.SOURCE_FAILED, "ended": time.time(), "error": LOST, "result": None}
    return [document["format"]["lost"].encode()], {**end, "last": 0}


# -- a stream's format, elsewhere

FIRST, LAST = 111111111111111, 222222222222222  # stand for the numbers in a recorded gap


def record(opening: Opening) -> dict[str, Any]:
    """The events that the format of a stream writes for a newcomer, for a gap, and if the process is lost; as JSON."""
    format, head = opening.format, f"id: {opening.id}.end\n" if opening.format.ids else ""
    said = opening.said
    *before, terminal = map(said, events_of(format.lost()))
    return {
        "name": format.name,
        "ids": format.ids,
        "tells_opener": format.tells_opener,
        "from_first": format.from_first,
        "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in format.headers],
        "opening": said(format.opening(opening.id) or b"").decode(),
        "gap": said(format.gap(FIRST, LAST)).decode(),
        "apology": said(format.apology()).decode(),
        "lost": b"".join(before).decode() + head + terminal.decode(),
    }


class Recorded(Format):
    """The format of a stream that runs elsewhere: its events as that process has written them."""

    def __init__(self, recorded: Mapping[str, Any]) -> None:
        self.name, self.ids = recorded["name"], recorded["ids"]
        self.tells_opener, self.from_first = recorded["tells_opener"], recorded["from_first"]
        self.headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in recorded["headers"])
        self._recorded = recorded

    def opening(self, stream_id: str) -> bytes | None:  # noqa: ARG002
        return self._recorded["opening"].encode() or None

    def gap(self, first: int, last: int) -> bytes:
        gap: str = self._recorded["gap"]
        return gap.replace(str(FIRST), str(first)).replace(str(LAST), str(last)).encode()

    def apology(self) -> bytes:
        apology: str = self._recorded["apology"]
        return apology.encode()

"""What a program does with the events it follows: small pieces that stack on an EventSource, or on each other.

    async with EventSource(url) as source:
        async for batch in buffered(decoded(until(source, "[DONE]")), size=100, seconds=0.5):
            ...

In: any async iterable. Out: an async iterator that closes what it iterates when it ends, fails, or is itself closed; a
`break` closes it a few turns of the loop later, as it does an EventSource. `to_file` is a coroutine that returns at
the end.
"""

import asyncio
import json
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from sse.wire.event import MessageEvent

T = TypeVar("T")
LINE_START = b'{"type": "'  # of every line that `to_file` writes


@asynccontextmanager
async def _iterating(events: AsyncIterable[T]) -> AsyncIterator[AsyncIterator[T]]:
    iterator = aiter(events)
    try:
        yield iterator
    finally:
        if isinstance(iterator, AsyncGenerator):
            await iterator.aclose()


@dataclass(frozen=True, slots=True)
class Decoded:
    """A MessageEvent whose data was JSON: `value` is what it says."""

    type: str
    value: Any
    last_event_id: str


async def decoded(
    events: AsyncIterable[MessageEvent], *, invalid: Literal["raise", "wrap"] = "raise"
) -> AsyncGenerator[Decoded, None]:
    """The events with their data read as JSON. What isn't JSON: ValueError that shows it, or `{"raw": data}`."""
    async with _iterating(events) as source:
        async for event in source:
            try:
                value = json.loads(event.data)
            except ValueError as error:
                if invalid == "raise":
                    about = f"the data of a {event.type!r} event (last event ID {event.last_event_id!r})"
                    raise ValueError(f"{about} is not JSON: {error}; it is {event.data[:200]!r}") from error
                value = {"raw": event.data}
            yield Decoded(event.type, value, event.last_event_id)


async def until(events: AsyncIterable[MessageEvent], *ends: str) -> AsyncGenerator[MessageEvent, None]:
    """The events up to the first whose data or type is one of `ends`.

    An end that is data, such as "[DONE]", is only a sign and is left out; one that is a type is the last event given.
    """
    async with _iterating(events) as source:
        async for event in source:
            if event.data in ends:
                return
            yield event
            if event.type in ends:
                return


async def buffered(events: AsyncIterable[T], size: int, seconds: float) -> AsyncGenerator[list[T], None]:
    """Batches of at most `size`, given out `seconds` after their first came at the latest.

    The rest comes at the end, or before what the source raised. Cancelled: what isn't given out yet is lost.
    """
    loop = asyncio.get_running_loop()
    async with _iterating(events) as source:
        batch: list[T] = []
        due = 0.0
        arriving: asyncio.Future[T] | None = None
        try:
            while True:
                # The timer doesn't cancel what arrives: it stays under way while the batch goes out.
                arriving = arriving or asyncio.ensure_future(anext(source))
                await asyncio.wait({arriving}, timeout=max(0.0, due - loop.time()) if batch else None)
                if arriving.done():
                    finished, arriving = arriving, None
                    batch.append(finished.result())
                    if len(batch) == 1:
                        due = loop.time() + seconds
                if len(batch) >= size or (batch and loop.time() >= due):
                    ready, batch = batch, []
                    yield ready
        except StopAsyncIteration:
            if batch:
                yield batch
        except Exception:
            if batch:
                yield batch
            raise
        finally:
            if arriving is not None:
                arriving.cancel()
                await asyncio.gather(arriving, return_exceptions=True)


def json_line(event: MessageEvent) -> bytes:
    """One line of JSON, LF at its end: `{"type": …, "data": …, "id": …}`."""
    line = {"type": event.type, "data": event.data, "id": event.last_event_id}
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


async def to_file(events: AsyncIterable[MessageEvent], path: str | Path) -> None:
    """Append each event to `path` as a line of JSON, whole in the kernel's hands before the next event is asked for.

    To go on after a crash, of this program or of the machine: `EventSource(url, last_event_id=resume_point(path))`.

    There is no fsync: what a machine's crash takes back is missing at the end, and is sent again from there.
    Limit: exactly once only if every event has an id of its own, and only one program writes to the file.
    """
    resume_point(path)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        async with _iterating(events) as source:
            async for event in source:
                rest = json_line(event)
                while rest:  # a write may be partial, on a disk that fills up
                    rest = rest[os.write(file, rest) :]
    finally:
        os.close(file)


def resume_point(path: str | Path) -> str:
    """The last event ID in a file written by `to_file`, "" for none. A last line cut by a crash is removed first.

    ValueError, and the file is left as it is, if it doesn't look like one of these.
    """
    if not Path(path).exists():
        return ""
    with open(path, "r+b") as file:
        end, block = file.seek(0, os.SEEK_END), 65536
        tail = b""
        while tail.count(b"\n") < 2 and len(tail) < end:
            file.seek(max(0, end - block))
            tail, block = file.read(), 2 * block
        *lines, torn = tail.split(b"\n")
        try:
            last = str(json.loads(lines[-1])["id"]) if lines else ""
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} doesn't hold events: its last line is {lines[-1][:80]!r}") from error
        if not (torn.startswith(LINE_START) or LINE_START.startswith(torn)):
            raise ValueError(f"{path} doesn't hold events: it ends with {torn[:80]!r}")
        file.truncate(end - len(torn))
        return last

"""Fakes of a backend: what is true of one that is somewhere else, without anything being there."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sse.errors import SourceFailed
from sse.formats import Format
from sse.store import Backend, Holder, Store
from sse.stream import Stream, Trigger


class Slow(Backend):
    """Of a single process, but answers some turns of the loop later. asked: how often it was asked for a stream."""

    def __init__(self, turns: int = 5) -> None:
        super().__init__()
        self.turns = turns
        self.asked: list[str] = []

    async def find(self, stream_id: str) -> Stream | None:
        self.asked.append(stream_id)
        await self.wait()
        return await super().find(stream_id)

    async def claim(self, key: str, holder: Holder, instead_of: str = "") -> Holder:
        held = await super().claim(key, holder, instead_of)
        await self.wait()
        return held

    async def wait(self) -> None:
        for _ in range(self.turns):
            await asyncio.sleep(0)


class Reader:
    """A watcher that waits for what there is."""

    def __init__(self, position: int) -> None:
        self.position = position
        self.offset = 0
        self.woken = asyncio.Event()
        self.woken.set()

    def wake(self) -> None:
        self.woken.set()


class Copied(Format):
    """Events that were written elsewhere, in `format`. terminal: the last one of them."""

    def __init__(self, format: Format) -> None:
        self.name, self.ids, self.headers = format.name, format.ids, format.headers
        self.opening, self.gap, self.item_error = format.opening, format.gap, format.item_error  # type: ignore[method-assign]
        self.terminal = b""

    def item(self, item: bytes) -> bytes:
        return item

    def done(self) -> bytes:
        return self.terminal

    def cancelled(self, reason: str) -> bytes:
        return self.terminal

    def failed(self, failure: SourceFailed) -> bytes:
        return self.terminal


class There(Stream):
    """One that another process runs."""

    elsewhere = True


class Copy:
    """A stream that runs elsewhere, as it is here: without a source, its log filled by a reader of the original's."""

    def __init__(self, original: Stream) -> None:
        self._original = original
        self._format = Copied(original.format)
        self._reader = Reader(original.log.first - 1)
        self.stream = There(replace(original.opening, source=None, format=self._format, linger=None, key=original.key))
        original.attach(self._reader)

    async def read(self) -> None:
        """Write what is said from now on."""
        try:
            while not self._original.finished(self._reader):
                await self._reader.woken.wait()
                self.catch_up()
        finally:
            self._original.detach(self._reader)

    def catch_up(self) -> None:
        """Write what has been said by now."""
        self._reader.woken.clear()
        while taken := self._original.take(self._reader, whole=True):
            for event in taken.split(b"\n\n")[:-1]:
                head, _, rest = event.partition(b"\n")
                self._write(head, rest + b"\n\n")

    def _write(self, head: bytes, event: bytes) -> None:
        assert head.startswith(b"id: ")
        if head.endswith(b".end"):
            assert self._original.reason is not None
            self._format.terminal = event
            self.stream.end(Trigger(self._original.reason), self._original.failure)
        else:
            self.stream.emit(event)


class Neighbour(Backend):
    """Finds what another store runs, which stands for another process; what would go over a network goes from hand to hand.

    keys: those of both. copies: the streams that run over there, as they are here. found: the ids and the keys that were asked
    for. begun: the ids of streams that have begun here.
    """

    def __init__(self, keys: Backend) -> None:
        super().__init__()
        self.keys = keys
        self.other: Store | None = None
        self.copies: dict[str, Copy] = {}
        self.found: list[str] = []
        self.begun: list[str] = []
        self._readers: list[asyncio.Task[None]] = []

    async def find(self, stream_id: str) -> Stream | None:
        self.found.append(stream_id)
        await asyncio.sleep(0)
        copy, original = self.copies.get(stream_id), self._over_there(stream_id)
        if copy is None and original is not None:
            copy = self.copies[stream_id] = Copy(original)
            self._readers.append(asyncio.ensure_future(copy.read()))
        if copy is None:
            return None
        copy.catch_up()
        return copy.stream

    def begin(self, stream: Stream) -> None:
        self.begun.append(stream.id)

    async def ask(self, stream: Stream, what: str, args: Sequence[Any]) -> Any:
        original = self._over_there(stream.id)
        await asyncio.sleep(0)
        assert self.other is not None
        return await self.other.answer(original, what, args) if original is not None else None

    async def claim(self, key: str, holder: Holder, instead_of: str = "") -> Holder:
        await asyncio.sleep(0)
        return await self.keys.claim(key, holder, instead_of)

    async def holder(self, key: str) -> Holder | None:
        self.found.append(key)
        await asyncio.sleep(0)
        return await self.keys.holder(key)

    def forget(self, stream_id: str, claim: str) -> None:
        self.keys.forget(stream_id, claim)

    async def aclose(self) -> None:
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)

    def _over_there(self, stream_id: str) -> Stream | None:
        assert self.other is not None
        return self.other.streams.get(stream_id)

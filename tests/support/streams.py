"""Both ends of a stream in the test's hand: what fills it, and who watches it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from itertools import count
from typing import Any

from sse.asgi import CONNECTION
from sse.budget import Budget
from sse.formats import Format, Written
from sse.http import Request
from sse.log import EventLog
from sse.sender import Outcome, Pace, Sender
from sse.store import Store
from sse.stream import Opening, Stream
from sse.watch import EventStream
from tests.support.asgi import Connection, http_scope
from tests.support.clock import now

PACE = Pace(heartbeat=15, send_timeout=30, retry=2000)

Step = Callable[[], Awaitable[Any]]


async def no_step() -> None:
    pass


async def for_ever() -> None:
    await asyncio.Event().wait()


def raising(error: BaseException) -> Step:
    async def step() -> None:
        raise error

    return step


class Bare:
    """A source that can't be closed. Yields `items` (an exception among them is raised), does `then`, and ends.

    asked: how often it was asked for an item.
    """

    def __init__(self, items: Iterable[Any] = (), then: Step | None = None) -> None:
        self.items = iter(items)
        self.then = then
        self.asked = 0

    def __aiter__(self) -> "Bare":
        return self

    async def __anext__(self) -> Any:
        self.asked += 1
        for item in self.items:
            if isinstance(item, BaseException):
                raise item
            return item
        if self.then is not None:
            await self.then()
        raise StopAsyncIteration


class Source(Bare):
    """One that can. on_close: what closing it does. closed: how often it was closed."""

    def __init__(self, items: Iterable[Any] = (), then: Step | None = None, *, on_close: Step | None = None) -> None:
        super().__init__(items, then)
        self.on_close = on_close
        self.closed = 0

    async def aclose(self) -> None:
        self.closed += 1
        if self.on_close is not None:
            await self.on_close()


async def stubborn(happened: list[str]) -> AsyncIterator[int]:
    """1, 2, … one a second, by a source that ignores cancellation. happened: that it did, and that it was closed."""
    try:
        for number in count(1):
            try:
                await asyncio.sleep(1)
            except asyncio.CancelledError:
                happened.append("ignored")
            yield number
    finally:
        happened.append("closed")


class Follower:
    """A watcher as a log sees it. woken: how often it was told that there is more."""

    def __init__(self, position: int = 0) -> None:
        self.position = position
        self.offset = 0
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


def all_ready(log: EventLog, follower: Follower) -> list[bytes]:
    """Every body message that is ready."""
    return list(iter(lambda: log.take(follower), b""))


def joined(*written: Written) -> bytes:
    """What a format has written, in one piece."""
    return b"".join([events if isinstance(events, bytes) else b"".join(events) for events in written])


def published(**settings: Any) -> Stream:
    """A stream that the test emits into."""
    return stream_of(None, **{"id": "s", "linger": None, **settings})


def emit(stream: Stream, *items: Any) -> None:
    for item in items:
        stream.emit(item)


class Client(Connection):
    """A client that watches a stream over one connection.

    chunks: whether our server writes chunks itself; written: those. watchers: what followed the stream for it. outcomes: how
    its connection ended. opened, aborted: when the server was told to count it, and to drop it.
    """

    chunks = False

    def __init__(self, **watching: Any) -> None:
        super().__init__()
        self.watchers: list[Sender] = []
        self.outcomes: list[Outcome] = []
        self.aborted: list[float] = []
        self.opened: list[float] = []
        self.written: list[bytes] = []
        self.watching = {"pace": PACE, **watching}

    def watch(self, stream: Stream, *, ours: bool = True) -> asyncio.Task[None]:
        """ours: the server is our own, not any other that speaks ASGI."""
        own: dict[str, Any] = {"open": lambda: self.opened.append(now()), "abort": lambda: self.aborted.append(now())}
        if self.chunks:
            own["write"] = self.write
        request = Request(http_scope(extensions={CONNECTION: own} if ours else None), self.receive)
        watching = dict(self.watching)
        after, from_now = watching.pop("after", None), watching.pop("from_now", False)
        position = stream.position(from_now) if after is None else after
        response = EventStream(stream, position, **{"newcomer": after is None, **watching})
        return asyncio.create_task(self._watch(response, request))

    def write(self, chunk: bytes) -> bool:
        """As our server does: one chunk, unless the client doesn't read, or is gone."""
        if not self.reading or self.raises is not None or self.gone.is_set():
            return False
        size, _, rest = chunk.partition(b"\r\n")
        body = rest.removesuffix(b"\r\n")
        assert rest == body + b"\r\n"
        assert int(size, 16) == len(body)
        self.written.append(chunk)
        self.sent.append({"type": "http.response.body", "body": body, "more_body": True})
        self.arrived.put_nowait(None)
        return True

    async def _watch(self, response: EventStream, request: Request) -> None:
        try:
            await response(request, self.send)
        finally:
            assert response.sender is not None
            assert response.outcome is not None
            self.watchers.append(response.sender)
            self.outcomes.append(response.outcome)


def data(connection: Connection) -> list[str]:
    """The data of the events received; only of those without a type of their own."""
    return [event.data for event in connection.events if event.type == "message"]


def stream_of(source: AsyncIterator[Any] | None, format: Format | None = None, **options: Any) -> Stream:
    """A stream outside any store. options: of `Opening`, of its budget (or max_events, max_bytes), and `Stream`'s own."""
    own = {name: options.pop(name) for name in ("on_end", "on_idle") if name in options}
    limits = {"events": options.pop("max_events", 65536), "bytes": options.pop("max_bytes", 16 << 20)}
    budget = options.pop("budget", None) or Budget(**limits)
    return Stream(Opening(source, format or Format(), **{"linger": 0.0, "keep": 0.0, **options}), budget, **own)


def open_in(store: Store, source: AsyncIterator[Any] | None = None, format: Format | None = None, **options: Any) -> Stream:
    """A stream in `store`. options: of `Opening`. Raises Full."""
    with store.reserve():
        return store.open(Opening(source, format or Format(), **options))

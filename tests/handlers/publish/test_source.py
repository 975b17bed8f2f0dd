"""The source of a published stream: who ends it, when, and what becomes of those who publish just then."""

import asyncio
from collections.abc import Callable

import pytest

from handlers.publish.source import Publication, Published
from sse.errors import Problem, SourceFailed
from sse.stream import State, Stream, Trigger
from sse.wire.parser import Parser
from tests.support.clock import idle, now
from tests.support.streams import joined, stream_of

TTL = 10.0

pytestmark = pytest.mark.virtual_time


class Stage:
    """A published stream, and the moment it ended."""

    def __init__(self) -> None:
        self.source = Publication(TTL)
        self.ended: float | None = None
        self.stream = stream_of(self.source, Published(), linger=None, on_end=self._note)

    def _note(self, stream: Stream) -> None:
        self.ended = now()


async def test_without_a_publisher_it_fails_when_the_ttl_is_over() -> None:
    published = Stage()
    await published.stream.closed()
    assert (published.ended, published.stream.state) == (TTL, State.FAILED)
    assert published.stream.failure is not None
    assert (published.stream.failure.code, published.stream.failure.message) == ("publisher_gone", "no publisher for 10 s")


async def test_the_ttl_stands_still_while_a_publish_is_open_and_begins_anew_after_it() -> None:
    published = Stage()
    await asyncio.sleep(6)
    assert await published.source.publish(asyncio.sleep(100))
    await published.stream.closed()
    assert published.ended == 6 + 100 + TTL


async def test_the_ttl_begins_when_the_last_of_several_publishers_has_gone() -> None:
    published = Stage()
    await asyncio.gather(*(published.source.publish(asyncio.sleep(seconds)) for seconds in (5, 40, 20)))
    assert now() == 40
    await published.stream.closed()
    assert published.ended == 40 + TTL


async def test_a_publisher_that_fails_or_goes_away_lets_the_ttl_begin() -> None:
    async def fails() -> None:
        await asyncio.sleep(3)
        raise Problem(422, "odd")

    published = Stage()
    with pytest.raises(Problem, match="odd"):
        await published.source.publish(fails())
    vanishing = asyncio.ensure_future(published.source.publish(asyncio.sleep(1000)))
    await asyncio.sleep(3)
    vanishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await vanishing
    await published.stream.closed()
    assert published.ended == 6 + TTL


END: dict[str, Callable[[Stream], bool]] = {
    "deleted": lambda stream: stream.end(Trigger.DELETED),
    "closed": lambda stream: stream.end(Trigger.SOURCE_ENDED),
    "failed": lambda stream: stream.end(Trigger.SOURCE_FAILED, SourceFailed("odd", "odd")),
}


@pytest.mark.parametrize("end", END.values(), ids=END)
@pytest.mark.parametrize("turns", [1, 2], ids=["begun", "waiting"])
async def test_the_end_stops_those_who_publish_and_no_timer_is_left(end: Callable[[Stream], bool], turns: int) -> None:
    stopped = asyncio.Event()

    async def publishes() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    published = Stage()
    publishing = asyncio.ensure_future(published.source.publish(publishes()))
    for _ in range(turns):
        await asyncio.sleep(0)
    end(published.stream)
    await published.stream.closed()
    assert await publishing is False
    assert stopped.is_set()
    await idle()
    handles = [handle for handle in asyncio.get_running_loop()._scheduled if not handle.cancelled()]  # type: ignore[attr-defined]
    assert [handle for handle in handles if "_lapse" in repr(handle)] == []


async def test_cancelled_while_its_work_cleans_up_it_waits_for_that() -> None:
    cleaned = asyncio.Event()

    async def works() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(5)
            cleaned.set()

    published = Stage()
    publishing = asyncio.ensure_future(published.source.publish(works()))
    await idle()
    publishing.cancel()
    await asyncio.wait((publishing,))
    assert cleaned.is_set()
    assert publishing.cancelled()


async def test_the_terminal_events_of_the_published_format() -> None:
    format = Published()
    terminal = [format.done(), format.cancelled("deleted"), format.failed(SourceFailed("no publisher", "publisher_gone"))]
    assert [(event.type, event.data) for event in Parser().feed(joined(*terminal))] == [
        ("end", "{}"),
        ("cancelled", '{"reason":"deleted"}'),
        ("error", '{"error":"no publisher","code":"publisher_gone","fatal":true}'),
    ]
    assert format.opening("id") is None

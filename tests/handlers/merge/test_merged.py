"""Several streams as one, without a connection: a watcher that takes at once when it is woken."""

import json

import pytest

from handlers.merge.merged import Merged, Part
from sse.budget import Budget
from sse.errors import Full
from sse.formats import Format
from sse.log import GATHER
from sse.stream import Stream, Trigger
from sse.timers import Timers
from sse.wire.parser import Parser
from tests.support.clock import idle
from tests.support.streams import Follower, stream_of

pytestmark = pytest.mark.virtual_time


class Eager:
    """Takes in the very turn in which it is woken: the stream's `append` and `end` are still on their way then."""

    position = offset = 0

    def __init__(self, *streams: Stream) -> None:
        self.merged = Merged([Part(stream.id, stream, 0, over=False) for stream in streams], Budget(), Timers())
        self.body = b""
        self.merged.attach(self)
        self.wake()

    def wake(self) -> None:
        while body := self.merged.take(self):
            self.body += body

    @property
    def ids(self) -> list[str]:
        return [event.last_event_id for event in Parser().feed(self.body)]


async def test_a_stream_that_ends_is_let_go_and_kept_for_as_long_as_any_other() -> None:
    expired: list[Stream] = []
    a, b = (stream_of(None, Format(), linger=None, keep=10, on_idle=expired.append) for _ in range(2))
    eager = Eager(a, b)
    a.emit(1)
    b.end(Trigger.DELETED)
    assert (eager.ids, expired) == (["1-0", "1-end"], [])
    await idle()
    assert ([len(stream.log.watchers) for stream in (a, b)], expired) == ([1, 0], [])
    a.end(Trigger.DELETED)
    assert eager.merged.finished(eager)
    assert eager.ids[-1] == "end-end"
    eager.merged.detach(eager)
    await idle()
    assert ([len(stream.log.watchers) for stream in (a, b)], expired) == ([0, 0], [])


async def test_nothing_to_take_is_no_end() -> None:
    stream = stream_of(None, Format(), linger=None)
    eager = Eager(stream)
    assert (eager.body, eager.merged.finished(eager)) == (b"", False)
    stream.end(Trigger.DELETED)
    assert eager.merged.finished(eager)


async def test_the_watcher_counts_the_events_that_it_has_taken() -> None:
    a, b = (stream_of(None, Format(), linger=None) for _ in range(2))
    eager = Eager(a, b)
    for number in range(3):
        a.emit(number)
    b.end(Trigger.DELETED)
    assert eager.position == 4


async def test_an_event_of_2_mib_is_taken_in_slices_and_charged_meanwhile() -> None:
    """Here it is written for each watcher anew: of a hundred that stall in it, each would keep it."""
    budget = Budget()
    stream = stream_of(None, Format(), linger=None)
    stream.emit("x" * ((2 << 20) - 100))
    stream.end(Trigger.SOURCE_ENDED)
    follower, merged = Follower(), Merged([Part(stream.id, stream, 0, over=False)], budget, Timers())
    merged.attach(follower)

    body = merged.take(follower)
    assert budget.used > (2 << 20) - 100
    assert not merged.finished(follower)
    while piece := merged.take(follower):
        assert len(piece) <= GATHER
        body += piece

    assert merged.finished(follower)
    assert [len(json.loads(event.data)["data"]) for event in Parser().feed(body)] == [(2 << 20) - 100, len("[DONE]")]
    assert budget.used == 0


async def test_where_there_is_no_room_for_an_event_none_of_it_goes_out() -> None:
    stream = stream_of(None, Format(), linger=None)
    stream.emit("x" * GATHER)
    follower, merged = Follower(), Merged([Part(stream.id, stream, 0, over=False)], Budget(GATHER), Timers())
    with pytest.raises(Full):
        merged.take(follower)

"""Several streams as one, without a connection: a watcher that takes at once when it is woken."""

import pytest

from handlers.merge.merged import Merged, Part
from sse.formats import Format
from sse.stream import Stream, Trigger
from sse.wire.parser import Parser
from tests.support.clock import idle
from tests.support.streams import stream_of

pytestmark = pytest.mark.virtual_time


class Eager:
    """Takes in the very turn in which it is woken: the stream's `append` and `end` are still on their way then."""

    position = 0

    def __init__(self, *streams: Stream) -> None:
        self.merged = Merged([Part(stream.id, stream, 0, over=False) for stream in streams])
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
    a, b = (stream_of(None, Format(), linger=None, keep=10, on_expire=expired.append) for _ in range(2))
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

"""What a replica leaves behind when its stream is held no more."""

from typing import Any, cast

import pytest

from sse.entries import PORTION, Command
from sse.pipeline import Pipeline
from sse.replica import Replica
from sse.store import Link
from sse.stream import Trigger
from tests.support.streams import published


class Sent:
    """A pipeline that keeps what is sent. up: whether Redis answers."""

    def __init__(self, *, up: bool) -> None:
        self.link = Link(up=up)
        self.commands: list[Command] = []

    def wake(self, *_: Any) -> None: ...

    def forget(self, _: Any) -> None: ...

    def send(self, *commands: Command) -> None:
        self.commands += commands


@pytest.mark.parametrize(
    ("up", "size", "count", "left"),
    [(True, 100, 5, 5), (True, PORTION // 2, 5, 1), (True, 2 * PORTION, 5, 1), (False, 100, 5, 0)],
    ids=["small events", "large ones", "larger than a portion", "while Redis is away"],
)
async def test_no_more_than_one_write_is_left_for_redis(up: bool, size: int, count: int, left: int) -> None:
    stream, pipeline = published(), Sent(up=up)
    replica = Replica(stream, "here", cast(Pipeline, pipeline))
    for _ in range(count):
        stream.emit("x" * size)
    stream.end(Trigger.SOURCE_ENDED)
    replica.leave()

    [events] = [found for command in pipeline.commands if (found := _events(command))]
    assert len(events) == left + 1
    assert sum(map(len, events)) <= PORTION or left == 1


def _events(command: Command) -> list[bytes]:
    return [word for word in command if isinstance(word, bytes) and word.startswith(b"id: s.")]

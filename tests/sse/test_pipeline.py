"""Pipelines to a real Redis: who takes part in them, and what is sent again."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from sse.connections import Connections
from sse.entries import Command
from sse.pipeline import Pipeline
from tests.support.redis import redis_server

pytestmark = pytest.mark.e2e

WRONG = ("INCR", "text")
"""A command that Redis refuses as long as `text` is no number."""


@dataclass(eq=False)
class Party:
    """says: what it has to send, one after another."""

    says: list[Command]
    replies: list[Any] = field(default_factory=list)

    def commands(self) -> list[Command]:
        return [("ECHO", "first"), self.says.pop(0)]

    def replied(self, reply: Any) -> bool:
        self.replies.append(reply)
        return bool(self.says)


@pytest.fixture
async def pipeline(tmp_path: Path) -> AsyncIterator[Pipeline]:
    async with redis_server(tmp_path) as server:
        connections = Connections(server.url)
        await connections.tasks.set("text", "x")
        yield Pipeline(connections)
        await connections.close()


async def test_a_party_gets_the_reply_to_its_last_command_and_takes_part_as_long_as_it_wants(pipeline: Pipeline) -> None:
    one, other = Party([("ECHO", "1"), ("ECHO", "2")]), Party([("ECHO", "3")])
    pipeline.wake(one, other)
    await pipeline.finish()
    assert (one.replies, other.replies) == ([b"1", b"2"], [b"3"])


async def test_one_that_was_forgotten_takes_no_part(pipeline: Pipeline) -> None:
    one = Party([("ECHO", "1")])
    pipeline.wake(one)
    pipeline.forget(one)
    await pipeline.finish()
    assert (one.says, one.replies) == ([("ECHO", "1")], [])


async def test_an_error_is_raised_and_the_others_have_their_replies(pipeline: Pipeline) -> None:
    one, other = Party([WRONG]), Party([("ECHO", "2")])
    pipeline.wake(one, other)
    with pytest.raises(ResponseError, match="not an integer"):
        await pipeline.finish()
    assert (one.replies, other.replies) == ([], [b"2"])


async def test_a_message_that_redis_refuses_is_sent_again(pipeline: Pipeline) -> None:
    pipeline.send(WRONG, ("APPEND", "text", "y"))
    with pytest.raises(ResponseError, match="not an integer"):
        await pipeline.finish()
    one = Party([("SET", "text", "1"), ("GET", "text")])
    pipeline.wake(one)
    await pipeline.step()
    await pipeline.finish()
    assert one.replies == [True, b"2"], "the other one was sent once"

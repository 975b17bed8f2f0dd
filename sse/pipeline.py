"""What replicas write, mirrors read, and processes say to each other: one pipeline of commands at a time.

In:  who has something to write or to read, and messages. Out: commands to Redis, and its replies to those who wait for them.

    EventLog ──wake──► Replica ──┐
    subscription ────► Mirror ───┼──► Pipeline ◄──► Redis
    answers, farewells ──────────┘

What is woken while a pipeline is under way takes part in the next one: so the commands are fewer the more there is to do.
Messages are sent behind events that were written before them.
"""

import asyncio
from itertools import islice
from typing import Any, Protocol

from redis.exceptions import ResponseError

from sse.connections import Connections, run
from sse.entries import STREAMS, Command
from sse.store import Link


class Party(Protocol):
    """Who takes part: a stream's `Replica` or `Mirror`."""

    def commands(self) -> list[Command]: ...

    def replied(self, reply: Any) -> bool:
        """reply: to the last of its commands. Returns whether it takes part again at once."""


class Pipeline:
    """link: whether Redis answers."""

    def __init__(self, connections: Connections) -> None:
        self.link: Link = connections.link
        self._client = connections.tasks
        self._woken: dict[Party, None] = {}
        self._outbox: list[Command] = []
        self._news = asyncio.Event()

    def wake(self, *parties: Party) -> None:
        """Let these take part in the next pipeline."""
        self._woken.update(dict.fromkeys(parties))
        self._news.set()

    def forget(self, party: Party) -> None:
        self._woken.pop(party, None)

    def send(self, *commands: Command) -> None:
        """Send these too, and again after an error."""
        self._outbox += commands
        self._news.set()

    async def step(self) -> None:
        """Send what has gathered. Raises the first error among the replies."""
        await self._news.wait()
        self._news.clear()
        commands: list[Command] = []
        goals: dict[Party, int] = {}
        for party in list(islice(self._woken, STREAMS)):
            del self._woken[party]
            commands += party.commands()
            goals[party] = len(commands) - 1
        outbox = list(self._outbox)
        replies = await run(self._client, [*commands, *outbox], errors=True)
        said = zip(outbox, replies[len(commands) :], strict=True)
        self._outbox[: len(outbox)] = [command for command, reply in said if isinstance(reply, ResponseError)]
        for party, goal in goals.items():
            if not isinstance(replies[goal], ResponseError) and party.replied(replies[goal]):
                self.wake(party)
        if self._woken or self._outbox:
            self._news.set()
        for reply in replies:
            if isinstance(reply, ResponseError):
                raise reply

    async def finish(self) -> None:
        """Send all that is left."""
        while self._news.is_set():
            await self.step()

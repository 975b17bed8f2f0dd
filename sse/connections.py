"""The connections to a Redis that may not answer: those of requests, those of the backend's tasks, and whether it answers.

In:  a URL. Out: its clients; `Full` for a request while Redis doesn't answer; tasks that repeat a step after an error.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Final

import redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from sse.errors import Full
from sse.store import Link

logger = logging.getLogger("sse")

TASKS: Final = 3
"""Connections of the backend's own tasks: the subscription, the lease, the pipeline."""

REQUESTS: Final = 8
"""Connections that all requests share."""

TIMEOUT: Final = 2.0
"""Seconds within which Redis answers a single command."""

PIPELINE: Final = 10.0
"""Seconds that a pipeline may take: a full one has 20 MiB of small events, and 200 MiB of large ones. That Redis is away is
noticed sooner, by the lease."""

REQUEST: Final = 5.0
"""Seconds that a request waits for its result, while Redis answers."""

RETRY: Final = 0.25
"""Seconds between two attempts to reach Redis."""

SOON: Final = 1.0
"""Seconds that a request waits for a Redis that doesn't answer: it may have been one connection that broke."""

TROUBLE: Final = (RedisError, OSError, TimeoutError)


def client(url: str, connections: int) -> Client:
    # No `socket_timeout`: with one, redis-py sends within `asyncio.wait_for`, which loses cancellations until Python 3.12.
    patience = {"timeout": REQUEST, "socket_timeout": None, "socket_connect_timeout": TIMEOUT}
    retry = Retry(NoBackoff(), 0)  # the backend decides whether a command may be sent twice
    options = {"retry": retry, "client_name": "sidestream", "protocol": 2, **patience}
    return Client.from_pool(BlockingConnectionPool.from_url(url, max_connections=connections, **options))


async def run(
    client: Client, commands: Sequence[tuple[Any, ...]], *, errors: bool = False, seconds: float = PIPELINE
) -> list[Any]:
    """Send commands in one pipeline. Returns their replies; raises the first error among them, unless `errors` are wanted.

    Raises TimeoutError after so many seconds.
    """
    pipe: Any = client.pipeline(transaction=False)
    for command in commands:
        pipe.execute_command(*command)
    async with asyncio.timeout(seconds):
        replies: list[Any] = await pipe.execute(raise_on_error=not errors)
    return replies


async def close(client: Client, *, idle: bool = False) -> None:
    """Close its connections, or only those that are not in use."""
    with suppress(*TROUBLE):
        if not idle:
            await client.connection_pool.disconnect()
            return
        for connection in [*client.connection_pool._available_connections]:
            # In one turn of the event loop: the pool waits in between, and others get a connection that is half closed.
            await connection.disconnect(nowait=True)


async def forever(step: Callable[[], Awaitable[None]]) -> None:
    while True:
        await step()


class Connections:
    """tasks, requests: the clients of each. up: set while Redis answers. over: Redis is needed no more."""

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that can't be used; the message doesn't contain it."""
        try:
            self.tasks, self.requests = client(url, TASKS), client(url, REQUESTS)
            self.tasks.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, RedisError):
            raise ValueError("this is no URL of a Redis") from None
        self.link = Link()
        self.up = asyncio.Event()
        self.over = False
        self._url = url

    def check(self) -> None:
        """Raises ValueError unless Redis answers now."""
        try:
            with redis.Redis.from_url(self._url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT) as once:
                once.ping()
        except TROUBLE as error:
            raise ValueError(f"Redis can't be used: {self._shown(error)}") from None

    async def close(self) -> None:
        await close(self.tasks)
        await close(self.requests)

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Client]:
        """The client for a request. At the start of the process, it waits until Redis answers. Raises Full."""
        try:
            async with asyncio.timeout(REQUEST if self.link.up or not self.link.errors else SOON):
                await self.up.wait()
                yield self.requests
        except TROUBLE:
            self.link.errors += 1
            await close(self.requests, idle=True)
            raise Full("store") from None

    async def request(self, commands: Sequence[tuple[Any, ...]]) -> list[Any]:
        """The replies to the commands of a request. Raises Full."""
        async with self.asking() as redis:
            return await run(redis, commands)

    async def again(self, life: Callable[[], Awaitable[None]]) -> None:
        """Live with Redis, from reaching it to the next trouble with it, again and again until it is `over`.

        Connections from before the trouble are closed: they may lead nowhere, or to another Redis than the address does now. A
        cancellation alone doesn't end it for sure: a TaskGroup drops one that comes together with an error.
        """
        while not self.over:
            try:
                await life()
            except* TROUBLE as errors:
                self._failed(errors.exceptions[0])
            except* Exception:
                logger.exception("a defect of the backend")
            self.link.up = False  # in a defect too, what was under way is lost, and has to be asked for
            self.up.clear()
            await close(self.tasks)
            await close(self.requests, idle=True)
            await asyncio.sleep(RETRY)

    def reached(self) -> None:
        """Redis answers."""
        self.link.reconnects += self.link.reached
        self.link.up = self.link.reached = True
        logger.info("the store answers")
        self.up.set()

    def _failed(self, error: BaseException) -> None:
        self.link.errors += 1
        if self.link.up or self.link.errors == 1:
            logger.warning("the store does not answer: %s", self._shown(error))

    def _shown(self, error: BaseException) -> str:
        """An error without the credentials, and without the command, which names a stream."""
        secret = self.tasks.connection_pool.connection_kwargs.get("password") or "\0"
        said = str(error).rpartition("of pipeline caused error: ")[2]
        return f"{type(error).__name__}: {said}".replace(secret, "…")

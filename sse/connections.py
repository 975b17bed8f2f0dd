"""The connections to a Redis that may not answer: those of requests, those of the backend's tasks, and whether it answers.

In:  a URL, and work to be done with its clients. Out: the results; `Full` for a request while Redis doesn't answer; tasks that
repeat a step after an error.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import redis
from redis.asyncio import BlockingConnectionPool
from redis.asyncio import Redis as Client
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ReadOnlyError, RedisError

from sse.errors import Full
from sse.store import Link

logger = logging.getLogger("sse")

TASKS: Final = 4
"""Connections of the backend's own tasks: the subscription, the lease, the writer, the reader."""

REQUESTS: Final = 8
"""Connections that all requests share."""

TIMEOUT: Final = 2.0
"""Seconds that one command may take."""

REQUEST: Final = 5.0
"""Seconds that a request waits for its result, while Redis answers."""

RETRY: Final = 0.25
"""Seconds between two attempts."""

TROUBLE: Final = (RedisError, OSError, TimeoutError)


def client(url: str, connections: int) -> Client:
    patience = {"timeout": REQUEST, "socket_timeout": TIMEOUT, "socket_connect_timeout": TIMEOUT}
    retry = Retry(NoBackoff(), 0)  # the backend decides whether a command may be sent twice
    options = {"retry": retry, "client_name": "sidestream", "protocol": 2, **patience}
    return Client.from_pool(BlockingConnectionPool.from_url(url, max_connections=connections, **options))


class Connections:
    """tasks, requests: the clients of each. up: set while Redis answers. trouble: set when a command has failed.

    down: when Redis ceased to answer, by the event loop's clock.
    """

    def __init__(self, url: str) -> None:
        """Raises ValueError for a URL that can't be used; the message doesn't contain it."""
        try:
            self.tasks, self.requests = client(url, TASKS), client(url, REQUESTS)
            self.tasks.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        except (ValueError, TypeError, RedisError):
            raise ValueError("this is no URL of a Redis") from None
        self.link = Link()
        self.up, self.trouble = asyncio.Event(), asyncio.Event()
        self.down = 0.0
        self._url = url

    def check(self) -> None:
        """Raises ValueError unless Redis answers now."""
        try:
            with redis.Redis.from_url(self._url, socket_timeout=TIMEOUT, socket_connect_timeout=TIMEOUT) as once:
                once.ping()
        except TROUBLE as error:
            raise ValueError(f"Redis can't be used: {self._shown(error)}") from None

    async def close(self) -> None:
        for each in (self.tasks, self.requests):
            with suppress(*TROUBLE):
                await each.aclose(close_connection_pool=True)

    async def request(self, work: Awaitable[Any]) -> Any:
        """The result of a request's work. At the start of the process it waits until Redis answers. Raises Full."""
        try:
            async with asyncio.timeout(REQUEST if self.hopeful else 0):
                if self.hopeful:
                    await self.up.wait()
                return await work
        except TROUBLE:
            self.link.errors += 1
            self.trouble.set()
            raise Full("store") from None
        finally:
            if isinstance(work, Coroutine):
                work.close()  # it may not have begun

    @property
    def hopeful(self) -> bool:
        """Whether Redis answers, or has not been asked yet."""
        return self.link.up or not self.link.errors

    async def again(self, step: Callable[[], Awaitable[None]], *, away: bool = False) -> None:
        """Repeat the step for ever. away: also while Redis doesn't answer."""
        while True:
            try:
                if not away:
                    await self.up.wait()
                await step()
                continue
            except TROUBLE as error:
                self._failed(error)
                if isinstance(error, ReadOnlyError):  # it was the primary: the address leads to another one now
                    for each in (self.tasks, self.requests):
                        with suppress(*TROUBLE):
                            await each.connection_pool.disconnect()
            except Exception:
                logger.exception("a defect of the backend")
            await asyncio.sleep(RETRY)

    def reached(self) -> None:
        """Redis answers."""
        if not self.link.up:
            self.link.reconnects += self.link.reached
            self.link.up = self.link.reached = True
            logger.info("the store answers")
            self.up.set()

    def _failed(self, error: BaseException) -> None:
        self.link.errors += 1
        self.trouble.set()
        if self.link.up or self.link.errors == 1:
            logger.warning("the store does not answer: %s", self._shown(error))
            self.link.up, self.down = False, asyncio.get_running_loop().time()
            self.up.clear()

    def _shown(self, error: BaseException) -> str:
        """An error without the credentials, and without the command, which names a stream."""
        secret = self.tasks.connection_pool.connection_kwargs.get("password") or "\0"
        said = str(error).rpartition("of pipeline caused error: ")[2]
        return f"{type(error).__name__}: {said}".replace(secret, "…")

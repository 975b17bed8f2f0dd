"""A job: the source of its stream. In goes a kind with its parameters; out come what each `on_progress` said, and the result.

    {"status": "running", "progress", "step", "message", "details"}    progress: 0 to 100, as far as the work has said
    {"status": "completed", "progress": 100, "result"}

Progress that comes faster than anybody reads is superseded before it gets its number, what has waited longest first.
Results, failures and the end never are.
"""

import asyncio
import inspect
import logging
import math
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Self

from handlers.jobs.kinds import Kind
from sse.errors import SourceFailed
from sse.threads import Bridge, Progress, Result, Run
from sse.wire.payload import dumps

logger = logging.getLogger("sidestream")

BUFFER = 64
"""Progress that waits to be read; more of it supersedes the oldest."""


class Job:
    """kind, params: what runs. The rest is how far it has come, for the state document. Times: seconds since 1970."""

    def __init__(self, kind: Kind, params: Mapping[str, Any], bridge: Bridge) -> None:
        """Raises Full where a thread is needed, all are busy and their queue is full."""
        self.kind = kind
        self.params = params
        self.created = time.time()
        self.started: float | None = None  # waits for a thread, or for its first turn of the loop
        self.progress: float = 0
        self.step: str | None = None
        self.message: Any = None
        self.details: Mapping[str, Any] = {}
        self.result: Any = None
        self._run: Run[Any] | None = None
        if not inspect.iscoroutinefunction(kind.function):
            self._run = bridge.run(self._call, params, buffer=BUFFER, latest=True)
        self._items = self._iterate()

    def __aiter__(self) -> Self:
        return self

    def __anext__(self) -> Awaitable[dict[str, Any]]:
        return anext(self._items)

    async def aclose(self) -> None:
        """Stop the work: at its next `on_progress`, or at its next await."""
        await self._items.aclose()
        if self._run is not None:  # the iteration may never have begun
            await self._run.aclose()

    def _call(self, **params: Any) -> Any:
        """The work; in its thread, if it has one."""
        self.started = time.time()
        return self.kind.function(**params)

    async def _iterate(self) -> AsyncGenerator[dict[str, Any], None]:
        work = self._run if self._run is not None else _awaited(self._call, self.params)
        async with aclosing(work):
            try:
                async for item in work:
                    yield self._completed(item.value) if isinstance(item, Result) else self._report(item)
            except SourceFailed:
                raise
            except Exception as error:
                logger.warning("a job of kind %s failed", self.kind.name, exc_info=error)
                raise SourceFailed(f"{type(error).__name__}: {error}", "job_failed") from error

    def _report(self, item: Progress) -> dict[str, Any]:
        self.step, self.details = item
        self.message = self.details.get("message")
        progress = self.details.get("progress")
        if isinstance(progress, int | float) and math.isfinite(progress):
            self.progress = min(max(progress, 0), 100)
        return {
            "status": "running",
            "progress": self.progress,
            "step": self.step,
            "message": self.message,
            "details": self.details,
        }

    def _completed(self, result: Any) -> dict[str, Any]:
        dumps(result)  # a result that has no JSON form fails the job
        self.progress, self.result = 100, result
        return {"status": "completed", "progress": 100, "result": result}


async def _awaited(
    function: Callable[..., Awaitable[Any]], params: Mapping[str, Any]
) -> AsyncGenerator[Progress | Result[Any], None]:
    """An async function's progress and result; it is cancelled, and has ended, when this is closed."""
    reported: deque[Progress] = deque(maxlen=BUFFER)
    news = asyncio.Event()

    def on_progress(step: str, details: Mapping[str, Any]) -> None:
        reported.append((step, {**details}))
        news.set()

    task = asyncio.ensure_future(function(on_progress=on_progress, **params))
    task.add_done_callback(lambda _: news.set())
    try:
        while not task.done() or reported:
            await news.wait()
            news.clear()
            while reported:
                yield reported.popleft()
        if task.cancelled():  # not by us: its CancelledError would end the stream as if somebody had
            raise RuntimeError("the work was cancelled")
        yield Result(task.result())
    finally:
        task.cancel()
        await asyncio.wait((task,))
        if not task.cancelled():
            task.exception()  # how work ends that was let go concerns nobody

"""A job: the source of its stream. In goes a function with its parameters; out comes what each `on_progress` said, and the
result:

    {"status": "running", "progress", "step", "message", "details"}    progress: 0 to 100, as far as the work has said
    {"status": "completed", "progress": 100, "result"}

Progress that comes faster than anybody reads is superseded before it gets its number, what has waited longest first.
Results, failures and the end never are.
"""

import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Self

from sidecar.functions import Function
from sse.errors import SourceFailed, describe
from sse.threads import Result, Threads
from sse.wire.payload import dumps

logger = logging.getLogger("sidestream")


class Job:
    """kind: the function's name. The rest is how far it has come, for the state document. Times: seconds since 1970."""

    def __init__(self, function: Function, params: Mapping[str, Any], threads: Threads) -> None:
        """Raises Full where a thread is needed, all are busy and their queue is full."""
        self.kind = function.name
        self.created = time.time()
        self.progress: float = 0
        self.step: str | None = None
        self.message: Any = None
        self.details: Mapping[str, Any] = {}
        self.result: Any = None
        self._run = threads.run(function.call, params, function.timeout)

    @property
    def started(self) -> float | None:
        """None while it waits for a thread, or for its first turn of the loop."""
        return self._run.started

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any]:
        try:
            item = await anext(self._run)
            return self._completed(item.value) if isinstance(item, Result) else self._report(*item)
        except (SourceFailed, StopAsyncIteration):
            raise
        except Exception as error:
            logger.warning("a job of kind %s failed", self.kind, exc_info=error)
            raise SourceFailed(describe(error), "job_failed") from error

    async def aclose(self) -> None:
        """Stop the work: at its next `on_progress`, or at its next await."""
        await self._run.aclose()

    def _report(self, step: str, details: Mapping[str, Any]) -> dict[str, Any]:
        self.step, self.details, self.message = step, details, details.get("message")
        progress = details.get("progress")
        if isinstance(progress, int | float) and -math.inf < progress < math.inf:  # NaN is not
            self.progress = min(max(progress, 0), 100)
        report = {"progress": self.progress, "step": self.step, "message": self.message, "details": self.details}
        return {"status": "running", **report}

    def _completed(self, result: Any) -> dict[str, Any]:
        dumps(result)  # a result that has no JSON form fails the job
        self.progress, self.result = 100, result
        return {"status": "completed", "progress": 100, "result": result}

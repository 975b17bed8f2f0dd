"""A job: the source of its stream.

In:  a function and its parameters. Out: an item for each call of `on_progress`, and one for the result:

    {"status": "running", "progress", "step", "message", "details"}    progress: 0 to 100, as the work has reported it
    {"status": "completed", "progress": 100, "result"}                 or EventTooLong, for a result that no event can hold

If progress comes faster than the stream takes it, the oldest is dropped before it gets a number. Results and failures never
are.
"""

import logging
import math
import time
from collections.abc import Mapping
from typing import Any, Self

import orjson

from sidecar.functions import Function
from sse.budget import Charge
from sse.errors import EventTooLong, Full, SourceFailed, describe
from sse.formats import Format, Written
from sse.stream import MAX_EVENT
from sse.threads import Result, Threads
from sse.wire.payload import dumps, fragment

logger = logging.getLogger("sidestream")


class Job:
    """kind: the function's name. report: how far it is, as above. Times: seconds since 1970.

    kept: the memory of what is left when it has ended, which is JSON then. What its function works with before is not counted.
    """

    def __init__(self, function: Function, params: Mapping[str, Any], threads: Threads, kept: Charge) -> None:
        """Raises Full if it needs a thread, all threads are busy, and the queue is full."""
        self.kind = function.name
        self.kept = kept
        self.created = time.time()
        self.report: dict[str, Any] = {"progress": 0, "step": None, "message": None, "details": {}}
        self.result: Any = None
        self._run = threads.run(function.call, params, function.timeout)

    def state(self) -> dict[str, Any]:
        """What its stream has come to so far. started: None while it waits for a thread or for the event loop."""
        times = {"created": self.created, "started": self._run.started}
        return {"kind": self.kind, **self.report, **times, "result": self.result}

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> dict[str, Any] | EventTooLong:
        try:
            item = await anext(self._run)
            return self._completed(item.value) if isinstance(item, Result) else self._report(*item)
        except (SourceFailed, StopAsyncIteration, Full):
            raise
        except Exception as error:
            logger.warning("a job of kind %s failed", self.kind, exc_info=error)
            raise SourceFailed(describe(error), "job_failed") from error

    async def aclose(self) -> None:
        """Stop the work: at its next `on_progress`, or at its next await."""
        try:
            await self._run.aclose()
        finally:
            said = {name: fragment(self.report[name]) for name in ("message", "details")}
            self.report |= said
            self.kept.add(len(dumps(said)))

    def _report(self, step: str, details: Mapping[str, Any]) -> dict[str, Any]:
        self.report |= {"step": step, "message": details.get("message"), "details": details}
        progress = details.get("progress")
        if isinstance(progress, int | float) and -math.inf < progress < math.inf:  # false for NaN too
            self.report["progress"] = min(max(progress, 0), 100)
        return {"status": "running", **self.report}

    def _completed(self, result: Any) -> dict[str, Any] | EventTooLong:
        json = dumps(result)  # a result without a JSON form fails the job
        self.kept.claim(len(json))
        self.report["progress"], self.result = 100, orjson.Fragment(json)
        if len(json) > MAX_EVENT:
            return EventTooLong(f"an event of {len(json)} bytes is over the limit of {MAX_EVENT}")
        return {"status": "completed", "progress": 100, "result": self.result}


class Progress(Format):
    """The plain format. Of a result that is too large only the `item_error` is written: 8 MB would be copied for 13 ms."""

    def item(self, item: Any) -> Written:
        return self.item_error(str(item)) if isinstance(item, EventTooLong) else super().item(item)

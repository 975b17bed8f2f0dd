"""The sidecar's own tools: functions (`sidecar.functions`) that the model may call.

In:  a tool's name and its arguments as the model wrote them. Out: an `Outcome`, in every case. An error is an outcome
too, so that the model sees it and the answer goes on.

Limit: nothing waits for a call that runs out of time. In a thread it keeps its place until it returns (`sse.threads`).
"""

import json
import logging
import time
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from handlers.chat.texts import joined
from sidecar.functions import Function
from sse.errors import Full, Problem, SourceFailed, describe
from sse.threads import Threads
from sse.wire.document import MAX_VALUES, too_many
from sse.wire.payload import dumps

logger = logging.getLogger("handlers.chat")

TIMEOUT = 30.0
"""Seconds that a call may take, unless its function has a timeout."""


class Outcome(NamedTuple):
    """A call's result. arguments: an object, or the model's text. value: what the tool returned. error: None if it returned."""

    arguments: dict[str, Any] | str
    value: Any
    error: str | None
    seconds: float

    @property
    def content(self) -> str:
        """What the model is told: a text as it is, anything else as JSON."""
        if self.error is not None:
            return dumps({"error": self.error}).decode()
        return joined((self.value,)) if isinstance(self.value, str) else dumps(self.value).decode()


class Toolbox:
    """The tools by name. limit: calls of all answers together that run at once, async ones and threads each."""

    def __init__(self, tools: Iterable[Function], *, limit: int = 16) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._threads = Threads(threads=limit, queue=1000, tasks=limit)

    def schema(self, name: str) -> dict[str, Any]:
        """A tool as an element of a request's `tools`."""
        tool = self.tools[name]
        function = {"name": name, "description": tool.description, "parameters": tool.parameters}
        return {"type": "function", "function": function}

    async def call(self, name: str, arguments: str, offered: Collection[str]) -> Outcome:
        """Run a tool, if it is one of those that were offered. Raises nothing but CancelledError."""
        began = time.perf_counter()
        parsed: dict[str, Any] | str = arguments
        value, error = None, None
        try:
            tool = self.tools[name] if name in offered else None
            if tool is None:
                raise Problem(422, f"there is no tool named {name[:100]!r}")
            parsed = _parse(arguments)
            tool.check(parsed)
            run = self._threads.run(tool.call, parsed, TIMEOUT if tool.timeout is None else tool.timeout)
            returned = await run.result()
            dumps(returned)  # a value that has no JSON form is the tool's error
            value = returned
        except Full:
            error = "too many tools are running"
        except Problem as problem:
            error = problem.detail
        except SourceFailed as failure:  # it ran out of time, or has chosen its own words
            error = describe(failure).removeprefix("SourceFailed: ")
        except Exception as failure:
            logger.warning("tool %s failed", name, exc_info=failure)
            error = describe(failure)
        return Outcome(parsed, value, error, time.perf_counter() - began)


def loads(arguments: str) -> Any:
    """The arguments of a call as a value. Raises ValueError if they are not JSON, or too much of it."""
    if too_many(arguments.encode("utf-8", "replace")):
        raise ValueError(f"they have more than {MAX_VALUES} values")
    try:
        return json.loads(arguments or "{}")
    except RecursionError:
        raise ValueError("they have too many levels") from None


def _parse(arguments: str) -> dict[str, Any]:
    try:
        value = loads(arguments)
    except ValueError as error:
        raise Problem(422, f"the arguments are not JSON that can be used: {error}") from None
    if not isinstance(value, dict):
        raise Problem(422, "the arguments must be a JSON object")
    return value

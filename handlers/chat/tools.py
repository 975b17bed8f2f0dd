"""The sidecar's own tools: Python callables that the model may call.

In:  a tool's name and its arguments as the model wrote them. Out: an `Outcome`, always: whatever goes wrong is one too, so that
the model sees it and the answer goes on. A module for `SIDESTREAM_TOOLS` is any module with tools in it:

    from handlers.chat.tools import tool

    @tool(timeout=5)
    async def lookup(word: str, limit: int = 3) -> list[str]:
        "Find a word in the dictionary."
        return await dictionary.find(word, limit)

An async callable runs in the event loop, any other in a daemon thread (`sse.threads`).

Limit: a thread can't be stopped from outside. A call that runs out of time is let go and keeps its place until it returns.
Limit: an async tool that blocks the loop, or swallows its cancellation, holds up whoever waits for it.
"""

import asyncio
import importlib
import inspect
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from handlers.chat.upstream.chunks import joined
from sse.errors import Full
from sse.threads import Bridge, Result
from sse.wire.payload import dumps

logger = logging.getLogger("handlers.chat")

_TYPES: Mapping[Any, str] = {
    str: "string", int: "integer", float: "number", bool: "boolean", list: "array", dict: "object",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tool:
    """A callable and what the model is told of it. parameters: a JSON schema of type object. timeout: seconds."""

    function: Callable[..., Any]
    name: str
    description: str
    parameters: Mapping[str, Any]
    timeout: float

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def schema(self) -> dict[str, Any]:
        """The tool as an element of a request's `tools`."""
        function = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": function}


def tool(
    *, name: str | None = None, parameters: Mapping[str, Any] | None = None, timeout: float = 30.0
) -> Callable[[Callable[..., Any]], Tool]:
    """Make a callable a tool: its docstring is the description, its signature the schema unless `parameters` is given."""

    def make(function: Callable[..., Any]) -> Tool:
        description = inspect.getdoc(function) or ""
        return Tool(function, name or function.__name__, description, parameters or _schema(function), timeout)

    return make


def _schema(function: Callable[..., Any]) -> dict[str, Any]:
    """The signature as JSON schema. An annotation that has no plain JSON type leaves the type open."""
    properties: dict[str, Any] = {}
    required: list[str] = []
    for name, parameter in inspect.signature(function, eval_str=True).parameters.items():
        annotation = getattr(parameter.annotation, "__origin__", parameter.annotation)  # list[str] is a list
        properties[name] = {"type": _TYPES[annotation]} if annotation in _TYPES else {}
        if parameter.default is parameter.empty:
            required.append(name)
        else:
            properties[name]["default"] = parameter.default
    return {"type": "object", "properties": properties, "required": required}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call. arguments: an object, or the model's text. value: what the tool returned. error: None if it did."""

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

    def __init__(self, tools: Iterable[Tool], *, limit: int = 16) -> None:
        self.tools = {tool.name: tool for tool in tools}
        self._bridge = Bridge(threads=limit, queue=1000)
        self._places = asyncio.Semaphore(limit)

    async def call(self, name: str, arguments: str, offered: Collection[str]) -> Outcome:
        """Run a tool, if it is one of those that were offered. Raises nothing but CancelledError."""
        began = time.perf_counter()
        parsed: dict[str, Any] | str = arguments
        value, error = None, None
        try:
            if name not in offered or name not in self.tools:
                raise Refused(f"there is no tool named {name!r}")
            tool = self.tools[name]
            parsed = _parse(arguments)
            bound = _bind(tool, parsed)
            returned = await self._run(tool, bound)
            dumps(returned)  # a value that has no JSON form is the tool's error
            value = returned
        except Refused as refused:
            error = str(refused)
        except asyncio.CancelledError as cancelled:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            error = f"the tool cancelled itself {cancelled}".rstrip()
        except (Exception, SystemExit) as failure:  # a SystemExit would end the event loop
            logger.warning("tool %s failed", name, exc_info=failure)
            error = f"{type(failure).__name__}: {failure}"
        return Outcome(parsed, value, error, time.perf_counter() - began)

    async def _run(self, tool: Tool, bound: inspect.BoundArguments) -> Any:
        try:
            async with asyncio.timeout(tool.timeout) as limit:
                if not inspect.iscoroutinefunction(tool.function):
                    return await self._in_thread(tool, bound)
                async with self._places:
                    return await tool.function(*bound.args, **bound.kwargs)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Refused(f"the tool took longer than {tool.timeout:g} s") from None
        except Full:
            raise Refused("too many tools are running") from None

    async def _in_thread(self, tool: Tool, bound: inspect.BoundArguments) -> Any:
        async with aclosing(self._bridge.run(lambda **_: tool.function(*bound.args, **bound.kwargs))) as run:
            async for item in run:
                if isinstance(item, Result):
                    return item.value
        raise AssertionError("a run ends with its result")


class Refused(Exception):
    """A call that can't be made, or was given up; the message is for the model."""


def _parse(arguments: str) -> dict[str, Any]:
    try:
        value = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise Refused(f"the arguments are not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Refused("the arguments must be a JSON object")
    return value


def _bind(tool: Tool, arguments: dict[str, Any]) -> inspect.BoundArguments:
    try:
        return inspect.signature(tool.function).bind(**arguments)
    except TypeError as error:
        raise Refused(f"{tool.name}: {error}") from None


def load(modules: Iterable[str]) -> list[Tool]:
    """The tools in these modules. Raises ImportError, or ValueError for a module that has none."""
    found: list[Tool] = []
    for name in modules:
        tools = [value for value in vars(importlib.import_module(name)).values() if isinstance(value, Tool)]
        if not tools:
            raise ValueError(f"{name}: no tools in this module (see handlers.chat.tools.tool)")
        found += tools
    return found

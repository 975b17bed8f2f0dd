"""The engine: a request -> one answer, in stages.

A stage is one request to the model. Its end decides what follows:

    it called                      typed, plain                            openai
    nothing                        the end                                 the end
    tools of the sidecar           run them, next stage                    run them, next stage
    tools of the client            the end, these calls pending            the end, these calls shown
    both                           run the sidecar's, then as above        the end, the client's shown, none run

Calls are not run after a finish_reason that says that the answer was broken off (length, content_filter), nor in the last stage
that `max_stages` allows. That is the end too; its finish_reason is then "length", since the answer is not complete.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any, Final, Protocol

from handlers.chat.formats import events
from handlers.chat.items import Item, Stage, StageBegun, StageDone, ToolResult, ToolSummary, add_usage, summary_of
from handlers.chat.request import ChatRequest
from handlers.chat.tools import Outcome, Toolbox
from handlers.chat.upstream.calls import Call, Calls
from handlers.chat.upstream.chunks import Chunk, joined
from handlers.chat.upstream.failures import Reply

_CALLS_MEANT: Final = (None, "tool_calls", "function_call", "stop")
"""finish_reasons after which calls are whole; some servers say "stop" after them."""


class ChunkStream(Protocol):
    """An answer on its way: lists of chunks. One task iterates; `aclose` gives the connection up at once."""

    def __aiter__(self) -> AsyncIterator[list[Chunk]]: ...
    async def aclose(self) -> None: ...


class Upstream(Protocol):
    """What the engine needs of a model's server. All of it raises UpstreamFailed."""

    async def default_model(self) -> str: ...
    async def models(self) -> Reply: ...
    async def complete(self, body: Mapping[str, Any]) -> Reply: ...
    async def open(self, body: Mapping[str, Any], *, retry: bool) -> ChunkStream: ...


class Answer:
    """One answer: an async iterator of items, for the task that also closes it. `result` can be read at any time.

    first_token: called for each stage with the seconds from asking to its first chunk.
    """

    def __init__(
        self,
        request: ChatRequest,
        upstream: Upstream,
        toolbox: Toolbox,
        first_token: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.request = request
        self.stages: list[Stage] = []
        self._upstream = upstream
        self._toolbox = toolbox
        self._first_token = first_token
        self._asked = 0.0
        self._messages = list(request.messages)
        self._pending: tuple[Call, ...] = ()
        self._finish_reason: str | None = None
        self._chunks: ChunkStream | None = None
        self._items = self._run()

    def __aiter__(self) -> AsyncIterator[Item]:
        return self

    def __anext__(self) -> Awaitable[Item]:
        return self._items.__anext__()

    async def aclose(self) -> None:
        """Give everything up: the upstream's connection, running tools. Without effect if done before."""
        try:
            await self._items.aclose()
        finally:
            await self._close_chunks()  # opened, and never iterated

    async def open(self) -> ChunkStream:
        """Ask the model for the next stage; /v1 calls this before the iteration, to know the status. Raises UpstreamFailed."""
        body = await self._body() | {"stream": True}
        self._asked = time.monotonic()
        self._chunks = await self._upstream.open(body, retry=self.request.format != "openai")
        return self._chunks

    async def complete(self) -> Reply:
        """The upstream's answer in one piece, untouched, instead of an iteration. Raises UpstreamFailed."""
        return await self._upstream.complete(await self._body())

    async def _body(self) -> dict[str, Any]:
        request = self.request
        model = request.model or await self._upstream.default_model()
        body: dict[str, Any] = {"model": model, "messages": self._messages, **request.parameters}
        if self.stages and body.get("tool_choice") not in ("auto", "none"):
            body.pop("tool_choice", None)  # a choice that forces a call would force it in every stage
        if tools := [*(self._toolbox.schema(name) for name in request.own_tools), *request.client_tools]:
            body["tools"] = tools
        return body

    @property
    def result(self) -> events.Result:
        """The answer so far."""
        usage: dict[str, Any] | None = None
        for stage in self.stages:
            usage = add_usage(usage, stage.usage)
        return {
            "text": joined(text for stage in self.stages for text in stage.texts),
            "tool_calls": [call.message() for call in self._pending],
            "finish_reason": self._finish_reason,
            "usage": usage,
            "stages": [stage.result for stage in self.stages],
        }

    async def _run(self) -> AsyncGenerator[Item, None]:
        final = False
        while not final:
            yield StageBegun(len(self.stages) + 1)
            stream = self._chunks or await self.open()
            stage = Stage(len(self.stages) + 1, Calls(f"call_{len(self.stages) + 1}_"))
            self.stages.append(stage)
            waiting = True
            async for chunks in stream:
                if waiting:
                    waiting = False
                    self._first_token(time.monotonic() - self._asked)
                for chunk in chunks:
                    stage.add(chunk)
                    yield chunk
            await self._close_chunks()
            own, pending = self._sorted(stage.calls)
            run = own if self._may_run(stage, pending) else []
            if run:
                async with aclosing(self._run_tools(stage, run)) as results:
                    async for result in results:
                        yield result
                yield ToolSummary(stage.summary)
            final = not run or bool(pending)
            stage.finish_reason = _finish_reason(stage, cut_short=bool(own and not run and not pending))
            if final:
                self._pending, self._finish_reason = tuple(pending), stage.finish_reason
            yield StageDone(stage.finish_reason, stage.usage, final, tuple(pending))

    def _sorted(self, calls: list[Call]) -> tuple[list[Call], list[Call]]:
        """The calls of the sidecar's tools, and the client's. A name that nobody knows is answered by the sidecar."""
        if not self.request.own_tools:
            return [], calls
        clients = {tool["function"]["name"] for tool in self.request.client_tools if "function" in tool}
        return [call for call in calls if call.name not in clients], [call for call in calls if call.name in clients]

    def _may_run(self, stage: Stage, pending: list[Call]) -> bool:
        if stage.finish_reason not in _CALLS_MEANT:
            return False
        return self.request.format != "openai" if pending else stage.id < self.request.max_stages

    async def _run_tools(self, stage: Stage, calls: list[Call]) -> AsyncGenerator[Item, None]:
        """Run all at once; yields each as it finishes, and leaves the next stage's messages behind."""

        async def run(call: Call) -> tuple[Call, Outcome]:
            return call, await self._toolbox.call(call.name, call.arguments, self.request.own_tools)

        outcomes: dict[str, Outcome] = {}
        tasks = [asyncio.create_task(run(call)) for call in calls]
        try:
            for finished in asyncio.as_completed(tasks):
                call, outcome = await finished
                outcomes[call.id] = outcome
                yield ToolResult(stage.head, call, outcome)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        self._messages.append(stage.message(outcomes))
        for call in calls:
            outcome = outcomes[call.id]
            self._messages.append({"role": "tool", "tool_call_id": call.id, "content": outcome.content})
            stage.summary.append(summary_of(call, outcome))

    async def _close_chunks(self) -> None:
        chunks, self._chunks = self._chunks, None
        if chunks is not None:
            await chunks.aclose()


def _finish_reason(stage: Stage, *, cut_short: bool) -> str:
    """What the upstream said, or what it left out; "length" where calls that nobody can run are left over."""
    if cut_short and stage.finish_reason in _CALLS_MEANT:
        return "length"
    return stage.finish_reason or ("tool_calls" if stage.calls else "stop")

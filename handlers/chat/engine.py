"""The engine: a request -> one answer, in stages.

A stage is one request to the model. What the model called in it decides what follows:

    it has called                  beside_pending                          otherwise
    nothing                        the end                                 the end
    tools of the sidecar           run them, next stage                    run them, next stage
    tools of the client            the end, these calls pending            the end, these calls pending
    both                           run the sidecar's, then as above        as above, the sidecar's not run

Calls are not run after a finish_reason that says that the answer was broken off, nor in the last stage that `max_stages`
allows. That is the end too; its finish_reason is then "length", since the answer is not complete.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Final, Protocol

from handlers.chat import items
from handlers.chat.fields import Fields, Numbered
from handlers.chat.formats.base import ChatFormat
from handlers.chat.items import Call, Chunk, Item, UpstreamFailed, Whole
from handlers.chat.stage import Stage, completion, message
from handlers.chat.tools import Toolbox
from sidecar.counts import Operation
from sse.budget import Budget, Charge
from sse.errors import Full
from sse.wire.document import weight
from sse.wire.payload import dumps

MAX_ANSWER: Final = 16 << 20
"""Characters of an answer's texts, reasoning and arguments of calls: some formats write them all once more at the end. Models
end far below that."""

CLAIM: Final = 4096
"""Bytes that an answer grows by before they are charged."""

AT_ONCE: Final = 16
"""Calls of one answer that run at once. A model may make a thousand: to begin all of them holds up the event loop for 0.5 s."""

TURN: Final = 100
"""Items of an answer in one piece that are taken in one turn of the event loop: 6 MB of small chunks take 0.35 s."""


class ChunkStream(Protocol):
    """An answer on its way: lists of chunks. One task iterates; `aclose` gives the connection up at once.

    limits: what the server says of its limits, as headers. whole: the answer as it came, once the iteration has ended without a
    chunk, where one piece was asked for.
    """

    limits: Mapping[str, str]
    whole: Whole | None

    def __aiter__(self) -> AsyncIterator[list[Chunk]]: ...
    async def aclose(self) -> None: ...


class Upstream(Protocol):
    """What the engine needs of a model's server."""

    async def open(
        self, asked: Mapping[str, Any], *, retry: bool, headers: Mapping[str, str], claim: Callable[[int], None]
    ) -> ChunkStream:
        """The answer to a body, whose model may be "". headers: sent with it. Raises UpstreamFailed.

        claim: told the bytes of an answer that is no event stream, as they come, and may raise Full.
        """


@dataclass(eq=False, repr=False)
class Answer:
    """One answer: an async iterator of items, for the task that also closes it. `result` can be read at any time.

    format: of the client that asks. headers: sent with every request. measure: called with each request that has ended.
    limits: what the upstream says of its limits, as headers, once it has been asked. kept: the memory of what `result` and the
    format keep, which raises Full when there is no room for more, here too.
    """

    format: ChatFormat
    upstream: Upstream
    toolbox: Toolbox
    measure: Callable[[Operation], None] = lambda _: None
    headers: Mapping[str, str] = field(default_factory=dict)
    kept: Charge = field(default_factory=lambda: Charge(Budget()))

    def __post_init__(self) -> None:
        if self.format.keeps is not None:
            self.kept.claim(weight(dumps(self.format.keeps)))
        self.limits: Mapping[str, str] = {}
        self._stages: list[Stage] = []
        self._messages = list(self.format.request.messages)
        self._call_ids: set[str] = set()
        self._pending: tuple[Call, ...] = ()
        self._finish_reason: str | None = None
        self._opened: tuple[ChunkStream, Operation] | None = None
        self._items: AsyncGenerator[Item, None] | None = None

    def __aiter__(self) -> AsyncIterator[Item]:
        # Made here: one that is closed before it has begun refers to this object for ever, since Python 3.12.
        self._items = self._items or self._run()
        return self._items  # by itself: `__anext__` in between takes 0.1 µs an item

    def __anext__(self) -> Awaitable[Item]:
        return anext(aiter(self))

    async def aclose(self) -> None:
        """Give up the upstream's connection, the running tools and the request. A second call does nothing."""
        try:
            if self._items is not None:
                await self._items.aclose()
        finally:
            self._messages = []
            self.format.release()
            await self._close_chunks()  # opened, and never iterated

    async def open(self, *, stream: bool = True) -> tuple[ChunkStream, Operation]:
        """Ask the model for the next stage, as a stream or in one piece; the first one may be asked for before the iteration.

        Returns its answer, and what is measured of the request. Raises UpstreamFailed.
        """
        asked = self._body() | {"stream": stream}
        operation, again = Operation(self.format.request.model), not self.format.after_status
        with self._measured(operation, ends=False):
            chunks = await self.upstream.open(asked, retry=again, headers=self.headers, claim=self.kept.claim)
        self._opened, self.limits = (chunks, operation), chunks.limits
        if self.format.after_status:
            self.format.limits(self.limits)
        return self._opened

    async def whole(self) -> Whole:
        """The answer in one piece, instead of an iteration: the upstream's own, untouched; with tools, all stages as one.

        Raises UpstreamFailed. Cancelling it closes the upstream's connection.
        """
        async with aclosing(self):
            answer, _ = await self.open(stream=bool(self.format.request.own_tools))
            taken = 0
            async for _ in self:
                taken += 1
                if taken % TURN == 0:
                    await asyncio.sleep(0)
        if answer.whole is not None:
            return answer.whole
        fields, numbered = Fields(), Numbered()
        for stage in self._stages:
            fields.add(numbered.fields(stage.fields.whole()))
            numbered.end()
        said = message(self._text(), fields.whole(), self._pending)
        return Whole(200, completion(self._stages[0].head, said, self._finish_reason, self._usage()), self.limits)

    def _body(self) -> dict[str, Any]:
        request = self.format.request
        body: dict[str, Any] = {"model": request.model, "messages": self._messages, **request.parameters}
        if self._stages and body.get("tool_choice") not in ("auto", "none"):
            body.pop("tool_choice", None)  # a choice that forces a call would force it in every stage
        if tools := [*(self.toolbox.schema(name) for name in request.own_tools), *request.client_tools]:
            body["tools"] = tools
        return body

    @property
    def result(self) -> dict[str, Any]:
        """The answer so far, as JSON; docs/typed-events.md has its shape."""
        return {
            "text": self._text(),
            "tool_calls": [call.message() for call in self._pending],
            "finish_reason": self._finish_reason,
            "usage": self._usage(),
            "stages": [stage.result for stage in self._stages],
        }

    def _text(self) -> str:
        return "".join(stage.text.whole() for stage in self._stages)

    def _usage(self) -> Any:
        return reduce(items.add_usage, (stage.usage for stage in self._stages), None)

    async def _run(self) -> AsyncGenerator[Item, None]:
        request, final = self.format.request, False
        while not final:
            stage = Stage(len(self._stages) + 1, {*request.client_names, *request.own_tools}, self._call_ids)
            yield items.StageBegun(stage.number)
            stream, operation = self._opened or await self.open()
            self._stages.append(stage)
            with self._measured(operation):
                async for chunks in stream:
                    operation.chunks += len(chunks)
                    operation.last = time.monotonic()
                    operation.first = operation.first or operation.last
                    for chunk in chunks:
                        for item in stage.add(chunk):
                            yield item
                    self._claim(stage, CLAIM)
                operation.usage, operation.response_model = stage.usage, stage.head.get("model", "")
            self._claim(stage)
            await self._close_chunks()
            for item in stage.end():
                yield item
            own = [call for call in stage.calls if request.answers(call.name)]
            pending = [call for call in stage.calls if not request.answers(call.name)]
            run = own if self._may_run(stage, pending) else []
            if run:
                async with aclosing(self._run_tools(stage, run)) as results:
                    async for result in results:
                        yield result
                yield items.ToolsDone(stage.results)
            final = not run or bool(pending)
            left_over = own and not run and not pending and not stage.broken_off
            stage.finish_reason = "length" if left_over else stage.finish_reason or ("tool_calls" if stage.calls else "stop")
            if final:
                self._pending, self._finish_reason = tuple(pending), stage.finish_reason
            yield items.StageDone(stage.finish_reason, stage.usage, final, tuple(pending))

    @contextmanager
    def _measured(self, operation: Operation, *, ends: bool = True) -> Iterator[None]:
        """Measure a request to the model. ends: whether it ends with the block, or only if the block fails."""
        operation.error = "cancelled"
        try:
            yield
            operation.error = ""
        except UpstreamFailed as failure:
            operation.error = failure.code
            raise
        except Full:
            operation.error = "full"
            raise
        finally:
            if ends or operation.error:
                self.measure(operation)

    def _claim(self, stage: Stage, least: int = 0) -> None:
        """Charge what a stage has grown by, if that is `least` bytes; it may have shrunk. Raises Full, UpstreamFailed."""
        grown = stage.size - stage.charged
        if abs(grown) < least:
            return
        stage.charged += grown
        self.kept.claim(grown)
        if sum(stage.length for stage in self._stages) > MAX_ANSWER:
            raise UpstreamFailed(f"the answer has over {MAX_ANSWER} characters", "too_long")

    def _may_run(self, stage: Stage, pending: list[Call]) -> bool:
        if stage.broken_off:
            return False
        return self.format.beside_pending if pending else stage.number < self.format.request.max_stages

    async def _run_tools(self, stage: Stage, calls: list[Call]) -> AsyncGenerator[items.ToolResult, None]:
        """Run them, `AT_ONCE` at a time; yields each as it finishes, and leaves the next stage's messages behind."""
        places = asyncio.Semaphore(AT_ONCE)

        async def run(call: Call) -> items.ToolResult:
            async with places:
                outcome = await self.toolbox.call(call.name, call.arguments, self.format.request.own_tools)
            return items.ToolResult(stage.head, call, outcome)

        tasks = [asyncio.create_task(run(call)) for call in calls]
        try:
            for finished in asyncio.as_completed(tasks):
                yield await finished
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        stage.results = tuple(task.result() for task in tasks)
        self.kept.claim(sum(2 * len(result.outcome.content) for result in stage.results))
        self._messages += stage.messages()

    async def _close_chunks(self) -> None:
        opened, self._opened = self._opened, None
        if opened is not None:
            await opened[0].aclose()

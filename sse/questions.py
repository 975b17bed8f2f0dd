"""Questions between processes: a request at one of them asks something of a stream that another one runs.

In:  questions for streams that run elsewhere, and messages that other processes have sent. Out: answers, and messages to send.
A question has a number, and is sent again until it is answered or its stream has ended. A process does what a question asks
once. It keeps its answer, and repeats it if the question comes again; a result, which may be large, is not kept but made anew.

    {"from", "number", "stream", "what", "args"}     a question        {"to", "value"}, {"to", "problem"}    its answer
    {"left"}                                         this stream is not watched any more where the message comes from
    {"deleted"}                                      this stream was deleted
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final

from sse.errors import Full, Problem
from sse.mirror import Mirror
from sse.store import Store
from sse.stream import State

logger = logging.getLogger("sse")

AGAIN: Final = 1.0
"""Seconds until a question that was received is sent again. A process takes no longer to leave a channel."""

UNHEARD: Final = 0.25
"""Seconds until a question that nobody received is sent again."""

PATIENCE: Final = 10.0
"""Seconds for which nobody may receive a question: longer than it takes to find out that a process is gone."""

ANSWERS: Final = 4096
"""Answers that are kept, in case a question comes again."""


class Questions:
    """process: this one. publish: sends at once, and returns whether it was received. say: sends after the events before it."""

    def __init__(
        self,
        process: str,
        publish: Callable[[str, Mapping[str, Any]], Awaitable[bool]],
        say: Callable[[str, Mapping[str, Any]], None],
    ) -> None:
        self.answers: OrderedDict[tuple[str, int], asyncio.Task[dict[str, Any]]] = OrderedDict()
        self._process, self._publish, self._say = process, publish, say
        self._asked: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._numbers = count(1)

    async def ask(self, mirror: Mirror, what: str, args: Sequence[Any]) -> Any:
        """The answer. If the stream ends before there is one, what this process knows of it. Raises Full, Problem."""
        number, unheard = next(self._numbers), 0.0
        question = {"from": self._process, "number": number, "stream": mirror.id, "what": what, "args": args}
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            while mirror.state is State.RUNNING and not answer.done():
                heard = await self._publish(mirror.owner, question)
                unheard = 0.0 if heard else unheard + UNHEARD
                if unheard > PATIENCE:
                    raise Full("store")
                await asyncio.wait((answer,), timeout=AGAIN if heard else UNHEARD)
        finally:
            del self._asked[number]
        if not answer.done():
            return mirror.result if what == "result" else None
        said = answer.result()
        if "problem" in said:
            status, detail, headers, members = said["problem"]
            raise Problem(status, detail, headers=headers, **members)
        return said["value"]

    def hear(self, message: Mapping[str, Any], store: Store) -> None:
        """Take a message of another process. store: the streams of this one."""
        if "left" in message:
            if (stream := store.streams.get(message["left"])) is not None and not stream.elsewhere:
                stream.wait(AGAIN)
        elif "deleted" in message:
            if (stream := store.streams.get(message["deleted"])) is not None:
                store.drop(stream)
        elif "to" in message:
            if (answer := self._asked.get(message["to"])) is not None and not answer.done():
                answer.set_result(message)
        else:
            asked = (message["from"], message["number"])
            if (task := self.answers.get(asked)) is None:
                self.answers[asked] = asyncio.create_task(self._answer(message, store))
            elif task.done():  # its answer was not received
                self._say(message["from"], task.result())
            while len(self.answers) > ANSWERS:
                self.answers.popitem(last=False)

    async def _answer(self, message: Mapping[str, Any], store: Store) -> dict[str, Any]:
        said: dict[str, Any] = {"to": message["number"], "value": None}
        stream = store.streams.get(message["stream"])
        try:
            if stream is not None and not stream.elsewhere:
                said["value"] = await store.answer(stream, message["what"], message["args"])
        except Problem as problem:
            said["problem"] = (problem.status, problem.detail, problem.headers, problem.members)
        except Exception:
            logger.exception("a question of another process failed")
            said["problem"] = (500, "The request failed; the log of the process that runs the stream says why.", {}, {})
        self._say(message["from"], said)
        if message["what"] == "result":
            self.answers.pop((message["from"], message["number"]), None)
        return said

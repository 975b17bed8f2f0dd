"""Questions between processes: a request at one of them asks something of a stream that another one runs.

In:  questions for streams that run elsewhere, and messages that other processes have sent. Out: answers, and messages to send.
A question has a number, and is sent again until it is answered or its stream has ended. A process does what a question asks
once. It keeps its answer as long as the question may come again, and repeats it then; a result may be large, and is made anew.

    {"from", "number", "oldest", "stream", "what", "args"}    a question; `oldest`: the lowest number not yet answered
    {"to", "value"}, {"to", "problem"}                        its answer
    {"left"}                                                  this stream is no longer watched where the message comes from
    {"deleted"}                                               this stream was deleted
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from itertools import count
from typing import Any, Final, cast

from sse.errors import Problem
from sse.mirror import Mirror
from sse.store import Store
from sse.stream import State, Stream

logger = logging.getLogger("sse")

AGAIN: Final = 1.0
"""Seconds until a question is sent again. A process takes no longer to leave a channel."""


class Questions:
    """process: this one. publish: sends at once. say: sends after the events before it.

    sketch: a stream as it is now, or None if nobody can find it any more.
    """

    def __init__(
        self,
        process: str,
        publish: Callable[[str, Mapping[str, Any]], Awaitable[None]],
        say: Callable[[str, Mapping[str, Any]], None],
        sketch: Callable[[str], Awaitable[Mirror | None]],
    ) -> None:
        self.answers: dict[tuple[str, int], asyncio.Task[dict[str, Any]]] = {}
        self._process, self._publish, self._say, self._sketch = process, publish, say, sketch
        self._asked: dict[int, asyncio.Future[Mapping[str, Any]]] = {}
        self._numbers = count(1)

    async def ask(self, stream: Stream, what: str, args: Sequence[Any]) -> Any:
        """The answer. If the stream ends before there is one, what this process knows of it. Raises Full, Problem."""
        mirror: Mirror | None = cast(Mirror, stream)
        number, owner = next(self._numbers), cast(Mirror, stream).owner
        question = {"from": self._process, "number": number, "stream": stream.id, "what": what, "args": args}
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            while mirror is not None and mirror.state is State.RUNNING and not answer.done():
                await self._publish(owner, {**question, "oldest": next(iter(self._asked))})
                await asyncio.wait((answer,), timeout=AGAIN)
                if mirror.discarded and not answer.done():  # it isn't followed here any more
                    mirror = await self._sketch(stream.id)
        finally:
            del self._asked[number]
        if not answer.done():
            return mirror.result if mirror is not None and what == "result" else None
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
            self.answers = {
                key: task
                for key, task in self.answers.items()
                if key[0] != asked[0] or key[1] >= message["oldest"] or not task.done()
            }
            if (task := self.answers.get(asked)) is None:
                self.answers[asked] = asyncio.create_task(self._answer(message, store))
            elif task.done():  # its answer was not received
                self._say(message["from"], task.result())

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

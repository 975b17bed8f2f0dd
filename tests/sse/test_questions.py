"""Questions between two processes whose messages go from hand to hand, and can get lost."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from sse import questions as module
from sse.budget import Budget
from sse.entries import record
from sse.errors import Problem
from sse.formats import Format
from sse.mirror import Mirror
from sse.questions import Questions
from sse.store import Store
from sse.stream import Opening, Stream, Trigger


class Process:
    """lost: how many of its next answers get lost. asked: what its stream was asked."""

    def __init__(self, name: str, others: dict[str, "Process"]) -> None:
        self.questions = Questions(name, self.publish, self.say, self.sketch)
        self.store = Store()
        self.others = others
        self.lost = 0
        self.asked: list[Any] = []
        others[name] = self

    async def publish(self, process: str, message: Mapping[str, Any]) -> None:
        self.others[process].questions.hear(message, self.others[process].store)

    def say(self, process: str, message: Mapping[str, Any]) -> None:
        if self.lost:
            self.lost -= 1
        else:
            self.others[process].questions.hear(message, self.others[process].store)

    async def sketch(self, stream_id: str) -> None:
        raise AssertionError("the stream is followed")

    async def answer(self, stream: Stream, what: str, *args: Any) -> Any:
        self.asked.append(args[0])
        if what == "refuse":
            raise Problem(409, "no", member=1)
        return len(self.asked)


@pytest.fixture
async def here() -> Process:
    return Process("here", {})


@pytest.fixture
async def stream(here: Process) -> Stream:
    with here.store.reserve():
        return here.store.open(Opening(None, Format(), linger=None, asked=here.answer))


@pytest.fixture
async def there(here: Process) -> Process:
    return Process("there", here.others)


@pytest.fixture
async def mirror(stream: Stream, there: Process) -> Mirror:
    opening = stream.opening
    known = {name: getattr(opening, name) for name in ("id", "identity", "metadata", "kind", "key", "claim")}
    document = {**known, "owner": "here", "created": stream.created, "format": record(opening)}

    async def ask(stream: Stream, what: str, args: Sequence[Any]) -> Any:
        return await there.questions.ask(stream, what, args)

    return Mirror(document, lambda _: None, Budget(), ask)


async def test_a_question_is_answered_where_the_stream_runs(here: Process, there: Process, mirror: Mirror) -> None:
    assert [await there.questions.ask(mirror, "count", [n]) for n in "ab"] == [1, 2]
    assert here.asked == ["a", "b"]


async def test_a_problem_there_is_one_here(there: Process, mirror: Mirror) -> None:
    with pytest.raises(Problem) as raised:
        await there.questions.ask(mirror, "refuse", ["x"])
    assert (raised.value.status, raised.value.detail, raised.value.members) == (409, "no", {"member": 1})


async def test_what_is_asked_is_done_once_although_its_answer_got_lost(
    here: Process, there: Process, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.01)
    here.lost = 3
    assert await there.questions.ask(mirror, "count", ["once"]) == 1
    assert here.asked == ["once"]


async def test_answers_are_kept_only_while_their_question_may_come_again(here: Process, there: Process, mirror: Mirror) -> None:
    await asyncio.gather(*[there.questions.ask(mirror, "count", [n]) for n in range(100)])
    await there.questions.ask(mirror, "count", ["later"])
    assert len(here.questions.answers) == 1


async def test_the_end_of_a_stream_answers_too(
    stream: Stream, there: Process, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "AGAIN", 0.01)
    there.others["here"].lost = 1 << 30
    asking = asyncio.create_task(there.questions.ask(mirror, "result", []))
    await asyncio.sleep(0)
    stream.end(Trigger.DELETED)
    mirror.over(b"", {"state": "cancelled", "reason": "deleted", "ended": 1.0, "error": None, "result": "so far", "last": 0})
    assert await asking == "so far"

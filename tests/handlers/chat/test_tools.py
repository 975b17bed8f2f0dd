"""Running tools: whatever happens is an outcome."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import date
from typing import Annotated, Any, Literal

import pytest

from handlers.chat.tools import Outcome, Toolbox
from sidecar.functions import Between, function
from sse import threads
from sse.errors import SourceFailed
from sse.threads import OnProgress


@function
def add(a: int, b: int = 1, *, note: str = "") -> dict[str, Any]:
    """Add two numbers."""
    return {"sum": a + b, "note": note}


@function(name="later", timeout=0.05)
async def wait(seconds: Annotated[float, Between(0, 60)], unit: Literal["s", "min"] = "s") -> str:
    await asyncio.sleep(seconds)
    return "done"


class Unspeakable(Exception):
    """Raises as soon as somebody wants to know what it says."""

    def __str__(self) -> str:
        raise SystemExit("from __str__")


class Quota(SourceFailed):
    """One with a text that can't be had."""

    def __str__(self) -> str:
        raise SystemExit("from __str__")


def thrown(kind: str) -> BaseException:
    return {
        "value": ValueError("no such thing"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "cancel": asyncio.CancelledError(),
        "generator": GeneratorExit(),
        "stop": StopIteration("x"),
        "time": TimeoutError("x"),
        "unspeakable": Unspeakable(),
        "no sentence": Quota("", "quota"),
        "sentence": SourceFailed("the quota is used up", "quota"),
    }[kind]


@function
def fail(kind: str) -> None:
    raise thrown(kind)


@function
def write(depth: int) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = [value]
    return value


@function
async def fail_async(kind: str) -> None:
    raise thrown(kind)


def numbers() -> Iterator[int]:
    yield 1


async def async_numbers() -> AsyncIterator[int]:
    yield 1


ODD: dict[str, Any] = {"generator": numbers, "async generator": async_numbers, "coroutine": fail_async.call}


@function
def odd(kind: str) -> Any:
    return ODD[kind]() if kind != "coroutine" else ODD[kind]("value")


@function
async def odd_async(kind: str) -> Any:
    return ODD[kind]() if kind != "coroutine" else ODD[kind]("value")


TOOLS = [add, wait, fail, write, fail_async, odd, odd_async]


async def call(name: str, arguments: str, **options: Any) -> Outcome:
    toolbox = Toolbox(TOOLS, **options)
    return await toolbox.call(name, arguments, toolbox.tools)


def test_a_tool_is_told_to_the_model_as_openai_has_it() -> None:
    assert Toolbox(TOOLS).schema("add") == {
        "type": "function",
        "function": {
            "name": "add",
            "description": "Add two numbers.",
            "parameters": {
                "type": "object",
                "properties": {
                    "a": {"type": "integer"},
                    "b": {"type": "integer", "default": 1},
                    "note": {"type": "string", "default": ""},
                },
                "required": ["a"],
            },
        },
    }


async def test_a_sync_tool_runs_in_a_daemon_thread() -> None:
    where: list[threading.Thread] = []

    @function
    def look() -> str:
        where.append(threading.current_thread())
        return "seen"

    outcome = await Toolbox([look]).call("look", "", ["look"])
    assert (outcome.value, outcome.error, outcome.content) == ("seen", None, "seen")
    assert where[0].daemon
    assert where[0] is not threading.main_thread()


async def test_arguments_are_bound_and_values_become_json() -> None:
    outcome = await call("add", '{"a": 2, "note": "é"}')
    assert outcome.arguments == {"a": 2, "note": "é"}
    assert outcome.content == '{"sum":3,"note":"é"}'
    assert outcome.seconds >= 0


ERRORS = {
    "unknown tool": ("nothing", "{}", "there is no tool named 'nothing'"),
    "bad json": ("add", '{"a": ', "not JSON"),
    "not an object": ("add", "[1]", "must be a JSON object"),
    "too deep": ("add", "[" * 100_000, "not JSON"),
    "missing parameter": ("add", "{}", "a is missing: it must be an integer."),
    "unknown parameter": ("add", '{"a": 1, "z": 2}', "z is no parameter of add, which has: a, b, note."),
    "another type": ("add", '{"a": "1"}', "a must be an integer."),
    "out of bounds": ("later", '{"seconds": 61}', "seconds must be a number from 0 to 60."),
    "no choice": ("later", '{"seconds": 0, "unit": "h"}', "unit must be one of s, min."),
    "exception in a thread": ("fail", '{"kind": "value"}', "ValueError: no such thing"),
    "SystemExit in a thread": ("fail", '{"kind": "exit"}', "the function raised SystemExit: 3"),
    "KeyboardInterrupt in a thread": ("fail", '{"kind": "interrupt"}', "the function raised KeyboardInterrupt"),
    "GeneratorExit in a thread": ("fail", '{"kind": "generator"}', "the function raised GeneratorExit"),
    "CancelledError in a thread": ("fail", '{"kind": "cancel"}', "the function raised CancelledError"),
    "StopIteration in a thread": ("fail", '{"kind": "stop"}', "the function raised StopIteration: x"),
    "no text in a thread": ("fail", '{"kind": "unspeakable"}', "Unspeakable"),
    "a sentence from a thread": ("fail", '{"kind": "sentence"}', "the quota is used up"),
    "exception in the loop": ("fail_async", '{"kind": "value"}', "ValueError: no such thing"),
    "SystemExit in the loop": ("fail_async", '{"kind": "exit"}', "the function raised SystemExit: 3"),
    "KeyboardInterrupt in the loop": ("fail_async", '{"kind": "interrupt"}', "the function raised KeyboardInterrupt"),
    "GeneratorExit in the loop": ("fail_async", '{"kind": "generator"}', "the function raised GeneratorExit"),
    "cancels itself": ("fail_async", '{"kind": "cancel"}', "the function raised CancelledError"),
    "StopIteration in the loop": ("fail_async", '{"kind": "stop"}', "coroutine raised StopIteration"),
    "a TimeoutError of its own": ("fail_async", '{"kind": "time"}', "TimeoutError: x"),
    "no text in the loop": ("fail_async", '{"kind": "unspeakable"}', "Unspeakable"),
    "no sentence from the loop": ("fail_async", '{"kind": "no sentence"}', "Quota"),
    "a sentence from the loop": ("fail_async", '{"kind": "sentence"}', "the quota is used up"),
    "a value without a JSON form": ("write", '{"depth": 1000}', "Unwritable: this list has no JSON form"),
    "takes too long": ("later", '{"seconds": 60}', "the function took longer than 0.05 s"),
    **{f"a {kind} from a thread": ("odd", f'{{"kind": "{kind}"}}', "instead of a result") for kind in ODD},
    **{f"a {kind} from the loop": ("odd_async", f'{{"kind": "{kind}"}}', "instead of a result") for kind in ODD},
}


@pytest.mark.parametrize(("name", "arguments", "error"), ERRORS.values(), ids=ERRORS.keys())
async def test_error(name: str, arguments: str, error: str) -> None:
    outcome = await call(name, arguments)
    assert outcome.error is not None
    assert error in outcome.error
    assert outcome.value is None
    assert outcome.content.startswith('{"error":"')


async def test_a_tool_that_was_not_offered_is_unknown() -> None:
    outcome = await Toolbox(TOOLS).call("add", '{"a": 1}', ["later"])
    assert outcome.error == "there is no tool named 'add'"


async def test_cancelling_the_caller_cancels_an_async_tool() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    @function
    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    task = asyncio.create_task(Toolbox([hang]).call("hang", "", ["hang"]))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert cancelled.is_set()


async def test_a_thread_that_ran_out_of_time_keeps_its_place_until_it_returns() -> None:
    release = threading.Event()

    @function(timeout=0.1)
    def block() -> str:
        release.wait(10)
        return "done"

    toolbox = Toolbox([block], limit=1)
    outcomes = [await toolbox.call("block", "", ["block"]) for _ in range(2)]
    assert [outcome.error for outcome in outcomes] == ["the function took longer than 0.1 s"] * 2
    release.set()
    assert (await toolbox.call("block", "", ["block"])).value == "done"


async def test_no_more_than_the_limit_run_at_once() -> None:
    running, most = 0, 0

    @function
    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    toolbox = Toolbox([count], limit=2)
    await asyncio.gather(*(toolbox.call("count", "", ["count"]) for _ in range(6)))
    assert most == 2


class Exits:
    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize(
    ("value", "why"),
    [(Exits(), "SystemExit: 3"), ([b"\xff"], "can't decode byte 0xff"), ({(1,): 2}, "Dict key must a type serializable")],
    ids=["exits", "bytes", "keys"],
)
async def test_a_result_that_json_cannot_hold_is_the_tools_error(value: Any, why: str) -> None:
    @function
    def strange() -> Any:
        return value

    outcome = await Toolbox([strange]).call("strange", "", ["strange"])
    assert outcome.error is not None
    assert outcome.error.startswith(f"Unwritable: this {type(value).__name__} has no JSON form: ")
    assert why in outcome.error
    assert json.loads(outcome.content) == {"error": outcome.error}


async def test_a_result_is_told_as_json() -> None:
    @function
    def strange() -> dict[str, Any]:
        return {"nan": float("nan"), "half": "\ud83d", "big": 2**100, "when": date(2024, 5, 17)}

    outcome = await Toolbox([strange]).call("strange", "", ["strange"])
    assert outcome.content == '{"nan":null,"half":"\ufffd","big":1267650600228229401496703205376,"when":"2024-05-17"}'


async def test_a_tool_may_report_and_nobody_listens() -> None:
    @function
    def slow(on_progress: OnProgress) -> str:
        on_progress("half", {"progress": 50})
        return "done"

    assert (await Toolbox([slow]).call("slow", "", ["slow"])).value == "done"


async def test_a_tool_that_swallows_its_cancellation_holds_up_neither_its_caller_nor_more_than_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(threads, "GRACE", 0.05)
    go = asyncio.Event()

    @function(timeout=0.05)
    async def stubborn() -> str:
        while not go.is_set():
            try:
                await go.wait()
            except asyncio.CancelledError:
                continue
        return "done"

    toolbox = Toolbox([stubborn], limit=1)
    async with asyncio.timeout(10):
        outcomes = [await toolbox.call("stubborn", "", ["stubborn"]) for _ in range(2)]
    assert [outcome.error for outcome in outcomes] == ["the function took longer than 0.05 s"] * 2
    go.set()
    assert (await toolbox.call("stubborn", "", ["stubborn"])).value == "done"

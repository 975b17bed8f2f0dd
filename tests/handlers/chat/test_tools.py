"""Running tools: whatever happens is an outcome."""

import asyncio
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from handlers.chat.tools import Outcome, Tool, Toolbox, load, tool


@tool()
def add(a: int, b: int = 1, *, note: str = "") -> dict[str, Any]:
    """Add two numbers."""
    return {"sum": a + b, "note": note}


@tool(name="later", timeout=0.05)
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@tool()
def fail(kind: str) -> None:
    raise {"value": ValueError("no such thing"), "exit": SystemExit(3), "stop": StopIteration("x")}[kind]


@tool()
def write(depth: int) -> Any:
    value: Any = "end"
    for _ in range(depth):
        value = [value]
    return value


@tool()
async def fail_async(kind: str) -> None:
    raise {
        "value": ValueError("no such thing"),
        "exit": SystemExit(3),
        "cancel": asyncio.CancelledError(),
        "time": TimeoutError("x"),
    }[kind]


TOOLS = [add, wait, fail, write, fail_async]


async def call(name: str, arguments: str, **options: Any) -> Outcome:
    toolbox = Toolbox(TOOLS, **options)
    return await toolbox.call(name, arguments, toolbox.tools)


def test_the_schema_comes_from_the_signature() -> None:
    assert add.schema() == {
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


def test_annotations_without_a_json_type_leave_it_open() -> None:
    @tool()
    def odd(words: list[str], when: "Path", anything=None) -> None:  # type: ignore[no-untyped-def]
        """Odd."""

    assert odd.parameters["properties"] == {"words": {"type": "array"}, "when": {}, "anything": {"default": None}}


def test_a_tool_is_still_a_callable() -> None:
    assert add(1, b=2) == {"sum": 3, "note": ""}


async def test_a_sync_tool_runs_in_a_daemon_thread() -> None:
    where: list[threading.Thread] = []

    @tool()
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
    "unknown tool": ("nothing", "{}", "no tool named 'nothing'"),
    "bad json": ("add", '{"a": ', "not JSON"),
    "not an object": ("add", "[1]", "must be a JSON object"),
    "missing parameter": ("add", "{}", "missing a required argument: 'a'"),
    "unknown parameter": ("add", '{"a": 1, "z": 2}', "unexpected keyword argument 'z'"),
    "exception in a thread": ("fail", '{"kind": "value"}', "ValueError: no such thing"),
    "SystemExit in a thread": ("fail", '{"kind": "exit"}', "SystemExit"),
    "StopIteration in a thread": ("fail", '{"kind": "stop"}', "StopIteration"),
    "exception in the loop": ("fail_async", '{"kind": "value"}', "ValueError: no such thing"),
    "SystemExit in the loop": ("fail_async", '{"kind": "exit"}', "SystemExit: 3"),
    "cancels itself": ("fail_async", '{"kind": "cancel"}', "cancelled itself"),
    "a TimeoutError of its own": ("fail_async", '{"kind": "time"}', "TimeoutError: x"),
    "a value without a JSON form": ("write", '{"depth": 1000}', "Unwritable: this list has no JSON form"),
    "takes too long": ("later", '{"seconds": 60}', "longer than 0.05 s"),
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

    @tool()
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

    @tool(timeout=0.1)
    def block() -> str:
        release.wait(10)
        return "done"

    toolbox = Toolbox([block], limit=1)
    outcomes = [await toolbox.call("block", "", ["block"]) for _ in range(2)]
    assert [outcome.error for outcome in outcomes] == ["the tool took longer than 0.1 s"] * 2
    release.set()
    assert (await toolbox.call("block", "", ["block"])).value == "done"


async def test_no_more_than_the_limit_run_at_once() -> None:
    running, most = 0, 0

    @tool()
    async def count() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1

    toolbox = Toolbox([count], limit=2)
    await asyncio.gather(*(toolbox.call("count", "", ["count"]) for _ in range(6)))
    assert most == 2


def test_load_finds_the_tools_of_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_tools.py").write_text(
        "from handlers.chat.tools import tool\n@tool()\ndef hello(name: str) -> str:\n    return name\nother = 1\n"
    )
    (tmp_path / "no_tools.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    found = load(["my_tools"])
    assert [(type(one), one.name) for one in found] == [(Tool, "hello")]
    with pytest.raises(ValueError, match="no_tools: no tools"):
        load(["no_tools"])
    with pytest.raises(ImportError):
        load(["missing_tools"])
    for name in ("my_tools", "no_tools"):
        sys.modules.pop(name)

"""Whatever others send is read in a time that grows with its size and not faster.

Each case makes an input of a size, in the way that costs its reader most. The time is this thread's on the processor, which
other work on the machine changes little. Where the cost is quadratic, eight times as much takes sixty-four times as long.
"""

import asyncio
import gc
import json
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest

from handlers.chat.engine import Answer
from handlers.chat.fields import Fields
from handlers.chat.formats.ag_ui import AGUI
from handlers.chat.formats.openai import OpenAI
from handlers.chat.formats.responses import Responses
from handlers.chat.formats.typed import Typed
from handlers.chat.formats.ui_messages import UIMessages
from handlers.chat.items import StageBegun, Whole
from handlers.chat.request import Offer
from handlers.chat.responses import asked
from handlers.chat.stage import Stage
from handlers.chat.tools import Toolbox
from handlers.chat.tools import loads as arguments_of
from handlers.chat.upstream.body import Body
from handlers.chat.upstream.calls import Calls
from handlers.chat.upstream.chunks import parse
from handlers.chat.upstream.demo import DemoUpstream
from handlers.chat.upstream.failures import from_answer
from handlers.publish.bodies import READERS, from_json
from sidecar.functions import Function, function
from sse import accept, resume
from sse.http import Request
from sse.wire import document, payload
from sse.wire.parser import Parser
from tests.support.asgi import Connection, http_scope
from tests.support.upstream import DONE, chunk, event

pytestmark = pytest.mark.slow

OFFER = Offer({})
Read = Callable[[], object]


def nested(
    list_of: list[list[int]],
    either: list[int | list[int]],
    word: list[Literal["a", "b"]],
    lists: list[list[int] | list[str]],
) -> None:
    """A function whose arguments are long lists."""


NESTED: Function = function(nested)


def query(size: int) -> Read:
    request = Request(http_scope(query=(b"a=" + b"1" * 1000 + b"&") * size), Connection().receive)
    return lambda: request.query


def header(name: bytes, value: bytes) -> Callable[[int], Read]:
    return lambda size: lambda: Request(http_scope(headers=[(name, value * size)]), Connection().receive).last_event_id


def fed(make: Callable[[], Any], data: Callable[[int], bytes], piece: int = 1 << 16) -> Callable[[int], Read]:
    """A reader that is fed piece by piece."""

    def case(size: int) -> Read:
        whole = data(size)

        def read() -> None:
            reader = make()
            for begin in range(0, len(whole), piece):
                for _ in reader.feed(whole[begin : begin + piece]) or ():
                    pass
            if hasattr(reader, "end"):
                list(reader.end() or ())

        return read

    return case


def calls(number: int) -> Iterator[dict[str, Any]]:
    for index in range(number):
        yield {"tool_calls": [{"index": index, "id": f"c{index}", "function": {"name": f"f{index}", "arguments": "{}"}}]}


def staged(size: int) -> Read:
    chunks = [parse(json.dumps({"choices": [{"delta": delta}]}).encode()) for delta in calls(size)]

    def read() -> None:
        stage = Stage(tools={f"f{index}" for index in range(size)})
        for each in filter(None, chunks):
            stage.add(each)
        stage.end()
        stage.messages()

    return read


def answered(kind: Any, body: Callable[[int], dict[str, Any]]) -> Callable[[int], Read]:
    """A whole answer of the demo's."""

    def case(size: int) -> Read:
        made = body(size)

        async def run() -> None:
            format = asked(made, OFFER, [], made["input"]) if kind is Responses else kind(made, OFFER)
            answer = Answer(format, DemoUpstream(0), Toolbox(()))
            async for item in answer:
                for _ in [format.item(item)]:
                    pass
            await answer.aclose()

        return lambda: asyncio.run(run())

    return case


def one_call(pieces: int) -> Iterator[dict[str, Any]]:
    yield from calls(1)
    for _ in range(pieces):
        yield {"tool_calls": [{"index": 0, "function": {"arguments": "x" * 100}}]}


def called(kind: Any, deltas: Callable[[int], Iterator[dict[str, Any]]] = calls) -> Callable[[int], Read]:
    """What a format makes of many calls."""

    def case(size: int) -> Read:
        chunks = [parse(json.dumps({"choices": [{"delta": delta}]}).encode()) for delta in deltas(size)]
        tool = {"type": "function", "function": {"name": "f"}}
        said = [{"role": "user", "content": "x"}]
        body = {"messages": said, "tools": [tool]}
        if kind is UIMessages:
            body = ui(lambda _: "x")(1)
        format = asked({}, OFFER, [], said) if kind is Responses else kind(body, OFFER)

        def read() -> None:
            stage = Stage()
            format.item(StageBegun(1))
            for each in filter(None, chunks):
                for item in stage.add(each):
                    list(format.item(item))
            for item in stage.end():
                list(format.item(item))

        return read

    return case


def tools(count: int) -> list[dict[str, Any]]:
    return [{"type": "function", "function": {"name": f"f{number}"}} for number in range(count)]


def ui(text: Callable[[int], str]) -> Callable[[int], dict[str, Any]]:
    return lambda size: {"id": "c", "messages": [{"role": "user", "parts": [{"type": "text", "text": text(size)}]}]}


def run_of(messages: Callable[[int], list[Any]]) -> Callable[[int], dict[str, Any]]:
    rest = {"threadId": "t", "runId": "r", "state": {}, "tools": [], "context": [], "forwardedProps": {}}
    return lambda size: {**rest, "messages": messages(size)}


EVENTS = {kind: b"data: 1\n\n" if kind == "text/event-stream" else b'{"data": 1}\n' for kind in READERS}

CASES: dict[str, tuple[Callable[[int], Read], int]] = {
    "JSON of blanks": (lambda n: lambda: document.loads(b"[" + b" " * n + b"]"), 400_000),
    "JSON of lists": (lambda n: lambda: document.loads(b"[" + b"[]," * n + b"[]]"), 5_000),
    "JSON of escapes": (lambda n: lambda: document.loads(b'["' + b'\\"' * n + b'"]'), 100_000),
    "JSON of long integers": (lambda n: lambda: document.loads(b"[" + b"1" * 30 + b",1" * n + b"]"), 5_000),
    "JSON that is written": (lambda n: lambda: payload.dumps({"a": [[1 << 70, "\ud800"]] * n}), 2_000),
    "an event of one line": (fed(Parser, lambda n: b"data: " + b"x" * n), 100_000),
    "an event of many lines": (fed(Parser, lambda n: b"data: x\n" * n + b"\n"), 10_000),
    "an event stream byte by byte": (fed(Parser, lambda n: b"data: x\r\n" * n, 1), 2_000),
    "fields that are none": (fed(Parser, lambda n: b"x" * n + b"\n" + b":\n" * n), 50_000),
    **{
        f"a published body of {kind}, {name}": (fed(reader, lambda n, line=line: line * n), 2_000)  # type: ignore[misc]
        for kind, reader in READERS.items()
        for name, line in (("events", EVENTS[kind]), ("blanks", b" \n"))
    },
    "a published list": (lambda n: lambda: list(from_json([{"data": "x\ny", "id": "1"}] * n)), 1_200),
    "a query": (query, 12),
    "a last event ID": (lambda n: lambda: resume.parse("a." * n + "1"), 100_000),
    "last event IDs": (header(b"last-event-id", b"ab-"), 100_000),
    "Accept": (lambda n: lambda: accept.names("a/b;q=0.5, " * n + "text/html", "text/html"), 1_000),
    "Accept of one parameter": (lambda n: lambda: accept.names('a/b;x="' + "\\" * n, "text/html"), 20_000),
    "nested lists": (
        lambda n: (
            lambda: NESTED.check({"list_of": [[1]] * n, "either": [1, [2]] * n, "word": ["b"] * n, "lists": [[1], ["a"]] * n})
        ),
        10_000,
    ),
    "an upstream's stream": (fed(Body, lambda n: chunk("a") * n + DONE), 1_000),
    "an upstream's stream in small pieces": (fed(Body, lambda n: chunk("a") * n + DONE, 7), 100),
    "an upstream's event": (fed(Body, lambda n: event({"choices": [{"delta": {"x": [[]] * n}}]})), 5_000),
    "an upstream's blanks": (fed(Body, lambda n: b"\r\n" * n, 100), 20_000),
    "an upstream's page": (fed(Body, lambda n: b"<p>" * n, 100), 20_000),
    "an upstream's calls": (staged, 500),
    "an upstream's finish_reason": (lambda n: lambda: _broken_off("max" * n), 1_000),
    "the arguments of a call": (lambda n: lambda: _argued("x" * n), 200_000),
    "arguments of quotes": (lambda n: lambda: _argued('\\"' * n), 100_000),
    "an upstream's thoughts": (lambda n: lambda: _thought(n), 2_000),
    **{f"calls in the format {kind.name}": (called(kind), 300) for kind in (Typed, OpenAI, Responses)},
    **{
        f"a long call in the format {kind.name}": (called(kind, one_call), 4_000)
        for kind in (Typed, OpenAI, Responses, UIMessages)
    },
    "a prompt of blanks": (answered(Typed, lambda n: {"prompt": " " * n}), 20_000),
    "a prompt of tools": (answered(Typed, lambda n: {"prompt": "/tool " * n}), 5_000),
    "many messages": (answered(Typed, lambda n: {"messages": [{"role": "user", "content": "x"}] * n}), 240),
    "many tools": (
        answered(
            Typed, lambda n: {"prompt": "x", "tools": [{"type": "function", "function": {"name": f"f{i}"}} for i in range(n)]}
        ),
        1_000,
    ),
    "many items of input": (answered(Responses, lambda n: {"input": [{"role": "user", "content": "x"}] * n}), 240),
    "a UI message": (answered(UIMessages, ui(lambda n: "x " * n)), 2_000),
    "a run's messages": (
        answered(AGUI, run_of(lambda n: [{"id": str(i), "role": "user", "content": "x"} for i in range(n)])),
        240,
    ),
}


def _broken_off(finish_reason: str) -> bool:
    stage = Stage()
    stage.finish_reason = finish_reason
    return stage.broken_off


def _argued(text: str) -> None:
    """A call whose name comes once more, so that its arguments have to be looked at."""
    made = Calls("call_")
    for arguments in ('{"a": "' + text, '"}'):
        made.feed([{"index": 0, "id": "a", "function": {"name": "f", "arguments": arguments}}])
    assert [call.arguments for call in made.whole()] == ['{"a": "' + text + '"}']


def _thought(count: int) -> None:
    fields = Fields()
    for number in range(count):
        fields.add({"reasoning_details": [{"type": "reasoning.text", "text": "x", "index": number}], "reasoning": "x"})
    fields.whole()


def seconds(make: Callable[[int], Read], size: int) -> float:
    """The least that it takes of three times."""
    taken = []
    gc.disable()
    try:
        for _ in range(3):
            read = make(size)
            began = time.thread_time()
            read()
            taken.append(time.thread_time() - began)
    finally:
        gc.enable()
    return min(taken)


def grows(make: Callable[[int], Read], size: int) -> float:
    """How many times as long eight times as much takes."""
    seconds(make, size)
    return seconds(make, 8 * size) / max(seconds(make, size), 0.0005)


@pytest.mark.parametrize(("make", "size"), CASES.values(), ids=CASES.keys())
def test_eight_times_as_much_takes_about_eight_times_as_long(make: Callable[[int], Read], size: int) -> None:
    assert grows(make, size) < 20


def test_levels_are_refused_before_anything_is_made_of_them() -> None:
    def refused(size: int) -> Read:
        def read() -> None:
            with pytest.raises(ValueError, match="values"):
                document.loads(b"[" * size)

        return read

    assert grows(refused, 200_000) < 20


@pytest.mark.parametrize("how", ["a chunk", "an answer", "no event stream", "an error", "arguments"])
def test_what_has_too_many_values_is_not_made(how: str) -> None:
    """16 MiB of empty lists took 9 s and 1.2 GB."""
    lists = b"[%b[]]" % (b"[]," * 1_000_000)
    whole = b'{"choices": [{"message": {"content": "x", "y": %b}}]}' % lists
    begin, before = time.thread_time(), sys.getallocatedblocks()
    match how:
        case "a chunk":
            body = Body()
            assert body.feed(b'data: {"choices": [{"delta": {"y": %b}}]}\n\n' % lists) == []
            assert body.failure is not None
            assert body.failure.code == "bad_chunk"
        case "an answer":
            body = Body(one_piece=True)
            body.feed(whole)
            assert body.end() == []
            assert body.whole == whole, "it is passed on, and not looked into"
        case "no event stream":
            body = Body()
            body.feed(whole)
            assert body.end() == []
            assert body.failure is not None
            assert body.failure.code == "not_a_stream"
        case "an error":
            assert "upstream answered 500: [[],[]" in from_answer(Whole(500, lists)).message
        case _:
            with pytest.raises(ValueError, match="more than 100000 values"):
                arguments_of(lists.decode())
    assert time.thread_time() - begin < 0.25
    assert sys.getallocatedblocks() - before < 1000


def test_a_cost_that_is_quadratic_is_seen() -> None:
    def quadratic(size: int) -> Read:
        return lambda: [number for number in range(size) if number in list(range(size))]

    assert grows(quadratic, 200) > 20

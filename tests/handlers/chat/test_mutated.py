"""Recorded streams, mutated at random: whatever an upstream sends, an answer ends once, as the upstream's fault if as any, and
nothing of it is left behind.

The seeds are fixed; a failure shows the seed and the body.
"""

import copy
import json
import logging
import random
from collections.abc import Callable
from typing import Any, Final

import pytest

from handlers.chat.items import UpstreamFailed
from handlers.chat.stage import Stage, message
from handlers.chat.upstream.body import Body
from sse.stream import State
from tests.handlers.chat.test_cases import FORMATS, ask, cases
from tests.support.app import JSON, Answer
from tests.support.chatting import named, sidecar
from tests.support.formats import CLIENTS
from tests.support.upstream import BREAK, DONE, Script, call, chunk, chunk_object, event, finish, usage

pytestmark = pytest.mark.slow

BATCHES: Final = 20
EACH: Final = 100

RECORDED: Final[list[bytes]] = [
    *(case.values[0]["body"].encode() for name in ("texts", "tool_calls", "malformed") for case in cases(name)),
    b"".join([chunk("Hel"), chunk("lo"), finish(), usage(3, 4), DONE]),
    b"".join(
        [chunk(""), call("calculate", '{"expression"'), call("", ': "1"}', id=None), finish("tool_calls"), usage(3, 4), DONE]
    ),
    b"".join(
        event(chunk_object({"reasoning_details": [{"type": "reasoning.text", "text": text, "index": 0}], "content": None}))
        for text in ("Let ", "me ", "see.")
    )
    + b"".join([call("lookup", "{}", id="b"), finish("tool_calls"), DONE]),
]
ODD: Final[list[Any]] = [
    None, True, False, 0, -1, 7, 1.5, 1e308, 10**30, "", "x", "null", "[DONE]", "\ud83d", "é" * 50, [], [1], [None], [[]], {},
    {"a": 1}, {"error": None}, {"message": "no"}, [{"type": "text", "text": "part"}], [{"index": 0, "text": "a"}], {"0": {}},
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every object or list in the value, with a key of its own."""
    found: list[tuple[Any, Any]] = []
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            found += [(value, key), *places(value[key])]
    return found


def in_json(event: bytes, chance: random.Random) -> bytes:
    """The event with a field dropped, exchanged, or put elsewhere."""
    try:
        value = json.loads(event.removeprefix(b"data: "))
        holder, key = chance.choice(places(value))
    except (ValueError, LookupError, RecursionError):
        return event
    match chance.randrange(4):
        case 0:
            del holder[key]
        case 1:
            holder[key] = copy.deepcopy(chance.choice(ODD))
        case 2 if isinstance(holder, dict):
            holder[chance.choice(["error", "delta", "message", "choices", "usage", "index", "id", "x"])] = holder[key]
        case _:
            holder[key] = [holder[key]] if chance.random() < 0.5 else {"error": holder[key]}
    return b"data: " + json.dumps(value).encode()


def in_events(events: list[bytes], chance: random.Random) -> None:
    """One event dropped, doubled, moved, changed, or replaced by another stream's."""
    at = chance.randrange(len(events))
    match chance.randrange(6):
        case 0:
            del events[at]
        case 1:
            events.insert(chance.randrange(len(events) + 1), events[at])
        case 2:
            events.insert(chance.randrange(len(events)), events.pop(at))
        case 3:
            events.insert(at, chance.choice(chance.choice(RECORDED).split(b"\n\n")))
        case _:
            events[at] = in_json(events[at], chance)


BYTES: Final[list[Callable[[bytes, int], bytes]]] = [
    lambda body, at: body[:at],
    lambda body, at: body[at:],
    lambda body, at: body[:at] + body[at + 1 :],
    lambda body, at: body[:at] + bytes([at % 256]) + body[at:],
    lambda body, at: body[:at] + b"\n\n" + body[at:],
    lambda body, at: body.replace(b"\n\n", b"\n", 1),
    lambda body, at: body.replace(b"\n", b"\r\n"),
    lambda body, at: body.replace(b"data: ", b"data:"),
    lambda body, at: body.replace(b"data: ", b"", 1),
    lambda body, at: b"error: " + body[:at],
]


def mutated(chance: random.Random) -> Script:
    """A recorded stream with a few mutations, in pieces."""
    events = chance.choice(RECORDED).rstrip(b"\n").split(b"\n\n")
    for _ in range(chance.randrange(1, 4)):
        if events:
            in_events(events, chance)
    body = b"\n\n".join(events) + b"\n\n"
    if chance.random() < 0.3:
        body = chance.choice(BYTES)(body, chance.randrange(len(body)))
    cuts = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(3)))
    steps: list[Any] = [body[start:end] for start, end in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    if chance.random() < 0.1:
        steps.append(BREAK)
    status = chance.choice([200] * 9 + [429])
    return Script(steps, status, chance.choice(["text/event-stream"] * 3 + ["application/json", None]))


def ends(format: str, answer: Answer) -> int:
    """How many terminal events the answer has; the last event is one."""
    events = named(answer)
    if format == "typed":
        kinds = [name in ("cancel", "error") or (name == "done" and payload["final"]) for name, payload in events]
    elif format == "plain":
        kinds = [payload == "[DONE]" or name in ("error", "cancelled") for name, payload in events]
    else:
        kinds = [payload == "[DONE]" or bool(payload.get("error")) for _, payload in events]
    assert kinds[-1:] == [True]
    return sum(kinds)


def understood(steps: list[bytes]) -> tuple[str, Any]:
    """What the steps come to: how the answer ends, and the message."""
    body, stage, end = Body(), Stage(), "whole"
    try:
        for step in steps:
            for one in body.feed(step) if not body.done and not body.failure else ():
                stage.add(one)
        for one in body.end() if not body.done and not body.failure else ():
            stage.add(one)
        if body.failure:
            raise body.failure
        stage.end()
    except UpstreamFailed as failure:
        end = failure.code
    return end, message(stage.text.whole(), stage.fields.whole(), stage.calls)


def test_it_makes_no_difference_where_a_body_is_cut() -> None:
    ends: set[str] = set()
    for seed in range(3000):
        chance = random.Random(seed)
        body = b"".join(step for step in mutated(chance).steps if isinstance(step, bytes))
        at = sorted(chance.randrange(len(body) + 1) for _ in range(chance.randrange(1, 40)))
        pieces = [body[start:end] for start, end in zip([0, *at], [*at, len(body)], strict=True)]
        whole = understood([body])
        assert understood(pieces) == whole, (seed, body)
        ends.add(whole[0])
    assert {"whole", "bad_chunk", "cut", "upstream_error", "not_a_stream", "empty"} <= ends


@pytest.mark.parametrize("batch", range(BATCHES))
async def test_whatever_comes_the_answer_ends_once_and_nothing_is_left_open(
    batch: int, caplog: pytest.LogCaptureFixture
) -> None:
    chance = random.Random(batch)
    scripts = [mutated(chance) for _ in range(EACH)]
    codes: set[str] = set()
    async with sidecar(*scripts, chunk_end()) as s:
        while s.asked < EACH:
            format, first = chance.choice([*FORMATS]), s.asked
            tools = ["calculate", CLIENTS] if format == "typed" or "merged" in format else []
            answer = await ask(s, format, **({"tools": tools} if tools else {}))
            try:
                assert b'"internal"' not in answer.body
                assert b"item_error" not in answer.body
                if answer.status == 200 and "whole" not in format:
                    assert ends(format, answer) == 1
                else:
                    assert answer.status in (200, 400, 404, 429, 502)
                states = await s.get("/streams", JSON)
                assert states.status == 200
                for state in states.json["streams"]:
                    assert state["state"] in (State.DONE, State.FAILED)
                    codes.add(state.get("error", {}).get("code", "none"))
                store = s.app.service.store
                assert (store.busy, store.watchers) == (0, 0)
                await s.upstream.wait_for(running=0)
            except BaseException:
                print(f"batch {batch}, {format}, scripts {first} to {s.asked}:", *scripts[first : s.asked], sep="\n")
                raise
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert {"none", "bad_chunk"} <= codes


def chunk_end() -> Script:
    """What every request gets that comes after the mutated streams."""
    return Script([chunk("end"), finish(), DONE])

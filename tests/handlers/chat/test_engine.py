"""The tool loop, in front of a real server."""

import asyncio
import gzip
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest

from handlers.chat.engine import AT_ONCE, MAX_ANSWER, TURN
from handlers.chat.formats.base import ChatFormat
from handlers.chat.formats.openai import OpenAI
from handlers.chat.formats.typed import Typed
from handlers.chat.items import (
    CallBegun,
    CallDelta,
    CallEnded,
    Chunk,
    Reasoning,
    Refusal,
    StageBegun,
    StageDone,
    ToolResult,
    ToolsDone,
    UpstreamFailed,
    add_usage,
)
from handlers.chat.request import Offer
from handlers.chat.tools import Outcome, Toolbox
from sidecar.functions import function
from sse.stream import MAX_EVENT, State, Trigger
from tests.support.chat import MESSAGES, chat
from tests.support.streams import stream_of
from tests.support.upstream import DONE, HANG, call, chunk, chunk_object, event, finish, reply, usage

SUM = call("calculate", '{"expression": "6*7"}')
CALLED = reply(chunk("Let me see. "), SUM, finish("tool_calls"), usage(1, 2), DONE)
ANSWERED = reply(chunk("42"), finish(), usage(3, 4), DONE)
CLIENTS = {"type": "function", "function": {"name": "lookup"}}


def kinds(items: list[Any]) -> list[str]:
    """What came but for what the model says."""
    said = (Chunk, CallBegun, CallDelta, CallEnded)
    return [type(item).__name__ for item in items if not isinstance(item, said)]


async def test_an_answer_in_one_stage() -> None:
    async with chat(ANSWERED) as c:
        items = await c.items({"temperature": 0.5, "seed": 7})
    assert kinds(items) == ["StageBegun", "StageDone"]
    assert items[-1] == StageDone("stop", {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}, True)
    sent = c.upstream.requests[0].body
    assert (sent["model"], sent["stream"], sent["temperature"], sent["seed"]) == ("test", True, 0.5, 7)
    assert sent["stream_options"] == {"include_usage": True}


async def test_a_tool_leads_to_the_next_stage() -> None:
    async with chat(CALLED, ANSWERED) as c:
        answer = c.answer({"tools": ["calculate"]})
        items = [item async for item in answer]
    assert kinds(items) == ["StageBegun", "ToolResult", "ToolsDone", "StageDone", "StageBegun", "StageDone"]
    assert [item.final for item in items if isinstance(item, StageDone)] == [False, True]
    first, second = (request.body for request in c.upstream.requests)
    assert [tool["function"]["name"] for tool in first["tools"]] == ["calculate"]
    assert second["messages"][1:] == [
        {
            "role": "assistant",
            "content": "Let me see. ",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "calculate", "arguments": '{"expression": "6*7"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "42"},
    ]
    result = answer.result
    assert (result["text"], result["finish_reason"], result["tool_calls"]) == ("Let me see. 42", "stop", [])
    assert result["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}
    assert [stage["text"] for stage in result["stages"]] == ["Let me see. ", "42"]


async def test_tools_run_in_parallel_and_come_out_as_they_finish() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    @function
    async def one() -> str:
        first.set()
        await second.wait()
        return "one"

    @function
    async def two() -> str:
        await first.wait()
        second.set()
        return "two"

    calls = reply(call("one", "{}", id="a"), call("two", "{}", id="b"), finish("tool_calls"), DONE)
    async with chat(calls, ANSWERED, tools=(one, two)) as c:
        items = await c.items({"tools": ["one", "two"]})
        messages = c.upstream.requests[1].body["messages"]
    assert {item.outcome.value for item in items if isinstance(item, ToolResult)} == {"one", "two"}
    [summary] = [item for item in items if isinstance(item, ToolsDone)]
    assert [result.call.id for result in summary.results] == ["a", "b"]
    assert [message["content"] for message in messages[-2:]] == ["one", "two"]


WRONG = {
    "bad json": ('{"expression": ', "not JSON"),
    "wrong parameters": ('{"formula": "1"}', "formula is no parameter of calculate"),
    "raised": ('{"expression": "1/0"}', "division by zero"),
}


@pytest.mark.parametrize(("arguments", "error"), WRONG.values(), ids=WRONG.keys())
async def test_the_model_is_told_what_went_wrong_and_the_answer_goes_on(arguments: str, error: str) -> None:
    async with chat(reply(call("calculate", arguments), finish("tool_calls"), DONE), ANSWERED) as c:
        items = await c.items({"tools": ["calculate"]})
        messages = c.upstream.requests[1].body["messages"]
    [summary] = [item for item in items if isinstance(item, ToolsDone)]
    assert summary.results[0].summary()["ok"] is False
    assert error in summary.results[0].summary()["error"]
    assert error in messages[-1]["content"]
    if error == "not JSON":
        assert messages[-2]["tool_calls"][0]["function"]["arguments"] == "{}"


async def test_surrogates_that_were_cut_apart_are_joined_before_they_go_back() -> None:
    @function
    def echo(text: str) -> str:
        return text

    script = reply(call("echo", '{"text": "\ud83d'), call("echo", '\ude00"}'), finish("tool_calls"), DONE)
    async with chat(script, ANSWERED, tools=(echo,)) as c:
        await c.items({"tools": ["echo"]})
        *_, asked, told = c.upstream.requests[1].body["messages"]
    assert asked["tool_calls"][0]["function"]["arguments"] == '{"text": "😀"}'
    assert told["content"] == "😀"


async def test_a_thousand_calls_are_run_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once they held up the event loop for half a second, and above 1,016 some could be refused."""
    running, most, run = 0, 0, Toolbox.call

    async def counted(*args: Any) -> Outcome:
        nonlocal running, most
        running += 1
        most = max(most, running)
        outcome = await run(*args)
        running -= 1
        return outcome

    monkeypatch.setattr(Toolbox, "call", counted)
    calls = [call("current_time", "{}", id=f"c{number}", index=number) for number in range(1200)]
    async with chat(reply(*calls, finish("tool_calls"), DONE), ANSWERED) as c:
        items = await c.items({"tools": ["current_time"]})
    assert [item.outcome.error for item in items if isinstance(item, ToolResult)] == [None] * 1200
    assert most == AT_ONCE


async def test_a_tool_that_was_not_offered_is_unknown() -> None:
    async with chat(reply(call("current_time", "{}"), finish("tool_calls"), DONE), ANSWERED) as c:
        answer = c.answer({"tools": ["calculate"]})
        assert kinds([item async for item in answer])[-1] == "StageDone"
    assert answer.result["stages"][0]["calls"][0]["error"] == "there is no tool named 'current_time'"


async def test_the_clients_calls_end_the_answer_as_pending() -> None:
    async with chat(reply(call("lookup", '{"a": 1}'), finish("tool_calls"), DONE)) as c:
        answer = c.answer({"tools": ["calculate", CLIENTS]})
        items = [item async for item in answer]
    assert kinds(items) == ["StageBegun", "StageDone"]
    done = items[-1]
    assert isinstance(done, StageDone)
    assert (done.final, [call.name for call in done.pending]) == (True, ["lookup"])
    assert answer.result["tool_calls"][0]["function"] == {"name": "lookup", "arguments": '{"a": 1}'}


BOTH = reply(SUM, call("lookup", "{}", id="b", index=1), finish("tool_calls"), DONE)


@pytest.mark.parametrize(("format", "ran"), [(Typed, 1), (OpenAI, 0)], ids=["chat runs the sidecar's", "v1 runs none"])
async def test_a_stage_with_calls_of_both_kinds(format: type[ChatFormat], ran: int) -> None:
    async with chat(BOTH) as c:
        answer = c.answer({"tools": ["calculate", CLIENTS], "stream": True}, format)
        items = [item async for item in answer]
    assert sum(isinstance(item, ToolResult) for item in items) == ran
    assert [call["function"]["name"] for call in answer.result["tool_calls"]] == ["lookup"]
    assert len(c.upstream.requests) == 1


PIECES = reply(
    event(chunk_object({"reasoning_content": "Six", "content": "Let"})),
    event(chunk_object({"reasoning": " times seven."})),
    event(chunk_object({"refusal": "No."})),
    call("calculate", '{"expression":', id="a"),
    call("lookup", '{"a":1}', id="b", index=1),
    call("", ' "6*7"}', id=None),
    finish("tool_calls"),
    DONE,
)


async def test_what_a_stage_says_comes_in_pieces_and_each_call_is_known_by_its_index() -> None:
    async with chat(PIECES) as c:
        items = await c.items({"tools": ["calculate", CLIENTS]})
    said = [item for item in items if not isinstance(item, Chunk | StageBegun)]
    assert said[:3] == [Reasoning("Six"), Reasoning(" times seven."), Refusal("No.")]
    assert said[3:8] == [
        CallBegun(0, "a", "calculate"),
        CallDelta(0, '{"expression":'),
        CallBegun(1, "b", "lookup"),
        CallDelta(1, '{"a":1}'),
        CallDelta(0, ' "6*7"}'),
    ]
    whole = [item.call for item in said[8:10] if isinstance(item, CallEnded)]
    assert [(call.index, call.id, call.name, call.arguments) for call in whole] == [
        (0, "a", "calculate", '{"expression": "6*7"}'),
        (1, "b", "lookup", '{"a":1}'),
    ]
    assert [type(item) for item in said[10:]] == [ToolResult, ToolsDone, StageDone]
    assert items.index(Reasoning("Six")) < next(i for i, item in enumerate(items) if isinstance(item, Chunk) and item.text)


async def test_a_call_without_arguments_begins_when_the_model_has_said_all() -> None:
    async with chat(reply(call("lookup", ""), finish("tool_calls"), DONE)) as c:
        items = await c.items({"tools": [CLIENTS]})
    deltas = [item for item in items if isinstance(item, CallBegun | CallDelta)]
    assert deltas == [CallBegun(0, "call_1", "lookup"), CallDelta(0, "{}")]
    assert kinds(items) == ["StageBegun", "StageDone"]


async def test_an_answer_in_one_piece_is_all_stages_in_one() -> None:
    async with chat(CALLED, ANSWERED) as c:
        completion = json.loads((await c.answer({"tools": ["calculate"]}).whole()).body)
    [choice] = completion["choices"]
    assert choice == {"index": 0, "message": {"role": "assistant", "content": "Let me see. 42"}, "finish_reason": "stop"}
    assert completion["id"] == "chatcmpl-1"
    assert completion["usage"] == {"prompt_tokens": 4, "completion_tokens": 6, "total_tokens": 10}


async def test_without_an_iteration_it_is_what_the_upstream_says_untouched() -> None:
    body = b'{"id": "x",\n "choices": []}'
    async with chat(reply(body, content_type="application/json")) as c:
        assert (await c.answer(format=OpenAI).whole()).body == body


async def test_of_an_event_stream_in_its_place_an_answer_is_made() -> None:
    stream = reply(
        event(chunk_object({"role": "assistant", "content": "", "reasoning_content": "h"})),
        event(chunk_object({"reasoning_content": "m"})),
        chunk("Hel"),
        chunk("lo"),
        call("f", '{"x":'),
        call("", "1}"),
        finish("tool_calls"),
        usage(1, 2),
        DONE,
        headers={"openai-version": "2"},
    )
    async with chat(stream) as c:
        answer = await c.answer(format=OpenAI).whole()
    assert answer.headers == {"openai-version": "2"}
    value = json.loads(answer.body)
    assert (value["id"], value["object"], value["usage"]["total_tokens"]) == ("chatcmpl-1", "chat.completion", 3)
    [choice] = value["choices"]
    function = {"name": "f", "arguments": '{"x":1}'}
    assert choice == {
        "index": 0,
        "message": {
            "role": "assistant",
            "content": "Hello",
            "reasoning_content": "hm",
            "tool_calls": [{"id": "call_1", "type": "function", "function": function}],
        },
        "finish_reason": "tool_calls",
    }


async def test_of_several_choices_in_an_event_stream_the_first_one_is_made() -> None:
    second: Any = {"index": 1, "delta": {"content": "b"}}
    async with chat(reply(event({"choices": [second]}) + chunk("a") + DONE)) as c:
        answer = await c.answer({"n": 2}, OpenAI).whole()
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "a"


@pytest.mark.parametrize("tools", [[], ["calculate"]], ids=["one request", "with tools"])
async def test_a_long_event_stream_leaves_turns_to_others(tools: list[str]) -> None:
    """Compressed, all of it comes at once."""
    body = chunk("a") * 10_000 + finish() + DONE
    async with chat(reply(gzip.compress(body), headers={"content-encoding": "gzip"})) as c:
        making = asyncio.create_task(c.answer({"tools": tools}, OpenAI).whole())
        turns = 0
        while not making.done():
            await asyncio.sleep(0)
            turns += 1
        assert b'"content":"%b"' % (b"a" * 10_000) in making.result().body
    assert turns >= 10_000 / TURN


async def test_a_failure_in_a_later_stage_is_no_answer() -> None:
    async with chat(CALLED, reply(chunk("4"))) as c:
        with pytest.raises(UpstreamFailed) as caught:
            await c.answer({"tools": ["calculate"]}).whole()
    assert (caught.value.code, caught.value.status) == ("cut", 502)


def thought(text: str, **fields: Any) -> bytes:
    return event(chunk_object({"content": None, **fields, **({"reasoning_content": text} if text else {})}))


SAID: dict[str, Callable[[str], bytes]] = {
    "text": chunk,
    "reasoning": thought,
    "reasoning in parts": lambda text: thought("", reasoning_details=[{"type": "reasoning.text", "text": text, "index": 0}]),
    "arguments": lambda text: event(
        chunk_object({"tool_calls": [{"index": 0, "function": {"name": "x", "arguments": "{" + text}}]})
    ),
}


@pytest.mark.parametrize("piece", SAID.values(), ids=SAID)
async def test_an_answer_that_does_not_end_is_given_up(piece: Callable[[str], bytes]) -> None:
    """A format that writes the whole text once more at the end would hold it several times."""
    async with chat(reply(*[piece("a" * MAX_EVENT)] * (MAX_ANSWER // MAX_EVENT + 1), HANG)) as c:
        with pytest.raises(UpstreamFailed) as caught:
            await c.items()
        await c.upstream.wait_for(running=0)
    assert (caught.value.code, caught.value.retryable) == ("too_long", False)


@pytest.mark.parametrize("piece", SAID.values(), ids=SAID)
async def test_a_long_answer_in_small_pieces_costs_little_more_than_its_text(piece: Callable[[str], bytes]) -> None:
    """20,000 pieces of four characters, each of which would take 60 to 700 bytes by itself."""
    count, costs = 20_000, list[tuple[int, int]]()
    async with chat(*[reply(piece("word") * pieces, finish(), DONE) for pieces in (1, 1, count)]) as c:
        await c.items()  # what is made once and kept
        for _ in range(2):
            answer = c.answer()
            tracemalloc.start()
            try:
                before, _ = tracemalloc.get_traced_memory()
                async for _item in answer:
                    pass
                costs.append((tracemalloc.get_traced_memory()[0] - before, answer.kept.size))
            finally:
                tracemalloc.stop()
    taken, charged = (long - short for short, long in zip(*costs, strict=True))
    assert count * 4 < taken < count * 60
    assert taken < charged < 5 * taken


async def test_cancelling_an_answer_in_one_piece_closes_the_connection() -> None:
    async with chat(reply(chunk("a"), HANG)) as c:
        task = asyncio.create_task(c.answer({"tools": ["calculate"]}).whole())
        await c.upstream.wait_for(running=1)
        task.cancel()
        await c.upstream.wait_for(running=0)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_max_stages_is_the_end_and_does_not_pass_for_success() -> None:
    async with chat(CALLED) as c:
        answer = c.answer({"tools": ["calculate"], "max_stages": 3})
        items = [item async for item in answer]
    assert len(c.upstream.requests) == 3
    assert sum(isinstance(item, ToolResult) for item in items) == 2
    assert answer.result["finish_reason"] == "length"


BROKEN_OFF = [
    "length", "max_tokens", "MAX_TOKENS", "max_output_tokens", "model_length", "content_filter", "SAFETY", "RECITATION",
    "blocklist", "PROHIBITED_CONTENT", "SPII", "error", "ERROR_TOXIC", "MALFORMED_FUNCTION_CALL",
    "insufficient_system_resource", "guardrail_intervened", "cancelled", "aborted", "refusal",
    "model_context_window_exceeded", "incomplete", "FinishReason.MAX_TOKENS",
]  # fmt: skip
MEANT = [
    "tool_calls", "stop", "function_call", "tool_use", "TOOL_CALL", "end_turn", "eos", "COMPLETE", "stop_sequence",
    "unknown",
]  # fmt: skip


@pytest.mark.parametrize("reason", BROKEN_OFF)
async def test_calls_of_an_answer_that_was_broken_off_are_not_run(reason: str) -> None:
    async with chat(reply(SUM, finish(reason), DONE)) as c:
        items = await c.items({"tools": ["calculate"]})
    assert kinds(items) == ["StageBegun", "StageDone"]
    assert items[-1] == StageDone(reason, None, True)


ENDS = {reason: (finish(reason), DONE) for reason in MEANT} | {
    "none": (DONE,),
    "null, as a text": (finish("null"), DONE),
}


@pytest.mark.parametrize("end", ENDS.values(), ids=ENDS.keys())
async def test_calls_are_run_whatever_else_the_finish_reason_says(end: tuple[bytes, ...]) -> None:
    async with chat(reply(SUM, *end), ANSWERED) as c:
        assert "ToolResult" in kinds(await c.items({"tools": ["calculate"]}))


# -- what goes back to the model


SIGNED = {"extra_content": {"google": {"thought_signature": "c2ln"}}}
SIGNED_CALL = {
    "index": 0,
    "id": "call_1",
    "type": "function",
    "function": {"name": "calculate", "arguments": '{"expression": "6*7"}'},
    **SIGNED,
}
DETAIL = {"type": "reasoning.text", "index": 0, "format": "f"}
BACK: dict[str, tuple[list[bytes], dict[str, Any], dict[str, Any]]] = {
    "DeepSeek": ([thought("Six "), thought("times seven.")], {"reasoning_content": "Six times seven."}, {}),
    "Gemini": ([event(chunk_object({"tool_calls": [SIGNED_CALL]}))], {}, SIGNED),
    "OpenRouter": (
        [
            thought("", reasoning="Six ", reasoning_details=[{**DETAIL, "text": "Six "}]),
            thought("", reasoning="times.", reasoning_details=[{**DETAIL, "text": "times."}]),
            thought("", reasoning_details=[{"type": "reasoning.text", "index": 0, "signature": "s"}]),
        ],
        {"reasoning": "Six times.", "reasoning_details": [{**DETAIL, "text": "Six times.", "signature": "s"}]},
        {},
    ),
    "what nobody here knows": ([thought("", new={"a": ["x"]})], {"new": {"a": ["x"]}}, {}),
    "Mistral": (
        [
            event(chunk_object({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "Si"}]}]})),
            event(chunk_object({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "x."}]}]})),
            chunk("Let "),
            chunk("me see."),
        ],
        {
            "content": [
                {"type": "thinking", "thinking": [{"type": "text", "text": "Six."}]},
                {"type": "text", "text": "Let me see."},
            ]
        },
        {},
    ),
}


@pytest.mark.parametrize(("said", "message", "call_fields"), BACK.values(), ids=BACK.keys())
async def test_the_assistants_message_goes_back_whole(
    said: list[bytes], message: dict[str, Any], call_fields: dict[str, Any]
) -> None:
    calls = [] if call_fields else [SUM]
    async with chat(reply(*said, *calls, finish("tool_calls"), DONE), ANSWERED) as c:
        await c.items({"tools": ["calculate"]})
        back = c.upstream.requests[1].body["messages"][1]
    function = {"name": "calculate", "arguments": '{"expression": "6*7"}'}
    made = [{"id": "call_1", "type": "function", "function": function, **call_fields}]
    assert back == {"role": "assistant", "content": None, **message, "tool_calls": made}


@pytest.mark.parametrize("arguments", ["", " ", None])
async def test_arguments_that_are_empty_go_back_as_an_object(arguments: Any) -> None:
    async with chat(reply(call("current_time", arguments), finish("tool_calls"), DONE), ANSWERED) as c:
        items = await c.items({"tools": ["current_time"]})
        back = c.upstream.requests[1].body["messages"][1]["tool_calls"][0]["function"]
    assert back == {"name": "current_time", "arguments": "{}"}
    assert [item.outcome.error for item in items if isinstance(item, ToolResult)] == [None]


async def test_ids_that_come_again_in_a_later_stage_are_made_unique() -> None:
    async with chat(CALLED, CALLED, ANSWERED) as c:
        await c.items({"tools": ["calculate"]})
        messages = c.upstream.requests[2].body["messages"]
    assert [m["tool_call_id"] for m in messages if m["role"] == "tool"] == ["call_1", "call_1_2"]


async def test_the_head_is_that_of_the_first_chunk_with_a_choice() -> None:
    filtered = event({"choices": [], "created": 0, "id": "", "model": "", "prompt_filter_results": []})
    odd = event({"choices": [{"index": 0, "delta": {"content": "a"}}], "id": None, "created": "now", "model": 5})
    async with chat(reply(filtered, *CALLED.steps), ANSWERED) as c:
        items = await c.items({"tools": ["calculate"]})
    [result] = [item for item in items if isinstance(item, ToolResult)]
    assert result.head == {"id": "chatcmpl-1", "created": 1700000000, "model": "test"}
    async with chat(reply(odd, *CALLED.steps), ANSWERED) as c:
        items = await c.items({"tools": ["calculate"]})
    [result] = [item for item in items if isinstance(item, ToolResult)]
    assert [type(result.head[name]) for name in ("id", "created", "model")] == [str, int, str]
    assert result.head["id"]


async def test_an_answer_in_one_piece_has_what_the_client_has_to_hand_back() -> None:
    second = reply(
        thought("Now ask."), event(chunk_object({"tool_calls": [{**SIGNED_CALL, "function": {"name": "lookup"}}]})), DONE
    )
    async with chat(reply(thought("Six. "), SUM, finish("tool_calls"), DONE), second) as c:
        completion = json.loads((await c.answer({"tools": ["calculate", CLIENTS]}).whole()).body)
    message = completion["choices"][0]["message"]
    assert message["reasoning_content"] == "Six. Now ask."
    [made] = message["tool_calls"]
    assert (made["extra_content"], made["function"]) == (SIGNED["extra_content"], {"name": "lookup", "arguments": "{}"})


async def test_a_choice_that_forces_a_call_holds_for_the_first_stage_only() -> None:
    async with chat(CALLED, ANSWERED) as c:
        await c.items({"tools": ["calculate"], "tool_choice": "required"})
    assert [request.body.get("tool_choice") for request in c.upstream.requests] == ["required", None]


async def test_the_result_can_be_read_while_the_answer_runs() -> None:
    go = asyncio.Event()
    async with chat(reply(chunk("Hel"), go, chunk("lo"), finish(), DONE)) as c:
        answer = c.answer()
        assert answer.result["text"] == ""
        assert isinstance(await anext(answer), StageBegun)
        await anext(answer)
        assert (answer.result["text"], answer.result["finish_reason"]) == ("Hel", None)
        go.set()
        [item async for item in answer]
    assert (answer.result["text"], answer.result["finish_reason"]) == ("Hello", "stop")


async def test_an_answer_that_was_opened_and_never_read_is_closed() -> None:
    async with chat(reply(chunk("a"), HANG)) as c:
        answer = c.answer(format=OpenAI)
        await answer.open()
        assert c.upstream.running == 1
        await answer.aclose()
        await c.upstream.wait_for(running=0)


class Noticing(Typed):
    """Says when a chunk is written."""

    def __init__(self) -> None:
        super().__init__({"messages": MESSAGES}, Offer())
        self.chunk = asyncio.Event()

    def item(self, item: Any) -> bytes:
        if isinstance(item, Chunk):
            self.chunk.set()
        return super().item(item)


MOMENTS = {
    "before the headers": (reply(HANG), False),
    "before the first token": (reply(b": wait\n\n", HANG), False),
    "between tokens": (reply(chunk("a"), HANG), True),
}


@pytest.mark.parametrize(("script", "begun"), MOMENTS.values(), ids=MOMENTS.keys())
async def test_cancelling_closes_the_upstreams_connection(script: Any, begun: bool) -> None:
    loop = asyncio.get_running_loop()
    async with chat(script) as c:
        times = []
        for _ in range(10):
            format = Noticing()
            stream = stream_of(c.answer(), format, linger=None)
            await c.upstream.wait_for(running=1)
            if begun:
                await format.chunk.wait()
            began = loop.time()
            stream.end(Trigger.DELETED)
            await c.upstream.wait_for(running=0)
            times.append(loop.time() - began)
            await stream.closed()
            assert stream.state is State.CANCELLED
    assert sorted(times)[-2] < 0.05


async def test_cancelling_during_a_tool_cancels_the_tool() -> None:
    begun, cancelled = asyncio.Event(), asyncio.Event()

    @function
    async def hang() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with chat(reply(call("hang", "{}"), finish("tool_calls"), DONE), tools=(hang,)) as c:
        answer = c.answer({"tools": ["hang"]})
        stream = stream_of(answer, answer.format, linger=None)
        await begun.wait()
        await c.upstream.wait_for(running=0)  # nothing is kept open while tools run
        stream.end(Trigger.DELETED)
        await stream.closed()
    assert cancelled.is_set()


SUMS: dict[str, tuple[list[Any], Any]] = {
    "none": ([None, None], None),
    "one": ([{"a": 1}, None], {"a": 1}),
    "two": ([{"a": 1, "d": {"x": 1}}, {"a": 2, "b": 3, "d": {"x": 2, "y": 1}}], {"a": 3, "b": 3, "d": {"x": 3, "y": 1}}),
    "null details": ([{"a": 1, "d": None}, {"a": 1, "d": {"x": 1}}], {"a": 2, "d": {"x": 1}}),
    "details that become null": ([{"d": {"x": 1}}, {"d": None}], {"d": {"x": 1}}),
    "one, of any shape": ([{"a": "12", "b": [1], "c": True, "d": None}], {"a": "12", "b": [1], "c": True, "d": None}),
    "texts": ([{"a": "12"}, {"a": "13"}], {"a": "13"}),
    "flags": ([{"a": True}, {"a": True}], {"a": True}),
    "lists": ([{"a": [1]}, {"a": [2]}], {"a": [2]}),
    "shapes that change": (
        [{"a": 1, "d": {"x": 1}, "e": 5}, {"a": "n/a", "d": 7, "e": {"x": 1}}],
        {"a": "n/a", "d": 7, "e": {"x": 1}},
    ),
    "no object": ([["n/a"], {"a": 1}], {"a": 1}),
}


@pytest.mark.parametrize(("usages", "total"), SUMS.values(), ids=SUMS.keys())
def test_usage_is_summed(usages: list[Any], total: Any) -> None:
    so_far = None
    for one in usages:
        so_far = add_usage(so_far, one)
    assert so_far == total

"""Answers in one piece, and what comes in their place."""

import asyncio
import json
from typing import Any

import pytest

from handlers.chat.items import UpstreamFailed, Whole
from handlers.chat.upstream.whole import PORTION, checked
from tests.support.upstream import DONE, call, chunk, chunk_object, event, finish, usage


async def test_an_answer_stays_as_it_is() -> None:
    for body in (b'{ "id": "x",\n "choices": [ ] }', b'{"choices":[{"message":{"content":"a"},"error":null}]}', b"{}"):
        answer = Whole(200, body, {"content-type": "application/json"})
        assert await checked(answer) is answer


async def test_of_an_event_stream_an_answer_is_made() -> None:
    body = b"".join(
        [
            event(chunk_object({"role": "assistant", "content": "", "reasoning_content": "h"})),
            event(chunk_object({"reasoning_content": "m"})),
            chunk("Hel"),
            chunk("lo"),
            call("f", '{"x":'),
            call("", "1}"),
            finish("tool_calls"),
            usage(1, 2),
            DONE,
        ]
    )
    answer = await checked(Whole(200, body, {"content-type": "text/event-stream", "openai-version": "2"}))
    assert answer.headers == {"content-type": "application/json", "openai-version": "2"}
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


WRONG: dict[str, tuple[bytes, str, str]] = {
    "an error": (b'{"error": {"message": "Slow down."}}', "upstream_error", "Slow down."),
    "an error in a choice": (b'{"choices": [{"error": {"message": "Slow down."}}]}', "upstream_error", "Slow down."),
    "a list": (b'[{"error": {"message": "Slow down."}}]', "upstream_error", "Slow down."),
    "a page": (b"<html>Slow down.</html>", "not_a_stream", "Slow down."),
    "nothing": (b" ", "empty", ""),
    "a stream that says error": (b'data: {"error": "Slow down."}\n\n', "upstream_error", "Slow down."),
    "a stream that was cut": (chunk("a"), "cut", ""),
}


@pytest.mark.parametrize(("body", "code", "said"), WRONG.values(), ids=WRONG.keys())
async def test_what_is_no_answer(body: bytes, code: str, said: str) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await checked(Whole(200, body))
    assert caught.value.code == code
    assert said in caught.value.message


async def test_of_several_choices_the_first_one_is_made() -> None:
    second: Any = {"index": 1, "delta": {"content": "b"}}
    answer = await checked(Whole(200, event({"choices": [second]}) + chunk("a") + DONE), several=True)
    assert json.loads(answer.body)["choices"][0]["message"]["content"] == "a"


async def test_a_long_event_stream_leaves_turns_to_others() -> None:
    body = chunk("a") * 10_000 + finish() + DONE
    checking = asyncio.create_task(checked(Whole(200, body)))
    turns = 0
    while not checking.done():
        await asyncio.sleep(0)
        turns += 1
    assert b'"content":"%b"' % (b"a" * 10_000) in checking.result().body
    assert turns >= len(body) / PORTION

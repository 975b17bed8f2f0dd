"""The events and the object of a response, written by the whole application in front of a real upstream."""

import json
from typing import Any

import pytest

from handlers.chat.formats.responses import SILENCE, Responses
from handlers.chat.items import CallDelta, Chunk, StageBegun, StageDone
from handlers.chat.request import Offer
from handlers.chat.responses import asked
from sse.errors import SourceFailed
from sse.formats import Written
from sse.stream import MAX_EVENT
from tests.support.chat import encoded
from tests.support.chatting import Sidecar, sidecar
from tests.support.formats import events
from tests.support.responding import EVERYTHING, HELLO, RESPONSES, kinds, payloads, refusal
from tests.support.upstream import DONE, call, chunk, finish, reply, usage


async def streamed(s: Sidecar, **body: Any) -> list[dict[str, Any]]:
    return payloads(await s.post({"input": "Hi", "stream": True, **body}, RESPONSES))


def numbers(found: list[dict[str, Any]]) -> list[int]:
    return [event["sequence_number"] for event in found]


async def test_a_text_is_one_message() -> None:
    async with sidecar(HELLO) as s:
        found = await streamed(s)
    assert kinds(found) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert numbers(found) == list(range(10))
    created, *_, added, part, first, _, text, _, done, completed = found
    assert (created["response"]["status"], created["response"]["output"], created["response"]["usage"]) == (
        "in_progress",
        [],
        None,
    )
    assert (added["item"]["status"], added["item"]["content"]) == ("in_progress", [])
    assert part["part"] == {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    place = {"item_id": added["item"]["id"], "output_index": 0, "content_index": 0}
    assert first == {"type": "response.output_text.delta", "sequence_number": 4, **place, "logprobs": [], "delta": "Hel"}
    assert text == {"type": "response.output_text.done", "sequence_number": 6, **place, "logprobs": [], "text": "Hello"}
    assert completed["response"]["output"] == [done["item"]]
    assert done["item"]["content"] == [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}]
    assert completed["response"]["usage"] == {
        "input_tokens": 3,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens": 2,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 5,
    }


async def test_reasoning_text_and_calls_are_items_one_after_another() -> None:
    async with sidecar(EVERYTHING) as s:
        found = await streamed(s)
    assert numbers(found) == list(range(len(found)))
    message = ["output_item.added", "content_part.added"]
    assert kinds(found) == [
        "created",
        "in_progress",
        *(*message, *["reasoning_text.delta"] * 2, "reasoning_text.done", "content_part.done", "output_item.done"),
        *(*message, *["output_text.delta"] * 2, "output_text.done", "content_part.done", "output_item.done"),
        *("output_item.added", *["function_call_arguments.delta"] * 2),
        *("output_item.added", "function_call_arguments.delta"),
        *["function_call_arguments.done", "output_item.done"] * 2,
        "completed",
    ]
    output = found[-1]["response"]["output"]
    assert [(item["type"], item["status"]) for item in output] == [
        ("reasoning", "completed"),
        ("message", "completed"),
        ("function_call", "completed"),
        ("function_call", "completed"),
    ]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "Let me see."}]
    assert [(item["call_id"], item["name"], item["arguments"]) for item in output[2:]] == [
        ("call_1", "lookup", '{"word": "a"}'),
        ("call_2", "lookup", '{"word": "b"}'),
    ]
    assert len({item["id"] for item in output}) == 4


async def test_a_refusal_after_text_is_the_next_part_of_the_message() -> None:
    async with sidecar(reply(chunk("Well, "), refusal("I can't."), chunk(" Sorry."), finish(), DONE)) as s:
        found = await streamed(s)
    [message] = found[-1]["response"]["output"]
    assert [part.get("text", part.get("refusal")) for part in message["content"]] == ["Well, ", "I can't.", " Sorry."]
    assert [event["content_index"] for event in found if event["type"] == "response.content_part.added"] == [0, 1, 2]
    assert kinds(found).count("output_item.added") == 1


async def test_the_sidecars_tools_are_calls_and_their_outputs() -> None:
    """Between the stages; ids of calls that a server gives anew in each stage are told apart."""
    first = reply(chunk("So: "), call("calculate", '{"expression": "6*7"}'), finish("tool_calls"), usage(1, 2), DONE)
    second = reply(call("calculate", '{"expression": "1+"}'), finish("tool_calls"), usage(3, 4), DONE)
    async with sidecar(first, second, HELLO) as s:
        found = await streamed(s, tools=["calculate"])
        *_, message = s.upstream.requests[1].body["messages"]
    response = found[-1]["response"]
    assert [item["type"] for item in response["output"]] == [
        "message",
        *["function_call", "function_call_output"] * 2,
        "message",
    ]
    assert [item["call_id"] for item in response["output"] if "call_id" in item] == ["call_1", "call_1", "call_1_2", "call_1_2"]
    assert (response["output"][2]["output"], message["content"]) == ("42", "42")
    assert "error" in response["output"][4]["output"]
    assert response["usage"]["total_tokens"] == 3 + 7 + 5
    assert numbers(found) == list(range(len(found)))


@pytest.mark.parametrize(("reason", "told"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
async def test_an_answer_that_is_cut_is_incomplete(reason: str, told: str) -> None:
    async with sidecar(reply(chunk("Hel"), finish(reason), usage(1, 2), DONE)) as s:
        found = await streamed(s)
    assert kinds(found)[-2:] == ["output_item.done", "incomplete"]
    response = found[-1]["response"]
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": told})
    assert (response["output"][0]["status"], response["usage"]["total_tokens"]) == ("incomplete", 3)


async def test_a_call_that_is_cut_is_incomplete() -> None:
    async with sidecar(reply(call("lookup", '{"wo'), finish("length"), DONE)) as s:
        found = await streamed(s)
    assert [(item["status"], item["arguments"]) for item in found[-1]["response"]["output"]] == [("incomplete", '{"wo')]


async def test_what_it_is_told_of_halves_of_a_character_is_joined_in_the_end() -> None:
    async with sidecar(reply(*(chunk(half) for half in ("\ud83d", "\ude00")), finish(), DONE)) as s:
        found = await streamed(s)
    assert [event["delta"] for event in found if event["type"].endswith("text.delta")] == ["\ud83d", "\ude00"]
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "😀"


async def test_the_details_of_usage_are_the_upstreams() -> None:
    counts = {"prompt_tokens": 9, "completion_tokens": 8, "prompt_tokens_details": {"cached_tokens": 7}}
    counts |= {"completion_tokens_details": {"reasoning_tokens": 6}}
    async with sidecar(reply(chunk("a", usage=counts), finish(), DONE)) as s:
        told = (await streamed(s))[-1]["response"]["usage"]
    assert (told["input_tokens_details"]["cached_tokens"], told["output_tokens_details"]["reasoning_tokens"]) == (7, 6)
    assert told["total_tokens"] == 17


# -- the format alone: what no upstream brings about


def made(**body: Any) -> Responses:
    return asked({"model": "test", **body}, Offer(), [], [{"role": "user", "content": "Hi"}])


def begun(**body: Any) -> tuple[Responses, list[Written]]:
    format = made(**body)
    return format, [format.item(StageBegun(1)), format.item(text("a"))]


def text(content: str) -> Chunk:
    return Chunk(b"{}", {}, content)


def told(written: list[Written]) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in events(b"".join(map(encoded, written)))]


@pytest.mark.parametrize("reason", ["deleted", "abandoned"])
def test_cancelled_is_incomplete_with_a_status_of_its_own(reason: str) -> None:
    format, written = begun()
    found = told([*written, format.cancelled(reason)])
    assert kinds(found)[-4:] == ["output_text.done", "content_part.done", "output_item.done", "incomplete"]
    response = found[-1]["response"]
    assert (response["status"], response["incomplete_details"], response["error"]) == ("cancelled", None, None)
    assert (response["output"][0]["status"], response["usage"]["total_tokens"]) == ("incomplete", 0)


def test_a_shutdown_is_a_failure_that_clients_try_again() -> None:
    format, written = begun(background=True)
    *_, error, failed = told([*written, format.cancelled("shutting_down")])
    assert (error["type"], error["code"]) == ("error", "shutting_down")
    assert (failed["type"], failed["response"]["status"]) == ("response.failed", "failed")
    assert failed["response"]["error"]["code"] == "server_error"


@pytest.mark.parametrize(("end", "args"), [("cancelled", ["deleted"]), ("failed", [SourceFailed("x", "cut")]), ("done", [])])
def test_it_ends_before_it_has_begun(end: str, args: list[Any]) -> None:
    found = told([getattr(made(background=True), end)(*args)])
    assert kinds(found)[:3] == ["created", "queued", "in_progress"]
    assert numbers(found) == list(range(len(found)))
    assert [event["response"]["status"] for event in found[:3]] == ["queued", "queued", "in_progress"]


def test_silence_is_broken_by_what_changes_nothing() -> None:
    format = made()
    written = [format.item(StageBegun(1)), format.item(SILENCE), format.item(text("a")), format.item(SILENCE)]
    written += [format.item(StageDone("tool_calls", None, final=False)), format.item(SILENCE)]
    found = told(written)
    assert kinds(found)[2] == "in_progress"
    assert [event["delta"] for event in found if event["type"].endswith("delta")] == ["a", ""]
    assert found[-1]["type"] == "response.in_progress"
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == "a"
    assert numbers(found) == list(range(len(found)))


def test_what_the_log_would_not_take_leaves_no_hole() -> None:
    format, written = begun()
    long = "x" * MAX_EVENT
    found = told([*written, format.item(text(long)), format.item(text("b")), format.done()])
    assert numbers(found) == list(range(len(found)))
    assert "error" in kinds(found)
    assert found[-1]["response"]["output"][0]["content"][0]["text"] == f"a{long}b"


def test_an_item_that_cant_be_written_leaves_no_hole() -> None:
    format, written = begun()
    with pytest.raises(KeyError):
        format.item(CallDelta(7, "of a call that never began"))
    found = told([*written, format.item_error("KeyError"), format.done()])
    assert numbers(found) == list(range(len(found)))


def test_what_one_client_alone_is_told_has_no_number_and_raises_in_the_sdks() -> None:
    format, _ = begun()
    before = format.object()
    for told_alone in (format.gap(3, 5), format.apology()):
        [event] = told([told_alone])
        assert (event["type"], "sequence_number" in event) == ("error", False)
        assert event["error"]["message"]
    assert format.object() == before
    assert "from the 3. to the 5." in told([format.gap(3, 5)])[0]["error"]["message"]
    assert format.opening("id") is None


@pytest.mark.parametrize("odd", [[], "7", {"prompt_tokens": "7", "prompt_tokens_details": [7]}, {"completion_tokens": None}])
async def test_usage_that_is_none_is_zeros(odd: Any) -> None:
    async with sidecar(reply(chunk("a", usage=odd), finish(), DONE)) as s:
        told = (await streamed(s))[-1]["response"]["usage"]
    assert [value for value in told.values() if isinstance(value, int)] == [0, 0, 0]

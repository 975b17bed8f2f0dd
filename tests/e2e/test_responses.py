"""The Responses API for OpenAI's own SDK and the Agents SDK, unchanged, over sockets."""

import asyncio
import time
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from tests.support.require import missing
from tests.support.responding import EVERYTHING, HELLO, LOOKUP, client, served
from tests.support.upstream import DONE, HANG, call, chunk, error_reply, finish, reply, usage

SLOW = reply(chunk("Hel"), HANG)
NAMES = ["reasoning", "message", "function_call", "function_call"]


# -- the four ways to create


@pytest.mark.parametrize("background", [False, True])
async def test_a_response_in_one_piece(background: bool) -> None:
    async with client(EVERYTHING) as c:
        response = await c.responses.create(model="test", input="Hi", tools=[LOOKUP], background=background)
        if background:
            assert (response.status, response.usage) == ("queued", None)
            response = await c.ended(response.id)
    assert (response.status, response.output_text) == ("completed", "I look it up.")
    assert [item.type for item in response.output] == NAMES
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.output_tokens, response.usage.total_tokens) == (11, 7, 18)


@pytest.mark.parametrize("background", [False, True])
async def test_a_response_that_is_streamed(background: bool) -> None:
    async with client(EVERYTHING, heartbeat=0.05) as c:
        stream = await c.responses.create(model="test", input="Hi", tools=[LOOKUP], background=background, stream=True)
        events = [event async for event in stream]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[0].type == "response.created"
    assert events[-1].type == "response.completed"
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "I look it up."
    assert "".join(event.delta for event in events if event.type == "response.reasoning_text.delta") == "Let me see."
    assert [item.type for item in events[-1].response.output] == NAMES


async def test_heartbeats_are_no_matter() -> None:
    go_on = asyncio.Event()
    async with client(reply(chunk("Hel"), go_on, chunk("lo"), finish(), DONE), heartbeat=0.05) as c:
        stream = await c.responses.create(model="test", input="Hi", stream=True)
        events = [await anext(stream) for _ in range(5)]
        loop = asyncio.get_running_loop()
        loop.call_later(0.2, go_on.set)  # three heartbeats, at the least
        events += [event async for event in stream]
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == "Hello"


# -- the helpers


async def test_the_stream_helper_and_its_final_response() -> None:
    async with client(EVERYTHING) as c, c.responses.stream(model="test", input="Hi", tools=[LOOKUP]) as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    snapshots = [event.snapshot for event in events if event.type == "response.output_text.delta"]
    assert snapshots == ["I look ", "I look it up."]
    calls = [event.snapshot for event in events if event.type == "response.function_call_arguments.delta"]
    assert calls == ['{"word": ', '{"word": "a"}', '{"word": "b"}']
    assert [item.type for item in final.output] == NAMES


class Word(BaseModel):
    word: str
    found: bool


async def test_structured_output() -> None:
    said = '{"word": "a", "found": true}'
    async with client(reply(*map(chunk, said), finish(), DONE)) as c:
        parsed = await c.responses.parse(model="test", input="Hi", text_format=Word)
        async with c.responses.stream(model="test", input="Hi", text_format=Word) as stream:
            streamed = await stream.get_final_response()
        asked = c.upstream.requests[0].body["response_format"]
    assert parsed.output_parsed == streamed.output_parsed == Word(word="a", found=True)
    assert (asked["type"], asked["json_schema"]["name"], asked["json_schema"]["strict"]) == ("json_schema", "Word", True)
    assert asked["json_schema"]["schema"]["required"] == ["word", "found"]


async def test_the_next_turn_by_its_items_and_by_the_response_before() -> None:
    async with client(EVERYTHING, HELLO) as c:
        first = await c.responses.create(model="test", input="Hi", tools=[LOOKUP])
        outputs: list[Any] = [
            {"type": "function_call_output", "call_id": item.call_id, "output": "found"}
            for item in first.output
            if item.type == "function_call"
        ]
        by_items = await c.responses.create(model="test", input=["x", *first.output, *outputs][1:])
        by_id = await c.responses.create(model="test", input=outputs, previous_response_id=first.id)
        _, one, other = [request.body["messages"] for request in c.upstream.requests]
        listed = [item.type async for item in c.responses.input_items.list(by_id.id, limit=2, order="asc")]
    assert by_items.output_text == by_id.output_text == "Hello"
    assert one == other[1:]
    assert [message["role"] for message in one] == ["assistant", "tool", "tool"]
    assert listed == ["message", *NAMES, "function_call_output", "function_call_output"]


# -- coming back


async def test_coming_back_after_every_event() -> None:
    async with client(EVERYTHING) as c:
        stream = await c.responses.create(model="test", input="Hi", tools=[LOOKUP], background=True, stream=True)
        events = [event async for event in stream]
        id = events[-1].response.id  # type: ignore[union-attr]
        for event in events:
            again = await c.responses.retrieve(id, stream=True, starting_after=event.sequence_number)
            assert [found async for found in again] == events[event.sequence_number + 1 :]
        assert [event async for event in await c.responses.retrieve(id, stream=True)] == events
        assert len(c.upstream.requests) == 1


async def test_coming_back_while_it_runs_from_every_event() -> None:
    """A client that reads one event, goes, and comes back for the next one, has all of them in the end."""
    async with client(EVERYTHING) as c:
        id = (await c.responses.create(model="test", input="Hi", tools=[LOOKUP], background=True)).id
        events: list[Any] = []
        after: Any = openai.omit
        while not events or events[-1].type != "response.completed":
            stream = await c.responses.retrieve(id, stream=True, starting_after=after)
            events.append(await anext(stream))
            after = events[-1].sequence_number
            await stream.close()
        assert [event.sequence_number for event in events] == list(range(len(events)))
        whole = [event async for event in await c.responses.retrieve(id, stream=True)]
    # `in_progress` holds what it held when it was written; what was read on the way is what is read afterwards.
    assert events == whole


async def test_the_stream_helper_comes_back() -> None:
    async with client(EVERYTHING) as c:
        async with c.responses.stream(model="test", input="Hi", background=True) as stream:
            id = None
            async for event in stream:
                if event.type == "response.created":
                    id = event.response.id
                if event.type == "response.output_text.delta":
                    break
        assert id is not None
        async with c.responses.stream(response_id=id, starting_after=event.sequence_number) as again:
            rest = [found async for found in again]
            final = await again.get_final_response()
    assert rest[0].sequence_number == event.sequence_number + 1
    assert rest[0].type == "response.output_text.delta"
    assert rest[0].snapshot == "I look it up."
    assert final.output_text == "I look it up."


async def test_the_synchronous_client() -> None:
    async with served(EVERYTHING) as (url, _, _):

        def use() -> list[Any]:
            with openai.OpenAI(base_url=url, api_key="unused", max_retries=0) as sdk:
                events = list(sdk.responses.create(model="test", input="Hi", background=True, stream=True))
                id = events[-1].response.id  # type: ignore[union-attr]
                return [events[4:], list(sdk.responses.retrieve(id, stream=True, starting_after=3))]

        one, other = await asyncio.to_thread(use)
    assert one == other


# -- cancel, delete


async def test_cancelling() -> None:
    async with client(SLOW) as c:
        stream = await c.responses.create(model="test", input="Hi", background=True, stream=True)
        first = await anext(stream)
        assert first.type == "response.created"
        await c.upstream.wait_for(running=1)
        cancelled = await c.responses.cancel(first.response.id)
        rest = [event async for event in stream]
        await c.upstream.wait_for(running=0)
        again = await c.responses.cancel(first.response.id)
    assert cancelled.status == again.status == "cancelled"
    assert rest[-1].type == "response.incomplete"
    assert rest[-1].response.status == "cancelled"


async def test_what_is_cancelled_closes_the_upstream_at_once() -> None:
    """Within 50 ms, for 99 in 100: from the request to cancel to the upstream's notice that the connection is closed."""
    async with client(SLOW) as c:
        took = []
        for _ in range(100):
            response = await c.responses.create(model="test", input="Hi", background=True)
            await c.upstream.wait_for(running=1)
            begin = time.perf_counter()
            await asyncio.gather(c.responses.cancel(response.id), c.upstream.wait_for(running=0))
            took.append(time.perf_counter() - begin)
    assert sorted(took)[98] < 0.05, sorted(took)[-5:]


async def test_deleting() -> None:
    async with client(HELLO) as c:
        response = await c.responses.create(model="test", input="Hi")
        await c.responses.delete(response.id)
        with pytest.raises(openai.NotFoundError):
            await c.responses.retrieve(response.id)
        with pytest.raises(openai.NotFoundError):
            await c.responses.delete(response.id)


# -- errors


async def test_errors_are_the_sdks_own() -> None:
    busy = error_reply(429, {"error": {"message": "slow down"}}, retry_after="7")
    async with client(busy) as c:
        with pytest.raises(openai.RateLimitError) as caught:
            await c.responses.create(model="test", input="Hi", stream=True)
        assert (caught.value.code, caught.value.response.headers["retry-after"]) == ("rate_limited", "7")
        with pytest.raises(openai.BadRequestError) as refused:
            await c.responses.create(model="test", input="Hi", tools=[{"type": "web_search"}])
        assert refused.value.param == "tools[0].type"
        with pytest.raises(openai.BadRequestError):
            await c.responses.create(model="test", input="Hi", previous_response_id="resp_x")


async def test_a_failure_in_the_middle() -> None:
    async with client(reply(chunk("Hel"))) as c:
        events = [event async for event in await c.responses.create(model="test", input="Hi", background=True, stream=True)]
        assert [event.type for event in events[-2:]] == ["error", "response.failed"]
        found = await c.responses.retrieve(events[-1].response.id)  # type: ignore[union-attr]
        assert (found.status, found.error and found.error.code) == ("failed", "server_error")
        with pytest.raises(openai.InternalServerError):
            await c.responses.create(model="test", input="Hi")


async def test_a_client_that_lags_behind_what_is_held_is_told_so() -> None:
    """Never a hole: whoever can't be given the next event gets an error, for which the SDK raises.

    The answer has 15 MB, of which the last 6 are held. What the sockets on the way take in, 5 MB, ends before those. Each event
    is sent in one slice: a client in the middle of a larger one can be told nothing more.
    """
    go_on = asyncio.Event()
    long = reply(chunk("a"), go_on, *(chunk("x" * 15_000) for _ in range(1000)), finish(), DONE)
    async with client(long, replay_events=400, replay_bytes=128 << 20) as c:
        slow = await c.responses.create(model="test", input="Hi", background=True, stream=True)
        first = await anext(slow)
        assert first.type == "response.created"
        fast = await c.responses.retrieve(first.response.id, stream=True)
        go_on.set()
        assert [event async for event in fast][-1].type == "response.completed"
        with pytest.raises(openai.APIError) as caught:
            _ = [event async for event in slow]
        assert caught.value.code == "gap"


# -- the Agents SDK


async def test_an_agent_with_a_tool_over_two_turns() -> None:
    try:
        import agents
    except ImportError:
        missing("openai-agents is not installed")
    agents.set_tracing_disabled(True)
    asked = []

    @agents.function_tool
    def lookup(word: str) -> str:
        """Find a word."""
        asked.append(word)
        return f"{word} is a letter"

    calling = reply(call("lookup", '{"word": "a"}'), finish("tool_calls"), usage(1, 2), DONE)
    for streamed in (False, True):
        async with client(calling, HELLO, calling, HELLO) as c:
            model = agents.OpenAIResponsesModel(model="test", openai_client=c.sdk)
            agent = agents.Agent(name="finder", instructions="Use the tool.", tools=[lookup], model=model)
            history: list[Any] = []
            for question in ("What is a?", "And again?"):
                given = [*history, {"role": "user", "content": question}]
                if streamed:
                    result: Any = agents.Runner.run_streamed(agent, given)
                    types = [event.data.type async for event in result.stream_events() if event.type == "raw_response_event"]
                    assert types.count("response.completed") == 2
                else:
                    result = await agents.Runner.run(agent, given)
                assert result.final_output == "Hello"
                history = result.to_input_list()
            roles = [message["role"] for message in c.upstream.requests[-1].body["messages"]]
        assert roles == ["system", "user", "assistant", "tool", "assistant", "user", "assistant", "tool"]
    assert asked == ["a"] * 4

"""The Responses API for openai-node and the AI SDK, unchanged, over sockets."""

import asyncio
import json
from typing import Any

from handlers.chat.formats.responses import SILENCE
from tests.support.npm import installed, node
from tests.support.responding import EVERYTHING, HELLO, LOOKUP, served
from tests.support.upstream import DONE, HANG, call, chunk, finish, reply, usage

PACKAGES = ("openai@6.49.0", "ai@6.0.326", "@ai-sdk/openai@3.0.141", "zod@4.6.7")
"""The newest ones that run on Node 20."""

OPENAI = """
import OpenAI from "openai"
import { zodTextFormat } from "openai/helpers/zod"
import { z } from "zod"
const { url, tool } = JSON.parse(await new Response(process.stdin).text())
const client = new OpenAI({ baseURL: url, apiKey: "unused", maxRetries: 0 })
const all = async stream => { const events = []; for await (const event of stream) events.push(event); return events }
const tell = value => console.log(JSON.stringify(value))
"""


async def run(script: str, url: str) -> Any:
    """What a script tells that has openai-node's client."""
    return json.loads(
        await node(await installed(*PACKAGES), OPENAI + script, json.dumps({"url": url, "tool": LOOKUP}).encode())
    )


async def test_all_four_ways_to_create() -> None:
    async with served(EVERYTHING) as (url, _, _):
        told = await run(
            """
            const ask = { model: "test", input: "Hi", tools: [tool] }
            const whole = await client.responses.create(ask)
            const started = await client.responses.create({ ...ask, background: true })
            await all(await client.responses.retrieve(started.id, { stream: true }))
            const later = await client.responses.retrieve(started.id)
            const streamed = await all(await client.responses.create({ ...ask, stream: true }))
            const both = await all(await client.responses.create({ ...ask, stream: true, background: true }))
            tell([whole, later, streamed.at(-1).response, both.at(-1).response].map(({ status, output, usage }) =>
                [status, output[1].content[0].text, output.map(item => item.type), usage.total_tokens]))
            """,
            url,
        )
    types = ["reasoning", "message", "function_call", "function_call"]
    assert [status for status, *_ in told] == ["completed"] * 4
    assert [text for _, text, *_ in told] == ["I look it up."] * 4
    assert [(found, total) for *_, found, total in told] == [(types, 18)] * 4


async def test_the_stream_helper_and_structured_output() -> None:
    async with served(reply(*map(chunk, '{"word": "a"}'), finish(), DONE)) as (url, upstream, _):
        told = await run(
            """
            const format = zodTextFormat(z.object({ word: z.string() }), "word")
            const stream = client.responses.stream({ model: "test", input: "Hi", text: { format } })
            const snapshots = []
            stream.on("response.output_text.delta", event => snapshots.push(event.snapshot))
            const final = await stream.finalResponse()
            const parsed = await client.responses.parse({ model: "test", input: "Hi", text: { format } })
            tell([snapshots.at(-1), final.output_parsed, parsed.output_parsed])
            """,
            url,
        )
        assert upstream.requests[0].body["response_format"]["json_schema"]["name"] == "word"
    assert told == ['{"word": "a"}', {"word": "a"}, {"word": "a"}]


async def test_coming_back_after_every_event() -> None:
    async with served(EVERYTHING) as (url, upstream, _):
        told = await run(
            """
            const events = await all(await client.responses.create(
                { model: "test", input: "Hi", tools: [tool], background: true, stream: true }))
            const id = events.at(-1).response.id
            const same = []
            for (const [n] of events.entries()) {
                const rest = await all(await client.responses.retrieve(id, { stream: true, starting_after: n }))
                same.push(JSON.stringify(rest) === JSON.stringify(events.slice(n + 1)))
            }
            const helper = client.responses.stream({ response_id: id, starting_after: 11 })
            const numbers = (await all(helper)).map(event => event.sequence_number)
            tell({ same, numbers, output: (await helper.finalResponse()).output.length, last: events.length - 1 })
            """,
            url,
        )
        assert len(upstream.requests) == 1
    assert told["same"] == [True] * (told["last"] + 1)
    assert told["numbers"] == list(range(12, told["last"] + 1))
    assert told["output"] == 4


async def test_silence_in_the_middle_of_a_stream_does_not_lose_what_was_said() -> None:
    """Its helper takes a lifecycle event for all there is: one in the middle has to hold the output so far."""
    go_on = asyncio.Event()
    calling = reply(chunk("So: "), call("lookup", '{"word": '), go_on, call("", '"a"}', id=None), finish("tool_calls"), DONE)
    async with served(calling) as (url, upstream, app):
        telling = asyncio.create_task(
            run(
                """
                const stream = client.responses.stream({ model: "test", input: "Hi", tools: [tool] })
                const seen = []
                stream.on("event", event => seen.push(event.type))
                stream.on("response.function_call_arguments.delta", event => seen.push(event.snapshot))
                tell([(await stream.finalResponse()).output.map(item => item.arguments ?? item.content[0].text), seen])
                """,
                url,
            )
        )
        await upstream.wait_for(running=1)
        store = app.service.store
        while not store.running or next(iter(store.running.values())).log.last < 10:
            await asyncio.sleep(0)
        next(iter(store.running.values())).emit(SILENCE)
        go_on.set()
        output, seen = await telling
    assert output == ["So: ", '{"word": "a"}']
    assert seen.count("response.in_progress") == 2
    assert '{"word": "a"}' in seen


async def test_cancel_delete_and_what_it_was_made_of() -> None:
    async with served(reply(chunk("Hel"), HANG)) as (url, upstream, _):
        told = await run(
            """
            const stream = await client.responses.create({ model: "test", input: "Hi", background: true, stream: true })
            let id, last
            for await (const event of stream) {
                id ??= event.response.id
                if (event.type === "response.output_text.delta") await client.responses.cancel(id)
                last = event
            }
            const again = await client.responses.cancel(id)
            const items = []
            for await (const item of client.responses.inputItems.list(id)) items.push(item.content[0].text)
            await client.responses.delete(id)
            const gone = await client.responses.retrieve(id).catch(error => error.status)
            tell([last.type, last.response.status, again.status, items, gone])
            """,
            url,
        )
        await upstream.wait_for(running=0)
    assert told == ["response.incomplete", "cancelled", "cancelled", ["Hi"], 404]


async def test_a_failure_in_the_middle() -> None:
    async with served(reply(chunk("Hel"))) as (url, _, _):
        told = await run(
            """
            const ask = { model: "test", input: "Hi" }
            const events = await all(await client.responses.create({ ...ask, background: true, stream: true }))
            const failed = await client.responses.create(ask).catch(error => [error.status, error.code])
            tell([events.slice(-2).map(event => event.type), failed])
            """,
            url,
        )
    assert told == [["error", "response.failed"], [502, "cut"]]


AI = """
import { createOpenAI } from "@ai-sdk/openai"
import { generateText, streamText, stepCountIs, tool } from "ai"
import { z } from "zod"
const { url } = JSON.parse(await new Response(process.stdin).text())
const openai = createOpenAI({ baseURL: url, apiKey: "unused" })
const asked = []
const ask = {
    model: openai.responses("test"), prompt: "What is a?", maxRetries: 0, stopWhen: stepCountIs(3),
    tools: { lookup: tool({
        description: "Find a word.",
        inputSchema: z.object({ word: z.string() }),
        execute: async ({ word }) => { asked.push(word); return `${word} is a letter` },
    }) },
}
const whole = await generateText(ask)
const stream = streamText(ask)
const parts = []
for await (const part of stream.fullStream) parts.push(part.type)
console.log(JSON.stringify({
    asked, parts, texts: [whole.text, await stream.text], reasons: [whole.finishReason, await stream.finishReason],
    steps: whole.steps.length, usage: (await stream.totalUsage).totalTokens,
}))
"""


async def test_the_ai_sdk_with_a_tool() -> None:
    """It refers to the items of its first step by their ids in the second."""
    calling = reply(*EVERYTHING.steps[:4], call("lookup", '{"word": "a"}'), finish("tool_calls"), usage(1, 2), DONE)
    async with served(calling, HELLO, calling, HELLO) as (url, upstream, _):
        told = json.loads(await node(await installed(*PACKAGES), AI, json.dumps({"url": url}).encode()))
        second = upstream.requests[1].body["messages"]
    assert [message["role"] for message in second] == ["user", "assistant", "tool"]
    assert second[1]["content"] == "I look it up."
    assert second[2]["content"] == "a is a letter"
    assert told["asked"] == ["a", "a"]
    assert told["texts"] == ["Hello", "Hello"]
    assert (told["reasons"], told["steps"], told["usage"]) == (["stop", "stop"], 2, 8)
    assert "error" not in told["parts"]
    assert [part for part in told["parts"] if part.startswith("tool-")][-2:] == ["tool-call", "tool-result"]

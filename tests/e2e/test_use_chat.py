"""The AI SDK's own client, three major versions of it: its schema on what we write, and useChat in a real Chromium."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.handlers.chat.formats.test_ui_messages import PICK, asked, assistant, post, text, tool, user
from tests.support import servers
from tests.support.chatting import Sidecar, sidecar
from tests.support.frontend import frontend, tabs
from tests.support.npm import ESBUILD, installed, node
from tests.support.sockets import fetch
from tests.support.upstream import (
    ASKS,
    BREAK,
    DONE,
    ENDS,
    HANG,
    THINKS,
    TWO_TOOLS,
    Script,
    call,
    chunk,
    finish,
    reply,
    serve,
    usage,
)

pytestmark = pytest.mark.e2e

VERSIONS = {"5": ("ai@5.0.277", "@ai-sdk/react@2.0.280"), "6": ("ai@6.0.326", "@ai-sdk/react@3.0.328"),
            "7": ("ai@7.0.173", "@ai-sdk/react@4.0.177")}  # fmt: skip
COMMON = ("react@19.2.1", "react-dom@19.2.1", "zod@4.1.12", ESBUILD)


@pytest.fixture(params=VERSIONS)
async def packages(request: pytest.FixtureRequest) -> Path:
    return await installed(*VERSIONS[request.param], *COMMON)


# -- the schema

READ = """
import { uiMessageChunkSchema, readUIMessageStream } from "ai"
const schema = uiMessageChunkSchema(), results = []
let input = ""
for await (const piece of process.stdin) input += piece
for (const { parts, message } of JSON.parse(input)) {
  const wrong = []
  for (const part of parts) {
    const checked = await schema.validate(part)
    if (!checked.success) wrong.push([part, String(checked.error)])
  }
  const stream = new ReadableStream({ start(c) { for (const part of parts) c.enqueue(part); c.close() } })
  const errors = []
  let last
  for await (const read of readUIMessageStream({ stream, message, onError: (error) => errors.push(String(error)) })) last = read
  results.push({ wrong, errors, message: last })
}
console.log(JSON.stringify(results))
"""


async def told(s: Sidecar, path: str = "/ui/chat/c1/stream") -> list[Any]:
    return [json.loads(one.data) for one in (await s.get(path)).events if one.data != "[DONE]"]


async def answers() -> list[dict[str, Any]]:
    """Answers of every kind: whole, with all tools; gone on with; with a gap; stopped; failed. Each as the client has it."""
    body = asked(tools=["calculate", "current_time", PICK])
    both = [call("pick", '{"x": 1}'), call("calculate", "{", id="c2", index=1)]
    mixed = reply(THINKS, chunk("Now "), *both, finish("tool_calls"), DONE)
    found: list[dict[str, Any]] = []
    async with sidecar(TWO_TOOLS, mixed, ENDS) as s:
        await post(s, body)
        found.append({"parts": await told(s)})
        earlier = assistant({"type": "step-start"}, text("I pick."), tool("output-available", output="red"))
        answer = await post(s, asked(user(), earlier, tools=[PICK]))
        found.append({"parts": [json.loads(one.data) for one in answer.events[:-1]], "message": earlier})
        found.append({"parts": await told(s)})
    async with sidecar(reply(call("pick", "{}"), *[chunk("word ")] * 30, finish(), DONE), replay_events=8) as s:
        await post(s, asked(tools=[PICK]))
        found.append({"parts": await told(s)})
    for ending in (HANG, BREAK):
        async with sidecar(reply(THINKS, chunk("Half"), call("calculate", '{"ex'), ending)) as s:
            async with s.watching("/ui/chat", body) as client:
                while b"tool-input-delta" not in client.raw:
                    await client.next()
                if ending is HANG:
                    await s.post(None, "/ui/chat/c1/stop")
                async for _ in client:
                    pass
            found.append({"parts": await told(s)})
    return found


async def test_every_part_is_valid_and_makes_the_message(packages: Path) -> None:
    given = await answers()
    read = json.loads(await node(packages, READ, json.dumps(given).encode()))
    assert [one["wrong"] for one in read] == [[]] * len(given)
    whole, on, back, gap, stopped, failed = read
    assert [one["errors"] for one in (whole, on, back, gap, stopped)] == [[]] * 5
    assert len(failed["errors"]) == 1
    kinds = [part["type"] for part in whole["message"]["parts"]]
    assert kinds == ["step-start", "reasoning", "text", "dynamic-tool", "dynamic-tool", "step-start", "reasoning", "text",
                     "tool-pick", "dynamic-tool"]  # fmt: skip
    assert whole["message"]["parts"][3]["output"] == 42
    assert on["message"]["id"] == back["message"]["id"] == "a1"
    shown = ("type", "text", "output", "input", "toolCallId")
    seen = [[{name: part.get(name) for name in shown} for part in one["message"]["parts"]] for one in (on, back)]
    assert seen[0] == seen[1], "who comes back has the same message as who stayed"
    assert [part["type"] for part in gap["message"]["parts"]] == ["data-gap", "text", "tool-pick"]
    for one in (stopped, failed):
        states = [part.get("state") for part in one["message"]["parts"] if part["type"] != "step-start"]
        assert states == ["done", "done", "output-error"], "nothing is left open"
    assert stopped["message"]["metadata"]["state"] == "cancelled"


# -- stopping


async def test_a_stop_closes_the_upstream_within_50_ms(tmp_path: Path) -> None:
    took = []
    async with (
        serve(reply(chunk("Hello"), HANG)) as upstream,
        servers.sidecar(OPENAI_BASE_URL=upstream.url, OPENAI_API_KEY="k", SIDESTREAM_MODEL="test") as server,
    ):
        for number in range(9):
            body = json.dumps(asked() | {"id": f"c{number}"}).encode()
            started = {"Content-Type": "application/json", "Accept": "application/json"}
            assert (await fetch(server.port, "/ui/chat", method="POST", headers=started, body=body))[0] == 202
            await upstream.wait_for(running=1)
            began = time.monotonic()
            stopping = asyncio.ensure_future(fetch(server.port, f"/ui/chat/c{number}/stop", method="POST"))
            await upstream.wait_for(running=0)
            took.append(time.monotonic() - began)
            assert (await stopping)[0] == 204
    assert sorted(took)[4] < 0.05


# -- useChat in a browser


Gates = list[asyncio.Event]


@pytest.fixture
def slow() -> list[asyncio.Event]:
    """What the upstream waits for between its words."""
    return [asyncio.Event() for _ in range(4)]


def paused(gates: list[asyncio.Event]) -> Script:
    words = [step for number, gate in enumerate(gates) for step in (chunk(f"w{number} "), gate)]
    return reply(THINKS, *words, chunk("end"), finish(), usage(1, 2), DONE)


async def send(page: Page, words: str = "Hello") -> None:
    await page.get_by_label("Message").fill(words)
    await page.get_by_role("button", name="Send").click()


def shows(page: Page, *texts: str) -> Any:
    """The paragraphs of the assistant's messages."""
    return expect(page.locator("[data-role=assistant] p")).to_have_text(list(texts), timeout=15_000)


async def test_an_answer_with_reasoning_and_all_kinds_of_tools(packages: Path, tmp_path: Path) -> None:
    async with frontend(tmp_path, packages, "use-chat/page.jsx", TWO_TOOLS, ASKS, ENDS) as site, tabs() as context:
        page = await site.open(context)
        await send(page)
        await page.get_by_role("button", name="red").click(timeout=15_000)
        clock = await page.locator("[data-role=assistant] p").nth(3).inner_text()
        await expect(page.locator("output")).to_have_text("ready", timeout=15_000)
        await shows(page, "Let me see. ", "I look. ", "calculate: 42", clock, 'colour: "red"', "It is red.")
        bodies = [request.body for request in site.upstream.requests]
        assert [message["role"] for message in bodies[2]["messages"]] == (
            ["system", "user", "assistant", "tool", "tool", "assistant", "tool"]
        )
        assert bodies[2]["messages"][-1] == {"role": "tool", "tool_call_id": "call_3", "content": "red"}
        await page.reload()
        await expect(page.locator("output")).to_have_text("ready", timeout=15_000)
        await shows(page, "Let me see. ", "I look. ", "calculate: 42", clock, 'colour: "red"', "It is red.")
        assert len(site.upstream.requests) == 3
        assert await page.locator("[data-role=user]").count() == 1


async def test_a_reload_in_the_middle_goes_on_and_doubles_nothing(packages: Path, tmp_path: Path, slow: Gates) -> None:
    async with frontend(tmp_path, packages, "use-chat/page.jsx", paused(slow)) as site, tabs() as context:
        page = await site.open(context)
        await send(page)
        await shows(page, "Let me see. ", "w0 ")
        for number, gate in enumerate(slow[:2]):
            await page.reload()
            gate.set()
            await shows(page, "Let me see. ", "".join(f"w{n} " for n in range(number + 2)))
        for gate in slow:
            gate.set()
        await shows(page, "Let me see. ", "w0 w1 w2 w3 end")
        assert await page.locator("article").count() == 2
        assert len(site.upstream.requests) == 1


async def test_an_answer_that_ended_during_the_reload_is_there(packages: Path, tmp_path: Path, slow: Gates) -> None:
    async with frontend(tmp_path, packages, "use-chat/page.jsx", paused(slow)) as site, tabs() as context:
        page = await site.open(context)
        await send(page)
        await shows(page, "Let me see. ", "w0 ")
        await page.goto("about:blank")
        for gate in slow:
            gate.set()
        await site.upstream.wait_for(running=0)
        await page.goto(site.url)
        await shows(page, "Let me see. ", "w0 w1 w2 w3 end")


async def test_stop_in_one_tab_stops_both_and_the_upstream_and_a_reload_shows_what_had_arrived(
    packages: Path, tmp_path: Path, slow: Gates
) -> None:
    async with frontend(tmp_path, packages, "use-chat/page.jsx", paused(slow)) as site, tabs() as context:
        one, two = await site.open(context), await site.open(context)
        await send(one)
        for page in (one, two):
            await shows(page, "Let me see. ", "w0 ")
        async with one.expect_request(lambda request: request.url.endswith("/stop")):
            await one.get_by_role("button", name="Stop").click()
        asked = time.monotonic()
        await site.upstream.wait_for(running=0)
        assert time.monotonic() - asked < 1
        for page in (one, two):
            await shows(page, "Let me see. ", "w0 ", "Stopped.")
            await expect(page.locator("output")).to_have_text("ready")
        await two.reload()
        await shows(two, "Let me see. ", "w0 ", "Stopped.")
        assert await two.locator("article").count() == 2


async def test_two_tabs_see_the_same(packages: Path, tmp_path: Path, slow: Gates) -> None:
    async with frontend(tmp_path, packages, "use-chat/page.jsx", paused(slow), ENDS) as site, tabs() as context:
        one, two = await site.open(context), await site.open(context)
        await send(one)
        for number, gate in enumerate(slow):
            for page in (one, two):
                await shows(page, "Let me see. ", "".join(f"w{n} " for n in range(number + 1)))
            gate.set()
        for page in (one, two):
            await expect(page.locator("output")).to_have_text("ready", timeout=15_000)
        await send(two, "And now?")
        for page in (one, two):
            await shows(page, "Let me see. ", "w0 w1 w2 w3 end", "It is red.")
            assert await page.locator("[data-role=user]").count() == 2


async def test_ten_seconds_without_a_network(packages: Path, tmp_path: Path, slow: Gates) -> None:
    async with frontend(tmp_path, packages, "use-chat/page.jsx", paused(slow)) as site, tabs() as context:
        page = await site.open(context)
        await send(page)
        await shows(page, "Let me see. ", "w0 ")
        await site.wire.cut()
        slow[0].set()
        await asyncio.sleep(10)
        await shows(page, "Let me see. ", "w0 ")
        await site.wire.mend()
        await shows(page, "Let me see. ", "w0 w1 ")
        for gate in slow:
            gate.set()
        await shows(page, "Let me see. ", "w0 w1 w2 w3 end")
        assert await page.get_by_role("alert").count() == 0


async def test_a_second_message_while_an_answer_runs_is_told_and_costs_nothing(
    packages: Path, tmp_path: Path, slow: Gates
) -> None:
    async with frontend(tmp_path, packages, "use-chat/page.jsx", paused(slow)) as site, tabs() as context:
        one = await site.open(context)
        await send(one)
        await shows(one, "Let me see. ", "w0 ")
        async with one.expect_response(lambda response: response.url.endswith("/ui/chat")) as refused:
            await send(one, "And?")
        assert (await refused.value).status == 409
        await expect(one.get_by_role("alert")).to_have_text("An answer is running in this conversation.", timeout=15_000)
        assert len(site.upstream.requests) == 1


async def test_without_the_cookie_nothing_is_told(packages: Path, tmp_path: Path, slow: Gates) -> None:
    async with frontend(tmp_path, packages, "use-chat/page.jsx", paused(slow)) as site, tabs("ann") as ann, tabs("bob") as bob:
        await send(page := await site.open(ann))
        await shows(page, "Let me see. ", "w0 ")
        other = await site.open(bob)
        await expect(other.locator("output")).to_have_text("ready", timeout=15_000)
        assert await other.locator("article").count() == 0
        await other.get_by_role("button", name="Stop").click()
        await bob.clear_cookies()
        async with other.expect_response(lambda response: response.url.endswith("/ui/chat")) as refused:
            await send(other)
        assert (await refused.value).status == 401
        slow[0].set()
        await shows(page, "Let me see. ", "w0 w1 ")

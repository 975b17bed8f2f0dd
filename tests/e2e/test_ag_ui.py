"""AG-UI's own client: its schema, its verifier and its messages, on real answers of a real sidecar."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import expect

from tests.support import servers
from tests.support.frontend import frontend, tabs
from tests.support.npm import ESBUILD, installed, node
from tests.support.upstream import (
    ASKS,
    BREAK,
    ENDS,
    HANG,
    THINKS,
    TWO_TOOLS,
    Script,
    call,
    chunk,
    reply,
    serve,
)

pytestmark = pytest.mark.e2e

PACKAGES = ("@ag-ui/client@1.0.0", ESBUILD)

CLIENT = """
import { HttpAgent } from "@ag-ui/client"
import { EventSchema } from "@ag-ui/core/schemas"
const events = [], errors = []
const agent = new HttpAgent({ url: "%(url)s/ag-ui", threadId: "t1" })
const take = {
  onEvent: ({ event }) => { EventSchema.parse(event); events.push(event) },
  onRunFailed: ({ error }) => { errors.push(String(error)) },
}
const tools = [{ name: "colour", description: "Ask for the colour.", parameters: { type: "object" } }]
const forwardedProps = { tools: ["calculate", "current_time"] }
const run = (runId) => agent.runAgent({ runId, tools, forwardedProps }, take).catch((error) => errors.push(String(error)))
%(script)s
console.log(JSON.stringify({ events, errors, messages: agent.messages }))
"""


async def played(script: str, *scripts: Script) -> Any:
    """What the client has after a script, with an agent, `run`, and `stop` at hand."""
    packages = await installed(*PACKAGES)
    async with (
        serve(*scripts) as upstream,
        servers.sidecar(OPENAI_BASE_URL=upstream.url, OPENAI_API_KEY="k", SIDESTREAM_MODEL="test") as server,
    ):
        stop = f'const stop = () => fetch("{server.url}/ag-ui/t1/stop", {{ method: "POST" }})\n'
        result = json.loads(await node(packages, CLIENT % {"url": server.url, "script": stop + script}))
        await upstream.wait_for(running=0)
        return result | {"asked": [request.body for request in upstream.requests]}


def types(events: Any) -> list[str]:
    return [event["type"] for event in events]


async def test_an_answer_with_reasoning_and_all_kinds_of_tools() -> None:
    seen = await played(
        """
        agent.addMessage({ id: "u1", role: "user", content: "Hello" })
        await run("r1")
        const pending = events.at(-1).outcome.pendingToolCallIds
        for (const id of pending) agent.addMessage({ id: "t-" + id, role: "tool", toolCallId: id, content: "red" })
        await run("r2")
        """,
        TWO_TOOLS,
        ASKS,
        ENDS,
    )
    assert seen["errors"] == []
    assert types(seen["events"]).count("RUN_FINISHED") == 2
    roles = [(message["role"], message.get("content")) for message in seen["messages"]]
    assert roles[:3] == [("user", "Hello"), ("reasoning", "Let me see. "), ("assistant", "I look. ")]
    assert ("tool", "42") in roles[3:5]  # each result is told as soon as its tool has ended
    assert roles[-2:] == [("tool", "red"), ("assistant", "It is red.")]
    assert [call["function"]["name"] for call in seen["messages"][2]["toolCalls"]] == ["calculate", "current_time"]
    assert [message["role"] for message in seen["asked"][2]["messages"]] == (
        ["system", "user", "assistant", "tool", "tool", "assistant", "tool"]
    )


async def test_the_same_run_is_joined_by_a_second_client_and_the_stop_is_told_to_both() -> None:
    seen = await played(
        """
        agent.addMessage({ id: "u1", role: "user", content: "Hello" })
        const other = new HttpAgent({ url: agent.url, threadId: "t1" }), theirs = []
        const first = run("r1")
        while (!events.some(({ type }) => type === "TEXT_MESSAGE_CONTENT")) await new Promise((r) => setTimeout(r, 5))
        let heard
        const joined = new Promise((resolve) => { heard = resolve })
        const second = other.runAgent({ runId: "r1" }, { onEvent: ({ event }) => {
          theirs.push(event.type)
          if (event.type === "TEXT_MESSAGE_CONTENT") heard()
        } })
        await joined
        await stop()
        await Promise.all([first, second])
        events.push({ type: "theirs", theirs, messages: other.messages })
        """,
        reply(THINKS, chunk("Half"), call("calculate", '{"ex'), HANG),
    )
    assert seen["errors"] == []
    [theirs] = [event for event in seen["events"] if event["type"] == "theirs"]
    assert types(seen["events"])[:-1] == theirs["theirs"]
    assert seen["events"][-2]["outcome"] == {"type": "cancelled"}
    assert [message["content"] for message in theirs["messages"][:2]] == ["Let me see. ", "Half"]
    assert len(seen["asked"]) == 1


async def test_a_failure_is_a_run_error_and_a_second_run_beside_one_that_runs_is_refused() -> None:
    seen = await played('agent.addMessage({ id: "u1", role: "user", content: "Hello" }); await run("r1")',
                        reply(chunk("Half"), BREAK))  # fmt: skip
    assert types(seen["events"])[-1] == "RUN_ERROR"
    busy = await played(
        """
        agent.addMessage({ id: "u1", role: "user", content: "Hello" })
        const first = run("r1")
        while (events.length < 4) await new Promise((r) => setTimeout(r, 5))
        const other = new HttpAgent({ url: agent.url, threadId: "t1", initialMessages: agent.messages })
        await other.runAgent({ runId: "r2" }).catch((error) => events.push({ type: "refused", error: String(error) }))
        await stop()
        await first
        """,
        reply(chunk("Half"), HANG),
    )
    [refused] = [event for event in busy["events"] if event["type"] == "refused"]
    assert refused["error"].startswith("Error: HTTP 409")
    assert busy["errors"] == []


@pytest.mark.parametrize("path", ["ag-ui/page.js"])
async def test_the_example_page_reloads_goes_on_and_stops(path: str, tmp_path: Path) -> None:
    packages = await installed(*PACKAGES)
    async with (
        frontend(tmp_path, packages, path, reply(THINKS, chunk("Hel"), chunk("lo"), HANG)) as site,
        tabs() as context,
    ):
        page = await site.open(context)
        await page.get_by_label("Message").fill("Hi")
        await page.get_by_role("button", name="Send").click()
        answer, state = page.locator("[data-role=assistant]"), page.locator("output")
        await expect(answer).to_have_text("Hello", timeout=15_000)
        await page.reload()
        await expect(answer).to_have_text("Hello", timeout=15_000)
        await expect(state).to_have_text("running")
        await site.wire.cut()
        await site.wire.mend()
        await page.get_by_role("button", name="Stop").click()
        await expect(state).to_have_text("cancelled", timeout=15_000)
        await site.upstream.wait_for(running=0)
        await page.reload()
        await expect(answer).to_have_text("Hello", timeout=15_000)
        await expect(page.locator("article")).to_have_count(3)
        assert len(site.upstream.requests) == 1

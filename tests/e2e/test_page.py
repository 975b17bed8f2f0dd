"""The wire lab in a real Chromium, against a real sidecar."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from playwright.async_api import Page, expect

from handlers.page.lessons import lessons
from sse.wire.parser import Parser
from tests.support.axe import violations
from tests.support.browser import Problems, browser
from tests.support.servers import Server, sidecar
from tests.support.upstream import BREAK, chunk, chunk_object, event, reply, serve

DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}
SECTIONS = ("try", "lessons", "break", "formats", "write", "between")
WRONG_TYPE = 'EventSource\'s response has a MIME type ("text/plain")'
"""Chromium's own word on the lesson about a wrong type."""

expect.set_options(timeout=12_000)


@dataclass(slots=True)
class Open:
    """A page of the lab, what has gone wrong in it so far, and its server."""

    page: Page
    problems: list[str]
    server: Server

    async def go(self, fragment: str) -> None:
        await self.page.goto(f"{self.server.url}/#{fragment}")

    async def get(self, path: str) -> httpx2.Response:
        async with httpx2.AsyncClient() as client:
            return await client.get(f"{self.server.url}{path}")


@asynccontextmanager
async def opened(fragment: str = "try", *, context: dict[str, Any] | None = None, **env: str) -> AsyncIterator[Open]:
    """The page, at a section. At the end nothing may have gone wrong: no console error, no policy violation, no other host."""
    async with (
        sidecar(**{"SIDESTREAM_DEMO_INTERVAL": "0.02", **env}) as server,
        browser(**{"viewport": DESKTOP, **(context or {})}) as page,
    ):
        lab = Open(page, Problems(page, server.url), server)
        await lab.go(fragment)
        yield lab
        assert [problem for problem in lab.problems if WRONG_TYPE not in problem] == []


async def stream_id(page: Page) -> str:
    """The id of the stream that the wire view shows."""
    cell = page.locator("#wire .row.event .effect").last
    return (await cell.inner_text()).rpartition(".")[0]


# -- try it


async def test_a_chat_to_its_end_with_a_tool_stage() -> None:
    async with opened() as lab:
        page = lab.page
        await page.fill("#prompt", "calculate 6*7")
        await page.click("#chat-form .start")
        await expect(page.locator("#outcome .state")).to_contain_text("done: stop")
        await expect(page.locator("#outcome .call")).to_contain_text('calculate{"expression": "6*7"}→ 42')
        await expect(page.locator("#outcome .answer").last).to_have_text("This is a mock response to: calculate 6*7 (42)")
        await expect(page.locator("#outcome h3")).to_have_text(["Stage 1", "Stage 2"])
        await expect(page.locator("#snippet pre")).to_contain_text("curl -N")
        await page.click("#python")
        await expect(page.locator("#snippet pre")).to_contain_text('json={"prompt":"calculate 6*7","tools":["calculate"]}')


async def test_reasoning_is_shown_as_it_comes_and_a_failure_upstream_is_told() -> None:
    thinks = event(chunk_object({"reasoning_content": "Six times "})), event(chunk_object({"reasoning_content": "seven."}))
    script = reply(*thinks, chunk("42"), BREAK)
    async with (
        serve(script) as upstream,
        opened(OPENAI_BASE_URL=upstream.url, OPENAI_API_KEY="none", SIDESTREAM_MODEL="test") as lab,
    ):
        page = lab.page
        await expect(page.locator("#strip")).to_contain_text("openai · ")
        await page.click("#chat-form .start")
        await expect(page.locator("#outcome .reasoning")).to_have_text("Six times seven.")
        await expect(page.locator("#outcome .answer")).to_have_text("42")
        await expect(page.locator("#outcome .state")).to_contain_text("failed: ")


async def test_the_stop_button_stops_the_answer_on_the_server() -> None:
    async with opened(SIDESTREAM_DEMO_INTERVAL="0.3") as lab:
        page = lab.page
        await page.click("#chat-form .start")
        await expect(page.locator("#outcome .call")).to_be_visible()
        await page.click("#chat-form .stop")
        await expect(page.locator("#outcome .state")).to_contain_text("cancelled: deleted")
        [stream] = (await lab.get("/streams")).json()["streams"]
        assert (stream["state"], stream["reason"]) == ("cancelled", "deleted")


async def test_a_job_cancelled_half_way() -> None:
    async with opened("try/job") as lab:
        page = lab.page
        await page.click("#job-form .start")
        await expect(page.locator("#outcome .state")).to_have_text(re.compile("step [4-9][0-9] of 100"))
        await page.click("#job-form .stop")
        await expect(page.locator("#outcome .state")).to_contain_text("cancelled at")
        [job] = (await lab.get("/streams")).json()["streams"]
        assert job["state"] == "cancelled"
        assert (await lab.get(f"/jobs/{job['stream_id']}")).json()["progress"] < 100


async def test_two_jobs_merged_over_one_connection() -> None:
    async with opened("try/merge") as lab:
        await lab.page.click("#merge-form .start")
        await expect(lab.page.locator("#outcome .lane").first.locator(".cell")).to_have_count(27)
        await expect(lab.page.locator("#outcome .lane").last.locator(".cell")).to_have_count(17)
        await expect(lab.page.locator("#outcome .cell.end")).to_have_count(2)
        await expect(lab.page.locator(".timeline")).to_have_attribute("aria-label", re.compile("over 1 connection in"))


async def test_events_that_are_posted_arrive_and_the_stream_is_closed() -> None:
    async with opened("try/publish") as lab:
        page = lab.page
        await page.click("#publish-form .start")
        await page.fill("#publish-form [name=event]", "price")
        await page.click("#publish-form .post")
        await expect(page.locator("#outcome .log li")).to_contain_text('price {"price":12.5}')
        await page.click("#publish-form .stop")
        await expect(page.locator("#outcome > div > .state")).to_have_text("closed")
        assert (await lab.get("/streams")).json()["streams"][0]["state"] == "done"


async def test_any_stream_of_this_server_and_no_other() -> None:
    async with opened("try/any") as lab:
        page = lab.page
        await page.fill("#address", "stream?count=3&interval=0")
        await page.click("#any-form .start")
        await expect(page.locator("#wire .row.event")).to_have_count(5)
        await page.fill("#address", "https://elsewhere.example/stream")
        await page.click("#any-form .start")
        await expect(page.locator("#outcome [role=alert]")).to_contain_text("only ask the sidecar that it came from")


# -- the wire


async def test_pointing_at_an_event_shows_its_bytes_and_the_other_way_round() -> None:
    async with opened() as lab:
        page = lab.page
        await page.click("#chat-form .start")
        await expect(page.locator("#outcome .state")).to_contain_text("done: stop")
        word = page.locator("#outcome .answer span", has_text="mock")
        await word.hover()
        lit = page.locator("#wire .row.lit")
        await expect(lit).to_have_count(5)
        await expect(lit.nth(2)).to_contain_text('"content":" mock"')
        await page.mouse.move(0, 0)
        await expect(page.locator(".lit")).to_have_count(0)
        await page.locator("#wire .row.event", has_text='" mock"').hover()
        await expect(page.locator("#outcome .answer .lit")).to_have_text(" mock")


async def test_stepping_through_the_lines_shows_each_rule_and_the_buffers_after_it() -> None:
    async with opened("write/id%3A%207%5Cn%0Adata%3A%20a%5Cn%0A%5Cn") as lab:
        page = lab.page
        await expect(page.locator("#wire .row.event")).to_have_count(1)
        await page.locator("#wire .rows").focus()
        await page.keyboard.press("Home")
        inspector, registers = page.locator(".inspector .rule"), page.locator(".registers dd")
        await expect(inspector).to_have_text("9.2.6 The value replaces the last event ID buffer.")
        await expect(registers).to_have_text(['""', '""', '"7"', '""', "not set"])
        await page.get_by_role("button", name="One step forward").click()
        await expect(registers).to_have_text(['"a\\n"', '""', '"7"', '""', "not set"])
        await page.get_by_role("button", name="One step forward").click()
        await expect(registers).to_have_text(['""', '""', '"7"', '"7"', "not set"])
        await expect(page.locator(".registers .changed dt")).to_have_text(["data buffer", "last event ID"])
        await page.get_by_role("button", name="One step back").click()
        await expect(inspector).to_have_text("9.2.6 The value and a LF are appended to the data buffer.")
        selected = await page.locator("#wire .rows").get_attribute("aria-activedescendant")
        assert await page.locator(f"#{selected}").get_attribute("aria-selected") == "true"


async def test_control_characters_are_visible_and_bytes_can_be_shown_as_numbers() -> None:
    async with opened("write/data%3A%20a%5C0%5Cr%5Cn") as lab:
        row = lab.page.locator("#wire .row.step .bytes").first
        await expect(row).to_have_text("data: a\\0\\r\\n")
        await lab.page.get_by_role("button", name="Hex").click()
        await expect(row).to_have_text("64 61 74 61 3a 20 61 00 0d 0a")


async def test_five_thousand_events_scroll_at_sixty_frames_a_second() -> None:
    """A frame's work, in processor time of the page's thread, fits into a sixtieth of a second: other load doesn't count."""
    scroll = """async () => {
      const list = document.querySelector(".rows")
      list.scrollTop = 0
      for (let frame = 0; frame < 120; frame++) { await new Promise(requestAnimationFrame); list.scrollTop += 480 }
      return document.querySelectorAll(".row").length
    }"""
    async with opened("try/any") as lab:
        page = lab.page
        await page.fill("#address", "stream?count=5000&interval=0")
        await page.click("#any-form .start")
        await expect(page.locator(".figures")).to_contain_text("5,002 events")
        await expect(page.locator("#any-form .stop")).to_be_disabled()
        debugger = await page.context.new_cdp_session(page)
        await debugger.send("Performance.enable", {"timeDomain": "threadTicks"})

        async def spent() -> float:
            metrics = (await debugger.send("Performance.getMetrics"))["metrics"]
            return next(float(metric["value"]) for metric in metrics if metric["name"] == "TaskDuration")

        frames = []
        for _ in range(3):
            before = await spent()
            assert await page.evaluate(scroll) < 100
            frames.append((await spent() - before) / 120)
        assert min(frames) < 1 / 60, frames


# -- lessons


@pytest.mark.parametrize("name", lessons())
async def test_a_lesson_comes_out_of_the_pages_parser_as_it_does_of_eventsource(name: str) -> None:
    async with opened(f"lessons/{name}") as lab:
        page = lab.page
        await page.get_by_role("button", name="Play").click()
        await expect(page.locator("#lesson")).to_have_attribute("data-same", "true")
        ours, theirs = (page.locator(".both ol").nth(number).locator("li:has(code)") for number in (0, 1))
        assert await ours.all_inner_texts() == await theirs.all_inner_texts()
        expected = [] if name in ("wrong-type", "no-content") else played(name)
        assert await ours.locator("code").all_inner_texts() == [json.dumps(data, ensure_ascii=False) for data in expected]
        await expect(page.locator("#lesson tbody tr")).to_have_count(5)


def played(name: str) -> list[str]:
    """The data of what our own parser dispatches, over all the connections of a lesson."""
    parser, found, plays = Parser(), [], lessons()[name].plays
    last = "*"
    while last in plays:
        parser.reset()
        found += [event.data for _, chunk in plays[last] for event in parser.feed(chunk)]
        if len(plays) == 1:
            break
        last = parser.last_event_id
    return found


# -- break it


async def test_dropped_connections_come_back_and_nothing_is_lost() -> None:
    async with opened("break") as lab:
        page = lab.page
        lane = page.locator("#break-out .lane").first.locator(".cell")
        await page.click("#break-start")
        for count in (5, 20):
            await expect(lane.nth(count)).to_be_visible()
            await page.click("#break-drop")
            await expect(page.locator("#break-out .log li", has_text="OPEN again").nth(0 if count == 5 else 1)).to_be_visible()
        await expect(page.locator("#break-out .log li", has_text="Last-Event-ID: ")).to_have_count(2)
        await page.click("#break-second")
        await page.click("#break-cancel")
        lanes = page.locator("#break-out .lane")
        for number in range(3):
            await expect(lanes.nth(number).locator(".cell.end")).to_be_visible()
        await expect(page.locator("#break-out .log")).to_contain_text("204: CLOSED, for good")
        log = (await lab.get(f"/streams/{await stream_id(page)}")).text
        numbers = [event.last_event_id.rpartition(".")[2] for event in Parser().feed(log.encode())]
        assert len(numbers) > 20
        for number in range(3):
            assert await lanes.nth(number).locator(".cell").all_inner_texts() == [n for n in numbers if n != "0"]
        await expect(page.locator(".timeline")).to_have_attribute("aria-label", re.compile("over 3 connections in"))


async def test_a_page_that_was_away_comes_back_with_what_it_has_in_the_url() -> None:
    async with opened("break") as lab:
        page = lab.page
        lane = page.locator("#break-out .lane").first.locator(".cell")
        await page.click("#break-start")
        await expect(lane.nth(3)).to_be_visible()
        await page.click("#break-offline")
        had = await lane.count()
        await expect(page.locator("#break-out .lane").nth(1).locator(".cell").nth(had + 5)).to_be_visible()
        assert await lane.count() == had
        await page.click("#break-offline")
        await expect(lane.nth(had + 5)).to_be_visible()
        numbers = [int(number) for number in await lane.all_inner_texts()]
        assert numbers == list(range(1, len(numbers) + 1))


# -- write your own


async def test_a_link_to_ones_own_bytes_brings_them_back() -> None:
    async with opened("write", context={"permissions": ["clipboard-read", "clipboard-write"]}) as lab:
        page = lab.page
        await page.fill("#editor", "data: 100 % ü\\xff\\u2028\\n\n\\n")
        await expect(page.locator("#editor-says")).to_have_text("20 bytes, 1 event; cut anywhere, it comes out the same")
        await page.click("#permalink")
        link = await page.evaluate("navigator.clipboard.readText()")
        await page.goto("about:blank")
        await page.goto(link)
        await expect(page.locator("#editor")).to_have_value("data: 100 % ü\\xff\\u2028\\n\n\\n")
        await page.click("#vector")
        vector = json.loads(await page.evaluate("navigator.clipboard.readText()"))
        assert bytes.fromhex(vector["hex"]) == "data: 100 % ü".encode() + b"\xff\xe2\x80\xa8\n\n"
        assert vector["events"] == [["message", "100 % ü\ufffd\u2028", ""]]


async def test_a_wrong_escape_is_named() -> None:
    async with opened("write") as lab:
        await lab.page.fill("#editor", "data: \\q")
        await expect(lab.page.locator("#editor-says")).to_contain_text("\\q is no escape")


# -- what stands between, the strip, the token


async def test_nothing_stands_between_this_browser_and_this_sidecar() -> None:
    async with opened("between") as lab:
        await lab.page.fill("#silence", "1")
        await lab.page.click("#probe-start")
        await expect(lab.page.locator("#probe-out h3")).to_have_text(["clear", "HTTP/1.1"])


async def test_the_strip_says_what_goes_on() -> None:
    async with opened("try/job") as lab:
        await expect(lab.page.locator("#strip")).to_contain_text("demo model · 0 streams")
        await lab.page.fill("#job-form [name=interval]", "0.2")
        await lab.page.click("#job-form .start")
        await expect(lab.page.locator("#strip")).to_contain_text("1 stream · 2 watchers")


async def test_a_token_is_asked_for_and_kept_in_memory_only() -> None:
    async with opened(SIDESTREAM_TOKEN="open-sesame") as lab:
        page = lab.page
        await expect(page.locator("#token")).to_be_visible()
        await page.fill("#token-field", "open-sesame")
        await page.keyboard.press("Enter")
        await expect(page.locator("#strip")).to_contain_text("token set")
        await page.click("#chat-form .start")
        await expect(page.locator("#outcome .state")).to_contain_text("done: stop")
        await expect(page.locator("#snippet pre")).to_contain_text("$SIDESTREAM_TOKEN")
        kept = "[localStorage.length, sessionStorage.length, document.cookie, document.body.outerHTML.includes('open-sesame')]"
        assert await page.evaluate(kept) == [0, 0, "", False]
        await page.reload()
        await expect(page.locator("#token")).to_be_visible()
        lab.problems[:] = [problem for problem in lab.problems if "401" not in problem]  # Chromium's word for being asked


# -- for everybody


@pytest.mark.parametrize(
    ("scheme", "viewport"), [("light", DESKTOP), ("dark", DESKTOP), ("light", PHONE)], ids=["light", "dark", "phone"]
)
async def test_every_section_keeps_the_rules_of_accessibility(scheme: str, viewport: dict[str, int]) -> None:
    async with opened(context={"color_scheme": scheme, "viewport": viewport}, SIDESTREAM_DEMO_INTERVAL="0") as lab:
        page = lab.page
        await page.click("#chat-form .start")
        await expect(page.locator("#outcome .state")).to_contain_text("done: stop")
        await page.locator("#wire .row.event").first.click()
        for section in SECTIONS:
            await page.locator(f"#to-{section}").click()
            await expect(page.locator(f"#{section}-panel")).to_be_visible()
            if section == "lessons":
                await expect(page.locator("#lesson tbody tr")).to_have_count(5)
            assert await violations(page) == [], section


async def test_on_a_phone_nothing_sticks_out() -> None:
    async with opened(context={"viewport": PHONE}) as lab:
        page = lab.page
        await page.click("#chat-form .start")
        await expect(page.locator("#outcome .state")).to_contain_text("done: stop")
        for section in SECTIONS:
            await page.locator(f"#to-{section}").click()
            wide = await page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            assert wide == 0, section


async def test_the_sections_are_reached_by_keyboard_alone() -> None:
    async with opened() as lab:
        page = lab.page
        await page.keyboard.press("Tab")  # the link that skips to the wire
        await page.keyboard.press("Tab")
        for section in SECTIONS[1:]:
            await page.keyboard.press("ArrowRight")
            await expect(page.locator(f"#to-{section}")).to_be_focused()
            await expect(page.locator(f"#{section}-panel")).to_be_visible()

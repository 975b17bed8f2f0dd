"""Debian's Chromium, driven by Playwright.

async with browser() as page:
    problems = Problems(page, url)      what a test holds to be empty at its end
"""

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from playwright.async_api import Page, async_playwright

from tests.support.chromium import FLAGS
from tests.support.require import require


def chromium_version() -> str:
    return subprocess.run([require("chromium"), "--version"], capture_output=True, text=True, check=True).stdout


@asynccontextmanager
async def browser(**context: Any) -> AsyncIterator[Page]:
    """A page in a browser of its own. context: for Playwright's `new_context`: viewport, color_scheme, …"""
    path = require("chromium")
    async with async_playwright() as playwright:
        flags = [flag for flag in FLAGS if flag != "--headless"]
        chromium = await playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield await (await chromium.new_context(**context)).new_page()
        finally:
            await chromium.close()


class Problems(list[str]):
    """What goes wrong on a page: console errors, exceptions, violations of its policy, requests to other hosts."""

    def __init__(self, page: Page, origin: str) -> None:
        super().__init__()
        page.on("console", lambda message: self.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.append(str(error)))
        page.on("request", lambda request: None if self._own(request.url, origin) else self.append(f"request to {request.url}"))

    @staticmethod
    def _own(url: str, origin: str) -> bool:
        return url.startswith((origin + "/", "data:"))

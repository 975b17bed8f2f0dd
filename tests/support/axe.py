"""axe-core, the accessibility rules, from npm: fetched once, kept beside the other temporary files, and checked."""

import asyncio
import hashlib
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from playwright.async_api import Page

from tests.support.require import missing, require

VERSION = "4.14.1"
SHA256 = "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745"
ARCHIVE = Path(tempfile.gettempdir()) / f"axe-core-{VERSION}.tgz"


async def script() -> str:
    """Its source, to be evaluated in a page."""
    if not ARCHIVE.exists():
        with tempfile.TemporaryDirectory() as directory:
            command = (require("npm"), "pack", "--silent", f"axe-core@{VERSION}")
            process = await asyncio.create_subprocess_exec(*command, cwd=directory)
            async with asyncio.timeout(60):
                if await process.wait():
                    missing("axe-core can't be fetched")
            (Path(directory) / ARCHIVE.name).replace(ARCHIVE)
    assert hashlib.sha256(ARCHIVE.read_bytes()).hexdigest() == SHA256, f"{ARCHIVE} is not axe-core {VERSION}"
    with tarfile.open(ARCHIVE) as archive:
        file = archive.extractfile("package/axe.min.js")
        assert file is not None
        return file.read().decode()


async def violations(page: Page) -> list[str]:
    """Each rule that the page breaks, with the elements that do; all rules of axe, WCAG's and best practices."""
    await page.evaluate(await script())  # through the debugger, which no Content-Security-Policy is for
    found: dict[str, Any] = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [f"{rule['id']}: {[node['target'] for node in rule['nodes']]}" for rule in found["violations"]]

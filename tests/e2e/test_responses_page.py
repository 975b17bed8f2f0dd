"""The examples of docs/responses.md, run as they stand there: started, killed in the middle, started again, cancelled."""

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.e2e.test_responses_node import PACKAGES
from tests.support.npm import installed
from tests.support.require import require
from tests.support.servers import ROOT, sidecar

PAGE = (ROOT / "docs" / "responses.md").read_text()
STORY = "This is a mock response to: Tell me a story."


def example(language: str) -> str:
    [block] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(block)


async def command(language: str, folder: Path) -> list[str]:
    """How the example is started, in a folder of its own."""
    if language == "python":
        (folder / "answer.py").write_text(example("python"))
        return [sys.executable, "answer.py"]
    (folder / "answer.mjs").write_text(example("js"))
    (folder / "node_modules").symlink_to(await installed(*PACKAGES) / "node_modules")
    return [require("node"), "answer.mjs"]


@asynccontextmanager
async def started(command: list[str], folder: Path, url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    env = {**os.environ, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "unused"}
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=env, stdout=asyncio.subprocess.PIPE)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def said(process: asyncio.subprocess.Process, until: str = "") -> str:
    """What it says, to its end, or until it has said this."""
    assert process.stdout is not None
    text = b""
    async with asyncio.timeout(30):
        while not (until and text.endswith(until.encode())) and (data := await process.stdout.read(1)):
            text += data
    return text.decode()


@pytest.mark.parametrize("language", ["python", "js"])
async def test_an_answer_outlives_its_client_and_goes_on(language: str, tmp_path: Path) -> None:
    run = await command(language, tmp_path)
    async with sidecar(SIDESTREAM_DEMO_INTERVAL="0.3") as server:
        async with started(run, tmp_path, server.url) as process:
            before = await said(process, until="mock")
        async with started(run, tmp_path, server.url) as process:
            rest = await said(process)
    # What it had printed and not yet noted when it was killed comes again.
    assert STORY.startswith(before)
    assert STORY.endswith(rest)
    assert 0 <= len(before) + len(rest) - len(STORY) <= len(" mock")


@pytest.mark.parametrize("language", ["python", "js"])
async def test_an_answer_is_cancelled_by_a_client_that_comes_back(language: str, tmp_path: Path) -> None:
    run = await command(language, tmp_path)
    async with sidecar(SIDESTREAM_DEMO_INTERVAL="2") as server:
        async with started(run, tmp_path, server.url) as process:
            await said(process, until=" is")
        async with started([*run, "cancel"], tmp_path, server.url) as process:
            assert (await said(process)).strip() == "cancelled"
        async with started(run, tmp_path, server.url) as process:
            assert "story" not in await said(process)

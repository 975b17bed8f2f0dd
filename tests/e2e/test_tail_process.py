"""`python -m sse tail` as a process: in a terminal, in a pipe, interrupted, and with nobody reading any more."""

import asyncio
import json
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from sse.testing import Answer, FakeServer

COMMAND = (sys.executable, "-m", "sse")
ENDLESS = Answer([b"id: a.%d\ndata: %d\n\n" % (n, n) for n in range(1, 4)], then="hang")
PIPE = asyncio.subprocess.PIPE


async def start(*arguments: str, stdout: int = PIPE, stderr: int = PIPE) -> asyncio.subprocess.Process:
    root = Path(__file__).parents[2]
    return await asyncio.create_subprocess_exec(*COMMAND, *arguments, cwd=root, stdout=stdout, stderr=stderr)


async def read_until(terminal: int, text: bytes) -> bytes:
    """What a terminal shows up to `text`."""
    loop = asyncio.get_running_loop()
    seen, found = b"", loop.create_future()

    def readable() -> None:
        nonlocal seen
        seen += os.read(terminal, 65536)
        if text in seen and not found.done():
            found.set_result(None)

    loop.add_reader(terminal, readable)
    try:
        await asyncio.wait_for(found, 10)
    finally:
        loop.remove_reader(terminal)
    return seen


async def test_ctrl_c_on_a_terminal_ends_cleanly_and_says_how_to_go_on() -> None:
    controller, terminal = pty.openpty()
    try:
        async with FakeServer(ENDLESS) as server:
            process = await start("tail", server.url, stdout=terminal, stderr=terminal)
            shown = await read_until(controller, b"a.3")
            assert f"sse: connected to {server.url}\r\n".encode() in shown
            assert b"\x1b[2ma.1\x1b[0m  \x1b[36mmessage\x1b[0m  1\r\n" in shown
            process.send_signal(signal.SIGINT)
            last = await read_until(controller, b"--last-event-id")
            assert f"stopped; go on with: python -m sse tail {server.url} --last-event-id".encode() in last
            assert await asyncio.wait_for(process.wait(), 10) == 130
            await asyncio.wait_for(server.requests[0].left.wait(), 5)
    finally:
        os.close(controller)
        os.close(terminal)


async def test_in_a_pipe_each_event_is_a_line_as_soon_as_it_comes() -> None:
    async with FakeServer(ENDLESS) as server:
        process = await start("tail", server.url)
        assert process.stdout is not None
        lines = [json.loads(await asyncio.wait_for(process.stdout.readline(), 10)) for _ in range(3)]
        assert [line["id"] for line in lines] == ["a.1", "a.2", "a.3"]
        process.send_signal(signal.SIGINT)
        out, err = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, out) == (130, b"")
    assert err.decode().splitlines() == [
        f"sse: connected to {server.url}",
        f"sse: stopped; go on with: python -m sse tail {server.url} --last-event-id a.3",
    ]


async def test_whoever_stops_reading_ends_it_quietly() -> None:
    closed = asyncio.Event()
    answer = Answer([b"data: 1\n\n", closed, b"data: 2\n\n"], then="hang")
    async with FakeServer(answer) as server:
        reading, writing = os.pipe()
        process = await start("tail", server.url, stdout=writing)
        os.close(writing)
        await read_until(reading, b"\n")
        os.close(reading)
        closed.set()
        _, err = await asyncio.wait_for(process.communicate(), 10)
    assert (process.returncode, err) == (0, f"sse: connected to {server.url}\n".encode())


@pytest.mark.parametrize(("arguments", "status"), [(["--help"], 0), (["tail", "--help"], 0), ([], 2), (["tial"], 2)])
async def test_the_command_explains_itself(arguments: list[str], status: int) -> None:
    process = await start(*arguments)
    out, err = await asyncio.wait_for(process.communicate(), 10)
    assert process.returncode == status
    assert b"Traceback" not in err
    assert b"tail" in (out if status == 0 else err) or b"COMMAND" in err

"""`uvicorn app:app` and `python app.py`: both serve it, both refuse a wrong setting with one line."""

import asyncio
import os
import signal
import socket
import sys
import time

import pytest

from tests.support.servers import ROOT, sidecar
from tests.support.sockets import Client, Cut, complaints, fetch, get_json

pytestmark = pytest.mark.e2e

PYTHON = (sys.executable, "app.py")
UVICORN = (sys.executable, "-m", "uvicorn", "app:app", "--port", "0")


async def refused(*command: str, **settings: str) -> tuple[int, list[str]]:
    """Start what must not start: its exit status, and what it wrote to standard error."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("SIDESTREAM_", "OPENAI_"))}
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environ | settings, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(20):
        output, error = await process.communicate()
    assert output == b""
    assert process.returncode is not None
    return process.returncode, error.decode().splitlines()


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"SIDESTREAM_PORT": "http"}, "SIDESTREAM_PORT='http': expected an integer from 0 to 65535"),
        ({"SIDESTREAM_LINGER": "-1"}, "SIDESTREAM_LINGER='-1': expected seconds, from 0 to 86400, or none"),
        (
            {"SIDESTREAM_TOKEN": "geheim ä"},
            "SIDESTREAM_TOKEN=(not shown): expected one or more tokens, or off alone",
        ),
        (
            {"SIDESTREAM_HOST": "0.0.0.0", "SIDESTREAM_PORT": "0"},
            "SIDESTREAM_HOST='0.0.0.0': expected a loopback address, or SIDESTREAM_TOKEN set (off: open to whoever reaches it)",
        ),
        (
            {"SIDESTREAM_HOST": "no.such.host.invalid", "SIDESTREAM_TOKEN": "x"},
            "SIDESTREAM_HOST='no.such.host.invalid': expected an address or a name of this machine",
        ),
        ({"SIDESTREAM_JOBS": "nowhere"}, "SIDESTREAM_JOBS: nowhere can't be imported: ModuleNotFoundError"),
        ({"SIDESTREAM_TOOLS": "nowhere"}, "SIDESTREAM_TOOLS: nowhere can't be imported: ModuleNotFoundError"),
        ({"OPENAI_BASE_URL": "nowhere"}, "OPENAI_BASE_URL='nowhere': expected a URL"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ",".join(value),
)
async def test_python_app_refuses_a_wrong_setting_with_one_line(settings: dict[str, str], line: str) -> None:
    status, lines = await refused(*PYTHON, **settings)
    assert status == 2
    assert len(lines) == 1
    assert lines[0].startswith(f"sidestream: {line}")


async def test_python_app_says_when_its_port_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        status, lines = await refused(*PYTHON, SIDESTREAM_PORT=str(port))
    assert (status, lines) == (2, [f"sidestream: cannot listen on 127.0.0.1:{port}: Address already in use"])


async def test_uvicorn_refuses_a_wrong_setting_with_its_line() -> None:
    status, lines = await refused(*UVICORN, SIDESTREAM_RETRY="soon")
    assert status == 3
    assert "ERROR:    SIDESTREAM_RETRY='soon': expected an integer from 0 to 3600000" in lines
    assert not [line for line in lines if "Traceback" in line]


@pytest.mark.parametrize("more", [(), ("--http", "h11"), ("--loop", "asyncio")], ids=["as it is", "h11", "asyncio"])
async def test_uvicorn_serves_it(more: tuple[str, ...]) -> None:
    async with sidecar(command=(*UVICORN, *more)) as process:
        assert (await get_json(process.port, "/readyz"))["status"] == "ready"
        async with Client(process.port) as client:
            answer = await client.get("/stream?count=3&interval=0")
            assert [event.last_event_id for event in await answer.events()] == ["0", "1", "2", "3", "end"]
            resumed = await client.get("/stream?count=3&interval=0", {"Last-Event-ID": "2"})
            assert [event.last_event_id for event in await resumed.events()] == ["3", "end"]


@pytest.mark.parametrize(
    ("command", "settings"),
    [((*UVICORN, "--root-path", "/side"), {}), (PYTHON, {"SIDESTREAM_ROOT_PATH": "/side"})],
    ids=["uvicorn --root-path", "SIDESTREAM_ROOT_PATH"],
)
async def test_behind_a_proxy_that_takes_off_a_prefix_the_urls_have_it(
    command: tuple[str, ...], settings: dict[str, str]
) -> None:
    """The proxy sends /streams for /side/streams; what clients are told begins with /side."""
    async with sidecar(command=command, **settings) as process, Client(process.port) as client:
        answer = await client.request("POST", "/streams", {"Accept": "application/json"})
        document = await answer.json()
        assert document["url"] == answer.headers["location"] == f"/side/streams/{document['stream_id']}"
        state = await get_json(process.port, document["url"].removeprefix("/side"), {"Accept": "application/json"})
        assert state["url"] == document["url"]


async def test_uvicorn_cuts_what_is_open_after_its_graceful_time_and_ends() -> None:
    """uvicorn tells the application to end its streams only after it has cut their connections: so a client sees no end.

    It comes back to whatever serves then; the stream is gone with the process. `python app.py` drains first.
    """
    command = (*UVICORN, "--timeout-graceful-shutdown", "2")
    async with sidecar(command=command) as process, Client(process.port) as client, Client(process.port) as kept:
        await (await kept.get("/healthz")).json()
        answer = await client.get("/stream?interval=3600")
        assert (await answer.event()).type == "connected"
        begin = time.monotonic()
        process.process.send_signal(signal.SIGTERM)
        await kept.closed()
        with pytest.raises((Cut, ConnectionResetError)):
            await answer.events()
        assert time.monotonic() - begin >= 2
        async with asyncio.timeout(5):
            status = await process.process.wait()
        assert status == -signal.SIGTERM  # uvicorn raises the signal again
        assert time.monotonic() - begin < 5


async def test_uvicorn_lets_a_stream_finish_that_ends_in_its_graceful_time() -> None:
    command = (*UVICORN, "--timeout-graceful-shutdown", "10")
    async with sidecar(command=command) as process, Client(process.port) as client:
        answer = await client.get("/stream?count=2&interval=1")
        await answer.event()
        process.process.send_signal(signal.SIGTERM)
        assert (await answer.events())[-1].data == "[DONE]"
        async with asyncio.timeout(5):
            assert await process.process.wait() == -signal.SIGTERM


async def test_it_serves_over_ipv6_where_there_is_any() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 here")
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6) as free:
            port = free.getsockname()[1]
    except OSError:
        pytest.skip("no IPv6 loopback here")
    environ = os.environ | {"SIDESTREAM_HOST": "::1", "SIDESTREAM_PORT": str(port)}
    process = await asyncio.create_subprocess_exec(*PYTHON, cwd=ROOT, env=environ, stderr=asyncio.subprocess.PIPE)
    try:
        assert process.stderr is not None
        async with asyncio.timeout(20):
            while b"serving on" not in (line := await process.stderr.readline()):
                assert line, "it ended instead of serving"
        assert f"http://[::1]:{port} " in line.decode()
        reader, writer = await asyncio.open_connection("::1", port)
        writer.write(b"GET /streams HTTP/1.1\r\nHost: [::1]:%d\r\nConnection: close\r\n\r\n" % port)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
        writer.close()
    finally:
        process.terminate()
        assert await process.wait() == 0


async def test_the_environment_decides_not_the_command_line() -> None:
    async with sidecar(command=PYTHON, SIDESTREAM_RETRY="1234") as process:
        _, body = await fetch(process.port, "/stream?count=0")
        assert body.startswith(b"id: 0\nretry: 1234\n")
        assert complaints(process.stderr) == []

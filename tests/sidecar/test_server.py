"""Our server: what it refuses to start with, its signals, what it does without files, and how its connections treat streams."""

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from app import Sidestream
from sidecar import server
from sidecar.connection import Connection
from sidecar.settings import Settings
from sse.asgi import CONNECTION, Receive, Scope, Send
from tests.support.app import Extended, Runs, serving
from tests.support.servers import sidecar
from tests.support.sockets import Client, Cut, encode_request, fetch
from tests.support.streams import open_in

ROOT = Path(__file__).parents[2]

# -- what it refuses


def test_a_wrong_setting_is_one_line_and_status_2(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("SIDESTREAM_KEEP", "long")
    assert server.main(Sidestream) == 2
    assert capsys.readouterr() == ("", "sidestream: SIDESTREAM_KEEP='long': expected seconds, from 0 to 86400\n")


@pytest.mark.e2e
async def test_with_stderr_closed_it_serves() -> None:
    """A file that is closed must not become a socket's number either: what is written to stderr would go to a client."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    process = await started("exec {python} app.py <&- >&- 2>&-", SIDESTREAM_PORT=str(port))
    try:
        while process.returncode is None:
            try:
                assert (await fetch(port, "/healthz"))[0] == 200
                break
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
        assert [os.readlink(f"/proc/{process.pid}/fd/{number}") for number in range(3)] == ["/dev/null"] * 3
    finally:
        process.terminate()
    assert await process.wait() == 0


async def test_garbage_is_collected_once_it_serves() -> None:
    gc.disable()  # as app.py does for its imports
    try:
        async with serving(Sidestream(Settings()), Settings()):
            assert gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.e2e
async def test_with_stderr_closed_a_wrong_setting_is_status_2_all_the_same() -> None:
    assert await (await started("exec {python} app.py 2>&-", SIDESTREAM_KEEP="long")).wait() == 2


async def started(command: str, **env: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        "sh", "-c", command.format(python=sys.executable), cwd=ROOT, env={**os.environ, **env}
    )


# -- signals


@pytest.mark.parametrize(
    ("signals", "forced"),
    [
        ([signal.SIGTERM], False),
        ([signal.SIGINT], False),
        ([signal.SIGTERM, signal.SIGTERM], False),
        ([signal.SIGINT, signal.SIGTERM], False),
        ([signal.SIGINT, signal.SIGINT], True),
        ([signal.SIGTERM, signal.SIGINT], True),
    ],
    ids=str,
)
def test_a_signal_drains_and_a_sigint_after_it_ends(signals: list[int], forced: bool) -> None:
    settings = Settings()
    sidestream = Sidestream(settings)
    served = server.Server(server.configuration(sidestream, settings), sidestream)
    for number in signals:
        served.handle_exit(number, None)
    assert (served.should_exit, served.force_exit) == (True, forced)
    assert served._captured_signals == []  # uvicorn would raise them again, and the exit status be theirs


@pytest.fixture
def hangup_not_ignored() -> Iterator[None]:
    """A process inherits that a signal is ignored, and these tests may run under nohup(1)."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hangup_not_ignored")
async def test_a_hangup_drains() -> None:
    async with sidecar() as process, Client(process.port) as client:
        answer = await client.get("/stream?count=2&interval=60")
        await answer.event()
        process.process.send_signal(signal.SIGHUP)
        *_, last = await answer.events()
        assert (last.type, last.data) == ("cancelled", '{"reason":"shutting_down"}')
        assert await process.process.wait() == 0


async def test_a_hangup_that_is_ignored_when_it_starts_stays_ignored() -> None:
    """nohup(1) does that."""
    async with sidecar(command=("sh", "-c", f"trap '' HUP; exec {sys.executable} app.py")) as process:
        status = Path(f"/proc/{process.pid}/status").read_text()
        ignored = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
        assert int(ignored.split()[1], 16) & 1 << signal.SIGHUP - 1


async def test_told_to_end_at_once_before_the_drain_has_begun_it_does() -> None:
    """Two signals may come between two of uvicorn's looks at its flags."""
    settings = Settings(drain=60)
    sidestream = Sidestream(settings)
    async with asyncio.timeout(5):
        async with serving(sidestream, settings) as (served, port), Client(port) as client:
            stream = open_in(sidestream.service.store)
            await (await client.get(f"/streams/{stream.id}")).event()
            served.handle_exit(signal.SIGINT, None)
            served.handle_exit(signal.SIGINT, None)
            await client.closed()
    assert stream.reason == "shutting_down"


# -- no more files

SERVE = (
    "import sys; {first}; import app; from sidecar import server; "
    "server.REPEAT = {repeat}; sys.exit(server.main(app.Sidestream))"
)


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "repeat", "times"),
    [("sys", 1, {2, 3}), ("sys.modules['uvloop'] = None", 60, {1})],
    ids=["uvloop", "asyncio"],
)
async def test_running_out_of_files_is_said_once_in_a_while_and_does_not_last(first: str, repeat: int, times: set[int]) -> None:
    code = SERVE.format(first=first, repeat=repeat)
    command = ("sh", "-c", f'ulimit -n 64; exec {sys.executable} -c "{code}"')
    async with sidecar(command=command) as process:
        clients = [Client(process.port) for _ in range(100)]
        for client in clients:
            await client.__aenter__()
        await asyncio.sleep(2.5)
        for client in clients:
            client.close()
        async with asyncio.timeout(5):
            while True:
                try:
                    assert (await fetch(process.port, "/healthz"))[0] == 200
                    break
                except (OSError, Cut):
                    await asyncio.sleep(0.1)
        assert len([line for line in process.stderr if "no more files" in line]) in times
        assert [line for line in process.stderr if "no more files" not in line and '"level":"error"' in line] == []


# -- connections


class Noticing(Extended):
    """Keeps what the server offers each request."""

    def __init__(self, settings: Settings, runs: Runs) -> None:
        super().__init__(settings, *runs.routes())
        self.offered: list[dict[str, Any]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            self.offered.append(scope["extensions"][CONNECTION])
        await super().__call__(scope, receive, send)


@pytest.fixture
def runs() -> Runs:
    return Runs()


@pytest.fixture
def sidestream(runs: Runs) -> Noticing:
    return Noticing(Settings(linger=0, drain=0), runs)


@pytest.fixture
async def port(sidestream: Noticing) -> AsyncIterator[int]:
    async with serving(sidestream, sidestream.service.settings) as (_, port):
        yield port


LONG = "/numbers?count=2&interval=3600&run=long"


async def closed(runs: Runs) -> None:
    async with asyncio.timeout(5):
        while "long" not in runs.closed:
            await runs.one_closed()


@pytest.mark.parametrize("behind", [1, 3])
async def test_a_pipelined_request_ends_the_stream_before_it(port: int, runs: Runs, behind: int) -> None:
    async with Client(port) as client:
        await (await client.get(LONG)).event()
        await client.send(encode_request(port, "GET", "/healthz") * behind)
        await client.closed()
    await closed(runs)


async def test_a_stream_with_a_request_already_behind_it_ends_too(port: int, runs: Runs) -> None:
    async with Client(port) as client:
        await client.send(encode_request(port, "GET", LONG) + encode_request(port, "GET", "/healthz"))
        await client.closed()
    await closed(runs)


async def test_a_stream_may_stand_behind_whole_answers(port: int) -> None:
    whole, stream = encode_request(port, "GET", "/healthz"), encode_request(port, "GET", "/stream?count=1&interval=0")
    async with Client(port) as client:
        await client.send(whole + whole + stream)
        for _ in range(2):
            assert (await (await client.answer()).json())["status"] == "ok"
        assert [event.last_event_id for event in await (await client.answer()).events()] == ["0", "1", "end"]


async def test_every_request_is_offered_the_means_to_let_go(port: int, sidestream: Noticing) -> None:
    """Reset, so that the kernel keeps nothing for the client either."""
    async with Client(port) as client:
        await (await client.get(LONG)).event()
        (connection,) = sidestream.offered
        assert set(connection) == {"open", "abort", "write"}
        connection["abort"]()
        with pytest.raises(ConnectionResetError):
            while await client.receive():
                pass


async def test_a_connection_that_is_gone_can_be_aborted_all_the_same(
    port: int, sidestream: Noticing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever stalls may also leave, at the same moment."""
    gone = asyncio.Event()
    lost = Connection.connection_lost

    def connection_lost(self: Connection, error: Exception | None) -> None:
        lost(self, error)
        gone.set()

    monkeypatch.setattr(Connection, "connection_lost", connection_lost)
    async with Client(port) as client:
        await (await client.get(LONG)).event()
        client.reset()
        async with asyncio.timeout(5):
            await gone.wait()
    sidestream.offered[0]["abort"]()


async def test_the_drain_comes_before_the_listener_closes(runs: Runs, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    settings = Settings(drain=60)
    sidestream = Extended(settings, *runs.routes())
    async with serving(sidestream, settings) as (served, port), Client(port) as client:
        answer = await client.get(LONG)
        await answer.event()
        served.should_exit = True
        async with asyncio.timeout(5):
            while sidestream.service.store.draining is False:
                async with Client(port) as probe:
                    await (await probe.get("/readyz")).whole()
        async with Client(port) as other:
            assert (await other.get("/readyz")).status == 503
        async with Client(port) as other:
            assert (await other.request("DELETE", answer.headers["location"])).status == 204
        assert (await answer.events())[-1].data == '{"reason":"deleted"}'
    assert "draining: 1 running streams have 60 s to end" in caplog.messages


@pytest.mark.parametrize(("guarded", "curl"), [(False, "curl -N"), (True, "curl -N -H 'Authorization: Bearer <token>'")])
async def test_the_log_has_a_command_to_begin_with(guarded: bool, curl: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    settings = Settings(token=("secret",) if guarded else ())
    async with serving(Sidestream(settings), settings) as (_, port):
        url = f"http://127.0.0.1:{port}"
        assert f"serving on {url} - a first stream: {curl} '{url}/chat?prompt=Hello'" in caplog.messages

"""What the server refuses to listen on, the options of its sockets, and how many files it may open."""

import asyncio
import resource
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
import uvloop

from sidecar import listener
from sidecar.settings import Settings

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_without_a_token_it_serves_on_loopback(host: str) -> None:
    listener.check_exposure(Settings(host=host))


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "sidecar.example"])
def test_without_a_token_it_serves_nowhere_else(host: str) -> None:
    with pytest.raises(ValueError, match=f"^SIDESTREAM_HOST='{host}': expected a loopback address, or SIDESTREAM_TOKEN"):
        listener.check_exposure(Settings(host=host))


@pytest.mark.parametrize("token", [("secret",), ("off",)])
def test_with_a_token_or_off_it_serves_anywhere(token: tuple[str, ...]) -> None:
    listener.check_exposure(Settings(host="0.0.0.0", token=token))


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"^cannot listen on 127.0.0.1:{port}: Address already in use$"):
            listener.listener(Settings(port=port))


@pytest.mark.parametrize("host", ["a..b", "x" * 64 + ".example"])
def test_a_host_that_is_no_name_is_named(host: str) -> None:
    with pytest.raises(OSError, match=f"^SIDESTREAM_HOST='{host}': expected an address or a name of this machine"):
        listener.listener(Settings(host=host, port=0))


@pytest.mark.skipif(sys.platform != "linux", reason="the options are Linux's")
def test_accepted_sockets_inherit_the_options() -> None:
    expected = {**listener.options(Settings(send_timeout=20)), "TCP_USER_TIMEOUT": 30_000}
    with (
        listener.listener(Settings(port=0, send_timeout=20)) as sock,
        socket.create_connection(sock.getsockname()),
        sock.accept()[0] as accepted,
    ):
        found = {name: accepted.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) for name in expected}
        assert found == expected
        assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1


def test_connections_that_wait_are_accepted_in_few_turns_of_the_event_loop() -> None:
    accepted: list[asyncio.BaseTransport] = []

    class Accepted(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.append(transport)

    async def turns(count: int) -> int:
        with listener.listener(Settings(port=0)) as sock, ExitStack() as clients:
            acceptor = listener.Acceptor(sock, Accepted)
            server = await asyncio.get_running_loop().create_server(Accepted, sock=sock)
            for _ in range(count):
                clients.enter_context(socket.create_connection(sock.getsockname()))
            taken = 0
            while len(accepted) < count:
                await asyncio.sleep(0)
                taken += 1
            acceptor.close()
            server.close()
            for transport in accepted:
                transport.close()
        return taken

    assert uvloop.run(turns(listener.AT_ONCE)) <= 6


@pytest.mark.parametrize(
    ("hard", "streams", "wished", "watchers"),
    [
        (20_000, 1000, 10_000, 10_000),
        (20_000, 1000, 50_000, 18_872),
        (4096, 1000, 10_000, 2968),
        (1024, 1000, 10_000, 512),
        (resource.RLIM_INFINITY, 1000, 50_000, 50_000),
    ],
)
def test_watchers_are_fitted_to_the_files_that_there_may_be(
    hard: int,
    streams: int,
    wished: int,
    watchers: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    raised = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda *wish: raised.append(wish))
    assert listener.fit_watchers(Settings(max_streams=streams, max_watchers=wished)).max_watchers == watchers
    assert raised == [(resource.RLIMIT_NOFILE, (hard, hard))]
    expected = [f"{watchers} watchers at the most, not {wished}: this process may have {hard} files open"]
    assert [record.getMessage() for record in caplog.records] == (expected if watchers != wished else [])


def test_the_soft_limit_is_really_raised() -> None:
    code = (
        "import resource; from sidecar import listener; from sidecar.settings import Settings\n"
        "_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "listener.fit_watchers(Settings())\n"
        "print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard))\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == "True\n"

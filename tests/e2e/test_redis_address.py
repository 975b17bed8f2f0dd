"""How Redis is reached: TLS, users and passwords, unix sockets; failing over; slow; and what of an address is ever shown."""

import asyncio
import json
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.docs.test_operations import PAGE
from tests.support.nginx import free_ports
from tests.support.redis import RedisServer, address, redis_server
from tests.support.require import require
from tests.support.servers import Server, sidecar
from tests.support.sockets import Client, complaints, fetch, get_json

pytestmark = pytest.mark.e2e

PASSWORD = "h/u:s@h é"
ENCODED = "h%2Fu%3As%40h%20%C3%A9"


@asynccontextmanager
async def two(url: str, **env: str) -> AsyncIterator[list[Server]]:
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(sidecar(SIDESTREAM_STORE=url, **env)) for _ in range(2)]


async def steps(port: int, count: int, interval: float = 0.01) -> str:
    """Start a job of so many steps; where it is watched."""
    body = json.dumps({"kind": "steps", "params": {"count": count, "interval": interval}}).encode()
    status, answer = await fetch(port, "/jobs", method="POST", headers={"Content-Type": "application/json"}, body=body)
    assert status == 202, answer
    return f"/streams/{json.loads(answer)['job_id']}"


async def numbers(port: int, url: str) -> list[str]:
    """What a watcher gets, by number, over one connection."""
    async with Client(port) as client:
        return [event.last_event_id.rpartition(".")[2] for event in await (await client.get(url)).events()]


def whole(count: int) -> list[str]:
    return [*map(str, range(count + 3)), "end"]


def certificates(folder: Path) -> dict[str, str]:
    """A certification authority, and what it has signed for a Redis on this machine; the options of a Redis that has that."""
    openssl = [require("openssl"), "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    authority = ["-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.crt"), "-subj", "/CN=a test"]
    signed = ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key"), "-subj", "/CN=localhost"]
    names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE"]
    made = ["-keyout", str(folder / "redis.key"), "-out", str(folder / "redis.crt")]
    for arguments in (authority, [*signed, *names, *made]):
        subprocess.run([*openssl, *arguments], check=True, capture_output=True)
    return {
        "tls_port": str(free_ports(1)[0]),
        "tls_cert_file": str(folder / "redis.crt"),
        "tls_key_file": str(folder / "redis.key"),
        "tls_ca_cert_file": str(folder / "ca.crt"),
        "tls_auth_clients": "no",
    }


async def guarded(server: RedisServer, rules: str) -> None:
    """Only the user `app` gets in from now on, but for clients of the test that are there."""
    async with server.client() as client:
        await client.execute_command("ACL", "SETUSER", "app", "on", f">{PASSWORD}", *rules.split())  # type: ignore[no-untyped-call]


def rules() -> str:
    """What the page says that a user needs."""
    match = re.search(r"An ACL needs `([^`]+)`", PAGE)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("way", ["tls", "a user", "a user over tls", "unix socket", "a user over a unix socket"])
async def test_streams_are_shared_however_redis_is_reached(tmp_path: Path, way: str) -> None:
    options = certificates(tmp_path) if "tls" in way else {"unixsocket": str(tmp_path / "redis.sock")} if "unix" in way else {}
    user = f"app:{ENCODED}@" if "user" in way else ""
    async with redis_server(tmp_path, **options) as server:
        if user:
            await guarded(server, rules())
        url = {
            "tls": f"rediss://{user}localhost:{options.get('tls_port')}?ssl_ca_certs={tmp_path}/ca.crt",
            "unix": f"unix://{user}{tmp_path}/redis.sock",
        }.get("tls" if "tls" in way else "unix" if "unix" in way else "", f"redis://{user}127.0.0.1:{server.port}")
        async with two(url, SIDESTREAM_LOG_LEVEL="debug", SIDESTREAM_KEEP="1") as (here, there):
            stream = await steps(here.port, 50)
            assert await numbers(there.port, stream) == whole(50)
            endless = await steps(here.port, 10_000)
            watching = asyncio.create_task(numbers(here.port, endless))
            assert (await fetch(there.port, endless, method="DELETE"))[0] == 204
            assert (await watching)[-1] == "end"
            assert (await get_json(there.port, "/streams"))["streams"] != []
            for each in (here, there):
                assert complaints(each.stderr) == []
        for each in (here, there):
            assert complaints(each.stderr) == []
            assert_hidden("\n".join(each.stderr))


async def test_a_certificate_that_nobody_trusted_has_signed_is_refused(tmp_path: Path) -> None:
    async with redis_server(tmp_path, **certificates(tmp_path)) as server:
        url = f"rediss://app:{ENCODED}@localhost:{server.options['tls-port']}"
        with pytest.raises(AssertionError, match="CERTIFICATE_VERIFY_FAILED") as raised:
            async with sidecar(SIDESTREAM_STORE=url):
                pass
        assert_hidden(str(raised.value))


# -- failing over


@asynccontextmanager
async def a_pair(folder: Path) -> AsyncIterator[tuple[RedisServer, RedisServer]]:
    """A primary and its replica, which has caught up."""
    async with AsyncExitStack() as stack:
        servers = []
        for name in ("primary", "replica"):
            (folder / name).mkdir()
            servers.append(await stack.enter_async_context(redis_server(folder / name, repl_diskless_sync_delay="0")))
        primary, replica = servers
        await follows(replica, primary)
        yield primary, replica


async def follows(replica: RedisServer, primary: RedisServer | None) -> None:
    """None: it is a primary itself from now on."""
    async with replica.client() as client:
        if primary is None:
            await client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]
            return
        await client.execute_command("REPLICAOF", "127.0.0.1", str(primary.port))  # type: ignore[no-untyped-call]
        async with asyncio.timeout(20):
            while (await client.info("replication")).get("master_link_status") != "up":
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("primary_then", ["is killed", "becomes a replica"])
async def test_a_failover_loses_nothing_not_even_what_the_replica_lacks(tmp_path: Path, primary_then: str) -> None:
    """The address leads to what was the replica. Connections to what was the primary stay, where that still runs."""
    async with a_pair(tmp_path) as (primary, replica), address(primary) as front, two(front.url) as (here, there):
        known = await steps(here.port, 700)
        watching = [asyncio.create_task(numbers(each.port, known)) for each in (here, there)]
        await asyncio.sleep(0.5)
        await follows(replica, None)  # what is written from here on gets lost
        body = b'{"prompt": "Hello there, what may this be?"}'
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Idempotency-Key": "a key"}
        ended = json.loads((await fetch(here.port, "/chat", method="POST", headers=headers, body=body))[1])["stream_id"]
        unknown = await steps(there.port, 700)
        watching += [asyncio.create_task(numbers(each.port, unknown)) for each in (here, there)]
        assert (await numbers(there.port, f"/streams/{ended}"))[-1] == "end"
        await asyncio.sleep(0.5)
        if primary_then == "is killed":
            await primary.kill()
        else:
            await follows(primary, replica)
        front.to = replica
        for watcher in watching:
            assert await watcher == whole(700)
        for each in (here, there):
            for url in (known, unknown):
                assert await numbers(each.port, url) == whole(700)
            document = await get_json(each.port, f"/streams/{ended}", {"Accept": "application/json"})
            assert document["state"] == "done"
            status, again = await fetch(each.port, "/chat", method="POST", headers=headers, body=body)
            assert (status, json.loads(again)["stream_id"]) == (202, ended), "the key is known as well"
            assert "sidestream_store_up 1.0" in (await fetch(each.port, "/metrics"))[1].decode()
        async with replica.client() as client:
            assert await client.exists(f"sidestream:{{{ended}}}:opening")


# -- slow


async def test_a_slow_redis_makes_nobody_slow_who_watches_where_a_stream_runs(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as server, address(server) as front, two(front.url) as (here, there):
        loop = asyncio.get_running_loop()
        url, begin = await steps(here.port, 300), loop.time()
        front.delay = 0.1
        watching = asyncio.create_task(numbers(there.port, url))
        assert await numbers(here.port, url) == whole(300)
        took = loop.time() - begin
        assert await watching == whole(300)
        state = await get_json(there.port, url, {"Accept": "application/json"})
        assert (state["state"], state["gaps"]) == ("done", 0)
        # 300 steps of 10 ms by timers, on a machine that does other things too; a wait for Redis at each would take 60 s
        assert took < 30
        for each in (here, there):
            assert "sidestream_store_reconnects_total 0.0" in (await fetch(each.port, "/metrics"))[1].decode()


# -- what is shown


def assert_hidden(text: str) -> None:
    """Neither the password nor a piece of it, as it is or as a URL has it."""
    for piece in (PASSWORD, ENCODED, PASSWORD[:5], ENCODED[:7]):
        assert piece not in text


URLS = {
    "a user and a password": f"redis://app:{ENCODED}@127.0.0.1:{{port}}",
    "a password": f"redis://:{ENCODED}@127.0.0.1:{{port}}/0",
    "in the query": f"redis://127.0.0.1:{{port}}?username=app&password={ENCODED}",
    "another name": f"redis://app:{ENCODED}@nowhere.invalid:{{port}}",
    "no port": f"redis://app:{ENCODED}@127.0.0.1:port",
    "an option that there isn't": f"redis://app:{ENCODED}@127.0.0.1:{{port}}?colour=blue",
    "tls without tls": f"rediss://app:{ENCODED}@127.0.0.1:{{port}}",
    "tls with a missing file": f"rediss://app:{ENCODED}@127.0.0.1:{{port}}?ssl_ca_certs=/nowhere",
    "a unix socket": f"unix://app:{ENCODED}@/nowhere/redis.sock",
    "unix, in the query": f"unix:///nowhere/redis.sock?username=app&password={ENCODED}",
    "no such kind": f"http://app:{ENCODED}@127.0.0.1:{{port}}",
    "a blank": f"redis://app:{ENCODED} @127.0.0.1:{{port}}",
}


@pytest.mark.parametrize("url", URLS.values(), ids=URLS)
async def test_an_address_that_fails_is_not_shown_with_its_password(tmp_path: Path, url: str) -> None:
    """Where Redis is required, and where it isn't; every one of these is refused, or not reached."""
    async with redis_server(tmp_path) as server:
        async with server.client() as client:  # as it is, the user `default` takes any password
            await client.execute_command("ACL", "SETUSER", "default", "resetpass", ">another")  # type: ignore[no-untyped-call]
        given: dict[str, Any] = {"SIDESTREAM_STORE": url.format(port=server.port), "SIDESTREAM_LOG_LEVEL": "debug"}
        with pytest.raises(AssertionError) as raised:
            async with sidecar(**given):
                pass
        assert "SIDESTREAM_STORE" in str(raised.value)
        assert "Traceback" not in str(raised.value)
        assert_hidden(str(raised.value))
        try:
            async with sidecar(**given, SIDESTREAM_STORE_REQUIRED="off") as process:
                await process.says("does not answer")
                assert (await fetch(process.port, "/readyz"))[0] == 503
            said = "\n".join(process.stderr)
        except AssertionError as error:  # no address at all
            said = str(error)
        assert "Traceback" not in said
        assert_hidden(said)


@pytest.mark.parametrize(
    "trouble", ["its password is another one", "it may not write", "it is killed", "it becomes a replica", "it is full"]
)
async def test_trouble_with_a_redis_that_was_reached_shows_neither_its_password_nor_a_stream(
    tmp_path: Path, trouble: str
) -> None:
    async with redis_server(tmp_path) as server:
        await guarded(server, rules())
        url = f"redis://app:{ENCODED}@127.0.0.1:{server.port}"
        async with two(url, SIDESTREAM_LOG_LEVEL="debug") as (process, other):
            stream = await steps(process.port, 300)
            watching = asyncio.create_task(numbers(other.port, stream))
            async with server.client() as client:
                command: Any = client.execute_command
                if trouble == "its password is another one":
                    await command("ACL", "SETUSER", "app", "resetpass", ">another")
                    await client.client_kill_filter(_type="normal", skipme=True)
                elif trouble == "it may not write":
                    await command("ACL", "SETUSER", "app", "-xadd")
                elif trouble == "it is killed":
                    await server.kill()
                elif trouble == "it becomes a replica":
                    await command("REPLICAOF", "127.0.0.1", "1")
                else:
                    await client.config_set("maxmemory", "1")
            await process.says("does not answer")
            await fetch(process.port, "/streams/AAAAAAAAAAAAAAAAAAAAAA", headers={"Accept": "application/json"})
            watching.cancel()
        said = "\n".join([*process.stderr, *other.stderr])
        assert_hidden(said)
        assert stream.removeprefix("/streams/") not in said

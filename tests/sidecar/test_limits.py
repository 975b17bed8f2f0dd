"""Everything of which a client could send or ask too much, and the status that it gets for it."""

from collections.abc import Mapping
from typing import Any

import pytest

from app import Sidestream
from sidecar.settings import Settings
from tests.support.app import EVENT_STREAM, HOST, JSON, ask, serving
from tests.support.sockets import Client

CHAT = ("POST", "/chat")


def nested(depth: int) -> bytes:
    """A chat with a parameter that is nested, `depth` levels in all."""
    return b'{"prompt": "x", "stop": %b%b}' % (b"[" * (depth - 1), b"]" * (depth - 1))


def messages(count: int) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "x"}] * count}


@pytest.fixture
def sidestream() -> Sidestream:
    return Sidestream(Settings(max_body=500_000, demo_interval=0))


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "status"),
    [
        (*CHAT, {}, b'{"prompt": "' + b"x" * 499_000 + b'"}', 202),
        (*CHAT, {}, b'{"prompt": "' + b"x" * 500_000 + b'"}', 413),
        (*CHAT, {"content-length": "500001"}, b"", 413),
        (*CHAT, {"content-length": "9" * 5000}, b"", 413),
        (*CHAT, {}, nested(1025), 400),
        (*CHAT, {}, nested(255), 400),
        (*CHAT, {}, nested(254), 202),
        (*CHAT, {}, messages(10_000), 202),
        (*CHAT, {}, messages(10_001), 422),
        (*CHAT, {}, {"prompt": "x", "metadata": {"x": "y" * 1000}}, 202),
        (*CHAT, {}, {"prompt": "x", "metadata": {"x": "y" * 1024}}, 422),
        (*CHAT, {"idempotency-key": "k" * 256}, {"prompt": "x"}, 202),
        (*CHAT, {"idempotency-key": "k" * 257}, {"prompt": "x"}, 400),
        (*CHAT, {"last-event-id": "x" * 5000}, {"prompt": "x"}, 400),
        (*CHAT, {"last-event-id": f"{'x' * 22}.{'9' * 16}"}, {"prompt": "x"}, 400),
        ("GET", "/stream?" + "&".join(["a=b"] * 99) + "&count=0", {}, b"", 200),
        ("GET", "/stream?" + "&".join(["a=b"] * 101), {}, b"", 400),
        ("GET", "/merge?streams=" + ",".join(map(str, range(32))), {}, b"", 200),
        ("GET", "/merge?streams=" + ",".join(map(str, range(33))), {}, b"", 400),
        ("GET", "/stream?count=1000001", {}, b"", 400),
        ("GET", "/bench?size=1048577", {}, b"", 400),
        ("GET", "/streams?limit=10001", {}, b"", 400),
        ("POST", "/streams", {}, {"ttl": 86401}, 422),
    ],
    ids=lambda value: None if isinstance(value, bytes | dict) else str(value)[:40],
)
async def test_too_much_has_its_status(
    sidestream: Sidestream, method: str, path: str, headers: Mapping[str, str], body: Any, status: int
) -> None:
    accept = JSON if path == "/chat" else {}
    sent = {**accept, **headers, **({"content-type": "application/json"} if isinstance(body, bytes) and body else {})}
    content: dict[str, Any] = {"body": body} if isinstance(body, bytes) else {"json": body}
    answer = await ask(sidestream, path, method=method, headers=sent, **content)
    assert answer.status == status
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
    await sidestream.stop()


@pytest.mark.parametrize(("size", "status"), [(8 << 20, 413), (7 << 20, 200)])
async def test_a_posted_event_is_limited(size: int, status: int) -> None:
    sidestream = Sidestream(Settings())
    opened = (await ask(sidestream, "/streams", method="POST")).json
    answer = await ask(sidestream, f"{opened['url']}/events", method="POST", json={"data": "x" * size})
    assert answer.status == status


@pytest.mark.parametrize(("count", "status"), [(10_000, 200), (10_001, 413)])
async def test_a_posted_list_is_limited(count: int, status: int) -> None:
    sidestream = Sidestream(Settings())
    opened = (await ask(sidestream, "/streams", method="POST")).json
    answer = await ask(sidestream, f"{opened['url']}/events", method="POST", json=[{"data": 1}] * count)
    assert answer.status == status


async def test_running_streams_are_limited() -> None:
    sidestream = Sidestream(Settings(max_streams=1))
    assert (await ask(sidestream, "/streams", method="POST")).status == 201
    answer = await ask(sidestream, "/streams", method="POST")
    assert (answer.status, answer.json["limit"]) == (503, "streams")
    assert int(answer.headers["retry-after"]) > 0


async def test_an_event_source_that_comes_back_to_a_full_server_is_told_to_try_later() -> None:
    sidestream = Sidestream(Settings(max_watchers=1))
    stream = (await ask(sidestream, "/streams", method="POST")).json["stream_id"]
    _seat = sidestream.service.store.seat()
    first = await ask(sidestream, f"/streams/{stream}")
    again = await ask(sidestream, f"/streams/{stream}", headers={**EVENT_STREAM, "last-event-id": f"{stream}.0"})
    assert (first.status, first.json["limit"]) == (503, "watchers")
    assert (again.status, again.body) == (200, b"retry: 5000\n\n")


@pytest.mark.parametrize(
    ("client", "token", "bearer", "status"),
    [
        ("127.0.0.1", ("off",), None, 200),
        ("192.0.2.1", ("off",), None, 403),
        ("192.0.2.1", ("t",), "t", 200),
        ("127.0.0.1", ("t",), None, 401),
        (None, ("off",), None, 200),
    ],
)
async def test_the_load_is_for_this_machine_or_with_the_token(
    client: str | None, token: tuple[str, ...], bearer: str | None, status: int
) -> None:
    sidestream = Sidestream(Settings(token=token))

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sidestream({**scope, "client": client and (client, 1)}, receive, send)

    headers = {"host": HOST, **({"authorization": f"Bearer {bearer}"} if bearer else {})}
    assert (await ask(app, "/bench?events=1", headers=headers)).status == status


@pytest.mark.parametrize(("trusted", "status"), [((), 200), (("127.0.0.0/8",), 403), (("192.0.2.0/24",), 200)])
async def test_a_client_behind_a_trusted_proxy_is_the_one_that_the_proxy_names(trusted: tuple[str, ...], status: int) -> None:
    settings = Settings(token=("off",), trusted_proxies=trusted, drain=0)
    async with serving(Sidestream(settings), settings) as (_, port), Client(port) as client:
        answer = await client.get("/bench?events=1", {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https"})
        assert answer.status == status
        await answer.whole()
        index = await client.get("/", {"X-Forwarded-Proto": "https"})
        assert (b"https://" in await index.whole()) is (status == 403)

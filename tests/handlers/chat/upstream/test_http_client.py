"""Which transport is under the SDK's client, as the environment has it."""

import gzip
import zlib
from collections.abc import Callable

import pytest

from handlers.chat.upstream import http_client
from handlers.chat.upstream.failures import MAX_SAID
from tests.support.peers import peer, says
from tests.support.proxy import proxy

HELLO = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")

WAYS: dict[str, tuple[dict[str, str], bool]] = {
    # {} stands for the proxy's URL; whether it is asked
    "no proxy": ({}, False),
    "a proxy for http": ({"HTTP_PROXY": "{}"}, True),
    "in small letters": ({"http_proxy": "{}"}, True),
    "a proxy for everything": ({"ALL_PROXY": "{}"}, True),
    "a proxy for https alone": ({"HTTPS_PROXY": "{}"}, False),
    "a proxy, but not for this host": ({"HTTP_PROXY": "{}", "NO_PROXY": "127.0.0.1"}, False),
    "a proxy, but for no host": ({"HTTP_PROXY": "{}", "NO_PROXY": "*"}, False),
    "exceptions from nothing": ({"NO_PROXY": "127.0.0.1"}, False),
}


@pytest.mark.parametrize(("variables", "asked"), WAYS.values(), ids=WAYS.keys())
async def test_a_proxy_is_asked_as_the_environment_says(
    variables: dict[str, str], asked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    async with proxy() as it, peer(says(HELLO)) as server:
        for name, value in variables.items():
            monkeypatch.setenv(name, value.format(it.url))
        async with http_client.create("http://") as client:
            assert (await client.post(server.url)).content == b"hello"
        assert bool(it.connections) is asked


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate"])
async def test_what_is_encoded_is_decoded(encoding: str) -> None:
    encode: dict[str, Callable[[bytes], bytes]] = {"identity": bytes, "gzip": gzip.compress, "deflate": zlib.compress}
    body = encode[encoding](b"hello")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (encoding.encode(), len(body))
    async with peer(says(head + body)) as server, http_client.create("http://") as client:
        assert (await client.post(server.url)).content == b"hello"


async def test_it_asks_for_no_encoding_that_is_not_decoded() -> None:
    """httpx2 would, where the packages of others are installed."""
    async with peer(says(HELLO)) as server, http_client.create("http://") as client:
        await client.post(server.url)
        assert b"\r\naccept-encoding: gzip, deflate\r\n" in server.requests[0].lower()


def test_no_answer_waits_for_a_connection_that_others_have() -> None:
    assert http_client.LIMITS.max_connections is None


async def test_an_error_answer_over_the_limit_is_cut_and_closed() -> None:
    said = b"HTTP/1.1 500 Oops\r\nContent-Length: %d\r\n\r\n" % (1 << 20)
    async with peer(says(said, b"x" * (1 << 19))) as server, http_client.create("http://") as client:
        response = await client.post(server.url)
        assert MAX_SAID <= len(response.content) < 1 << 20
        await server.ended(1)

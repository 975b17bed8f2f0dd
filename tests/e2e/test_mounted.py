"""The application mounted in another one, under a real uvicorn: no lifespan reaches it, and the prefix stays in the path."""

import json
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from app import Sidestream
from sidecar.settings import Settings
from tests.support.servers import serving
from tests.support.sockets import Client, fetch, get_json

pytestmark = pytest.mark.e2e


@pytest.fixture
def sidestream() -> Sidestream:
    return Sidestream(Settings(linger=0, keep=60))


@pytest.fixture
async def port(sidestream: Sidestream) -> AsyncIterator[int]:
    routes = [Route("/", lambda request: PlainTextResponse("outside")), Mount("/side", app=sidestream)]
    async with serving(Starlette(routes=routes)) as port:
        yield port


async def test_its_routes_are_found_below_the_prefix_and_nowhere_else(port: int) -> None:
    assert (await get_json(port, "/side/healthz"))["status"] == "ok"
    assert await fetch(port, "/") == (200, b"outside")
    assert (await fetch(port, "/healthz"))[0] == 404
    status, body = await fetch(port, "/side/nothing")
    assert (status, json.loads(body)["status"]) == (404, 404)
    assert (await fetch(port, "/side/streams", method="PATCH"))[0] == 405


async def test_a_stream_is_opened_watched_and_ended_below_the_prefix(port: int) -> None:
    async with Client(port) as opener, Client(port) as watcher:
        answer = await opener.request("POST", "/side/streams", {"Accept": "application/json"}, b'{"linger": 60}')
        assert answer.status == 415
        await answer.whole()
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        answer = await opener.request("POST", "/side/streams", headers, b'{"linger": 60}')
        url = (await answer.json())["url"]
        assert url.startswith("/side/streams/")
        watched = await watcher.get(url)
        events = b'[{"data": "one"}, {"data": "two"}]'
        assert (await fetch(port, f"{url}/events", method="POST", headers=headers, body=events))[0] == 200
        assert [(await watched.event()).data for _ in range(2)] == ["one", "two"]
        assert (await fetch(port, url, method="DELETE"))[0] == 204
        assert [event.type for event in await watched.events()] == ["cancelled"]


async def test_a_client_that_leaves_ends_its_stream(port: int, sidestream: Sidestream) -> None:
    async with Client(port) as client:
        answer = await client.get("/side/stream?count=2&interval=3600")
        await answer.event()
        (stream,) = sidestream.service.store.running.values()
        client.reset()
    await stream.closed()
    assert stream.reason == "abandoned"


async def test_a_numbered_stream_is_resumed_below_the_prefix(port: int) -> None:
    _, body = await fetch(port, "/side/stream?count=3&interval=0", headers={"Last-Event-ID": "2"})
    assert body.endswith(b'\n\nid: 3\ndata: {"count":3,"message":"Update 3"}\n\nid: end\ndata: [DONE]\n\n')


async def test_the_index_names_urls_that_work(port: int) -> None:
    _, body = await fetch(port, "/side/")
    assert f"curl http://127.0.0.1:{port}/side/healthz" in body.decode()

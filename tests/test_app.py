"""The routes, root_path, HEAD and OPTIONS, the lifespan and life without it, and the boundary for errors."""

import json
import logging
import re
from typing import Any

import pytest

from app import Sidestream
from sidecar.access import Right
from sidecar.request import Reply, Request
from sidecar.routes import Route, Routes
from sidecar.service import Service
from sidecar.settings import Settings
from sse.errors import Disconnected, Full, Problem
from sse.stream import State
from sse.testing import open_stream
from tests.support.app import EVENT_STREAM, HOST, Extended, ask
from tests.support.app import ROUTES as TABLE
from tests.support.asgi import Connection, http_scope, lifespan

ROUTES = [pytest.param(route, id=f"{route.method} {route.path}") for route in TABLE]
PATHS = sorted({route.path for route in TABLE})
GETS = [pytest.param(route, id=route.path) for route in TABLE if route.method == "GET"]


@pytest.fixture
def sidestream() -> Sidestream:
    return Sidestream(Settings())


def filled(path: str) -> str:
    return re.sub(r"{\w+\*?}", "some-id", path)


def allow(path: str) -> str:
    methods = {route.method for route in TABLE if route.path == path}
    return ", ".join([*sorted(methods), *(["HEAD"] if "GET" in methods else []), "OPTIONS"])


# -- which route answers


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_is_found_by_its_method_and_path(route: Route) -> None:
    request = Request(http_scope(filled(route.path), method=route.method), Connection().receive, Service(Settings()))
    assert Routes(TABLE).find(request) is route
    assert request.params == dict.fromkeys(re.findall(r"{(\w+)\*?}", route.path), "some-id")


def test_no_two_routes_answer_the_same_request() -> None:
    named = [(route.method, route.path) for route in TABLE]
    assert len(named) == len(set(named))


@pytest.mark.parametrize(
    "path", ["/nothing", "/streams/a/b/c", "/stream/", "//", "/STREAM", "/streams/a%2Fb/events/x", "/../stream"]
)
async def test_an_unknown_path_is_a_404_problem(sidestream: Sidestream, path: str) -> None:
    answer = await ask(sidestream, path)
    assert (answer.status, answer.headers["content-type"]) == (404, "application/problem+json")
    assert answer.json == {"title": "Not Found", "status": 404, "detail": "There is nothing here; GET / lists what there is."}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["PATCH", "BREW"])
async def test_another_method_is_405_with_allow(sidestream: Sidestream, path: str, method: str) -> None:
    answer = await ask(sidestream, filled(path), method=method)
    assert (answer.status, answer.headers["allow"]) == (405, allow(path))
    if path.startswith("/v1/"):
        assert answer.json["error"]["type"] == "invalid_request_error"
    else:
        text = path.startswith("/ui/")
        assert answer.headers["content-type"] == ("text/plain" if text else "application/problem+json")


@pytest.mark.parametrize("path", PATHS)
async def test_options_names_the_methods(sidestream: Sidestream, path: str) -> None:
    answer = await ask(sidestream, filled(path), method="OPTIONS")
    assert (answer.status, answer.headers["allow"], answer.body) == (204, allow(path), b"")


async def test_options_of_an_unknown_path_is_404(sidestream: Sidestream) -> None:
    assert (await ask(sidestream, "/nothing", method="OPTIONS")).status == 404


@pytest.mark.parametrize("route", GETS)
async def test_head_answers_as_get_without_a_body_and_starts_nothing(sidestream: Sidestream, route: Route) -> None:
    async with lifespan(sidestream):
        answer = await ask(sidestream, filled(route.path), method="HEAD")
        assert answer.body == b""
        assert answer.status in (200, 204, 400, 404)
        store = sidestream.service.store
        assert (store.running, store.busy, store.watchers) == ({}, 0, 0)


async def test_head_of_an_event_stream_says_what_get_would(sidestream: Sidestream) -> None:
    async with open_stream(sidestream, "/stream?count=1", headers={"host": HOST}) as stream:
        got = stream.headers
    answer = await ask(sidestream, "/stream?count=1", method="HEAD", headers={"x-request-id": got["x-request-id"]})
    assert (answer.status, answer.headers) == (200, got)


@pytest.mark.parametrize("path", ["/", "/healthz", "/streams", "/nothing", "/stream?count=x", "/stream?count=0"])
async def test_no_answer_may_be_cached_rewritten_or_taken_for_another_type(sidestream: Sidestream, path: str) -> None:
    headers = (await ask(sidestream, path)).headers
    assert headers["cache-control"] == "no-store, no-transform"
    assert headers["x-content-type-options"] == "nosniff"


# -- root_path


@pytest.mark.parametrize(
    ("root_path", "path", "status"),
    [
        ("", "/healthz", 200),
        ("/mount", "/mount/healthz", 200),
        ("/mount/", "/mount/healthz", 200),
        ("/a/b", "/a/b/healthz", 200),
        ("/mount", "/healthz", 200),  # a server that leaves it out of path
        ("/mount", "/mounted/healthz", 404),
        ("/mount", "/mount", 200),
        ("/mount", "/mount/", 200),
    ],
)
async def test_root_path_is_taken_off_the_path(sidestream: Sidestream, root_path: str, path: str, status: int) -> None:
    connection = Connection()
    await sidestream(
        http_scope(path, root_path=root_path, headers=[(b"host", HOST.encode())]), connection.receive, connection.send
    )
    assert connection.status == status


@pytest.mark.parametrize(
    ("settings", "root_path", "location"),
    [
        (Settings(), "", "/streams/"),
        (Settings(), "/mount", "/mount/streams/"),
        (Settings(root_path="/set"), "", "/set/streams/"),
    ],
    ids=["none", "of the server", "of the settings"],
)
async def test_a_location_begins_with_root_path(settings: Settings, root_path: str, location: str) -> None:
    sidestream, connection = Sidestream(settings), Connection()
    scope = http_scope(
        f"{root_path}/streams",
        method="POST",
        root_path=root_path,
        headers=[(b"host", HOST.encode()), (b"accept", b"application/json")],
    )
    await sidestream(scope, connection.receive, connection.send)
    assert connection.headers[b"location"].decode().startswith(location)
    assert json.loads(connection.body)["url"] == connection.headers[b"location"].decode()


# -- the boundary for errors


def failing(error: BaseException) -> Sidestream:
    """The application with a route /fail, which raises `error`."""

    async def fail(request: Request) -> Reply:
        raise error

    return Extended(Settings(), Route("GET", "/fail", fail, Right.TOKEN))


@pytest.mark.parametrize(
    "error",
    [KeyError("secret"), OSError("no such file"), ConnectionResetError("from elsewhere")],
    ids=lambda e: type(e).__name__,
)
async def test_an_unexpected_error_is_logged_with_its_traceback_and_answered_without(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await ask(failing(error), "/fail")
    assert answer.json == {"title": "Internal Server Error", "status": 500, "detail": "The request failed; the log says why."}
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("ERROR", "GET /fail failed")]
    assert caplog.records[0].exc_info is not None
    assert caplog.records[0].exc_info[1] is error


async def test_a_problem_is_answered_as_its_document() -> None:
    answer = await ask(failing(Problem(422, "No.", headers={"x-more": "1"}, parameter="field")), "/fail")
    assert (answer.status, answer.headers["x-more"]) == (422, "1")
    assert answer.json == {"title": "Unprocessable Content", "status": 422, "detail": "No.", "parameter": "field"}


async def test_no_room_is_503_with_retry_after() -> None:
    answer = await ask(failing(Full("jobs")), "/fail")
    assert (answer.status, answer.headers["retry-after"], answer.json["limit"]) == (503, "5", "jobs")


async def test_a_client_that_left_is_answered_nothing_and_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    sidestream, connection = failing(Disconnected("while the body was read")), Connection()
    await sidestream(http_scope("/fail", headers=[(b"host", HOST.encode())]), connection.receive, connection.send)
    assert connection.sent == []
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


async def test_a_send_that_raises_means_a_client_that_left(sidestream: Sidestream, caplog: pytest.LogCaptureFixture) -> None:
    connection = Connection()
    connection.raises = OSError("the peer is gone")
    await sidestream(http_scope("/healthz"), connection.receive, connection.send)
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


async def test_an_error_while_the_headers_are_checked_is_answered_too(
    sidestream: Sidestream, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr("sidecar.access.check", broken)
    assert (await ask(sidestream, "/healthz")).status == 500


async def test_other_protocols_are_refused(sidestream: Sidestream) -> None:
    connection = Connection()
    with pytest.raises(NotImplementedError, match="websocket"):
        await sidestream({"type": "websocket"}, connection.receive, connection.send)


# -- its life


async def test_a_wrong_setting_stops_the_start_with_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDESTREAM_RETRY", "soon")
    with pytest.raises(RuntimeError, match="SIDESTREAM_RETRY='soon': expected an integer from 0 to 3600000"):
        async with lifespan(Sidestream()):
            pass


async def test_the_environment_is_read_when_it_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    sidestream = Sidestream()
    monkeypatch.setenv("SIDESTREAM_RETRY", "1234")
    async with lifespan(sidestream):
        assert sidestream.service.settings.retry == 1234


async def test_without_a_lifespan_the_first_request_starts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SIDESTREAM_RETRY", "1234")
    answer = await ask(Sidestream(), "/stream?count=0")
    assert answer.body.startswith(b"id: 0\nretry: 1234\n")


async def test_without_a_lifespan_a_wrong_setting_is_logged_and_answered(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("SIDESTREAM_RETRY", "soon")
    assert (await ask(Sidestream(), "/healthz")).status == 500
    assert "SIDESTREAM_RETRY='soon'" in caplog.text


async def test_the_shutdown_ends_what_still_runs(sidestream: Sidestream) -> None:
    headers = {"host": HOST, **EVENT_STREAM}
    async with lifespan(sidestream):
        async with open_stream(sidestream, "/stream?count=5&interval=3600", headers=headers) as stream:
            assert (await stream.next()).type == "connected"
            assert (await stream.next()).last_event_id == "1"
            (running,) = sidestream.service.store.running.values()
            await sidestream.stop()
            event = await stream.next()
            assert (event.type, event.data, event.last_event_id) == ("cancelled", '{"reason":"shutting_down"}', "end")
        assert (running.state, running.reason) == (State.CANCELLED, "shutting_down")


async def test_a_shutdown_without_a_start_ends_nothing() -> None:
    sidestream = Sidestream(Settings())
    await sidestream.stop()
    assert sidestream.features is None

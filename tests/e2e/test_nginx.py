"""nginx.conf as it is shipped, under a real nginx, in front of the real sidecar."""

import asyncio
import inspect
import json
import re
import shutil
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from examples.compose import application
from tests.support.nginx import CONFIGURATION, Nginx, check, nginx, switched_on, work_switched_on
from tests.support.require import missing
from tests.support.servers import Server, serving, sidecar
from tests.support.sockets import Client, Cut, fetch

SHIPPED = CONFIGURATION.read_text()
BOTH = pytest.mark.parametrize(
    "configuration", [SHIPPED, switched_on(SHIPPED)], ids=["as it is", "with all that can be switched on"]
)
JSON = {"Content-Type": "application/json"}
EVENT_STREAM = {"Accept": "text/event-stream"}
GZIP = {"Accept": "text/event-stream", "Accept-Encoding": "gzip, br"}


@dataclass(frozen=True, slots=True)
class Edge:
    """nginx, the sidecar behind it, and what the application does there."""

    nginx: Nginx
    sidecar: Server

    async def open(self, **wishes: Any) -> dict[str, Any]:
        """A stream to publish to: its stream_id, url and key."""
        body = json.dumps(wishes).encode()
        status, document = await fetch(self.sidecar.port, "/streams", method="POST", headers=JSON, body=body)
        assert status == 201
        return dict(json.loads(document))

    async def publish(self, url: str, *data: Any) -> None:
        body = json.dumps([{"data": item} for item in data]).encode()
        status, _ = await fetch(self.sidecar.port, f"{url}/events", method="POST", headers=JSON, body=body)
        assert status == 200


@pytest.fixture
async def edge(tmp_path: Path) -> AsyncIterator[Edge]:
    async with sidecar() as server, nginx(tmp_path, sidecar=server.port) as proxy:
        yield Edge(proxy, server)


@asynccontextmanager
async def nothing_behind(directory: Path) -> AsyncIterator[Nginx]:
    """nginx whose sidecar is not there."""
    async with nginx(directory, sidecar=1) as proxy:
        yield proxy


# -- the file


@BOTH
async def test_nginx_accepts_the_configuration_and_warns_of_nothing(tmp_path: Path, configuration: str) -> None:
    said = await check(tmp_path, configuration)
    assert [line.rpartition(" ")[2] for line in said.splitlines()] == ["ok", "successful"]


@BOTH
async def test_gixy_finds_nothing(tmp_path: Path, configuration: str) -> None:
    gixy = shutil.which("gixy", path=str(Path(sys.executable).parent)) or missing("gixy is not installed")
    path = tmp_path / "nginx.conf"
    path.write_text(configuration)
    process = await asyncio.create_subprocess_exec(gixy, str(path), stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    assert b"No issues found" in output


# -- event streams


@pytest.mark.parametrize("headers", [EVENT_STREAM, GZIP], ids=["plain", "a client that accepts gzip"])
async def test_each_event_arrives_before_the_next_one_is_published(edge: Edge, headers: dict[str, str]) -> None:
    stream = await edge.open()
    async with Client(edge.nginx.http) as client:
        answer = await client.get(stream["url"], headers)
        assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
        assert "content-encoding" not in answer.headers
        for number in range(1, 6):
            await edge.publish(stream["url"], number)
            assert (await answer.event()).data == str(number)


async def test_a_hang_up_reaches_the_sidecar_which_stops_the_work(edge: Edge) -> None:
    stream = await edge.open(linger=0.5)
    head = f"POST {stream['url']}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/jsonl\r\n"
    async with Client(edge.sidecar.port) as publisher:
        async with Client(edge.nginx.http) as client:
            answer = await client.get(stream["url"], EVENT_STREAM)
            await publisher.send(head.encode() + b'Transfer-Encoding: chunked\r\n\r\nc\r\n{"data": 1}\n\r\n')
            assert (await answer.event()).data == "1"
        told = await publisher.answer("POST")
        assert (told.status, (await told.json())["reason"]) == (410, "abandoned")
    _, state = await fetch(edge.sidecar.port, stream["url"], headers={"Accept": "application/json"})
    assert json.loads(state)["watchers"] == []


async def test_a_client_that_was_cut_gets_the_rest_exactly_once(edge: Edge) -> None:
    stream = await edge.open()
    await edge.publish(stream["url"], *range(1, 21))
    seen: list[int] = []
    last_event_id = ""
    while len(seen) < 20:
        async with Client(edge.nginx.http) as client:
            headers = EVENT_STREAM | ({"Last-Event-ID": last_event_id} if last_event_id else {})
            answer = await client.get(stream["url"], headers)
            for _ in range(3 if len(seen) < 18 else 2):
                event = await answer.event()
                seen.append(int(event.data))
                last_event_id = event.last_event_id
    assert seen == list(range(1, 21))


async def test_a_finished_stream_is_answered_204_through_nginx_too(edge: Edge) -> None:
    stream = await edge.open()
    await fetch(edge.sidecar.port, f"{stream['url']}/close", method="POST")
    async with Client(edge.nginx.http) as client:
        answer = await client.get(stream["url"], EVENT_STREAM)
        last = (await answer.events())[-1]
        assert (await client.get(stream["url"], {"Last-Event-ID": last.last_event_id})).status == 204


async def test_a_connection_to_the_sidecar_is_kept_for_the_next_request(tmp_path: Path) -> None:
    ports: list[int] = []

    async def upstream(scope: Any, receive: Any, send: Any) -> None:
        ports.append(scope["client"][1])
        await no_content(send)

    configuration = SHIPPED.replace("worker_processes auto", "worker_processes 1")  # each has connections of its own
    async with serving(upstream) as port, nginx(tmp_path, sidecar=port, configuration=configuration) as proxy:
        for _ in range(3):
            assert (await fetch(proxy.http, "/streams/abc"))[0] == 204
    assert len(ports) == 3
    assert len(set(ports)) == 1


def test_nginx_gives_up_an_idle_connection_before_the_sidecar_does() -> None:
    _, _, upstream = SHIPPED.partition("upstream sidestream {")
    match = re.search(r"^ +keepalive_timeout (\d+)s;", upstream.partition("\n    }")[0], re.MULTILINE)
    assert match is not None
    assert int(match[1]) < inspect.signature(uvicorn.Config).parameters["timeout_keep_alive"].default
    assert "timeout_keep_alive" not in (CONFIGURATION.parent / "sidecar" / "server.py").read_text()


# -- when the sidecar isn't there


async def test_without_the_sidecar_an_event_source_is_told_to_come_back(tmp_path: Path) -> None:
    async with nothing_behind(tmp_path) as proxy, Client(proxy.http) as client:
        for path in ("/streams/abc", "/jobs/abc/progress", "/merge?streams=abc"):
            answer = await client.get(path, EVENT_STREAM)
            assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["access-control-allow-origin"] == "*"
            assert await answer.whole() == b"retry: 3000\n\n"


async def test_without_the_sidecar_a_program_that_asks_for_json_is_told_503(tmp_path: Path) -> None:
    async with nothing_behind(tmp_path) as proxy, Client(proxy.http) as client:
        answer = await client.get("/streams/abc", {"Accept": "application/json"})
        assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
        assert answer.headers["retry-after"] == "3"
        assert (await answer.json())["status"] == 503


async def test_a_delete_without_the_sidecar_does_not_look_as_if_it_had_worked(tmp_path: Path) -> None:
    async with nothing_behind(tmp_path) as proxy:
        status, _ = await fetch(proxy.http, "/streams/abc", method="DELETE", headers={"Stream-Key": "k"})
        assert status == 503


async def test_a_client_that_asks_too_often_is_told_to_come_back(tmp_path: Path) -> None:
    async with nothing_behind(tmp_path) as proxy, Client(proxy.http) as client:
        for _ in range(100):
            assert (await (await client.get("/streams/abc", EVENT_STREAM)).whole()) == b"retry: 3000\n\n"
    limited = [request for request in proxy.log() if request["upstream_status"] == ""]
    assert limited, "no request was limited"
    assert {request["status"] for request in limited} == {200}


# -- what is public


PUBLIC = [
    ("GET", "/streams/{id}?from=now", {"Accept": "application/json"}, 200),
    ("HEAD", "/streams/{id}", {}, 200),
    ("OPTIONS", "/streams/{id}", {}, 204),
    ("GET", "/jobs/nosuchjob/progress", {}, 404),
    ("HEAD", "/merge?streams={id}", {}, 200),
    ("DELETE", "/streams/{id}", {"Stream-Key": "{key}"}, 204),
]
PRIVATE = [
    ("DELETE", "/streams/{id}", {}, 405),
    ("DELETE", "/streams/{id}", {"Stream-Key": ""}, 405),
    ("POST", "/streams/{id}", {"Stream-Key": "{key}"}, 405),
    ("POST", "/streams/{id}/events", {"Stream-Key": "{key}"}, 404),
    ("PUT", "/streams/{id}/events", {"Stream-Key": "{key}"}, 404),
    ("POST", "/streams/{id}/close", {"Stream-Key": "{key}"}, 404),
    ("DELETE", "/merge?streams={id}", {}, 405),
    ("GET", "/merge", {}, 404),
    ("GET", "/streams", {}, 404),
    ("GET", "/streams/", {}, 404),
    ("POST", "/streams", {}, 404),
    ("GET", "/streams/../streams", {}, 404),
    ("GET", "/streams/{id}/../../streams", {}, 404),
    ("GET", "/jobs", {}, 404),
    ("POST", "/jobs", {}, 404),
    ("GET", "/stream?count=1", {}, 404),
    ("GET", "/chat?prompt=hello", {}, 404),
    ("POST", "/v1/chat/completions", {}, 404),
    ("GET", "/bench", {}, 404),
    ("GET", "/metrics", {}, 404),
    ("GET", "/healthz", {}, 404),
    ("GET", "/", {}, 404),
]


async def test_what_browsers_need_is_public_and_nothing_else(tmp_path: Path) -> None:
    async with sidecar() as server, nginx(tmp_path, sidecar=server.port) as proxy:
        stream = await Edge(proxy, server).open()
        for method, path, headers, status in [*PRIVATE, *PUBLIC]:
            path = path.replace("{id}", stream["stream_id"])
            headers = {name: value.replace("{key}", stream["key"]) for name, value in headers.items()}
            async with Client(proxy.http) as client:
                assert (await client.request(method, path, headers)).status == status, (method, path)
    reached = sorted(request["upstream_status"] for request in proxy.log())
    assert reached == sorted([""] * len(PRIVATE) + [str(status) for *_, status in PUBLIC])


async def test_what_starts_work_passes_the_applications_check_first(tmp_path: Path) -> None:
    """Switched on: the application sees the cookie, the sidecar the token, and neither what is the other's."""
    async with (
        serving(only_alice) as application,
        sidecar(SIDESTREAM_TOKEN="change-me", SIDESTREAM_DEMO_INTERVAL="0") as server,
        nginx(tmp_path, sidecar=server.port, application=application, configuration=work_switched_on(SHIPPED)) as proxy,
    ):
        assert (await fetch(proxy.http, "/stream?count=1"))[0] == 401
        assert (await fetch(proxy.http, "/jobs", method="POST"))[0] == 401
        status, body = await fetch(proxy.http, "/stream?count=2&interval=0", headers={"Cookie": "user=alice"})
        assert status == 200
        assert b"[DONE]" in body
        status, body = await fetch(proxy.http, "/jobs", method="POST", headers={"Cookie": "user=alice"})
        assert status == 202
        status, body = await fetch(proxy.http, json.loads(body)["progress"])
        assert b"[DONE]" in body, "the progress is watched without any check"


async def only_alice(scope: Any, receive: Any, send: Any) -> None:
    """An application's answer to the question whether this request may start work."""
    allowed = scope["path"] == "/auth" and (b"cookie", b"user=alice") in scope["headers"]
    await no_content(send, 204 if allowed else 401)


async def no_content(send: Any, status: int = 204) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")] * (status != 204)})
    await send({"type": "http.response.body"})


async def test_the_example_application_starts_a_job_that_is_watched_through_nginx(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        sidecar(SIDESTREAM_TOKEN="secret", SIDESTREAM_ORIGINS="http://localhost:3000") as server,
        nginx(tmp_path, sidecar=server.port) as proxy,
    ):
        monkeypatch.setattr(application, "SIDECAR", server.url)
        monkeypatch.setattr(application, "TOKEN", "secret")
        monkeypatch.setattr(application, "WATCH", "")
        monkeypatch.setattr(application.Application, "log_message", lambda *_: None)
        with ThreadingHTTPServer(("127.0.0.1", 0), application.Application) as backend:
            threading.Thread(target=backend.serve_forever).start()
            try:
                status, page = await fetch(backend.server_port, "/")
                assert (status, b"new EventSource" in page) == (200, True)
                _, told = await fetch(backend.server_port, "/start", method="POST")
            finally:
                backend.shutdown()
        async with Client(proxy.http) as client:
            answer = await client.get(json.loads(told)["progress"], {"Origin": "http://localhost:3000"})
            assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
            assert (await answer.event()).type == "connected"
            assert json.loads((await answer.event()).data)["status"] == "running"


# -- the private part


async def test_a_publisher_is_heard_while_its_request_goes_on(edge: Edge) -> None:
    stream = await edge.open()
    head = f"PUT {stream['url']}/events HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/event-stream\r\n"
    async with Client(edge.nginx.private) as publisher, Client(edge.nginx.http) as client:
        answer = await client.get(stream["url"], EVENT_STREAM)
        await publisher.send(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n")
        for number in range(1, 4):
            await publisher.send(b"9\r\ndata: %d\n\n\r\n" % number)
            assert (await answer.event()).data == str(number)
        await publisher.send(b"0\r\n\r\n")
        assert (await (await publisher.answer("PUT")).json())["events"] == 3


async def test_bodies_are_limited_but_for_publishers(edge: Edge) -> None:
    stream = await edge.open()
    events = b"data: %s\n\n" % (b"x" * 1000) * 17_000
    path = f"{stream['url']}/events"
    status, body = await fetch(edge.nginx.private, path, method="POST", headers=EVENT_STREAM_BODY, body=events)
    assert (status, json.loads(body)["events"]) == (200, 17_000)
    head = f"POST /jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {17 << 20}\r\n\r\n"
    async with Client(edge.nginx.private) as client:
        await client.send(head.encode())
        assert (await client.answer("POST")).status == 413


EVENT_STREAM_BODY = {"Content-Type": "text/event-stream"}


# -- logs


async def test_no_log_has_a_query_or_a_stream_id_by_which_one_could_watch(tmp_path: Path) -> None:
    secret = "hush"
    async with sidecar() as server, nginx(tmp_path, sidecar=server.port) as proxy:
        stream = await Edge(proxy, server).open()
        await fetch(proxy.http, f"{stream['url']}?from={secret}", headers={"Accept": "application/json"})
        await fetch(proxy.http, f"/merge?streams={secret}", headers={"Referer": f"http://x/?prompt={secret}"})
        await fetch(proxy.http, stream["url"], method="DELETE", headers={"Stream-Key": stream["key"]})
        await server.stop()
        await fetch(proxy.http, f"{stream['url']}?prompt={secret}", headers=EVENT_STREAM)  # nginx's own error
        await fetch(proxy.http, f"/jobs/{stream['stream_id']}/progress")
    logs = (tmp_path / "access.log").read_text() + (tmp_path / "error.log").read_text()
    for word in (secret, stream["stream_id"], stream["key"], stream["stream_id"][:9]):
        assert word not in logs
    short = f"{stream['stream_id'][:8]}..."
    paths = sorted(request["path"] for request in proxy.log())
    assert paths == [f"/jobs/{short}/progress", "/merge", *[f"/streams/{short}"] * 3]
    assert len({request["request_id"] for request in proxy.log()}) == 5


async def test_the_sidecar_is_told_whose_request_it_is(tmp_path: Path) -> None:
    seen: list[dict[bytes, bytes]] = []

    async def upstream(scope: Any, receive: Any, send: Any) -> None:
        seen.append(dict(scope["headers"]))
        await no_content(send)

    forged = {"X-Forwarded-For": "192.0.2.1", "X-Forwarded-Proto": "https", "X-Request-ID": "forged", "Connection": "TE"}
    async with serving(upstream) as port, nginx(tmp_path, sidecar=port) as proxy:
        await fetch(proxy.http, "/streams/abc", headers=forged)
    headers = seen[0]
    assert headers[b"x-forwarded-for"] == b"127.0.0.1"
    assert headers[b"x-forwarded-proto"] == b"http"
    assert headers[b"x-request-id"] == proxy.log()[0]["request_id"].encode()
    assert headers[b"host"] == b"127.0.0.1"
    assert b"connection" not in headers


async def test_a_stream_that_is_cut_does_not_look_as_if_it_had_ended(edge: Edge) -> None:
    """That is what chunks are for."""
    stream = await edge.open()
    async with Client(edge.nginx.http) as client:
        answer = await client.get(stream["url"], EVENT_STREAM)
        edge.sidecar.process.kill()
        with pytest.raises(Cut):
            await answer.whole()

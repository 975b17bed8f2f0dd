"""A bare EventSource in a real Chromium, nginx with the shipped configuration, and the real sidecar."""

import json
from pathlib import Path

from tests.support.chromium import page
from tests.support.nginx import CONFIGURATION, free_ports, nginx, work_switched_on
from tests.support.servers import sidecar
from tests.support.sockets import fetch

WITH_WORK = work_switched_on(CONFIGURATION.read_text())
TOKEN = {"SIDESTREAM_TOKEN": "change-me"}
JSON = {"Content-Type": "application/json"}

FOLLOW = """
const seen = [], source = new EventSource("%s");
source.onmessage = ({data}) => seen.push(data);
source.onerror = () => {
    if (source.readyState === EventSource.CLOSED) tell(seen);
};
"""

WATCH_ALL = """
const received = %(urls)s.map(() => 0), ended = [];
const sources = %(urls)s.map((url, index) => {
    const source = new EventSource(url);
    source.onmessage = () => {
        received[index] += 1;
        tell({received, states: sources.map((source) => source.readyState)});
        if (received.filter((count) => count === 2).length === %(leave_after)s) sources[0].close();
    };
    source.addEventListener("end", () => tell({ended: ended.push(index)}));
    return source;
});
"""
CONNECTING, OPEN = 0, 1


async def test_an_event_source_ends_by_204_and_does_not_ask_again(tmp_path: Path) -> None:
    async with (
        page() as application,
        sidecar(SIDESTREAM_RETRY="20", SIDESTREAM_ORIGINS=application.origin, **TOKEN) as server,
        nginx(tmp_path, sidecar=server.port, application=application.port, configuration=WITH_WORK) as proxy,
    ):
        url = f"http://127.0.0.1:{proxy.http}/stream?count=3&interval=0.01"
        async with application.opened(tmp_path / "profile", FOLLOW % url):
            seen = await application.told()
    assert [message for message in seen if message == "[DONE]"] == ["[DONE]"]
    assert [json.loads(message)["count"] for message in seen[:-1]] == [1, 2, 3]
    assert sorted(request["status"] for request in proxy.log()) == [200, 204]


async def test_nginx_answers_for_a_sidecar_that_crashed_and_the_stream_goes_on_after_its_restart(tmp_path: Path) -> None:
    [port] = free_ports(1)
    settings = {"SIDESTREAM_PORT": str(port), "SIDESTREAM_RETRY": "20", **TOKEN}
    async with (
        page() as application,
        sidecar(SIDESTREAM_ORIGINS=application.origin, **settings) as server,
        nginx(tmp_path, sidecar=port, application=application.port, configuration=WITH_WORK) as proxy,
    ):
        url = f"http://127.0.0.1:{proxy.http}/stream?count=30&interval=0.02"
        script = FOLLOW.replace("seen.push(data)", "seen.push(data) === 5 && tell('five')") % url
        script += "source.addEventListener('error', () => tell('error'));"
        async with application.opened(tmp_path / "profile", script):
            assert await application.told() == "five"
            server.process.kill()
            assert await application.told() == "error"  # cut
            assert await application.told() == "error"  # nginx's answer has ended: in 3 s it comes back
            async with sidecar(SIDESTREAM_ORIGINS=application.origin, **settings):
                while not isinstance(seen := await application.told(), list):
                    pass
    assert [json.loads(message)["count"] for message in seen[:-1]] == list(range(1, 31))
    assert seen[-1] == "[DONE]"
    log = proxy.log()
    assert {request["status"] for request in log} == {200, 204}
    assert "502" in {request["upstream_status"] for request in log}


async def test_twelve_event_sources_at_once_over_http_2(tmp_path: Path) -> None:
    async with (
        page() as application,
        sidecar(SIDESTREAM_ORIGINS=application.origin) as server,
        nginx(tmp_path, sidecar=server.port) as proxy,
    ):
        stream = await published(server.port)
        urls = [f"https://127.0.0.1:{proxy.https}{stream}?{number}" for number in range(12)]
        async with application.opened(tmp_path / "profile", WATCH_ALL % {"urls": urls, "leave_after": -1}):
            await publish(server.port, stream)
            while (seen := await application.told())["received"] != [1] * 12:
                pass
            assert seen["states"] == [OPEN] * 12
            await fetch(server.port, f"{stream}/close", method="POST")
            while (await application.told()).get("ended") != 12:
                pass
    assert {request["protocol"] for request in proxy.log()} == {"HTTP/2.0"}


async def test_a_seventh_event_source_waits_over_http_1_1(tmp_path: Path) -> None:
    """The browser's limit, which the configuration's HTTP/2 is there for."""
    async with (
        page() as application,
        sidecar(SIDESTREAM_ORIGINS=application.origin) as server,
        nginx(tmp_path, sidecar=server.port) as proxy,
    ):
        stream = await published(server.port)
        await publish(server.port, stream)
        urls = [f"http://127.0.0.1:{proxy.http}{stream}?{number}" for number in range(7)]
        async with application.opened(tmp_path / "profile", WATCH_ALL % {"urls": urls, "leave_after": 6}):
            while (await application.told())["received"] != [1] * 6 + [0]:
                pass
            await publish(server.port, stream)
            while (seen := await application.told())["received"] != [2] * 6 + [0]:
                pass
            assert seen["states"] == [OPEN] * 6 + [CONNECTING]
            while (await application.told())["received"] != [2] * 7:  # the first was closed
                pass


async def published(port: int) -> str:
    """The path of a new stream."""
    _, body = await fetch(port, "/streams", method="POST")
    return str(json.loads(body)["url"])


async def publish(port: int, stream: str) -> None:
    status, _ = await fetch(port, f"{stream}/events", method="POST", headers=JSON, body=b'{"data": "one more"}')
    assert status == 200

"""What a probe finds behind a real nginx: nothing with our configuration, and each thing that goes wrong by its name."""

import asyncio
from pathlib import Path

import pytest

from sse import __main__ as command
from sse.probe import judge, measure
from tests.support.nginx import CONFIGURATION, free_ports, nginx
from tests.support.servers import sidecar

OURS = CONFIGURATION.read_text()
PRIVATE = "listen 127.0.0.1:8091;"

# nginx as it is out of the box in front of the one that is configured well: HTTP/1.0 and buffering. (With HTTP/1.1 or chunks
# from upstream it passes on what it has, even where proxy_buffering is on; measured with 1.22.)
FRONT = """
    server {
        listen 127.0.0.1:8091;
        location / {
            proxy_buffering on;
            proxy_http_version 1.0;
            proxy_pass http://127.0.0.1:INNER;
        }
    }
"""


def in_front(configuration: str, *, passed_on: str = "") -> str:
    """The configuration, behind a second server of default settings. passed_on: a directive of the inner one's."""
    inner = configuration.replace(PRIVATE, f"listen 127.0.0.1:INNER;\n        {passed_on}")
    begin = inner.index("http {\n") + len("http {\n")
    return inner[:begin] + FRONT + inner[begin:]


CASES = {
    "the project's configuration": (OURS, ["clear"]),
    "proxy_buffering on": (in_front(OURS), ["buffers"]),
    "proxy_buffering on, but for those that say X-Accel-Buffering": (
        in_front(OURS, passed_on="proxy_pass_header X-Accel-Buffering;"),
        ["buffers unless told", "clear"],
    ),
    "gzip on": (OURS.replace("gzip off;", "gzip on; gzip_types text/event-stream; gzip_proxied any;"), ["compresses"]),
    "a short proxy_read_timeout": (OURS.replace("proxy_read_timeout 930s;", "proxy_read_timeout 1s;"), ["cuts idle streams"]),
    "HTTP/1.0": (OURS.replace("proxy_http_version 1.1;", "proxy_http_version 1.0;"), ["speaks HTTP/1.0"]),
    "a header that is set away": (
        OURS.replace("proxy_redirect off;", 'proxy_redirect off; proxy_set_header Last-Event-ID "";'),
        ["strips"],
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_each_is_named(case: str, tmp_path: Path) -> None:
    configuration, names = CASES[case]
    configuration = configuration.replace("INNER", str(free_ports(1)[0]))
    async with sidecar() as server, nginx(tmp_path, sidecar=server.port, configuration=configuration) as proxy:
        findings = judge(await measure(f"http://127.0.0.1:{proxy.private}", silence=2.5))
    assert [finding.name for finding in findings] == names, findings


async def test_the_command_says_that_the_way_is_clear(capsys: pytest.CaptureFixture[str]) -> None:
    async with sidecar() as server:
        status = await asyncio.to_thread(command.main, ["probe", f"127.0.0.1:{server.port}", "--silence", "0.5"])
    assert status == 0
    assert capsys.readouterr().out.startswith("✓ clear: Nothing buffers")

"""docs/operations.md names every setting with its default, every route with its right, and the limits that the code has."""

import re
from dataclasses import fields
from pathlib import Path
from typing import Any

from handlers.chat.request import MAX_MESSAGES
from handlers.chat.tools import TIMEOUT
from handlers.merge.routes import MAX_STREAMS
from handlers.publish.bodies import MAX_LIST
from sidecar import connection, listener
from sidecar.access import Right
from sidecar.service import MAX_METADATA
from sidecar.settings import PREFIX, Settings
from sse.http import BODY_RATE, BODY_TIMEOUT
from sse.stream import MAX_EVENT
from sse.threads import GRACE
from tests.support.app import ROUTES

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text()


def section(title: str) -> str:
    match = re.search(rf"^## {title}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    assert match is not None, title
    return match[1]


def shown(value: Any) -> str:
    """A default as the table has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, tuple):
        return ", ".join(value)
    if isinstance(value, int) and value >= 1 << 20:
        return f"{value >> 20}MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_every_setting_is_there_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (.*?) ?\|", section("Settings"), re.MULTILINE)
    assert sorted(rows) == sorted((PREFIX + field.name.upper(), shown(field.default)) for field in fields(Settings))


def test_no_setting_is_named_that_is_not_one() -> None:
    named = set(re.findall(r"SIDESTREAM_[A-Z_]+", PAGE))
    assert named <= {PREFIX + field.name.upper() for field in fields(Settings)}


def test_every_route_is_there_with_its_right() -> None:
    rows = re.findall(r"^\| `([A-Z]+) (/\S*)` \| (\w+)", section("Access"), re.MULTILINE)
    assert sorted((method, path, Right(right)) for method, path, right in rows) == sorted(
        (route.method, route.path, route.right) for route in ROUTES
    )


def test_every_metric_that_is_named_is_one() -> None:
    source = (ROOT / "handlers" / "metrics.py").read_text()
    for name in set(re.findall(r"sidestream_(\w+)", PAGE)):
        if not name.startswith("process_"):
            assert f'"{name.removesuffix("_total")}"' in source, name


def test_the_limits_are_the_ones_of_the_code() -> None:
    for row in (
        f"request target | {connection.MAX_TARGET >> 10} KiB | 414",
        f"together | {connection.MAX_HEAD >> 10} KiB | 431",
        f"a trailer | {connection.MAX_HEAD >> 10} KiB |",
        f"has begun | {connection.MAX_REST >> 20} MiB |",
        f"after its answer | {connection.HEAD_TIMEOUT:g} s |",
        f"on a connection | {connection.MAX_PIPELINED} |",
        f"`SIDESTREAM_MAX_BODY`; {BODY_TIMEOUT:g} s, a second more for each {BODY_RATE >> 10} KiB that came | 413, 408",
        f"one line of a body | {MAX_EVENT >> 20} MiB | 413",
        f"one posted list | {MAX_LIST:,} | 413",
        f"messages of one chat | {MAX_MESSAGES:,} | 422",
        f"metadata | {MAX_METADATA >> 10} KiB | 422",
        f"`/merge` | {MAX_STREAMS} | 400",
    ):
        assert row in section("Limits"), row
    assert f"a tool's code | its end | {TIMEOUT:g} s," in PAGE
    assert f"async code that is cancelled | its end | {GRACE:g} s |" in PAGE
    assert f"TCP_NOTSENT_LOWAT of {listener.UNSENT >> 10} KiB" in PAGE
    silence = listener.KEEPALIVE["TCP_KEEPIDLE"] + listener.KEEPALIVE["TCP_KEEPINTVL"] * listener.KEEPALIVE["TCP_KEEPCNT"]
    assert f"a silent connection | {silence} s |" in PAGE
    assert f"a sign of life of its machine | {silence} s |" in PAGE
    defaults = Settings()
    files = defaults.max_watchers + defaults.max_streams + listener.RESERVE
    assert f"has to be {files:,} or more" in PAGE


def test_nginx_has_the_timeouts_that_the_table_says() -> None:
    conf = (ROOT / "nginx.conf").read_text()
    for seconds, directive in re.findall(r"\| (\d+) s[^|]*\| nginx `(\w+)`", PAGE):
        assert re.search(rf"\b{directive} {seconds}s;", conf), (directive, seconds)


def test_the_links_lead_somewhere() -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / link).exists(), link

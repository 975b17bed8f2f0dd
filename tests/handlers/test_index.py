"""GET /: the index, made from the table of routes."""

import pytest

from app import Sidestream
from sidecar.routes import Route
from sidecar.settings import Settings
from sse import __version__
from tests.support.app import HOST, ROUTES, ask
from tests.support.asgi import Connection, http_scope


async def test_the_index_has_a_line_for_every_route_that_says_how_to_try_it() -> None:
    answer = await ask(Sidestream(Settings()), "/")
    text = answer.body.decode()
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.startswith(f"Sidestream {__version__}")
    lines = [line.strip() for line in text.splitlines() if line.startswith("  curl ")]
    assert lines == [route.about.replace("{url}", f"http://{HOST}") for route in ROUTES if route.about]


@pytest.mark.parametrize("route", [route for route in ROUTES if route.about], ids=lambda route: f"{route.method} {route.path}")
def test_a_line_is_a_request_to_its_own_route(route: Route) -> None:
    line = route.about.replace("{url}", "http://localhost")
    prefix = route.path.partition("{")[0].rstrip("/")
    assert line.startswith("curl ")
    assert f"http://localhost{prefix}" in line
    posts = "--json" in line or " -d " in line
    assert route.method == ("POST" if posts else "GET") or f"-X {route.method} " in line


@pytest.mark.parametrize(
    ("settings", "root_path", "url"),
    [(Settings(), "/mount", f"http://{HOST}/mount/stream"), (Settings(root_path="/set"), "", f"http://{HOST}/set/stream")],
    ids=["of the server", "of the settings"],
)
async def test_its_urls_begin_with_root_path(settings: Settings, root_path: str, url: str) -> None:
    connection = Connection()
    scope = http_scope(f"{root_path}/", root_path=root_path, headers=[(b"host", HOST.encode())])
    await Sidestream(settings)(scope, connection.receive, connection.send)
    assert url in connection.body.decode()

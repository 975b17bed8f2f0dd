"""GET / for a browser and for curl, and the page's files."""

import re

import pytest

from app import Sidestream
from handlers.page.front import FILES, STATIC
from sidecar.settings import Settings
from tests.support.app import ask
from tests.support.asgi import Connection, http_scope

BROWSER = {"accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
LARGEST = 100_000
"""Bytes of HTML, CSS and JavaScript together: the page is to be read, too."""

sidestream = pytest.fixture(lambda: Sidestream(Settings(token=("secret",))))


async def test_a_browser_gets_the_page_and_curl_the_index_with_a_token_set_or_not(sidestream: Sidestream) -> None:
    page, index = await ask(sidestream, "/", headers=BROWSER), await ask(sidestream, "/", headers={"accept": "*/*"})
    assert (page.headers["content-type"], page.body) == ("text/html; charset=utf-8", (STATIC / "index.html").read_bytes())
    assert index.headers["content-type"] == "text/plain; charset=utf-8"
    assert page.headers["vary"] == "Accept"


@pytest.mark.parametrize("name", sorted(FILES))
async def test_each_file_is_served_with_its_type_and_the_policy(sidestream: Sidestream, name: str) -> None:
    answer = await ask(sidestream, f"/page/{name}")
    assert (answer.status, answer.body) == (200, (STATIC / name).read_bytes())
    assert answer.headers["x-content-type-options"] == "nosniff"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"


@pytest.mark.parametrize("path", ["/page/nothing.js", "/page/..", "/page/lab.py", "/page/%2e%2e", "/page/"])
async def test_nothing_else_is_a_file(sidestream: Sidestream, path: str) -> None:
    assert (await ask(sidestream, path)).status == 404


@pytest.mark.parametrize(("path", "status"), [("/mount", 308), ("/mount/", 200)])
async def test_a_mounted_page_has_a_slash_at_its_end_so_that_its_relative_urls_hold(
    sidestream: Sidestream, path: str, status: int
) -> None:
    connection = Connection()
    headers = [(b"accept", b"text/html")]
    await sidestream(http_scope(path, root_path="/mount", headers=headers), connection.receive, connection.send)
    assert connection.status == status
    assert connection.headers.get(b"location") == (b"/mount/" if status == 308 else None)


def test_the_page_is_small_and_asks_nobody_else() -> None:
    sources = {path.name: path.read_text() for path in STATIC.iterdir() if path.suffix in (".html", ".css", ".js")}
    assert sum(len(source.encode()) for source in sources.values()) <= LARGEST
    for name, source in sources.items():
        loaded = re.findall(r"""(?:src=|href=|from |import\(|url\(|fetch\()\s*["']([^"']+)""", source)
        assert [url for url in loaded if "//" in url] == [], name
        assert "innerHTML" not in source, name


def test_what_a_page_refers_to_is_there() -> None:
    for path in STATIC.glob("*.js"):
        for name in re.findall(r'from "\./([^"]+)"', path.read_text()):
            assert name in FILES, (path.name, name)
    for name in re.findall(r'(?:src|href)="page/([^"]+)"', (STATIC / "index.html").read_text()):
        assert name in FILES

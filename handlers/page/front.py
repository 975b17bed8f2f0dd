"""`GET /` for a browser, and `GET /page/{file}`: the wire lab, a page that shows the protocol at work.

In:  the files of `static/`, as they are: there is no build step, and the page loads nothing from other servers. Out: whole
answers. The files hold no data, so anybody may read them; each request that the page makes is checked at its own route.

The page can talk only to the server that it came from, and no other page can frame it (Content Security Policy, Level 3).
"""

from pathlib import Path
from typing import Final

from sidecar.request import Reply, Request
from sidecar.routes import Handler
from sse.errors import Problem
from sse.http import Response

STATIC: Final = Path(__file__).parent / "static"
FILES: Final = frozenset(path.name for path in STATIC.iterdir())
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def front(index: Handler) -> Handler:
    """`GET /`: the page, if the Accept header names HTML, as a browser's does; for curl and others, what `index` answers."""

    async def show(request: Request) -> Reply:
        if not request.accepts("text/html"):
            return await index(request)
        if not str(request.scope["path"]).endswith("/"):  # mounted, and the slash is missing that its relative URLs need
            return Response(308, headers={"location": f"{request.base}/", "vary": "Accept"})
        return Response(200, (STATIC / "index.html").read_bytes(), _headers("index.html") | {"vary": "Accept"})

    return show


async def file(request: Request) -> Reply:
    """`GET /page/{file}`."""
    name = request.params["file"]
    if name not in FILES:
        raise Problem(404, "There is no such file.")
    return Response(200, (STATIC / name).read_bytes(), _headers(name))


def _headers(name: str) -> dict[str, str]:
    return {
        "content-type": TYPES[Path(name).suffix],
        "content-security-policy": POLICY,
        "cross-origin-resource-policy": "same-origin",
        "referrer-policy": "no-referrer",
    }

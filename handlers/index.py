"""`GET /`: an index of the routes, as shell commands that try them."""

from collections.abc import Sequence

from sidecar.request import Reply, Request
from sidecar.routes import Handler
from sse import __version__
from sse.http import text_response


def of(lines: Sequence[str]) -> Handler:
    """The handler, which answers with plain text. lines: commands, in which `{url}` stands for this service's address."""

    async def index(request: Request) -> Reply:
        host = request.header(b"host") or "127.0.0.1:8090"
        url = f"{request.scope.get('scheme', 'http')}://{host}{request.base}"
        head = [f"Sidestream {__version__}: server-sent events beside your application.", ""]
        return text_response("\n".join([*head, *(f"  {line.replace('{url}', url)}" for line in lines), ""]))

    return index

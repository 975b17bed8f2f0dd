"""`GET /`: an index of the routes, as shell commands that try them."""

from collections.abc import Awaitable, Callable, Sequence

from sidecar.answers import Reply, base
from sidecar.service import Service
from sse import __version__
from sse.http import Request, text_response
from sse.stream import Stream


def of(lines: Sequence[str]) -> Callable[[Service, Request, Stream | None], Awaitable[Reply]]:
    """The handler, which answers with plain text. lines: commands, in which `{url}` stands for this service's address."""

    async def index(service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG001
        host = request.header(b"host") or "127.0.0.1:8090"
        url = f"{request.scope.get('scheme', 'http')}://{host}{base(service, request)}"
        head = [f"Sidestream {__version__}: server-sent events beside your application.", ""]
        return text_response("\n".join([*head, *(f"  {line.replace('{url}', url)}" for line in lines), ""]))

    return index

"""`GET /`: an index of the routes, with a line to try each."""

from sidecar.answers import Reply
from sidecar.service import Service
from sse import __version__
from sse.http import Request, text_response


async def index(service: Service, request: Request) -> Reply:
    """Plain text; the routes are those of the application's own table."""
    host = request.header(b"host") or "127.0.0.1:8090"
    url = f"{request.scope.get('scheme', 'http')}://{host}{request.root_path or service.settings.root_path}"
    lines = [f"Sidestream {__version__}: server-sent events beside your application.", ""]
    lines += [f"  {route.about.replace('{url}', url)}" for route in service.state["routes"] if route.about]
    return text_response("\n".join([*lines, ""]))

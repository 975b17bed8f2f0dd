"""Who may do what: one table of rights, the Host and Origin that a request may have, and CORS.

    open         anybody                                                    /, /healthz, /readyz, OPTIONS
    capability   whoever knows the URL: 128 random bits                     one stream, its state, one job's progress, a merge
    key          `Stream-Key: <key>` of that very stream, or a token        cancelling, publishing to, closing one stream
    token        `Authorization: Bearer <token>`                            everything else

Without a token everything is open, and therefore the server is on loopback only (`server.py` refuses to start elsewhere).

A web page must not spend the operator's money: a browser says where a request comes from (`Origin`, `Sec-Fetch-Site`; Fetch
standard), and what comes from elsewhere than this host or `ORIGINS` is refused before anything starts. A rebound DNS name can't
get in: without a token, Host has to be a loopback name or in `HOSTS`. Programs send no Origin and are not concerned.
"""

import hmac
from collections.abc import Mapping
from enum import Enum
from ipaddress import ip_address

from sidecar.settings import Settings
from sse.errors import Problem
from sse.http import Request
from sse.stream import Stream


class Right(Enum):
    OPEN = "open"
    CAPABILITY = "capability"
    KEY = "key"
    TOKEN = "token"


ALLOW_HEADERS = "Authorization, Content-Type, Idempotency-Key, Last-Event-ID, Stream-Key"
EXPOSE_HEADERS = "Location, Retry-After, Stream-Key"


def check(settings: Settings, request: Request, right: Right, stream: Stream | None) -> None:
    """Raise Problem 401 or 403 unless the request has this right. stream: the one that a key would be of."""
    if right is Right.OPEN:
        return
    _check_exposure(settings, request)
    _check_host(settings, request)
    _check_origin(settings, request)
    if right is Right.CAPABILITY or not guarded(settings) or has_token(settings, request):
        return
    if right is Right.KEY and stream is not None and has_key(request, stream):
        return
    needed = "its key (Stream-Key) or a token" if right is Right.KEY else "a token (Authorization: Bearer)"
    raise Problem(401, f"This needs {needed}.", headers={"www-authenticate": "Bearer"})


def guarded(settings: Settings) -> bool:
    """Whether a token is set; `off` is not one."""
    return settings.token not in ((), ("off",))


def has_token(settings: Settings, request: Request) -> bool:
    scheme, _, given = (request.header(b"authorization") or "").partition(" ")
    matches = [hmac.compare_digest(given.strip().encode(), token.encode()) for token in settings.token]
    return scheme.lower() == "bearer" and guarded(settings) and any(matches)


def has_key(request: Request, stream: Stream) -> bool:
    return hmac.compare_digest((request.header(b"stream-key") or "").encode(), stream.key.encode())


def is_loopback(host: str) -> bool:
    """Whether a host name or address, without its port, is this machine's own."""
    name = host.strip("[]").lower()
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _check_exposure(settings: Settings, request: Request) -> None:
    """Our own server refuses to start; another one may have been bound anywhere."""
    try:
        local = ip_address((request.scope.get("server") or ("",))[0])
    except ValueError:  # a name, as in tests, or a Unix socket
        return
    if not settings.token and not local.is_loopback:
        raise Problem(403, "Without SIDESTREAM_TOKEN this is served on loopback only.")


def _check_host(settings: Settings, request: Request) -> None:
    if guarded(settings) and not settings.hosts:
        return
    if settings.token == ("off",) and not settings.hosts:
        return
    host = (request.header(b"host") or "").lower()
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name in settings.hosts or host in settings.hosts or is_loopback(name):
        return
    raise Problem(403, "This Host is not served here; SIDESTREAM_HOSTS names those that are.")


def _check_origin(settings: Settings, request: Request) -> None:
    origin, host = request.header(b"origin"), request.header(b"host")
    if origin is None:
        # A request without Origin that a page elsewhere caused: an image, a link, a form (Fetch Metadata, 2.1)
        if (request.header(b"sec-fetch-site") or "none") in ("none", "same-origin"):
            return
    elif origin in settings.origins or (host and origin.partition("://")[2] == host):  # "null" has no host
        return
    raise Problem(403, "Requests from this origin are not allowed; SIDESTREAM_ORIGINS names those that are.")


def cors(settings: Settings, request: Request) -> Mapping[str, str]:
    """The CORS headers of an answer: none unless the request's Origin is in ORIGINS. The answer varies with it all the same."""
    if not settings.origins:
        return {}
    origin = request.header(b"origin")
    if origin not in settings.origins:
        return {"vary": "Origin"}
    headers = {"vary": "Origin", "access-control-allow-origin": origin, "access-control-expose-headers": EXPOSE_HEADERS}
    if request.method == "OPTIONS":
        headers["access-control-allow-methods"] = "GET, POST, PUT, DELETE"
        headers["access-control-allow-headers"] = ALLOW_HEADERS
        headers["access-control-max-age"] = "600"
    return headers

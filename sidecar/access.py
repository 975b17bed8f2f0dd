"""Who may do what: one table of rights, the Host and Origin that a request may have, and CORS.

    open         anybody                                                    /, /healthz, /readyz, OPTIONS
    capability   whoever knows the URL: 128 random bits                     one stream, its state, one job's progress, a merge;
                                                                            the lab's lessons and probe (no secret in the URL)
    key          `Stream-Key: <key>` of the named stream, or a token        cancelling, publishing to, closing one stream
    token        `Authorization: Bearer <token>`                            everything else

Without a token everything is open, and therefore the server is on loopback only (`server.py` refuses to start elsewhere).

A web page must not spend the operator's money. A request that a page of another origin has caused is refused before anything
starts, unless `ORIGINS` names that origin. A browser tells where a request comes from by one of these headers:

    Origin           on every request except a GET without CORS (a link, an image, `fetch` in the mode no-cors)
    Sec-Fetch-Site   on such a GET too (Fetch Metadata, 2.3), but only over TLS or to this machine
    Referer          on every other GET (RFC 9110, 10.1.3), unless the page forbids it (Referrer Policy, 3)

A page that forbids Referer sends none of the three over plain HTTP. So a browser's GET without all three is refused there, if
its route takes the right `token` and no token is set.

DNS rebinding doesn't help an attacker: without a token, Host has to be a loopback name or in `HOSTS`. Programs that send no
Origin are not affected.

Limit: Safari before 16.4 sends no Sec-Fetch-Site. A page in it can start work on this machine by a GET without Referer.
"""

import hmac
import re
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from functools import lru_cache
from ipaddress import ip_address

from sidecar.origins import DEFAULT_PORTS, is_loopback, known, same_host, split
from sidecar.settings import Settings
from sse.errors import Problem
from sse.http import Request
from sse.stream import Stream

_REFERRING = re.compile(r"([^:/?#]+://[^/?#]*).*", re.DOTALL)


class Right(Enum):
    OPEN = "open"
    CAPABILITY = "capability"
    KEY = "key"
    TOKEN = "token"


EXPOSE_HEADERS = ", ".join(
    [
        "Location, Retry-After, Stream-Key, X-Request-ID",
        *(f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")),
    ]
)


Find = Callable[[], Awaitable[Stream | None]]


async def admit(settings: Settings, request: Request, right: Right, find: Find) -> Stream | None:
    """What `find` finds: the stream that the request names. Raises Problem 401 or 403 unless the request has this right.

    Only a key is compared afterwards: a request that lacks its right costs no look-up, which may have to ask elsewhere.
    """
    check(settings, request, right)
    stream = await find()
    keyed = right is Right.KEY and guarded(settings) and not has_token(settings, request)
    if keyed and (stream is None or not has_key(request, stream)):
        raise _refused(request, right)
    return stream


def check(settings: Settings, request: Request, right: Right) -> None:
    """Raise Problem 401 or 403 unless the request has this right, or may have it by the key that it brings."""
    if right is Right.OPEN:
        return
    _check_exposure(settings, request)
    _check_host(settings, request)
    if _from_elsewhere(settings, request, right):
        raise Problem(403, "A page of another origin may have sent this; SIDESTREAM_ORIGINS names those that may.")
    if right is Right.CAPABILITY or not guarded(settings) or has_token(settings, request):
        return
    if right is not Right.KEY or request.header(b"stream-key") is None:
        raise _refused(request, right)


def _refused(request: Request, right: Right) -> Problem:
    keyed = right is Right.KEY
    needed = "its key (Stream-Key) or a token" if keyed else "a token (Authorization: Bearer)"
    came = request.header(b"authorization") or (keyed and request.header(b"stream-key"))
    wrong = "; what came with it is wrong" if came else ""
    return Problem(401, f"This needs {needed}{wrong}.", headers={"www-authenticate": "Bearer"})


def guarded(settings: Settings) -> bool:
    """Whether a token is set; `off` is not one."""
    return settings.token not in ((), ("off",))


def has_token(settings: Settings, request: Request) -> bool:
    scheme, _, given = (request.header(b"authorization") or "").partition(" ")
    matches = [hmac.compare_digest(given.strip().encode(), token.encode()) for token in settings.token]
    return scheme.lower() == "bearer" and guarded(settings) and any(matches)


def has_key(request: Request, stream: Stream) -> bool:
    return hmac.compare_digest((request.header(b"stream-key") or "").encode(), stream.key.encode())


def _check_exposure(settings: Settings, request: Request) -> None:
    """Raise Problem 403 if another server than ours has bound this to a public address without a token."""
    if not settings.token and _is_public((request.scope.get("server") or ("",))[0]):
        raise Problem(403, "Without SIDESTREAM_TOKEN this is served on loopback only.")


@lru_cache(maxsize=16)  # it is the same for almost all requests: 0.1 µs instead of 4
def _is_public(address: str) -> bool:
    """Whether it is an address, and not a loopback one; in tests it may be a name, and for a Unix socket it is a path."""
    try:
        return not ip_address(address).is_loopback
    except ValueError:
        return False


def _check_host(settings: Settings, request: Request) -> None:
    if settings.token and not settings.hosts:
        return
    name, port = split(request.header(b"host") or "")
    if is_loopback(name):
        return
    named = (name, f"{name}:{port}") if port else (name, *(f"{name}:{default}" for default in DEFAULT_PORTS.values()))
    if not set(named).isdisjoint(settings.hosts):
        return
    raise Problem(403, "This Host is not served here; SIDESTREAM_HOSTS names those that are.")


def _from_elsewhere(settings: Settings, request: Request, right: Right) -> bool:
    """Whether a page of another origin may have caused this request."""
    if (origin := request.header(b"origin")) is not None:
        return not _is_ours(settings, request, origin)
    if (site := request.header(b"sec-fetch-site")) is not None:
        return site not in ("none", "same-origin")
    if right is not Right.TOKEN or guarded(settings):  # a page can start nothing, or lacks the token
        return False
    if (referer := request.header(b"referer")) is not None:
        return not _is_ours(settings, request, _REFERRING.sub(r"\1", referer))
    plain = request.scope.get("scheme") != "https" and not is_loopback(split(request.header(b"host") or "")[0])
    return plain and (request.header(b"user-agent") or "").startswith("Mozilla/")  # as every browser's does


def _is_ours(settings: Settings, request: Request, origin: str) -> bool:
    """Whether an origin is in ORIGINS, or is the origin of this server."""
    origin = known(origin)
    if origin in settings.origins:
        return True
    # An https page may ask over http: a proxy may have ended TLS without saying so, or isn't in TRUSTED_PROXIES.
    downgraded = request.scope.get("scheme") == "https" and origin.startswith("http:")
    return not downgraded and same_host(origin, request.header(b"host") or "")


def cors(settings: Settings, request: Request) -> Mapping[str, str]:
    """The CORS headers of an answer: Vary where ORIGINS is set, the others where it names the request's Origin."""
    if not settings.origins:
        return {}
    origin = request.header(b"origin")
    if origin is None or known(origin) not in settings.origins:
        return {"vary": "Origin"}
    headers = {"vary": "Origin", "access-control-allow-origin": origin, "access-control-expose-headers": EXPOSE_HEADERS}
    if request.method == "OPTIONS":
        headers["access-control-allow-methods"] = "GET, POST, PUT, DELETE"
        headers["access-control-max-age"] = "600"
        if asked := request.header(b"access-control-request-headers"):
            headers["access-control-allow-headers"] = asked
    return headers

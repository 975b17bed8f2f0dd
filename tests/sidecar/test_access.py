"""The table of rights, route by route and credential by credential; Host, Origin and CORS."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from app import Features, Sidestream
from sidecar.access import Right
from sidecar.request import Reply, Request
from sidecar.routes import Route
from sidecar.settings import Settings
from sse.asgi import Receive, Scope, Send
from sse.http import text_response
from sse.testing import open_stream
from tests.support.app import EVENT_STREAM, HOST, ask
from tests.support.app import ROUTES as TABLE
from tests.support.streams import open_in

OPEN = {("GET", "/"), ("GET", "/page/{file}"), ("GET", "/healthz"), ("GET", "/readyz")}
CAPABILITY = {
    ("GET", "/streams/{id}"),
    ("GET", "/jobs/{id}/progress"),
    ("GET", "/merge"),
    ("GET", "/lab/{lesson}"),
    ("GET", "/lab/probe"),
    ("POST", "/lab/probe"),
}
KEY = {
    ("DELETE", "/streams/{id}"),
    ("DELETE", "/streams/{id}/watchers"),
    ("POST", "/streams/{id}/events"),
    ("PUT", "/streams/{id}/events"),
    ("POST", "/streams/{id}/close"),
    ("GET", "/jobs/{id}"),
    ("DELETE", "/jobs/{id}"),
}
"""What anybody may, what the URL permits, what a stream's key permits. Every other route needs the token."""

TOKEN = "a-token"
OFF = Settings(token=("off",))
GUARDED = Settings(token=(TOKEN, "another-token"))
ALLOWED = "https://app.example"

ROUTES = [pytest.param(route, id=f"{route.method} {route.path}") for route in TABLE]


async def reach(request: Request) -> Reply:
    return text_response("reached")


class Guard(Sidestream):
    """Every route answers 200 without doing anything: whoever gets there had the right."""

    def routes(self, features: Features) -> tuple[Route, ...]:
        return tuple(route._replace(handler=reach) for route in super().routes(features))


def expected(route: Route) -> Right:
    named = (route.method, route.path)
    return (
        Right.OPEN if named in OPEN else Right.CAPABILITY if named in CAPABILITY else Right.KEY if named in KEY else Right.TOKEN
    )


async def knock(
    settings: Settings, route: Route, headers: Mapping[str, str] | None = None, *, other: bool = False, key: bool = False
) -> int:
    """The status of a request to `route`, for a stream that is there; with its key, or with another stream's."""
    sidestream = Guard(settings)
    one, two = (open_in(sidestream.service.store) for _ in range(2))
    sent = dict(headers or {})
    if key or other:
        sent["stream-key"] = (two if other else one).key
    answer = await ask(sidestream, route.path.replace("{id}", one.id), method=route.method, headers=sent)
    return answer.status


@pytest.mark.parametrize("route", ROUTES)
def test_every_route_has_the_right_that_is_written_here(route: Route) -> None:
    assert route.right is expected(route)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("settings", [Settings(), OFF], ids=["unset", "off"])
async def test_without_a_token_everything_is_open(route: Route, settings: Settings) -> None:
    assert await knock(settings, route) == 200


@pytest.mark.parametrize("route", ROUTES)
async def test_with_a_token_set_a_request_without_one_gets_what_needs_none(route: Route) -> None:
    free = expected(route) in (Right.OPEN, Right.CAPABILITY)
    assert await knock(GUARDED, route) == (200 if free else 401)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize(
    "wrong",
    ["Bearer wrong", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer ", "Bearer off", f"Basic {TOKEN}", TOKEN, "Bearer ä"],
)
async def test_a_wrong_token_is_as_good_as_none(route: Route, wrong: str) -> None:
    free = expected(route) in (Right.OPEN, Right.CAPABILITY)
    assert await knock(GUARDED, route, {"authorization": wrong}) == (200 if free else 401)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("token", GUARDED.token)
async def test_each_of_the_tokens_permits_everything(route: Route, token: str) -> None:
    assert await knock(GUARDED, route, {"authorization": f"bearer {token}"}) == 200


@pytest.mark.parametrize("route", ROUTES)
async def test_a_key_permits_what_its_own_stream_is_concerned_with(route: Route) -> None:
    assert await knock(GUARDED, route, key=True) == (401 if expected(route) is Right.TOKEN else 200)


@pytest.mark.parametrize("route", ROUTES)
async def test_the_key_of_another_stream_permits_nothing(route: Route) -> None:
    free = expected(route) in (Right.OPEN, Right.CAPABILITY)
    assert await knock(GUARDED, route, other=True) == (200 if free else 401)


async def test_a_refusal_says_what_is_needed() -> None:
    sidestream = Guard(GUARDED)
    answer = await ask(sidestream, "/streams")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json["detail"] == "This needs a token (Authorization: Bearer)."
    answer = await ask(sidestream, "/streams/unknown", method="DELETE", headers={"stream-key": ""})
    assert (answer.status, answer.json["detail"]) == (401, "This needs its key (Stream-Key) or a token.")


@pytest.mark.parametrize("sent", [{"authorization": "Bearer wrong"}, {"stream-key": "wrong"}], ids=["token", "key"])
async def test_a_refusal_says_that_what_was_sent_is_wrong(sent: dict[str, str]) -> None:
    answer = await ask(Guard(GUARDED), "/streams/unknown", method="DELETE", headers=sent)
    assert answer.json["detail"] == "This needs its key (Stream-Key) or a token; what came with it is wrong."


async def test_a_key_is_not_wrong_where_none_is_asked_for() -> None:
    answer = await ask(Guard(GUARDED), "/streams", headers={"stream-key": "some"})
    assert (answer.status, answer.json["detail"]) == (401, "This needs a token (Authorization: Bearer).")


# -- Host

HOSTS = Settings(hosts=("app.example", "other.example:8443"))
GUARDED_HOSTS = replace(HOSTS, token=(TOKEN,))
OFF_HOSTS = replace(HOSTS, token=("off",))

HOST_CASES = [
    # settings, Host, permitted
    (Settings(), "localhost", True),
    (Settings(), "localhost:8090", True),
    (Settings(), "LOCALHOST", True),
    (Settings(), "page.localhost:8090", True),
    (Settings(), "127.0.0.1:8090", True),
    (Settings(), "127.1.2.3", True),
    (Settings(), "[::1]", True),
    (Settings(), "[::1]:8090", True),
    (Settings(), "rebound.example:8090", False),
    (Settings(), "localhost.rebound.example", False),
    (Settings(), "127.0.0.1.rebound.example", False),
    (Settings(), "10.0.0.1", False),
    (Settings(), "[fe80::1]:8090", False),
    (Settings(), "", False),
    (HOSTS, "app.example", True),
    (HOSTS, "app.example:8090", True),
    (HOSTS, "APP.example", True),
    (HOSTS, "Other.example:8443", True),
    (HOSTS, "other.example:8090", False),
    (HOSTS, "app.example:", True),
    (HOSTS, "app.example:x", False),
    (Settings(hosts=("app.example:443",)), "app.example", True),
    (Settings(hosts=("app.example:443",)), "app.example:443", True),
    (Settings(hosts=("app.example:443",)), "app.example:8443", False),
    (Settings(hosts=("[fe80::1]",)), "[fe80::1]:8090", True),
    (Settings(hosts=("[fe80::1]",)), "fe80::1", False),
    (HOSTS, "rebound.example", False),
    (HOSTS, "localhost:8090", True),
    (GUARDED, "rebound.example", True),
    (GUARDED_HOSTS, "app.example", True),
    (GUARDED_HOSTS, "rebound.example", False),
    (OFF, "rebound.example", True),
    (OFF_HOSTS, "app.example", True),
    (OFF_HOSTS, "rebound.example", False),
]


def label(value: object) -> str | None:
    if not isinstance(value, Settings):
        return None
    token = {(): "no token", ("off",): "token off"}.get(value.token, "token")
    return token + (", hosts" if value.hosts else "") + (", origins" if value.origins else "")


@pytest.mark.parametrize(("settings", "host", "permitted"), HOST_CASES, ids=label)
async def test_a_host_is_served_or_refused(settings: Settings, host: str, permitted: bool) -> None:
    credentials = {"authorization": f"Bearer {TOKEN}"}
    answer = await ask(Guard(settings), "/streams", headers={"host": host, **credentials})
    assert answer.status == (200 if permitted else 403)


@pytest.mark.parametrize("route", ROUTES)
async def test_a_foreign_host_gets_nothing_but_what_is_open(route: Route) -> None:
    expects = 200 if expected(route) is Right.OPEN else 403
    assert await knock(Settings(), route, {"host": "rebound.example"}) == expects


# -- Origin

WITH_ORIGIN = Settings(origins=(ALLOWED,))

ORIGIN_CASES = [
    # settings, headers, permitted
    (Settings(), {}, True),
    (Settings(), {"origin": f"http://{HOST}"}, True),
    (Settings(), {"origin": "http://localhost:3000"}, False),
    (Settings(), {"origin": f"http://{HOST}0"}, False),
    (Settings(), {"origin": "http://127.0.0.1"}, False),
    (Settings(), {"origin": ALLOWED}, False),
    (Settings(), {"origin": "null"}, False),
    (Settings(), {"origin": ""}, False),
    (Settings(), {"sec-fetch-site": "none"}, True),
    (Settings(), {"sec-fetch-site": "same-origin"}, True),
    (Settings(), {"sec-fetch-site": "same-site"}, False),
    (Settings(), {"sec-fetch-site": "cross-site"}, False),
    (Settings(), {"sec-fetch-site": "cross-site", "origin": f"http://{HOST}"}, True),
    (WITH_ORIGIN, {"origin": ALLOWED}, True),
    (WITH_ORIGIN, {"origin": ALLOWED, "sec-fetch-site": "cross-site"}, True),
    (WITH_ORIGIN, {"origin": "http://app.example"}, False),
    (WITH_ORIGIN, {"origin": f"{ALLOWED}:8443"}, False),
    (WITH_ORIGIN, {"origin": f"{ALLOWED}.evil.example"}, False),
    (WITH_ORIGIN, {"sec-fetch-site": "cross-site"}, False),
    (WITH_ORIGIN, {"origin": "HTTPS://App.Example:443"}, True),
    (WITH_ORIGIN, {"origin": "https://app.example:80"}, False),
    (Settings(), {"origin": f"HTTP://{HOST}"}, True),
    (Settings(), {"host": "localhost:80", "origin": "http://localhost"}, True),
    (Settings(), {"host": "localhost", "origin": "http://localhost:80"}, True),
    (Settings(), {"host": "localhost:443", "origin": "https://localhost"}, True),
    (Settings(), {"host": "LOCALHOST", "origin": "http://localhost"}, True),
    (Settings(), {"host": "localhost:", "origin": "http://localhost"}, True),
    (Settings(), {"host": "localhost:80", "origin": "https://localhost"}, False),
    (Settings(), {"host": "localhost", "origin": "app://localhost"}, False),
    (Settings(origins=("app://localhost",)), {"origin": "app://localhost"}, True),
]


@pytest.mark.parametrize(
    ("settings", "headers", "permitted"),
    ORIGIN_CASES,
    ids=[f"{label(settings)}-{headers}" for settings, headers, _ in ORIGIN_CASES],
)
async def test_an_origin_is_served_or_refused(settings: Settings, headers: Mapping[str, str], permitted: bool) -> None:
    answer = await ask(Guard(settings), "/streams", headers=headers)
    assert answer.status == (200 if permitted else 403)


async def test_an_opaque_origin_without_a_host_is_foreign() -> None:
    headers = {"host": "", "origin": "null", "authorization": f"Bearer {TOKEN}"}
    assert (await ask(Guard(GUARDED), "/streams", headers=headers)).status == 403


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}], ids=str)
async def test_a_page_from_elsewhere_starts_nothing(route: Route, headers: Mapping[str, str]) -> None:
    credentials = {"authorization": f"Bearer {TOKEN}"}
    expects = 200 if expected(route) is Right.OPEN else 403
    assert await knock(GUARDED, route, {**headers, **credentials}, key=True) == expects


# -- a GET of a page elsewhere, where a browser says no Origin and no Sec-Fetch-Site

LAN = {"host": "sidecar.lan:8090"}
BROWSER = {"user-agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36"}
WORK = next(route for route in TABLE if (route.method, route.path) == ("GET", "/chat"))
WATCHING = next(route for route in TABLE if (route.method, route.path) == ("GET", "/streams/{id}"))
OFF_ORIGIN = replace(OFF, origins=(ALLOWED,))

PLAIN_CASES = [
    # settings, route, headers, permitted
    pytest.param(OFF, WORK, LAN, True, id="a program"),
    pytest.param(OFF, WORK, {**LAN, "referer": "http://evil.example/"}, False, id="a page elsewhere"),
    pytest.param(OFF, WORK, {**LAN, "referer": "http://sidecar.lan/"}, False, id="another port"),
    pytest.param(OFF, WORK, {**LAN, "referer": "http://sidecar.lan:8090/wire?x"}, True, id="a page of this host"),
    pytest.param(OFF, WORK, {**LAN, **BROWSER, "referer": "http://sidecar.lan:8090/"}, True, id="that, in a browser"),
    pytest.param(OFF, WORK, {**LAN, "referer": "http://sidecar.lan:8090.evil.example/"}, False, id="a longer name"),
    pytest.param(OFF, WORK, {**LAN, "referer": "http://evil.example/http://sidecar.lan:8090/"}, False, id="a name in a path"),
    pytest.param(OFF, WORK, {**LAN, "referer": "nonsense"}, False, id="nonsense"),
    pytest.param(OFF, WORK, {**LAN, "referer": ""}, False, id="nothing"),
    pytest.param(OFF, WORK, {**LAN, **BROWSER}, False, id="a page that says nothing"),
    pytest.param(OFF, WORK, {**LAN, **BROWSER, "sec-fetch-site": "none"}, True, id="a browser that says where from"),
    pytest.param(OFF, WORK, {"host": "localhost:8090", **BROWSER}, True, id="this machine"),
    pytest.param(
        OFF, WORK, {"host": "localhost:8090", "referer": "http://evil.example/"}, False, id="this machine, from elsewhere"
    ),
    pytest.param(OFF_ORIGIN, WORK, {**LAN, **BROWSER, "referer": ALLOWED + "/"}, True, id="an allowed page"),
    pytest.param(OFF, WATCHING, {**LAN, **BROWSER}, True, id="nothing starts"),
    pytest.param(GUARDED, WORK, {**LAN, **BROWSER, "authorization": f"Bearer {TOKEN}"}, True, id="with the token"),
]


@pytest.mark.parametrize(("settings", "route", "headers", "permitted"), PLAIN_CASES)
async def test_a_page_elsewhere_starts_no_work_by_plain_http(
    settings: Settings, route: Route, headers: Mapping[str, str], permitted: bool
) -> None:
    assert await knock(settings, route, headers) == (200 if permitted else 403)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**LAN, **BROWSER}, 200),  # a browser says Sec-Fetch-Site where there is TLS
        ({"host": "sidecar.lan", "origin": "https://sidecar.lan"}, 200),
        ({"host": "sidecar.lan", "origin": "http://sidecar.lan"}, 403),
    ],
    ids=["no browser", "a page of this host", "a page of this host by plain HTTP"],
)
async def test_where_there_is_tls(headers: Mapping[str, str], status: int) -> None:
    sidestream = Guard(OFF)

    async def by_tls(scope: Scope, receive: Receive, send: Send) -> None:
        await sidestream({**scope, "scheme": "https"}, receive, send)

    assert (await ask(by_tls, "/chat", headers=headers)).status == status


# -- CORS


@pytest.fixture
def streams() -> Sidestream:
    """An application whose origin is allowed."""
    return Sidestream(WITH_ORIGIN)


EXPOSED = (
    "Location, Retry-After, Stream-Key, X-Request-ID, "
    "x-ratelimit-limit-requests, x-ratelimit-limit-tokens, x-ratelimit-remaining-requests, x-ratelimit-remaining-tokens, "
    "x-ratelimit-reset-requests, x-ratelimit-reset-tokens"
)


def cors_headers(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.startswith("access-control-") or name == "vary"}


@pytest.mark.parametrize("route", ROUTES)
async def test_a_preflight_from_an_allowed_origin_is_answered_on_every_route(route: Route) -> None:
    headers = {"origin": ALLOWED, "access-control-request-method": route.method}
    answer = await ask(
        Sidestream(replace(WITH_ORIGIN, token=(TOKEN,))),
        route.path.replace("{id}", "some-id"),
        method="OPTIONS",
        headers={**headers, "access-control-request-headers": "authorization, last-event-id, x-stainless-os, traceparent"},
    )
    assert answer.status == 204
    assert route.method in answer.headers["access-control-allow-methods"].split(", ")
    assert cors_headers(answer.headers) == {
        "vary": "Origin",
        "access-control-allow-origin": ALLOWED,
        "access-control-allow-methods": "GET, POST, PUT, DELETE",
        "access-control-allow-headers": "authorization, last-event-id, x-stainless-os, traceparent",
        "access-control-expose-headers": EXPOSED,
        "access-control-max-age": "600",
    }


async def test_a_preflight_that_asks_for_no_header_is_allowed_none() -> None:
    answer = await ask(Sidestream(WITH_ORIGIN), "/streams", method="OPTIONS", headers={"origin": ALLOWED})
    assert "access-control-allow-headers" not in answer.headers


async def test_a_preflight_from_elsewhere_is_told_nothing_but_that_it_varies() -> None:
    answer = await ask(Sidestream(WITH_ORIGIN), "/streams", method="OPTIONS", headers={"origin": "https://evil.example"})
    assert (answer.status, cors_headers(answer.headers)) == (204, {"vary": "Origin"})


async def test_nothing_is_allowed_unless_it_is_set() -> None:
    answer = await ask(Sidestream(Settings()), "/streams", method="OPTIONS", headers={"origin": ALLOWED})
    assert (answer.status, cors_headers(answer.headers)) == (204, {})


GRANTED = {
    "vary": "Origin",
    "access-control-allow-origin": ALLOWED,
    "access-control-expose-headers": EXPOSED,
}


async def test_an_event_stream_carries_them_too(streams: Sidestream) -> None:
    headers = {"host": HOST, "origin": ALLOWED, **EVENT_STREAM}
    async with open_stream(streams, "/stream?count=1", headers=headers) as stream:
        assert stream.status == 200
        assert cors_headers(stream.headers) == GRANTED


@pytest.mark.parametrize(
    ("path", "status"), [("/streams", 200), ("/streams/unknown", 404), ("/nothing", 404), ("/stream?count=x", 400)]
)
async def test_every_other_answer_carries_them_too(streams: Sidestream, path: str, status: int) -> None:
    answer = await ask(streams, path, headers={"origin": ALLOWED})
    assert (answer.status, cors_headers(answer.headers)) == (status, GRANTED)


async def test_an_answer_to_another_origin_varies_all_the_same(streams: Sidestream) -> None:
    assert cors_headers((await ask(streams, "/streams")).headers) == {"vary": "Origin"}
    refused = await ask(streams, "/streams", headers={"origin": "https://evil.example"})
    assert (refused.status, cors_headers(refused.headers)) == (403, {"vary": "Origin"})


@pytest.mark.parametrize(
    ("server", "settings", "status"),
    [
        (("127.0.0.1", 8090), Settings(), 200),
        (("::1", 8090), Settings(), 200),
        (("10.0.0.5", 8090), Settings(), 403),
        (("10.0.0.5", 8090), Settings(token=("off",)), 200),
        (("/run/sidestream.sock", None), Settings(), 200),
    ],
)
async def test_without_a_token_only_loopback_is_served_whoever_bound_the_socket(
    server: tuple[str, int | None], settings: Settings, status: int
) -> None:
    sidestream = Guard(settings)

    async def elsewhere(scope: Scope, receive: Receive, send: Send) -> None:
        await sidestream({**scope, "server": server}, receive, send)

    assert (await ask(elsewhere, "/streams")).status == status

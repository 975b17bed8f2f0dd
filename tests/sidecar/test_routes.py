"""The route table: which route answers a request, what there is for any other, and how errors look at a path."""

import pytest

from sidecar.access import Right
from sidecar.request import Reply, Request
from sidecar.routes import Route, Routes
from sidecar.service import Service
from sidecar.settings import Settings
from sse.errors import Problem
from sse.http import Response, problem_response, text_response
from tests.support.asgi import Connection, http_scope


async def handler(request: Request) -> Reply:
    return text_response("answered")


def errors(problem: Problem) -> Response:
    return text_response(problem.detail, problem.status)


def route(method: str, path: str) -> Route:
    return Route(method, path, handler, Right.TOKEN)


ALL = route("GET", "/things")
CREATE = route("POST", "/things")
BEST = route("GET", "/things/best")
ONE = route("GET", "/things/{id}")
DELETE = route("DELETE", "/things/{id}")
PART = route("GET", "/things/{id}/parts/{part}")
ODD = Route("GET", "/odd/{id}", handler, Right.OPEN, errors=errors)
REST = route("GET", "/paths/{path*}")
TABLE = (ALL, CREATE, BEST, ONE, DELETE, PART, ODD, REST)


def asked(method: str, path: str) -> Request:
    return Request(http_scope(path, method=method), Connection().receive, Service(Settings()))


@pytest.mark.parametrize(
    ("method", "path", "found", "params"),
    [
        ("GET", "/things", ALL, {}),
        ("HEAD", "/things", ALL, {}),
        ("POST", "/things", CREATE, {}),
        ("GET", "/things/best", BEST, {}),
        ("GET", "/things/worst", ONE, {"id": "worst"}),
        ("HEAD", "/things/worst", ONE, {"id": "worst"}),
        ("DELETE", "/things/best", DELETE, {"id": "best"}),
        ("GET", "/things/", ONE, {"id": ""}),
        ("GET", "/things/{id}", ONE, {"id": "{id}"}),
        ("GET", "/things/a/parts/b", PART, {"id": "a", "part": "b"}),
        ("GET", "/paths/a", REST, {"path": "a"}),
        ("GET", "/paths/a/b/c", REST, {"path": "a/b/c"}),
        ("GET", "/paths/", REST, {"path": ""}),
    ],
)
def test_a_request_is_answered_by_its_route(method: str, path: str, found: Route, params: dict[str, str]) -> None:
    request = asked(method, path)
    assert Routes(TABLE).find(request) is found
    assert request.params == params


@pytest.mark.parametrize("path", ["", "/", "/thing", "/things/a/b", "/things/a/parts", "/things/a/parts/b/", "/Things"])
def test_where_no_route_is_there_is_nothing(path: str) -> None:
    with pytest.raises(Problem) as raised:
        Routes(TABLE).find(asked("GET", path))
    assert raised.value.status == 404


@pytest.mark.parametrize(
    ("path", "allow"),
    [
        ("/things", "GET, POST, HEAD, OPTIONS"),
        ("/things/worst", "DELETE, GET, HEAD, OPTIONS"),
        ("/things/best", "DELETE, GET, HEAD, OPTIONS"),
        ("/things/a/parts/b", "GET, HEAD, OPTIONS"),
    ],
)
async def test_another_method_is_told_which_there_are(path: str, allow: str) -> None:
    with pytest.raises(Problem) as raised:
        Routes(TABLE).find(asked("PUT", path))
    assert (raised.value.status, raised.value.headers) == (405, {"allow": allow})
    request = asked("OPTIONS", path)
    options = Routes(TABLE).find(request)
    assert options.right is Right.OPEN
    reply = await options.handler(request)
    assert isinstance(reply, Response)
    assert (reply.status, reply.headers, reply.body) == (204, {"allow": allow}, b"")


def test_options_of_nothing_is_nothing() -> None:
    with pytest.raises(Problem) as raised:
        Routes(TABLE).find(asked("OPTIONS", "/nothing"))
    assert raised.value.status == 404


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/odd/1", errors),
        ("/odd", errors),
        ("/odd/1/2/3", errors),
        ("/oddly/1", problem_response),
        ("/things/odd", problem_response),
        ("/nothing", problem_response),
        ("/", problem_response),
        ("", problem_response),
    ],
)
def test_errors_look_as_on_the_routes_that_begin_with_the_same_segment(path: str, expected: object) -> None:
    assert Routes(TABLE).errors(path) is expected


def test_a_table_may_be_empty() -> None:
    with pytest.raises(Problem):
        Routes(()).find(asked("GET", "/"))
    assert Routes(()).errors("/") is problem_response

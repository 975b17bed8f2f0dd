"""Requests, responses, problem documents."""

import asyncio
import itertools
import json
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from sse.asgi import CONNECTION, Message, Receive, Scope
from sse.budget import Budget, Charge
from sse.errors import Disconnected, Full, Problem
from sse.http import ALWAYS, SEND_TIMEOUT, SLICE, Request, Response, json_response, problem_response, text_response
from tests.support.asgi import Connection, http_scope
from tests.support.clock import idle, now

pytestmark = pytest.mark.virtual_time


async def nothing() -> Message:
    raise AssertionError("the body was asked for")


def get(query: bytes = b"", *headers: tuple[bytes, bytes], **scope: Any) -> Request:
    return Request(http_scope(query=query, headers=headers, **scope), nothing)


def post(*body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> Request:
    return Request(http_scope(method="POST", headers=headers or []), Connection(body).receive)


# -- the request


@pytest.mark.parametrize(
    ("root_path", "path", "expected", "root"),
    [
        pytest.param("", "/stream", "/stream", "", id="none"),
        pytest.param("/api", "/api/stream", "/stream", "/api", id="prefix"),
        pytest.param("/api/", "/api/stream", "/stream", "/api", id="with a slash at its end"),
        pytest.param("/api", "/api", "/", "/api", id="the root itself"),
        pytest.param("/api", "/api/", "/", "/api", id="the root's slash"),
        pytest.param("/api", "/apis/stream", "/apis/stream", "/api", id="a longer first segment"),
        pytest.param("/api", "/stream", "/stream", "/api", id="a server that strips it"),
        pytest.param("/api", "/api/api/stream", "/api/stream", "/api", id="once only"),
        pytest.param("/", "/stream", "/stream", "", id="a slash alone"),
    ],
)
def test_the_path_is_without_the_root_path(root_path: str, path: str, expected: str, root: str) -> None:
    request = get(path=path, root_path=root_path)

    assert (request.path, request.root_path) == (expected, root)


def test_a_scope_may_leave_out_what_is_optional() -> None:
    scope: Scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}

    request = Request(scope, nothing)

    assert (request.path, request.root_path, dict(request.query)) == ("/x", "", {})


def test_headers_are_utf8_and_the_first_of_a_name_counts() -> None:
    request = get(b"", (b"last-event-id", "é€".encode()), (b"last-event-id", b"other"), (b"x", b"\xff"))

    assert request.header(b"last-event-id") == "é€"
    assert request.header(b"x") == "\ufffd"
    assert request.header(b"absent") is None


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        pytest.param(b"", {}, id="none"),
        pytest.param(b"a=1&b=2", {"a": "1", "b": "2"}, id="two"),
        pytest.param(b"a=1&a=2", {"a": "1"}, id="the first of a name"),
        pytest.param(b"a=&b", {"a": "", "b": ""}, id="empty values"),
        pytest.param(b"a=%C3%A9+%26%3D", {"a": "é &="}, id="percent and plus"),
        pytest.param(b"a=%ff", {"a": "\ufffd"}, id="no UTF-8"),
        pytest.param(b"a=1%0D%0Adata:x", {"a": "1\r\ndata:x"}, id="line ends"),
    ],
)
def test_the_query(query: bytes, expected: dict[str, str]) -> None:
    request = get(query)

    assert dict(request.query) == expected
    assert request.query is request.query


@pytest.mark.parametrize("query", ["a=é".encode(), b"&".join([b"a=1"] * 101)], ids=["not ASCII", "too many"])
def test_a_query_that_cannot_be_read_is_a_400(query: bytes) -> None:
    request = get(query)

    with pytest.raises(Problem) as problem:
        request.integer("a", 1, minimum=0, maximum=9)

    assert problem.value.status == 400


@pytest.mark.parametrize(
    ("query", "header", "expected"),
    [
        pytest.param(b"", None, None, id="none"),
        pytest.param(b"", b"s.1", "s.1", id="header"),
        pytest.param(b"last_event_id=s.2", None, "s.2", id="query"),
        pytest.param(b"last_event_id=s.2", b"s.1", "s.1", id="both"),
        pytest.param(b"last_event_id=s.2", b"", "s.2", id="an empty header is none"),
        pytest.param(b"last_event_id=", b"", None, id="an empty ID is none"),
        pytest.param(b"lastEventId=s.3", None, "s.3", id="as polyfills call it"),
        pytest.param(b"lastEventId=s.3&last_event_id=s.2", None, "s.2", id="both parameters"),
    ],
)
def test_the_last_event_id(query: bytes, header: bytes | None, expected: str | None) -> None:
    headers = () if header is None else ((b"last-event-id", header),)
    assert get(query, *headers).last_event_id == expected


@pytest.mark.parametrize(("query", "value"), [(b"", 7), (b"n=1", 1), (b"n=10", 10), (b"n=-3", -3), (b"n=010", 10)])
def test_an_integer_parameter(query: bytes, value: int) -> None:
    assert get(query).integer("n", 7, minimum=-5, maximum=10) == value


ODD = ["", "x", "1_0", "0x1", "%201", "1%20", "1%0A", "%D9%A3", "%C2%B2", "9" * 5000]
BAD_INTEGERS = [*ODD, "11", "-6", "1.0", "+5", "--5", "-", "5-", "1e1"]


@pytest.mark.parametrize("text", BAD_INTEGERS)
def test_an_integer_that_cannot_be_read_is_a_400_that_names_it(text: str) -> None:
    with pytest.raises(Problem) as problem:
        get(b"n=" + text.encode()).integer("n", 7, minimum=-5, maximum=10)

    assert (problem.value.status, problem.value.members) == (400, {"parameter": "n"})
    assert problem.value.detail == "n must be an integer from -5 to 10."


@pytest.mark.parametrize(
    ("query", "value"), [(b"", 0.5), (b"s=0", 0), (b"s=1.5", 1.5), (b"s=.5", 0.5), (b"s=1e1", 10), (b"s=-0", 0)]
)
def test_a_number_parameter(query: bytes, value: float) -> None:
    assert get(query).number("s", 0.5, minimum=0, maximum=10) == value


BAD_NUMBERS = [*ODD, "nan", "NaN", "inf", "-inf", "-1", "10.5", "1e400"]


@pytest.mark.parametrize("text", BAD_NUMBERS)
def test_a_number_that_cannot_be_read_is_a_400_that_names_it(text: str) -> None:
    with pytest.raises(Problem) as problem:
        get(b"s=" + text.encode()).number("s", 0.5, minimum=0, maximum=10)

    assert (problem.value.status, problem.value.members) == (400, {"parameter": "s"})
    assert problem.value.detail == "s must be a number from 0 to 10."


@pytest.mark.parametrize(
    ("accept", "accepted"),
    [(None, False), (b"*/*", False), (b"Application/JSON", True), ("é".encode(), False), (b"application/json;q=0", False)],
)
def test_a_type_is_accepted_where_it_is_wished_for(accept: bytes | None, accepted: bool) -> None:
    request = get() if accept is None else get(b"", (b"accept", accept))

    assert request.accepts("application/json") is accepted


# -- the body


async def test_the_body_is_put_together() -> None:
    assert await post(b"ab", b"", b"cd").body() == b"abcd"


async def test_the_pieces_of_a_body_come_as_they_arrive() -> None:
    assert [chunk async for chunk in post(b"ab", b"", b"cd").chunks()] == [b"ab", b"cd"]


async def test_a_message_may_leave_out_what_is_empty() -> None:
    async def receive() -> Message:
        return {"type": "http.request"}

    assert await Request(http_scope(method="POST"), receive).body() == b""


@pytest.mark.parametrize("limit", [4, 5, 100])
async def test_a_body_within_the_limit(limit: int) -> None:
    assert await post(b"ab", b"cd", headers=[(b"content-length", b"4")]).body(limit=limit) == b"abcd"


async def test_a_body_over_the_limit_is_not_read_to_its_end() -> None:
    connection = Connection([b"ab", b"cd", b"ef"])

    with pytest.raises(Problem) as problem:
        await Request(http_scope(), connection.receive).body(limit=3)

    assert problem.value.status == 413
    assert (await connection.receive())["body"] == b"ef"


@pytest.mark.parametrize("length", [b"5", b"9" * 16, b"9" * 5000])
async def test_a_body_announced_as_too_long_is_not_read(length: bytes) -> None:
    request = Request(http_scope(headers=[(b"content-length", length)]), nothing)

    with pytest.raises(Problem) as problem:
        await request.body(limit=4)

    assert problem.value.status == 413


@pytest.mark.parametrize("length", [b"", b"x", b"-1", "²".encode(), b"0"])
async def test_a_content_length_that_means_nothing_is_passed_over(length: bytes) -> None:
    assert await post(b"ab", headers=[(b"content-length", length)]).body(limit=4) == b"ab"


async def test_a_body_that_does_not_come_is_a_408() -> None:
    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    with pytest.raises(Problem) as problem:
        await Request(http_scope(), receive).body(timeout=3)

    assert (problem.value.status, now()) == (408, 3)


def dripping(size: int, times: int = sys.maxsize) -> Receive:
    """`size` bytes a second."""
    left = itertools.count(times - 1, -1)

    async def receive() -> Message:
        await asyncio.sleep(1)
        return {"type": "http.request", "body": bytes(size), "more_body": next(left) > 0}

    return receive


async def test_a_body_that_drips_in_is_a_408_after_the_whole_time() -> None:
    with pytest.raises(Problem) as problem:
        await Request(http_scope(), dripping(100)).body(timeout=3.5)

    assert problem.value.status == 408
    assert 3.5 < now() < 4


async def test_a_body_that_comes_over_a_slow_link_has_time() -> None:
    """4 MB at 100 KB a second take 40 s."""
    body = await Request(http_scope(), dripping(100_000, 40)).body()

    assert (len(body), now()) == (4_000_000, 40)


async def test_pieces_may_take_as_long_as_they_like_in_all_but_not_each() -> None:
    waits = iter([1.0] * 10 + [4.0])

    async def receive() -> Message:
        await asyncio.sleep(next(waits))
        return {"type": "http.request", "body": b"x", "more_body": True}

    chunks = Request(http_scope(), receive).chunks(timeout=3.5)
    assert [await anext(chunks) for _ in range(10)] == [b"x"] * 10
    with pytest.raises(Problem) as problem:
        await anext(chunks)

    assert (problem.value.status, now()) == (408, 13.5)


async def test_a_client_that_goes_in_the_middle_of_its_body() -> None:
    messages: Iterator[Message] = iter([{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(messages)

    with pytest.raises(Disconnected):
        await Request(http_scope(), receive).body()


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, gzip"])
async def test_a_body_that_is_compressed_is_a_415_and_is_not_read(encoding: bytes) -> None:
    request = Request(http_scope(headers=[(b"content-encoding", encoding)]), nothing)

    with pytest.raises(Problem) as problem:
        await request.body()

    assert (problem.value.status, problem.value.headers) == (415, {"accept-encoding": "identity"})


JSON = [(b"content-type", b"application/json")]


@pytest.mark.parametrize(
    ("body", "headers", "value"),
    [
        pytest.param(b'{"a": [1, "\xc3\xa9"]}', JSON, {"a": [1, "é"]}, id="object"),
        pytest.param(b"null", JSON, None, id="null"),
        pytest.param(b"", JSON, None, id="empty"),
        pytest.param(b"", [], None, id="empty, of no type"),
        pytest.param(b"\xef\xbb\xbf{}", JSON, {}, id="behind a byte order mark"),
        pytest.param(b"\xef\xbb\xbf", [], None, id="a byte order mark alone"),
        pytest.param(b"{}", [*JSON, (b"content-encoding", b"Identity")], {}, id="encoded as it is"),
        pytest.param(b"1", [(b"content-type", b"Application/JSON; charset=utf-8")], 1, id="parameters and case"),
    ],
)
async def test_a_json_body(body: bytes, headers: list[tuple[bytes, bytes]], value: Any) -> None:
    assert await post(body, headers=headers).json() == value


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        pytest.param(b"{}", [], 415, id="no type"),
        pytest.param(b"{}", [(b"content-type", b"text/plain")], 415, id="another type"),
        pytest.param(b"{}", [(b"content-type", b"application/json-seq")], 415, id="a longer type"),
        pytest.param(b"{", JSON, 400, id="no JSON"),
        pytest.param(b"\xff", JSON, 400, id="no UTF-8"),
        pytest.param(b'{"a": NaN}', JSON, 400, id="NaN"),
        pytest.param(b"[" * 100_000, JSON, 400, id="too deep"),
        pytest.param(b"[" * 1025 + b"]" * 1025, JSON, 400, id="too deep to be read"),
        pytest.param(b"[" * 255 + b"]" * 255, JSON, 400, id="too deep to be written"),
    ],
)
async def test_a_json_body_that_cannot_be_read(body: bytes, headers: list[tuple[bytes, bytes]], status: int) -> None:
    with pytest.raises(Problem) as problem:
        await post(body, headers=headers).json()

    assert problem.value.status == status
    assert problem.value.headers == ({"accept": "application/json"} if status == 415 else {})


# -- responses


async def answered(response: Response, method: str = "GET") -> Connection:
    connection = Connection()
    await response(get(method=method), connection.send)
    assert connection.complete
    return connection


async def test_a_response_is_one_start_and_one_body() -> None:
    connection = await answered(Response(201, b"abc", {"x-name": "värde"}))

    assert connection.sent == [
        {
            "type": "http.response.start",
            "status": 201,
            "headers": [(b"x-name", b"v\xe4rde"), *ALWAYS, (b"content-length", b"3")],
        },
        {"type": "http.response.body", "body": b"abc", "more_body": False},
    ]


async def test_a_large_response_goes_out_in_slices() -> None:
    body = bytes(range(256)) * 1000
    connection = await answered(Response(200, body))

    assert max(map(len, connection.bodies)) <= SLICE
    assert connection.body == body
    assert connection.headers[b"content-length"] == b"%d" % len(body)


async def test_a_response_that_nobody_reads_is_given_up_at_the_send_timeout() -> None:
    aborted: list[float] = []
    request = Request(http_scope(extensions={CONNECTION: {"abort": lambda: aborted.append(now())}}), nothing)
    request.send_timeout = 5
    connection = Connection()
    asyncio.get_running_loop().call_later(3.5, connection.stop_reading)

    async def slow(message: Message) -> None:
        await asyncio.sleep(1)
        await connection.send(message)

    with pytest.raises(Disconnected):
        await Response(200, b"x" * 10 * SLICE)(request, slow)

    assert len(connection.sent) == 3
    assert aborted == [now()] == [3 + 5]


async def test_under_another_server_a_response_that_nobody_reads_is_given_up_too() -> None:
    connection = Connection()
    connection.stop_reading()
    with pytest.raises(Disconnected):
        await Response(200)(get(), connection.send)
    assert now() == SEND_TIMEOUT


def charged(budget: Budget, *body: bytes) -> Request:
    request = post(*body, headers=JSON)
    request.charge = Charge(budget)
    return request


async def test_a_body_is_charged_as_it_comes_and_the_value_for_what_it_takes() -> None:
    budget = Budget(100_000)
    body = b"[%b1]" % (b"[]," * 100)
    request = charged(budget, body[:100], body[100:])
    assert await request.json() == [*[[]] * 100, 1]
    assert len(body) + 100 * 72 <= budget.used <= 203 * 128 + len(body)
    del request
    assert budget.used == 0


@pytest.mark.parametrize("pieces", [[b"[" + b" " * 50_000, b" " * 50_000], [b"[%b1]" % (b"[]," * 800)]], ids=["body", "value"])
async def test_what_there_is_no_room_for_is_not_read_on_and_not_made(pieces: list[bytes]) -> None:
    budget = Budget(100_000)
    with pytest.raises(Full):
        await charged(budget, *pieces, b"]").json()
    await idle()
    assert budget.used == 0


async def test_head_has_the_headers_of_get_and_no_content() -> None:
    get, head = await answered(text_response("äbc")), await answered(text_response("äbc"), "HEAD")

    assert get.sent[0] == head.sent[0]
    assert head.headers[b"content-length"] == b"4"
    assert (get.body, head.body) == ("äbc".encode(), b"")


@pytest.mark.parametrize("status", [204, 304])
async def test_what_has_no_content_says_no_length(status: int) -> None:
    connection = await answered(Response(status))

    assert b"content-length" not in connection.headers
    assert connection.body == b""


async def test_as_many_levels_as_can_be_written_are_read() -> None:
    deep, wide = b"[" * 254 + b"]" * 254, b"[" + b",".join([b"[]"] * 1000) + b"]"
    assert orjson.dumps(await post(deep, headers=JSON).json()) == deep
    assert orjson.dumps(await post(wide, headers=JSON).json()) == wide


async def test_a_member_without_a_json_form_does_not_cost_the_others() -> None:
    circle: list[Any] = []
    circle.append(circle)
    answer = await answered(json_response({"circle": circle, "a": "é", "big": 2**70}))
    document = json.loads(answer.body)
    assert (document["a"], document["big"]) == ("é", 2**70)
    assert document["circle"].startswith("this list has no JSON form: ")


async def test_json_and_text_say_their_type() -> None:
    as_json = await answered(json_response({"a": "é"}, 202, {"location": "/x"}))
    as_text = await answered(text_response("é", 404))

    assert (as_json.status, as_json.body) == (202, '{"a":"é"}\n'.encode())
    assert as_json.headers[b"content-type"] == b"application/json"
    assert as_json.headers[b"location"] == b"/x"
    assert (as_text.status, as_text.body) == (404, "é".encode())
    assert as_text.headers[b"content-type"] == b"text/plain; charset=utf-8"


async def test_a_problem_document() -> None:
    problem = Problem(405, 'Not "here"\r\n: é', headers={"allow": "GET"}, parameter="a", limit=3)

    connection = await answered(problem_response(problem))

    assert connection.status == 405
    assert connection.headers[b"content-type"] == b"application/problem+json"
    assert connection.headers[b"allow"] == b"GET"
    assert json.loads(connection.body) == {
        "title": "Method Not Allowed",
        "status": 405,
        "detail": 'Not "here"\r\n: é',
        "parameter": "a",
        "limit": 3,
    }
    assert connection.body.splitlines() == [connection.body[:-1]]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 410, 413, 415, 422, 429, 500, 503])
def test_every_status_in_use_has_a_title(status: int) -> None:
    title = json.loads(problem_response(Problem(status, "why")).body)["title"]

    assert title
    assert title[0].isupper()


@pytest.mark.parametrize(
    ("status", "title"),
    [(413, "Content Too Large"), (414, "URI Too Long"), (416, "Range Not Satisfiable"), (422, "Unprocessable Content")],
)
def test_a_title_is_the_standards_and_not_the_running_pythons(status: int, title: str) -> None:
    assert json.loads(problem_response(Problem(status, "why")).body)["title"] == title

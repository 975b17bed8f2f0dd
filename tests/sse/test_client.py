import asyncio
import io
import json
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from dataclasses import dataclass, field
from email.utils import formatdate
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sse.client import MAX_RETRY_AFTER, EventSource, ReadyState, batched, full_jitter, until, visible, write_lines
from sse.errors import ConnectionFailed, EventTooLong
from sse.testing import Answer, FakeServer, ReceivedRequest
from sse.wire.event import MessageEvent
from tests.support.streams import Bare

CONNECTING, OPEN, CLOSED = ReadyState


@dataclass
class Trace:
    """What an EventSource did: how long it slept each time, which states it went through and why."""

    naps: list[float] = field(default_factory=list)
    states: list[ReadyState] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)

    def changed(self, state: ReadyState, why: str) -> None:
        self.states.append(state)
        self.reasons.append(why)


@pytest.fixture
def trace() -> Trace:
    return Trace()


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    """Shared by the sources of a test: one of its own takes each of them 60 ms, for the certificates."""
    async with httpx2.AsyncClient(verify=False) as client:
        yield client


@pytest.fixture
def open_source(trace: Trace, client: httpx2.AsyncClient) -> Callable[..., EventSource]:
    """An EventSource that neither sleeps nor throws dice."""

    def make(url: str, **options: Any) -> EventSource:
        return EventSource(
            url,
            **{
                "backoff": lambda failures: 0.5 * 2 ** (failures - 1),
                "sleep": trace.sleep,
                "on_change": trace.changed,
                "client": client,
                **options,
            },
        )

    return make


Open = Callable[..., EventSource]


async def data_of(source: EventSource) -> list[str]:
    async with asyncio.timeout(10), source:
        return [event.data async for event in source]


async def failure_of(source: EventSource) -> ConnectionFailed:
    with pytest.raises(ConnectionFailed) as raised:
        await data_of(source)
    assert source.ready_state is CLOSED
    return raised.value


# How a stream goes on


STREAM = b"retry: 10\nid: 0\n\n" + b"".join(b"id: %d\nevent: n\ndata: %d\ndata\n\n" % (n, n * n) for n in range(1, 4))


@pytest.mark.parametrize("then", ["end", "cut", "reset"])
async def test_a_stream_cut_at_every_byte_loses_nothing_and_doubles_nothing(then: Any, open_source: Open) -> None:
    for cut in range(len(STREAM) + 1):

        def rest(request: ReceivedRequest) -> Answer:
            """What follows the last event ID, whole."""
            last = request.headers.get("last-event-id")
            start = 0 if last is None else STREAM.index(b"\n\n", STREAM.index(b"id: %b\n" % last.encode())) + 2
            return Answer(STREAM[start:])

        async with FakeServer(Answer(STREAM[:cut], then=then), rest) as server:
            source = open_source(server.url)
            assert await data_of(source) == ["1\n", "4\n", "9\n"], f"cut after {cut} bytes"
            assert source.last_event_id == "3"


async def test_the_request_says_what_it_accepts_and_where_to_go_on(open_source: Open) -> None:
    async with FakeServer(Answer(b"id: 8\ndata: a\n\n")) as server:
        await data_of(open_source(server.url + "s?x=1", headers={"X-Mine": "m"}, last_event_id="ä7"))
        first, second = server.requests
    assert (first.method, first.path, first.body) == ("GET", "/s?x=1", b"")
    assert first.headers["accept"] == "text/event-stream"
    assert first.headers["cache-control"] == "no-cache"
    assert first.headers["last-event-id"] == "ä7"
    assert second.headers == {**first.headers, "last-event-id": "8"}


async def test_blanks_around_an_id_are_not_sent(open_source: Open) -> None:
    async with FakeServer(Answer(b"id:  a b \n\n"), Answer(b"id:  \n\n")) as server:
        await data_of(open_source(server.url))
        assert [request.headers.get("last-event-id") for request in server.requests] == [None, "a b", None]


async def test_without_an_id_none_is_sent(open_source: Open) -> None:
    async with FakeServer(Answer(b"data: a\n\n"), Answer(b"id: 5\ndata: b\n\n"), Answer(b"id\ndata: c\n\n")) as server:
        assert await data_of(open_source(server.url)) == ["a", "b", "c"]
        assert [request.headers.get("last-event-id") for request in server.requests] == [None, None, "5", None]


async def test_an_event_without_an_id_after_a_reconnect_keeps_the_last_one(open_source: Open) -> None:
    async with FakeServer(Answer(b"id: 5\ndata: a\n\n"), Answer(b"data: b\n\n")) as server:
        source = open_source(server.url)
        async with source:
            assert [event.last_event_id async for event in source] == ["5", "5"]
        assert [request.headers.get("last-event-id") for request in server.requests] == [None, "5", "5"]


async def test_an_id_without_data_is_where_the_next_connection_goes_on(open_source: Open) -> None:
    async with FakeServer(Answer(b"id: a.0\n\n")) as server:
        assert await data_of(open_source(server.url)) == []
        assert server.requests[1].headers["last-event-id"] == "a.0"


async def test_while_an_event_is_handled_the_last_event_id_is_its_own(open_source: Open) -> None:
    async with FakeServer(Answer(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n")) as server, open_source(server.url) as source:
        assert [(event.last_event_id, source.last_event_id) async for event in source] == [("1", "1"), ("2", "2")]


async def test_ready_state_goes_through_the_standard_s_states(open_source: Open, trace: Trace) -> None:
    async with FakeServer(Answer(b"data: a\n\n"), Answer(status=503), Answer(b"data: b\n\n", then="cut")) as server:
        source = open_source(server.url)
        assert source.ready_state is CONNECTING
        assert await data_of(source) == ["a", "b"]
    assert trace.states == [OPEN, CONNECTING, CONNECTING, OPEN, CONNECTING, CLOSED]
    reasons = ["open", "the stream ended", "answered 503", "open", "incomplete", "answered 204"]
    assert all(part in reason for part, reason in zip(reasons, trace.reasons, strict=True)), trace.reasons


# What ends it, and what it waits for


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_status_that_means_later_is_tried_again(status: int, open_source: Open, trace: Trace) -> None:
    async with FakeServer(Answer(status=status), Answer(b"data: a\n\n")) as server:
        assert await data_of(open_source(server.url)) == ["a"]
    assert trace.naps == [0.5, 0.5]


@pytest.mark.parametrize(
    ("retry_after", "nap"),
    [
        pytest.param("7", 7.5, id="seconds"),
        pytest.param("86400", MAX_RETRY_AFTER + 0.5, id="more seconds than the bound"),
        pytest.param("9" * 5000, MAX_RETRY_AFTER + 0.5, id="seconds without end"),
        pytest.param(formatdate(time.time() + 10**9, usegmt=True), MAX_RETRY_AFTER + 0.5, id="a date behind the bound"),
        pytest.param(formatdate(0, usegmt=True), 0.5, id="a date in the past"),
        pytest.param("Fri, 31 Dec 999999 23:59:59 GMT", 0.5, id="no date of this calendar"),
        pytest.param("soon", 0.5, id="neither"),
        pytest.param("-5", 0.5, id="negative"),
        pytest.param("", 0.5, id="nothing"),
    ],
)
async def test_retry_after_is_honoured_up_to_a_bound(retry_after: str, nap: float, open_source: Open, trace: Trace) -> None:
    async with FakeServer(Answer(status=503, headers={"Retry-After": retry_after})) as server:
        assert await data_of(open_source(server.url)) == []
    assert trace.naps == [nap]


async def test_retry_after_may_be_a_date(open_source: Open, trace: Trace) -> None:
    async with FakeServer(lambda _: Answer(status=503, headers={"Retry-After": formatdate(time.time() + 90)})) as server:
        assert await data_of(open_source(server.url)) == []
    assert 80 < trace.naps[0] <= 90.5


async def test_the_server_s_reconnection_time_is_the_least_that_is_waited(open_source: Open, trace: Trace) -> None:
    async with FakeServer(Answer(b"retry: 3000\n\n"), Answer(b"data: a\n\n"), Answer(b"retry: 1\ndata: b\n\n")) as server:
        assert await data_of(open_source(server.url)) == ["a", "b"]
    assert trace.naps == [3.5, 3.5, 0.501]


async def test_backoff_grows_until_an_event_arrives(open_source: Open, trace: Trace) -> None:
    script = [Answer(status=503), Answer(), Answer(b":\n\n"), Answer(b"data: a\n\n"), Answer(then="cut")]
    async with FakeServer(*script) as server:
        assert await data_of(open_source(server.url)) == ["a"]
    assert trace.naps == [0.5, 1, 2, 0.5, 1]


async def test_204_ends_the_iteration(open_source: Open, trace: Trace) -> None:
    async with FakeServer(Answer(status=204), Answer(b"data: never\n\n")) as server:
        source = open_source(server.url)
        assert await data_of(source) == []
        assert len(server.requests) == 1
    assert (source.ready_state, trace.states, trace.naps) == (CLOSED, [CLOSED], [])


@pytest.mark.parametrize("status", [201, 304, 400, 401, 404, 410, 500, 501])
async def test_any_other_status_fails(status: int, open_source: Open) -> None:
    async with FakeServer(Answer(status=status), Answer(b"data: never\n\n")) as server:
        failure = await failure_of(open_source(server.url))
        assert len(server.requests) == 1
    assert (failure.status, failure.problem) == (status, None)
    assert str(failure).startswith(f"{server.url} answered {status}: ")


PROBLEM = {"Content-Type": "application/problem+json; charset=utf-8"}


@pytest.mark.parametrize(
    ("answer", "problem", "reason"),
    [
        pytest.param(
            Answer(b'{"title": "T", "detail": "D", "x": 1}', 404, PROBLEM),
            {"title": "T", "detail": "D", "x": 1},
            "D",
            id="detail",
        ),
        pytest.param(Answer(b'{"title": "T"}', 404, PROBLEM), {"title": "T"}, "T", id="title only"),
        pytest.param(Answer(b"{", 404, PROBLEM), None, "Not Found", id="not JSON"),
        pytest.param(Answer(b"[]", 404, PROBLEM), None, "Not Found", id="no object"),
        pytest.param(Answer(b"[" * 60_000, 404, PROBLEM), None, "Not Found", id="too deep"),
        pytest.param(Answer(b"no", 404, {**PROBLEM, "Content-Encoding": "gzip"}), None, "Not Found", id="not what it says"),
        pytest.param(Answer(b'{"title": "T"}', 404, PROBLEM, "reset"), None, "Not Found", id="cut"),
        pytest.param(Answer(b" " * 70_000 + b"{}", 404, PROBLEM, "hang"), None, "Not Found", id="too long"),
        pytest.param(Answer(b'{"title": "T"}', 404, {"Content-Type": "application/json"}), None, "Not Found", id="other type"),
    ],
)
async def test_a_failure_carries_the_problem_document(answer: Answer, problem: object, reason: str, open_source: Open) -> None:
    async with FakeServer(answer) as server:
        failure = await failure_of(open_source(server.url))
    assert (failure.status, failure.problem) == (404, problem)
    assert str(failure) == f"{server.url} answered 404: {reason}"


@pytest.mark.parametrize("kind", ["text/html", "application/json; charset=utf-8", "text/event-streaming"])
async def test_a_wrong_type_fails(kind: str, open_source: Open) -> None:
    async with FakeServer(Answer(b"data: a\n\n", headers={"Content-Type": kind}, then="hang")) as server:
        failure = await failure_of(open_source(server.url))
        assert len(server.requests) == 1
    assert failure.status == 200
    assert str(failure) == f"{server.url} answered {kind}, not text/event-stream"


async def test_retries_without_an_event_are_counted_and_given_up(open_source: Open, trace: Trace) -> None:
    full = {**PROBLEM, "Retry-After": "9"}
    script = [Answer(b"data: a\n\n"), Answer(), Answer(b'{"detail": "full"}', 503, full), Answer(b"data: never\n\n")]
    async with FakeServer(*script) as server:
        failure = await failure_of(open_source(server.url, max_retries=2))
        assert len(server.requests) == 3
    assert (failure.status, failure.problem, failure.retry_after) == (503, {"detail": "full"}, 9)
    assert str(failure) == f"{server.url} answered 503: full; gave up after 2 retries"
    assert trace.states == [OPEN, CONNECTING, OPEN, CONNECTING, CLOSED]


async def test_silence_for_longer_than_the_idle_timeout_is_a_broken_connection(open_source: Open, trace: Trace) -> None:
    hang = Answer(b"id: 1\ndata: a\n\ndata: cut o", then="hang")
    async with FakeServer(hang, Answer(status=None, then="hang"), Answer(b"data: b\n\n")) as server:
        assert await data_of(open_source(server.url, idle_timeout=0.05)) == ["a", "b"]
        for request in server.requests[:2]:
            await asyncio.wait_for(request.left.wait(), 5)
    assert "ReadTimeout" in trace.reasons[1]


async def test_comments_count_as_data_received(open_source: Open) -> None:
    beats = [asyncio.Event() for _ in range(5)]
    pieces = [piece for beat in beats for piece in (beat, b":\n")]
    async with FakeServer(Answer([b"data: a\n\n", *pieces, b"data: b\n\n"])) as server:
        source = open_source(server.url, idle_timeout=0.3)

        async def beat() -> None:
            for event in beats:  # 0.5 s in all, never as much as the timeout at once
                await asyncio.sleep(0.1)
                event.set()

        beating = asyncio.ensure_future(beat())
        assert await data_of(source) == ["a", "b"]
        await beating
        assert len(server.requests) == 2


async def test_an_event_over_the_limit_is_raised(open_source: Open) -> None:
    async with FakeServer(Answer(b"data: a\n\ndata: " + b"b" * 100, then="hang"), Answer()) as server:
        source = open_source(server.url, limit=50, idle_timeout=0.05)
        with pytest.raises(EventTooLong):
            await data_of(source)
        assert (source.ready_state, len(server.requests)) == (CLOSED, 1)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        pytest.param("ftp://127.0.0.1/", {}, id="scheme"),
        pytest.param("http://127.0.0.1:9/", {"headers": {"X": "a\nb"}}, id="header"),
        pytest.param("http://127.0.0.1:9/", {"last_event_id": "a\0b"}, id="last event ID"),
    ],
)
async def test_a_request_that_can_not_be_sent_fails_at_once(url: str, options: Any, trace: Trace) -> None:
    async with FakeServer() as server:
        url = url.replace("http://127.0.0.1:9/", server.url)
        failure = await failure_of(EventSource(url, sleep=trace.sleep, **options))
    assert (failure.status, trace.naps) == (None, [])


def test_what_is_no_url_is_refused_at_once() -> None:
    with pytest.raises(httpx2.InvalidURL):
        EventSource("http://[::1")


# Requests other than GET


def handled(*outcomes: httpx2.Response | Exception) -> tuple[httpx2.AsyncClient, list[httpx2.Request]]:
    """A client whose consecutive requests have these outcomes, and the requests."""
    requests: list[httpx2.Request] = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        requests.append(request)
        outcome = outcomes[len(requests) - 1]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return httpx2.AsyncClient(transport=httpx2.MockTransport(handle)), requests


def stream(content: bytes, **headers: str) -> httpx2.Response:
    return httpx2.Response(200, headers={"Content-Type": "text/event-stream", **headers}, content=content)


@pytest.mark.parametrize("location", ["/streams/7?x", "streams/7?x", "http://{host}/streams/7?x"])
async def test_a_post_is_resumed_by_get_at_its_location(location: str, open_source: Open) -> None:
    def begin(request: ReceivedRequest) -> Answer:
        there = location.format(host=request.headers["host"])
        return Answer(b"id: 7.1\ndata: a\n\nid: 7.2\nda", headers={"Location": there}, then="cut")

    async with FakeServer(begin, Answer(status=503), Answer(b"id: 7.2\ndata: b\n\n")) as server:
        source = open_source(server.url, method="post", json={"prompt": "hi"}, headers={"Authorization": "Bearer t"})
        assert await data_of(source) == ["a", "b"]
        assert source.url == f"{server.url}streams/7?x"
        post, *gets = server.requests
    assert (post.method, post.path, post.body) == ("POST", "/", b'{"prompt":"hi"}')
    assert post.headers["content-type"] == "application/json"
    assert [(get.method, get.path, get.body) for get in gets] == [("GET", "/streams/7?x", b"")] * 3
    assert [get.headers["last-event-id"] for get in gets] == ["7.1", "7.1", "7.2"]
    assert all("content-type" not in get.headers for get in gets)
    assert all(get.headers["authorization"] == "Bearer t" for get in gets)


@pytest.mark.parametrize("then", ["cut", "reset"])
async def test_a_broken_post_without_a_location_fails_and_is_not_sent_again(then: Any, open_source: Open) -> None:
    async with FakeServer(Answer(b"id: 1\ndata: a\n\n", then=then)) as server:
        failure = await failure_of(open_source(server.url, method="POST", json={}))
        assert len(server.requests) == 1
    assert str(failure).endswith("; a POST is sent once, and this one can't be resumed: no Location, or no IDs")


async def test_a_post_that_is_answered_to_its_end_without_a_location_ends(open_source: Open, trace: Trace) -> None:
    async with FakeServer(Answer(b"data: a\n\n")) as server:
        assert await data_of(open_source(server.url, method="POST", json={})) == ["a"]
        assert len(server.requests) == 1
    assert trace.reasons == ["open", "the answer is complete"]


async def test_a_post_whose_events_have_no_ids_is_not_read_twice(open_source: Open) -> None:
    there = {"Location": "/streams/7"}
    async with FakeServer(Answer(b"data: a\n\n", headers=there), Answer(b"data: a\n\n", 200, there, "cut")) as server:
        assert await data_of(open_source(server.url, method="POST")) == ["a"]
        assert "no IDs" in str(await failure_of(open_source(server.url, method="POST")))
        assert [request.method for request in server.requests] == ["POST", "POST"]


async def test_a_post_that_broke_before_its_first_event_is_resumed_at_its_location(open_source: Open) -> None:
    async with FakeServer(Answer(b":\n", headers={"Location": "/s"}, then="cut"), Answer(b"id: 1\ndata: a\n\n")) as server:
        assert await data_of(open_source(server.url, method="POST")) == ["a"]
        assert [(request.method, request.path) for request in server.requests[:2]] == [("POST", "/"), ("GET", "/s")]


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_a_post_that_was_refused_for_now_is_not_sent_again(status: int, open_source: Open) -> None:
    async with FakeServer(Answer(status=status)) as server:
        assert (await failure_of(open_source(server.url, method="POST"))).status == status
        assert len(server.requests) == 1


@pytest.mark.parametrize("then", ["cut", "reset", "hang"])
async def test_a_post_that_may_have_arrived_is_not_sent_again(then: Any, open_source: Open) -> None:
    async with FakeServer(Answer(status=None, then=then)) as server:
        failure = await failure_of(open_source(server.url, method="POST", idle_timeout=0.05))
        assert (failure.status, len(server.requests)) == (None, 1)


@pytest.mark.parametrize("fault", [httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout])
async def test_a_post_of_which_nothing_was_sent_is_sent_again(fault: type[httpx2.TransportError], open_source: Open) -> None:
    client, requests = handled(fault("refused"), stream(b"data: a\n\n"))
    async with client:
        assert await data_of(open_source("http://h/", method="POST", json=1, client=client)) == ["a"]
    assert [(request.method, request.content) for request in requests] == [("POST", b"1")] * 2


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_followed_and_reconnects_ask_the_first_url_again(status: int, open_source: Open) -> None:
    away = Answer(status=status, headers={"Location": "/there"})
    async with FakeServer(away, Answer(b"id: 1\ndata: a\n\n")) as server:
        assert await data_of(open_source(server.url)) == ["a"]
        assert [request.path for request in server.requests] == ["/", "/there", "/"]


async def test_a_redirect_to_the_same_origin_keeps_the_headers(open_source: Open) -> None:
    async with FakeServer(Answer(status=307, headers={"Location": "/there"}), Answer(status=204)) as server:
        await data_of(open_source(server.url, headers={"Authorization": "t", "X-Key": "k"}, last_event_id="1"))
        there = server.requests[1].headers
    assert (there["authorization"], there["x-key"], there["last-event-id"]) == ("t", "k", "1")


@pytest.mark.parametrize("how", ["redirect", "location"])
async def test_another_origin_does_not_see_what_the_caller_or_its_client_sent(how: str, open_source: Open) -> None:
    secret = {"Authorization": "t", "X-Key": "k", "Cookie": "c=1"}
    async with FakeServer() as elsewhere:
        there = {"Location": elsewhere.url + "there"}
        answer = Answer(status=307, headers=there) if how == "redirect" else Answer(b"id: 1\n\n", headers=there)
        client = httpx2.AsyncClient(auth=("user", "secret"), headers={"X-Client": "s"}, cookies={"c": "2"})
        async with FakeServer(answer) as server, client:
            source = open_source(server.url, method="POST", json={}, headers=secret, client=client, last_event_id="1")
            await data_of(source)
            seen_here, seen_there = server.requests[0].headers, elsewhere.requests[0].headers
    assert {"authorization", "x-key", "x-client", "cookie"} <= set(seen_here)
    assert not {"authorization", "x-key", "x-client", "cookie"} & set(seen_there)
    assert (seen_there["accept"], seen_there["last-event-id"]) == ("text/event-stream", "1")
    assert seen_there.get("content-type") == ("application/json" if how == "redirect" else None)


async def test_a_post_redirected_to_a_get_is_done_and_only_the_get_is_repeated(open_source: Open) -> None:
    client, requests = handled(
        httpx2.Response(303, headers={"Location": "/streams/7"}),
        httpx2.ConnectError("refused"),
        httpx2.Response(503),
        stream(b"id: 7.1\ndata: a\n\n"),
        httpx2.Response(204),
    )
    async with client:
        assert await data_of(open_source("http://h/jobs", method="POST", json=1, client=client)) == ["a"]
    asked = [(request.method, request.url.path, request.content) for request in requests]
    assert asked == [("POST", "/jobs", b"1")] + [("GET", "/streams/7", b"")] * 4
    assert ["content-type" in request.headers for request in requests] == [True] + [False] * 4


async def test_a_post_without_a_body_may_be_redirected_to_a_get_too(open_source: Open) -> None:
    async with FakeServer(Answer(status=303, headers={"Location": "/s"}), Answer(b"id: 1\ndata: a\n\n")) as server:
        assert await data_of(open_source(server.url, method="POST")) == ["a"]
        assert [(request.method, request.path) for request in server.requests[:2]] == [("POST", "/"), ("GET", "/s")]


async def test_a_location_that_is_no_url_fails(open_source: Open) -> None:
    async with FakeServer(Answer(b"data: a\n\n", headers={"Location": "http://[::1"}, then="hang")) as server:
        assert "Invalid" in str(await failure_of(open_source(server.url, method="POST")))


async def test_redirects_in_a_circle_fail(open_source: Open) -> None:
    async with FakeServer(*[Answer(status=307, headers={"Location": "/"})] * 30) as server:
        failure = await failure_of(open_source(server.url))
        assert len(server.requests) == 21
    assert "more than 20 redirects" in str(failure)


async def test_a_redirect_without_a_location_fails(open_source: Open) -> None:
    async with FakeServer(Answer(status=302)) as server:
        assert (await failure_of(open_source(server.url))).status == 302


# Who closes what


@pytest.fixture(params=["own client", "shared client"])
def whose(request: pytest.FixtureRequest, client: httpx2.AsyncClient) -> httpx2.AsyncClient | None:
    return client if request.param == "shared client" else None


Client = httpx2.AsyncClient | None


ENDLESS = Answer(b"id: 1\ndata: a\n\nid: 2\ndata: b\n\n", then="hang")


async def left(server: FakeServer) -> None:
    """Wait until the server has seen its first client leave."""
    await asyncio.wait_for(server.requests[0].left.wait(), 5)


async def test_leaving_the_block_closes_the_connection(open_source: Open, whose: Client) -> None:
    async with FakeServer(ENDLESS) as server:
        async with open_source(server.url, client=whose) as source:
            async for event in source:
                assert event.data == "a"
                break
        assert source.ready_state is CLOSED
        await left(server)


async def test_a_break_closes_the_connection_soon_even_while_the_source_is_kept(open_source: Open, whose: Client) -> None:
    async with FakeServer(ENDLESS) as server:
        source = open_source(server.url, client=whose)
        async for event in source:
            assert event.data == "a"
            break
        await left(server)
        assert source.ready_state is CLOSED


async def test_an_exception_in_the_loop_closes_the_connection(open_source: Open, whose: Client) -> None:
    async with FakeServer(ENDLESS) as server:

        async def follow() -> None:
            async for _ in open_source(server.url, client=whose):
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await follow()
        await left(server)


@pytest.mark.parametrize("answers", [True, False], ids=["reading", "waiting for an answer"])
async def test_cancelling_closes_the_connection(answers: bool, open_source: Open, whose: Client) -> None:
    waiting = asyncio.Event()

    def answer(request: ReceivedRequest) -> Answer:
        if answers:
            return ENDLESS
        waiting.set()
        return Answer(status=None, then="hang")

    async with FakeServer(answer) as server:

        async def follow() -> None:
            async for event in open_source(server.url, client=whose):
                if event.data == "b":
                    waiting.set()

        following = asyncio.ensure_future(follow())
        await asyncio.wait_for(waiting.wait(), 5)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        await left(server)


async def test_closing_in_the_loop_ends_it_before_the_next_event(open_source: Open, whose: Client) -> None:
    async with FakeServer(ENDLESS) as server:
        source = open_source(server.url, client=whose)
        seen = []
        async for event in source:
            seen.append(event.data)
            await source.aclose()
        assert seen == ["a"]
        await left(server)


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_closing_from_another_task_ends_the_read(method: str, open_source: Open, whose: Client, trace: Trace) -> None:
    async with FakeServer(ENDLESS) as server:
        source = open_source(server.url, client=whose, method=method, max_retries=0)
        both = asyncio.Event()

        async def follow() -> list[str]:
            seen = []
            async for event in source:
                seen.append(event.data)
                if len(seen) == 2:
                    both.set()
            return seen

        following = asyncio.ensure_future(follow())
        await asyncio.wait_for(both.wait(), 5)
        await source.aclose()
        assert await asyncio.wait_for(following, 5) == ["a", "b"]
        await left(server)
    assert (trace.states, source.ready_state) == ([OPEN], CLOSED)  # who closes it is not told that it is closed


async def test_closing_during_the_pause_ends_the_iteration_without_another_request(trace: Trace) -> None:
    async with FakeServer(Answer(b"data: a\n\n")) as server:

        async def close(seconds: float) -> None:
            await source.aclose()

        source = EventSource(server.url, sleep=close)
        assert await data_of(source) == ["a"]
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    "outcome", [stream(b"data: late\n\n"), httpx2.Response(404), httpx2.Response(503), httpx2.ConnectError("late")], ids=repr
)
async def test_closing_while_an_answer_is_awaited_ends_it_whatever_comes(outcome: Any, trace: Trace) -> None:
    async def handle(request: httpx2.Request) -> httpx2.Response:
        await source.aclose()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(handle)) as client:
        source = EventSource("http://h/", client=client, sleep=trace.sleep)
        assert await data_of(source) == []
    assert trace.naps == []


@pytest.mark.parametrize(
    "answer",
    [Answer(status=503, then="hang"), Answer(status=307, headers={"Location": "/"}, then="hang")],
    ids=["refused", "redirected"],
)
async def test_an_answer_that_is_not_read_is_closed_before_the_next_request(answer: Answer, open_source: Open) -> None:
    async with FakeServer(answer) as server:

        async def sleep(seconds: float) -> None:
            await left(server)

        source = open_source(server.url, sleep=sleep)
        assert [event async for event in source] == []
        await left(server)


async def test_a_client_of_its_own_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = httpx2.AsyncClient(verify=False)
    monkeypatch.setattr(httpx2, "AsyncClient", lambda: client)
    async with FakeServer() as server:
        assert [event async for event in EventSource(server.url)] == []
    assert client.is_closed


async def test_a_client_of_the_caller_s_own_is_left_open(open_source: Open) -> None:
    async with FakeServer(ENDLESS, Answer(status=204)) as server, httpx2.AsyncClient(base_url=server.url) as client:
        async with open_source("/s", client=client) as source:
            async for _ in source:
                break
        assert not client.is_closed
        await left(server)
        assert (await client.get("/s")).status_code == 204
        assert server.requests[0].path == "/s"


async def test_a_source_is_iterated_once(open_source: Open) -> None:
    async with FakeServer(Answer(status=204)) as server:
        source = open_source(server.url)
        assert await data_of(source) == []
        with pytest.raises(RuntimeError, match="iterated once"):
            await data_of(source)


async def test_nothing_is_asked_before_the_iteration_or_after_aclose(open_source: Open) -> None:
    async with FakeServer() as server:
        source = open_source(server.url)
        await source.aclose()
        await source.aclose()
        assert await data_of(source) == []
        assert server.requests == []


async def test_closing_between_two_redirects_ends_it() -> None:
    def closing(request: ReceivedRequest) -> Answer:
        closers.append(asyncio.ensure_future(source.aclose()))
        return Answer(status=307, headers={"Location": "/"})

    closers: list[asyncio.Future[None]] = []
    async with FakeServer(closing, Answer(b"data: never\n\n")) as server:
        source = EventSource(server.url)
        assert await data_of(source) == []
        assert len(server.requests) == 1


# Backoff


def test_jitter_covers_twice_as_much_with_each_failure_up_to_a_ceiling() -> None:
    for failures, seconds in [(1, 1), (2, 2), (3, 4), (5, 16), (6, 30), (1_000_000, 30)]:
        pauses = [full_jitter(failures) for _ in range(1000)]
        assert min(pauses) < 0.05 * seconds
        assert 0.95 * seconds < max(pauses) < seconds


# What a program does with events


def messages(*data: str) -> list[MessageEvent]:
    return [MessageEvent("message", each, str(number)) for number, each in enumerate(data, 1)]


async def collect(events: AsyncIterable[Any]) -> list[Any]:
    async with asyncio.timeout(10):
        return [event async for event in events]


@pytest.mark.parametrize(
    ("ends", "data"),
    [
        pytest.param(["[DONE]"], ["a", "{}"], id="data: left out"),
        pytest.param(["done"], ["a", "{}"], id="a type: the last one"),
        pytest.param(["a"], [], id="the first one"),
        pytest.param([], ["a", "{}", "[DONE]", "b"], id="no end"),
        pytest.param(["never", "[DONE]"], ["a", "{}"], id="one of several"),
    ],
)
async def test_until_stops_at_an_end(ends: list[str], data: list[str]) -> None:
    events = [*messages("a"), MessageEvent("done", "{}", ""), *messages("[DONE]", "b")]
    assert [event.data for event in await collect(until(Bare(events), *ends))] == data


async def test_batches_have_the_size_and_the_last_one_what_is_left() -> None:
    events = messages(*"abcdefg")
    assert await collect(batched(Bare(events), 3)) == [events[:3], events[3:6], events[6:]]
    assert await collect(batched(Bare(events[:6]), 3)) == [events[:3], events[3:6]]
    assert await collect(batched(Bare(), 3)) == []


async def test_what_is_left_comes_before_what_the_source_raises() -> None:
    events = messages("a", "b", "c")
    for left in (events, events[:2]):
        batches = batched(Bare([*left, ZeroDivisionError()]), 2)
        assert [await anext(batches) for _ in range(len(left) - 1)] == [left[i : i + 2] for i in range(0, len(left), 2)]
        with pytest.raises(ZeroDivisionError):
            await anext(batches)


async def test_events_become_lines_of_json_that_a_terminal_does_not_obey() -> None:
    file = io.StringIO()
    events = [MessageEvent("message", "a\nä\u2028\x9b\x1b[31m", "1"), MessageEvent("n", "", "")]
    await write_lines(Bare(events), file)
    lines = file.getvalue().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"type": "message", "data": "a\nä\u2028\x9b\x1b[31m", "id": "1"},
        {"type": "n", "data": "", "id": ""},
    ]
    assert "ä" in lines[0]
    assert not set("\u2028\x9b\x1b") & set(file.getvalue())


async def test_each_line_is_in_the_file_before_the_next_event_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    lines: list[int] = []

    async def watching() -> AsyncGenerator[MessageEvent, None]:
        for event in messages("a", "b"):
            yield event
            lines.append(path.read_bytes().count(b"\n"))

    with path.open("a") as file:
        await write_lines(watching(), file)
    assert lines == [1, 2]


async def test_a_file_is_gone_on_with_after_its_last_line(tmp_path: Path, open_source: Open) -> None:
    path = tmp_path / "events.jsonl"

    def rest(request: ReceivedRequest) -> Answer:
        after = int(request.headers.get("last-event-id", 0))
        return Answer(b"".join(b"id: %d\ndata: %d\n\n" % (n, n) for n in range(after + 1, 10)), then="cut")

    async with FakeServer(Answer(b"id: 1\ndata: 1\n\nid: 2\ndata: 2\n\n"), Answer(status=204), rest) as server:
        for last in ("", "2"):
            with path.open("a") as file:
                async with open_source(server.url, last_event_id=last) as source:
                    await write_lines(source, file)
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [str(n) for n in range(1, 10)]


def test_text_that_no_terminal_obeys_stays_as_it_is() -> None:
    text = "tab\tand line\nä € 日本 👩‍👩‍👧 \u00a0 \\u001b"
    assert visible(text) == text
    assert visible("\x00\x07\x08\r\x1b\x7f\x80\x9f\u2028\u202a\u2066") == (
        r"\u0000\u0007\u0008\u000d\u001b\u007f\u0080\u009f\u2028\u202a\u2066"
    )

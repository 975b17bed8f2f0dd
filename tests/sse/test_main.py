import asyncio
import functools
import json
import sys
from collections.abc import Awaitable, Callable

import pytest

import sse.__main__ as command
from sse.client import EventSource
from sse.testing import Answer, FakeServer

TWO = Answer(b"id: a.1\ndata: one\ndata: more\n\nevent: n\nid: a.2\ndata: \x1b[31m\xc2\x9bred\xe2\x80\xae\n\n")
Run = Callable[..., Awaitable[tuple[int, str, str]]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`python -m sse tail …` without a process of its own, and without pauses: exit status, output, standard error."""
    monkeypatch.setattr(command, "EventSource", functools.partial(EventSource, backoff=lambda failures: 0))
    monkeypatch.delenv("NO_COLOR", raising=False)

    async def run(*arguments: str, terminal: bool = False) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        status = await asyncio.to_thread(command.main, ["tail", *arguments])
        return (status, *capsys.readouterr())

    return run


async def test_in_a_pipe_events_are_lines_of_json(run: Run) -> None:
    async with FakeServer(TWO) as server:
        status, out, _ = await run(server.url)
    assert [json.loads(line) for line in out.splitlines()] == [
        {"type": "message", "data": "one\nmore", "id": "a.1"},
        {"type": "n", "data": "\x1b[31m\x9bred\u202e", "id": "a.2"},
    ]
    assert not set("\x1b\x9b\u202e") & set(out)
    assert status == 0


async def test_on_a_terminal_events_are_coloured_text_without_control_characters(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = "a.1  message  one\n    more\na.2  n  \\u001b[31m\\u009bred\\u202e\n"
    async with FakeServer(TWO, Answer(status=204), TWO) as server:
        status, out, _ = await run(server.url, terminal=True)
        assert (status, out.count("\x1b[2ma."), out.count("\x1b[36m")) == (0, 2, 2)
        for colour in ("\x1b[2m", "\x1b[36m", "\x1b[0m"):
            out = out.replace(colour, "")
        assert out == plain
        monkeypatch.setenv("NO_COLOR", "1")
        assert (await run(server.url, terminal=True))[1] == plain


async def test_an_event_without_an_id_begins_with_its_type(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    async with FakeServer(Answer(b"data: a\n\n")) as server:
        assert (await run(server.url, terminal=True))[1] == "message  a\n"


async def test_standard_error_says_what_becomes_of_the_connection(run: Run) -> None:
    async with FakeServer(Answer(b"data: a\n\n"), Answer(status=503)) as server:
        _, _, err = await run(server.url)
    assert err.splitlines() == [
        f"sse: connected to {server.url}",
        f"sse: {server.url}: the stream ended; next try in 0.0 s",
        f"sse: {server.url} answered 503: Service Unavailable; next try in 0.0 s",
        f"sse: {server.url} answered 204: nothing follows",
    ]


async def test_headers_a_post_and_a_last_event_id_are_sent(run: Run) -> None:
    async with FakeServer(Answer(b"id: 7\ndata: a\n\n", headers={"Location": "/s"})) as server:
        headers = ("--header", "X-Key: a: b", "--header", "Authorization:t")
        assert (await run(server.url, *headers, "--post", '{"p": 1}', "--last-event-id", "6"))[0] == 0
        post, get = server.requests
    assert (post.method, post.body, post.headers["content-type"]) == ("POST", b'{"p":1}', "application/json")
    assert (post.headers["x-key"], post.headers["authorization"], post.headers["last-event-id"]) == ("a: b", "t", "6")
    assert (get.method, get.path, get.headers["last-event-id"]) == ("GET", "/s", "7")


@pytest.mark.parametrize(("end", "lines"), [("[DONE]", 1), ("done", 2)])
async def test_until_stops_at_a_type_or_at_data(end: str, lines: int, run: Run) -> None:
    last = b"data: [DONE]\n\n" if end == "[DONE]" else b"event: done\ndata: x\n\n"
    async with FakeServer(Answer(b"data: a\n\n" + last, then="hang")) as server:
        status, out, _ = await run(server.url, "--until", "[DONE]", "--until", "done")
    assert (status, out.count("\n")) == (0, lines)


PROBLEM = {"Content-Type": "application/problem+json"}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        pytest.param(
            Answer(headers={"Content-Type": "text/html"}),
            ["{url} answered text/html, not text/event-stream", "is this the URL of an event stream?"],
            id="wrong type",
        ),
        pytest.param(Answer(status=404), ["{url} answered 404: Not Found", "is the path right?"], id="404"),
        pytest.param(
            Answer(status=401),
            ["{url} answered 401: Unauthorized", "say who you are with --header 'Authorization: Bearer TOKEN'"],
            id="401",
        ),
        pytest.param(
            Answer(b'{"detail": "no \\u001b[0m"}', 500, PROBLEM), ["{url} answered 500: no \\u001b[0m"], id="problem document"
        ),
        pytest.param(
            Answer(status=405), ["{url} answered 405: Method Not Allowed", "does it take a GET, or a POST (--post JSON)?"]
        ),
    ],
)
async def test_a_failure_says_why_and_what_to_try(answer: Answer, said: list[str], run: Run) -> None:
    async with FakeServer(answer) as server:
        status, out, err = await run(server.url)
    assert (status, out) == (1, "")
    assert err.splitlines() == [f"sse: {line.format(url=server.url)}" for line in said]


async def test_a_post_that_breaks_says_why_it_is_not_sent_again(run: Run) -> None:
    async with FakeServer(Answer(b"data: a\n\n", then="cut")) as server:
        status, _, err = await run(server.url, "--post", "{}")
    assert status == 1
    assert err.endswith("; a POST is sent once, and this one can't be resumed: no Location, or no IDs\n")


async def test_an_event_over_the_limit_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "EventSource", functools.partial(EventSource, limit=5))
    async with FakeServer(Answer(b"data: too long\n\n")) as server:
        status, _, err = await run(server.url)
    assert (status, err.splitlines()[1:]) == (1, ["sse: a line of the event stream is longer than 5 bytes"])


async def test_a_server_that_is_not_there_is_told_at_each_try(run: Run) -> None:
    async with FakeServer() as server:
        url = server.url
    status, out, err = await run(url.removeprefix("http://"), "--max-retries", "1")
    assert (status, out) == (1, "")
    assert [line.rpartition("; ")[2] for line in err.splitlines()] == ["next try in 0.0 s", "gave up after 1 retries"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["h", "--header", "x"], "argument --header: invalid header value: 'x'", id="header"),
        pytest.param(["h", "--post", "{x"], "argument --post: invalid JSON value: '{x'", id="post"),
        pytest.param([], "the following arguments are required: URL", id="no url"),
    ],
)
def test_wrong_usage_is_told(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["tail", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.endswith(f"python -m sse tail: error: {said}\n")


async def test_what_is_no_url_is_wrong_usage(run: Run) -> None:
    assert await run("http://[::1") == (2, "", "sse: 'http://[::1' is not a URL: Invalid port: ':1'\n")


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        command.main(["tail", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in ("--header", "--post", "--last-event-id", "--until", "--max-retries", "--idle-timeout"):
        assert option in text

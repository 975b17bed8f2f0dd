import asyncio
import functools
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import sse.tail
from sse.__main__ import main
from sse.client import Backoff, EventSource
from sse.tail import visible
from sse.testing import Answer, FakeServer

TWO = Answer(b"id: a.1\ndata: one\ndata: more\n\nevent: n\nid: a.2\ndata: \x1b[31m\xc2\x9bred\xe2\x80\xae\n\n")
Output = tuple[int, str, str]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Awaitable[Output]]:
    """`python -m sse tail …` without a process of its own, and without pauses: exit status, output, standard error."""
    monkeypatch.setattr(sse.tail, "EventSource", functools.partial(EventSource, backoff=Backoff(base=0)))

    async def run(*arguments: str, terminal: bool = False) -> Output:
        capsys.readouterr()
        monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        status = await asyncio.to_thread(main, ["tail", *arguments])
        return (status, *capsys.readouterr())

    return run


Run = Callable[..., Awaitable[Output]]


async def test_in_a_pipe_events_are_lines_of_json(run: Run) -> None:
    async with FakeServer(TWO) as server:
        status, out, err = await run(server.url)
    assert [json.loads(line) for line in out.splitlines()] == [
        {"type": "message", "data": "one\nmore", "id": "a.1"},
        {"type": "n", "data": "\x1b[31m\x9bred\u202e", "id": "a.2"},
    ]
    assert not set("\x1b\x9b\u202e") & set(out)
    assert (status, err) == (0, f"sse: {server.url}: the stream ended; again in 0.0 s\n")


async def test_on_a_terminal_events_are_text_without_control_characters(run: Run) -> None:
    async with FakeServer(TWO) as server:
        status, out, _ = await run(server.url, terminal=True)
    assert out == "a.1  message  one\n    more\na.2  n  \\u001b[31m\\u009bred\\u202e\n"
    assert status == 0


async def test_the_status_line_is_for_terminals_and_is_gone_at_the_end(run: Run) -> None:
    async with FakeServer(TWO) as server:
        _, _, err = await run(server.url, terminal=True)
    shown = err.split("\r\x1b[K")
    assert "open · 2 events · 0.0/s" in shown
    assert shown[-1] == ""


async def test_raw_shows_what_arrives_with_control_characters_made_visible(run: Run) -> None:
    bytes_ = b": beat\r\nid: 1\ndata: a\tb\x1b[0m \xff \xe2\x82\xac\xc2\x85\n\n"
    async with FakeServer(Answer([bytes_[:34], bytes_[34:]])) as server:  # cut inside of a character
        _, out, _ = await run(server.url, "--raw")
    assert out == ": beat\\u000d\nid: 1\ndata: a\tb\\u001b[0m \\xff €\\u0085\n\n"


async def test_headers_a_post_and_a_last_event_id_are_sent(run: Run) -> None:
    async with FakeServer(Answer(b"id: 7\ndata: a\n\n", headers={"Location": "/s"})) as server:
        options = (
            "--header",
            "X-Key: a: b",
            "--header",
            "Authorization:t",
            "--post",
            '{"p": 1}',
            "--last-event-id",
            "6",
        )
        assert (await run(server.url, *options))[0] == 0
        post, get = server.requests
    assert (post.method, post.body, post.headers["content-type"]) == ("POST", b'{"p": 1}', "application/json")
    assert (post.headers["x-key"], post.headers["authorization"], post.headers["last-event-id"]) == ("a: b", "t", "6")
    assert (get.method, get.path, get.headers["last-event-id"]) == ("GET", "/s", "7")


@pytest.mark.parametrize(("end", "lines"), [("[DONE]", 1), ("done", 2)])
async def test_until_stops_at_a_name_or_at_data(end: str, lines: int, run: Run) -> None:
    last = b"data: [DONE]\n\n" if end == "[DONE]" else b"event: done\ndata: x\n\n"
    async with FakeServer(Answer(b"data: a\n\n" + last, then="hang")) as server:
        status, out, err = await run(server.url, "--until", "[DONE]", "--until", "done")
    assert (status, out.count("\n"), err) == (0, lines, "")


async def test_out_goes_on_where_the_file_ends(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    async with FakeServer(Answer(b"id: 1\ndata: a\n\n"), Answer(status=204), Answer(b"id: 2\ndata: b\n\n")) as server:
        for _ in range(2):
            status, out, _ = await run(server.url, "--out", str(path))
            assert (status, out) == (0, "")
        assert [request.headers.get("last-event-id") for request in server.requests] == [None, "1", "1", "2"]
    assert [json.loads(line)["data"] for line in path.read_text().splitlines()] == ["a", "b"]


PROBLEM = {"Content-Type": "application/problem+json"}


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        pytest.param(
            [Answer(headers={"Content-Type": "text/html"})],
            "answered text/html, not text/event-stream; is this the URL of an event stream?",
            id="wrong type",
        ),
        pytest.param([Answer(status=404)], "answered 404: Not Found; is the path right?", id="404"),
        pytest.param([Answer(status=401)], "Unauthorized; say who you are with --header", id="401"),
        pytest.param(
            [Answer(b'{"detail": "no \\u001b[0m"}', 500, PROBLEM)], "answered 500: no \\u001b[0m", id="problem document"
        ),
        pytest.param([Answer(b"data: a\n\n", then="cut")], "a POST is sent once", id="broken POST"),
    ],
)
async def test_a_failure_is_one_line_that_says_what_to_do(answers: list[Answer], said: str, run: Run) -> None:
    async with FakeServer(*answers) as server:
        status, _, err = await run(server.url, *(["--post", "{}"] if answers[0].then == "cut" else []))
    assert (status, err.count("\n")) == (1, 1)
    assert err.startswith(f"sse: {server.url}")
    assert said in err


async def test_a_server_that_is_not_there_is_named_after_the_retries(run: Run) -> None:
    async with FakeServer() as server:
        url = server.url
    status, out, err = await run(url.removeprefix("http://"), "--max-retries", "1")
    assert (status, out) == (1, "")
    retry, end = err.splitlines()
    assert "again in" in retry
    assert end.endswith("gave up after 1 retries; is a server running at this host and port?")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(["h", "--header", "x"], "'x' is not of the form 'Name: value'", id="header"),
        pytest.param(["h", "--post", "{x"], "'{x' is not JSON", id="post"),
        pytest.param(["http://[::1"], "'http://[::1' is not a URL", id="url"),
        pytest.param(["h", "--raw", "--out", "f"], "not allowed with", id="raw and out"),
        pytest.param(["h", "--out", "/"], "--out: [Errno 21] Is a directory", id="out"),
        pytest.param([], "URL", id="no url"),
    ],
)
def test_wrong_usage_is_one_line_too(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tail", *arguments])
    err = capsys.readouterr().err
    assert (ended.value.code, err.count("\n")) == (2, 1)
    assert said in err


@pytest.mark.parametrize(
    ("content", "said"),
    [("notes", "doesn't hold events"), ('{"type": "message", "data": "", "id": "1"}\n', "--post would begin anew")],
)
def test_a_file_that_would_be_spoiled_is_refused(
    content: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "f"
    path.write_text(content)
    with pytest.raises(SystemExit):
        main(["tail", "h", "--post", "{}", "--out", str(path)])
    assert said in capsys.readouterr().err
    assert path.read_text() == content


def test_help_names_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tail", "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--header",
        "--post",
        "--last-event-id",
        "--until",
        "--max-retries",
        "--idle-timeout",
        "--raw",
        "--out",
    ):
        assert option in text


def test_text_that_no_terminal_obeys_stays_as_it_is() -> None:
    text = "tab\tand line\nä € 日本 👩‍👩‍👧 \u00a0 \\u001b"
    assert visible(text) == text
    assert visible("\x00\x07\x08\r\x1b\x7f\x80\x9f\u2028\u202a\u2066\ud800") == (
        r"\u0000\u0007\u0008\u000d\u001b\u007f\u0080\u009f\u2028\u202a\u2066\ud800"
    )

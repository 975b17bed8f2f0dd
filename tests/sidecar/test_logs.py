"""The lines at the end of requests and streams: what they say, what they never say, and how they look."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from app import Sidestream
from sidecar import logs
from sidecar.settings import Settings
from sse.http import Request
from tests.support.app import ask
from tests.support.streams import open_in

SECRET = "the-very-secret-token"
BEARER = {"authorization": f"Bearer {SECRET}"}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def out() -> Iterator[io.StringIO]:
    yield from configured(io.StringIO())


@pytest.fixture
def terminal() -> Iterator[io.StringIO]:
    yield from configured(Terminal())


def configured(stream: io.StringIO) -> Iterator[io.StringIO]:
    """All loggers write to `stream`; pytest's own handlers are put back at the end."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()
    logs.configure("info", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)


def lines(out: io.StringIO, logger: str) -> list[dict[str, Any]]:
    return [line for line in map(json.loads, out.getvalue().splitlines()) if line["logger"] == logger]


# -- what they say


async def test_a_request_says_what_became_of_it(out: io.StringIO) -> None:
    answer = await ask(Sidestream(Settings()), "/nothing?secret=1")
    (line,) = lines(out, "sidestream.request")
    assert line.pop("time").endswith("Z")
    assert 0 <= line.pop("duration") < 1
    assert line == {
        "level": "info",
        "logger": "sidestream.request",
        "message": "GET /nothing",
        "status": 404,
        "bytes": len(answer.body),
        "request_id": answer.headers["x-request-id"],
    }


async def test_a_connection_that_watched_says_what_it_got(out: io.StringIO) -> None:
    answer = await ask(Sidestream(Settings()), "/stream?count=3&interval=0")
    (line,) = lines(out, "sidestream.request")
    told = {name: line[name] for name in ("message", "status", "outcome", "events", "bytes")}
    assert told == {"message": "GET /stream", "status": 200, "outcome": "complete", "events": 4, "bytes": len(answer.body)}
    (ended,) = lines(out, "sidestream.stream")
    assert (ended["stream"], ended["request_id"]) == (line["stream"], line["request_id"])


async def test_a_stream_says_how_it_ended(out: io.StringIO) -> None:
    sidestream = Sidestream(Settings())
    body = {"prompt": "hello", "metadata": {"user": "u1"}}
    opened = await ask(
        sidestream, "/chat", method="POST", json=body, headers={"x-request-id": "r1", "accept": "application/json"}
    )
    await ask(sidestream, opened.json["url"], method="DELETE", headers={"x-request-id": "r2"})
    (line,) = lines(out, "sidestream.stream")
    assert {name: line[name] for name in ("message", "state", "reason", "format", "metadata", "request_id", "watchers")} == {
        "message": "ended",
        "state": "cancelled",
        "reason": "deleted",
        "format": "typed",
        "metadata": {"user": "u1"},
        "request_id": "r1",
        "watchers": 0,
    }
    assert line["stream"] == opened.json["stream_id"][:8] + "…"


async def test_a_failed_stream_says_its_code(out: io.StringIO) -> None:
    sidestream = Sidestream(Settings())

    async def source() -> Any:
        yield 1
        raise RuntimeError("boom")

    stream = open_in(sidestream.service.store, source())
    await stream.closed()
    (line,) = lines(out, "sidestream.stream")
    assert (line["state"], line["code"]) == ("failed", "internal")
    (traceback,) = lines(out, "sse")
    assert "RuntimeError: boom" in traceback["traceback"]


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
async def test_what_probes_repeat_is_not_said(path: str, out: io.StringIO) -> None:
    assert (await ask(Sidestream(Settings()), path)).status == 200
    assert lines(out, "sidestream.request") == []


# -- what they never say


async def test_neither_token_nor_key_nor_prompt_nor_query_nor_a_whole_id_is_said(out: io.StringIO) -> None:
    sidestream = Sidestream(Settings(token=(SECRET,), demo_interval=0))
    headers = {**BEARER, "idempotency-key": "my-own-key"}
    opened = await ask(sidestream, "/streams", method="POST", headers=headers)
    named, key = opened.json["stream_id"], opened.json["key"]
    await ask(sidestream, f"/streams/{named}/events", method="POST", json={"data": "a-datum"}, headers={"stream-key": key})
    await ask(sidestream, f"/streams/{named}/nothing/{named}?token={SECRET}", headers=BEARER)
    await ask(sidestream, f"/streams/{named}/close", method="POST", headers={"stream-key": key})
    await ask(sidestream, f"/streams/{named}?last_event_id={named}.0")
    await ask(sidestream, "/chat?prompt=my-prompt", headers=BEARER)
    await ask(sidestream, "/chat", method="POST", json={"prompt": "my-prompt"}, headers=BEARER)
    await ask(sidestream, "/streams", headers={"authorization": "Bearer wrong-token"})
    said = out.getvalue()
    assert said.count("\n") >= 10
    assert named[:8] in said
    for secret in (SECRET, "wrong-token", named, key, "my-prompt", "my-own-key", "a-datum", "last_event_id"):
        assert secret not in said


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/v1/chat/completions", "/v1/chat/completions"),
        ("/streams/0123456789abcdefABCDEF/events", "/streams/01234567…/events"),
        ("/0123456789abcdef", "/0123456789abcdef"),
        ("/" + "x" * 5000, "/xxxxxxxx…"),
        ("/" + "x/" * 5000, ("/" + "x/" * 100)[:200]),
    ],
    ids=["names", "an id", "sixteen characters", "a long name", "many names"],
)
def test_a_path_is_shown_without_its_ids(path: str, shown: str) -> None:
    assert logs.short_path(path) == shown


# -- request ids


def request(headers: list[tuple[bytes, bytes]]) -> Request:
    async def receive() -> Any:
        raise AssertionError

    return Request({"type": "http", "method": "GET", "path": "/", "headers": headers}, receive)


@pytest.mark.parametrize("given", ["a", "0123456789abcdef0123456789abcdef", "1-67891233-abcdef012345678912345678", "x" * 64])
def test_a_request_id_that_is_short_and_printable_is_taken(given: str) -> None:
    assert logs.Exchange(request([(b"x-request-id", given.encode())])).id == given


@pytest.mark.parametrize("given", ["", "x" * 65, "a b", "a\x1b[31m", "ü", 'a"b', "a\n"], ids=repr)
def test_any_other_is_replaced(given: str) -> None:
    made = logs.Exchange(request([(b"x-request-id", given.encode())])).id
    assert made != given
    assert len(made) == 16


async def test_the_request_id_is_answered_on_every_kind_of_answer() -> None:
    sidestream = Sidestream(Settings())
    for path in ("/healthz", "/nothing", "/stream?count=1", "/stream?count=x", "/streams/unknown"):
        assert (await ask(sidestream, path, headers={"x-request-id": "mine"})).headers["x-request-id"] == "mine"
    for method in ("HEAD", "OPTIONS", "PATCH"):
        answer = await ask(sidestream, "/stream", method=method, headers={"x-request-id": "mine"})
        assert answer.headers["x-request-id"] == "mine"


# -- how they look


async def test_on_a_terminal_a_line_is_for_people(terminal: io.StringIO) -> None:
    await ask(Sidestream(Settings()), "/nothing", headers={"x-request-id": "mine"})
    *_, line = terminal.getvalue().splitlines()
    assert line.startswith("INFO sidestream.request: GET /nothing status=404 duration=0.0")
    assert " request_id=mine" in line


async def test_what_a_client_sends_moves_no_cursor(terminal: io.StringIO) -> None:
    await ask(Sidestream(Settings()), "/a\x1b[2J\nb")
    *_, line = terminal.getvalue().splitlines()
    assert "GET /a\\x1b[2J\\nb " in line


CONTROL = "\x1b]0;mine\x07 \x7f \x9b2J \u202e \u2028 \r"
ESCAPED = r"\x1b]0;mine\x07 \x7f \x9b2J \u202e \u2028 \r"


def test_neither_does_what_it_wants_to_have_kept(terminal: io.StringIO) -> None:
    fields = {"metadata": {"user": CONTROL}, "reason": CONTROL}
    logging.getLogger("sidestream").info("ended", extra={"fields": fields})
    (line,) = terminal.getvalue().splitlines()
    assert line.isprintable()
    metadata = r'{"user":"\u001b]0;mine\u0007 \x7f \x9b2J \u202e \u2028 \r"}'
    assert line == f"INFO sidestream: ended metadata={metadata} reason={ESCAPED}"


def test_nor_what_an_exception_says(terminal: io.StringIO) -> None:
    try:
        raise ValueError(f"first\n{CONTROL}")
    except ValueError:
        logging.getLogger("sidestream").exception("it failed: %s", CONTROL)
    lines = terminal.getvalue().removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    assert (lines[0], lines[-2:]) == (f"ERROR sidestream: it failed: {ESCAPED}", ["ValueError: first", ESCAPED])


def test_a_traceback_stays_below_its_line_on_a_terminal(terminal: io.StringIO) -> None:
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("sidestream").exception("it failed")
    first, *_, last = terminal.getvalue().splitlines()
    assert (first, last) == ("ERROR sidestream: it failed", "ValueError: boom")

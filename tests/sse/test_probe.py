"""What a probe finds, from prepared passages; and over real sockets, past servers that do what proxies do."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from sse import __main__ as command
from sse.probe import LAST_EVENT_ID, Finding, Passage, Passages, ProbeFailed, judge, measure
from tests.support.servers import serving

HEADERS = {"content-type": "text/event-stream", "cache-control": "no-store, no-transform"}
SEEN = {"http_version": "1.1", "last_event_id": LAST_EVENT_ID}
AT_ONCE = [(number, number / 10, number / 10 + 0.002) for number in range(1, 13)]
TOGETHER = [(number, number / 10, 1.2) for number in range(1, 13)]

CLEAR = Passage(200, HEADERS, AT_ONCE, 12, 1.2, SEEN)
SILENT = Passage(200, HEADERS, [(1, 0.0, 0.01), (2, 16.0, 16.01)], 2, 16.02, SEEN, events=1, silence=16)


def found(**other: Any) -> list[Finding]:
    """What is found if some passages are as given, and the others clear."""
    return judge(Passages(**{"paced": CLEAR, "plain": CLEAR, "silent": SILENT, **other}))


@pytest.mark.parametrize(
    ("passages", "names"),
    [
        ({}, ["clear"]),
        ({"paced": CLEAR._replace(arrivals=TOGETHER), "plain": CLEAR._replace(arrivals=TOGETHER)}, ["buffers"]),
        ({"plain": CLEAR._replace(arrivals=TOGETHER)}, ["buffers unless told", "clear"]),
        ({"paced": CLEAR._replace(headers={**HEADERS, "content-encoding": "gzip"})}, ["compresses"]),
        ({"paced": CLEAR._replace(headers={**HEADERS, "content-encoding": "gzip"}, arrivals=TOGETHER)}, ["compresses"]),
        ({"paced": CLEAR._replace(headers={**HEADERS, "content-encoding": "identity"})}, ["clear"]),
        ({"silent": SILENT._replace(arrivals=[(1, 0.0, 0.01)], lasted=5.01)}, ["cuts idle streams"]),
        ({"silent": SILENT._replace(arrivals=[])}, ["breaks"]),
        ({"paced": CLEAR._replace(arrivals=AT_ONCE[:5], comments=5)}, ["breaks"]),
        ({"paced": CLEAR._replace(comments=0)}, ["strips"]),
        ({"paced": CLEAR._replace(seen={"http_version": "1.1", "last_event_id": None})}, ["strips"]),
        ({"paced": CLEAR._replace(headers={**HEADERS, "cache-control": "no-cache"})}, ["strips"]),
        ({"paced": CLEAR._replace(seen={**SEEN, "http_version": "1.0"})}, ["speaks HTTP/1.0"]),
        ({"paced": Passage(404, {"content-type": "text/html"})}, ["refused"]),
        ({"silent": SILENT._replace(headers={"content-type": "text/html"})}, ["refused"]),
        (
            {"paced": CLEAR._replace(arrivals=TOGETHER, comments=0), "silent": SILENT._replace(arrivals=[(1, 0.0, 0.01)])},
            ["buffers", "cuts idle streams", "strips"],
        ),
    ],
)
def test_what_is_found(passages: dict[str, Passage], names: list[str]) -> None:
    findings = found(**passages)
    assert [finding.name for finding in findings] == names
    assert all(bool(finding.mend) is (finding.level != "good") for finding in findings)


def test_a_finding_says_how_long_and_after_how_much() -> None:
    [cut] = found(silent=SILENT._replace(arrivals=[(1, 0.0, 0.01)], lasted=5.01))
    assert "after 5.0 s" in cut.says
    [buffers] = found(paced=CLEAR._replace(arrivals=TOGETHER), plain=CLEAR._replace(arrivals=TOGETHER))
    assert "up to 1.10 s" in buffers.says


def test_a_passage_is_read_from_what_a_page_sends() -> None:
    document = {
        "status": 200,
        "headers": {"Content-Type": "text/event-stream"},
        "arrivals": [[1, 0, 0.1]],
        "comments": 1,
        "lasted": 0.2,
        "seen": None,
        "events": 1,
        "silence": 0,
    }
    expected = Passage(200, {"content-type": "text/event-stream"}, [(1, 0.0, 0.1)], 1, 0.2, None, 1, 0.0)
    assert Passage.read(document) == expected


@pytest.mark.parametrize(
    "document", [None, {}, [], {"arrivals": [[1, 2]]}, {"arrivals": [], "headers": 1}, {"arrivals": [["a", 1, 1]]}]
)
def test_what_is_no_passage_is_refused(document: Any) -> None:
    with pytest.raises(ValueError):
        Passage.read(document)


# -- over sockets


@asynccontextmanager
async def answered(status: int, kind: bytes, body: bytes) -> AsyncIterator[str]:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind)]})
        await send({"type": "http.response.body", "body": body})

    async with serving(app) as port:
        yield f"http://127.0.0.1:{port}"


async def test_what_is_no_event_stream_is_refused() -> None:
    async with answered(404, b"text/html", b"nothing") as url:
        [finding] = judge(await measure(url))
    assert finding.name == "refused"
    assert "404 with text/html" in finding.says


async def test_an_event_stream_that_is_not_the_probes_is_no_measurement() -> None:
    async with answered(200, b"text/event-stream", b"data: hello\n\n") as url:
        with pytest.raises(ProbeFailed, match="not the sidecar's probe"):
            await measure(url)


async def test_where_nothing_answers_nothing_is_measured() -> None:
    with pytest.raises(ProbeFailed):
        await measure("http://127.0.0.1:1")


async def test_the_command_names_what_it_finds_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    async with answered(502, b"text/html", b"") as url:
        assert await asyncio.to_thread(command.main, ["probe", url]) == 1
    assert capsys.readouterr().out.startswith("✗ refused: The answer was 502")
    assert await asyncio.to_thread(command.main, ["probe", "127.0.0.1:1"]) == 1
    assert "sse: " in capsys.readouterr().err

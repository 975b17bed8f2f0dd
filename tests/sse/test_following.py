import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from pathlib import Path
from typing import Any

import pytest

from sse.client import Backoff, EventSource
from sse.following import Decoded, buffered, decoded, resume_point, to_file, until
from sse.testing import Answer, FakeServer, ReceivedRequest
from sse.wire.event import MessageEvent


class Source:
    """Events from a list, and then what comes at the end; says when it was closed."""

    def __init__(self, *items: Any, fails: BaseException | None = None, hangs: bool = False) -> None:
        self.items = items
        self.fails = fails
        self.hangs = hangs
        self.closed = False

    async def __aiter__(self) -> AsyncGenerator[Any, None]:
        try:
            for item in self.items:
                yield item
            if self.fails:
                raise self.fails
            if self.hangs:
                await asyncio.Event().wait()
        finally:
            self.closed = True


def messages(*data: str) -> list[MessageEvent]:
    return [MessageEvent("message", each, str(number)) for number, each in enumerate(data, 1)]


async def collect(events: AsyncIterable[Any]) -> list[Any]:
    async with asyncio.timeout(10):
        return [event async for event in events]


# decoded


async def test_json_data_is_decoded_and_type_and_id_stay() -> None:
    source = Source(MessageEvent("n", '{"a": [1, "\\ud83d"]}', "7"), MessageEvent("message", "null", ""))
    assert await collect(decoded(source)) == [Decoded("n", {"a": [1, "\ud83d"]}, "7"), Decoded("message", None, "")]
    assert source.closed


async def test_what_is_not_json_is_an_error_that_shows_it() -> None:
    source = Source(MessageEvent("n", "{oops", "7"), hangs=True)
    with pytest.raises(ValueError, match=r"data of a 'n' event \(last event ID '7'\) is not JSON: .*'{oops'"):
        await collect(decoded(source))
    assert source.closed


async def test_what_is_not_json_is_wrapped_if_asked() -> None:
    events = await collect(decoded(Source(*messages("{oops", "1")), invalid="wrap"))
    assert [event.value for event in events] == [{"raw": "{oops"}, 1]


# until


async def test_an_end_that_is_data_is_left_out() -> None:
    source = Source(*messages("a", "[DONE]", "b"), hangs=True)
    assert [event.data for event in await collect(until(source, "[DONE]"))] == ["a"]
    assert source.closed


async def test_an_end_that_is_a_type_is_the_last_event() -> None:
    source = Source(MessageEvent("message", "a", ""), MessageEvent("done", "{}", ""), hangs=True)
    assert [event.data for event in await collect(until(source, "[DONE]", "done"))] == ["a", "{}"]
    assert source.closed


async def test_without_an_end_it_goes_to_the_end_of_the_source() -> None:
    assert len(await collect(until(Source(*messages("a", "b")), "[DONE]"))) == 2


# buffered


async def test_batches_are_of_the_size_and_the_rest_comes_at_the_end() -> None:
    source = Source(*range(7))
    assert await collect(buffered(source, size=3, seconds=60)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert source.closed


async def test_a_batch_never_waits_longer_than_its_time() -> None:
    source = Source(1, 2, hangs=True)
    batches = buffered(source, size=100, seconds=0.02)
    assert await asyncio.wait_for(anext(batches), 5) == [1, 2]
    await batches.aclose()
    assert source.closed


async def test_a_source_that_never_waits_does_not_hold_a_batch_back_either() -> None:
    async def endless() -> AsyncGenerator[int, None]:
        while True:
            yield 1

    batches = buffered(endless(), size=10**9, seconds=0.02)
    first = await asyncio.wait_for(anext(batches), 5)
    assert set(first) == {1}
    await batches.aclose()


async def test_the_rest_comes_before_what_the_source_raised() -> None:
    source = Source(1, 2, fails=ZeroDivisionError())
    batches = buffered(source, size=100, seconds=60)
    assert await anext(batches) == [1, 2]
    with pytest.raises(ZeroDivisionError):
        await anext(batches)
    assert source.closed


async def test_an_empty_source_has_no_batches() -> None:
    assert await collect(buffered(Source(), size=3, seconds=60)) == []
    with pytest.raises(ZeroDivisionError):
        await collect(buffered(Source(fails=ZeroDivisionError()), size=3, seconds=60))


async def test_no_event_is_lost_when_the_timer_fires_while_one_is_arriving() -> None:
    arrivals: asyncio.Queue[int] = asyncio.Queue()

    async def queue() -> AsyncGenerator[int, None]:
        while (item := await arrivals.get()) is not None:
            yield item

    batches = buffered(queue(), size=100, seconds=0)
    seen: list[int] = []
    for number in range(200):
        arrivals.put_nowait(number)
        seen += await asyncio.wait_for(anext(batches), 5)
        if number % 2:  # now with the next one already under way
            arrivals.put_nowait(-number)
            seen += await asyncio.wait_for(anext(batches), 5)
    await batches.aclose()
    assert [number for number in seen if number >= 0] == list(range(200))
    assert len(seen) == 300


async def test_cancelling_closes_the_source() -> None:
    source = Source(1, hangs=True)
    collecting = asyncio.ensure_future(collect(buffered(source, size=100, seconds=60)))
    done, _ = await asyncio.wait({collecting}, timeout=0.02)
    assert not done
    collecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await collecting
    assert source.closed


# to_file


async def test_events_become_lines_of_json(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    source = Source(MessageEvent("message", "a\nä\u2028", "1"), MessageEvent("n", "", ""))
    await to_file(source, path)
    assert path.read_bytes().endswith(b"\n")
    assert [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] == [
        {"type": "message", "data": "a\nä\u2028", "id": "1"},
        {"type": "n", "data": "", "id": ""},
    ]
    assert source.closed


async def test_each_line_is_on_disk_before_the_next_event_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    sizes: list[int] = []

    async def watching() -> AsyncGenerator[MessageEvent, None]:
        for event in messages("a", "b"):
            yield event
            sizes.append(path.read_bytes().count(b"\n"))

    await to_file(watching(), path)
    assert sizes == [1, 2]


LINES = b'{"type": "message", "data": "a", "id": "1"}\n{"type": "message", "data": "b", "id": "2"}\n'
TORN = b'{"type": "message", "data": "c", "id": "3"}'


@pytest.mark.parametrize("cut", range(len(TORN) + 1))
def test_a_torn_last_line_is_cut_off_wherever_it_was_torn(cut: int, tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_bytes(LINES + TORN[:cut])
    assert resume_point(path) == "2"
    assert path.read_bytes() == LINES


@pytest.mark.parametrize(
    ("content", "last", "left"),
    [
        pytest.param(None, "", None, id="no file"),
        pytest.param(b"", "", b"", id="an empty file"),
        pytest.param(TORN[:9], "", b"", id="only a torn line"),
        pytest.param(LINES[:44], "1", LINES[:44], id="one line"),
        pytest.param(
            LINES + b'{"type": "x", "data": "%b", "id": "4"}\n' % (b"c" * 300_000) + TORN[:20],
            "4",
            LINES + b'{"type": "x", "data": "%b", "id": "4"}\n' % (b"c" * 300_000),
            id="a long line",
        ),
        pytest.param(LINES + b'{"type": "', "2", LINES, id="many lines"),
    ],
)
def test_the_resume_point_is_the_last_whole_line_s_id(
    content: bytes | None, last: str, left: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    if content is not None:
        path.write_bytes(content)
    assert resume_point(path) == last
    assert (path.read_bytes() if path.exists() else None) == left


@pytest.mark.parametrize(
    "content",
    [
        b"notes without a line end",
        b"notes\n",
        b'{"some": "json"}\n',
        b"[1]\n",
        LINES + b"notes",
        b"notes\n" + TORN,
        LINES + b"\0" * 9,
    ],
)
async def test_a_file_of_something_else_is_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"notes\.txt doesn't hold events"):
        resume_point(path)
    with pytest.raises(ValueError, match="doesn't hold events"):
        await to_file(Source(*messages("a")), path)
    assert path.read_bytes() == content


FOLLOWER = """
import asyncio, os, sys
from sse.following import resume_point, to_file
from sse.wire.event import MessageEvent

async def events(after):
    for number in range(after + 1, 31):
        if number % 7 == 0 and os.environ["SURVIVES"] != str(number):
            os.write(open_file(), b'{"type": "message", "da')  # killed in the middle of a write
            os._exit(9)
        yield MessageEvent("message", "x" * number, str(number))

def open_file():
    return os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND)

after = int(resume_point(sys.argv[1]) or 0)
asyncio.run(to_file(events(after), sys.argv[1]))
"""


def test_killed_again_and_again_it_misses_no_event_and_writes_none_twice(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    died = 0
    for survives in ("", "7", "14", "21", "28"):
        environment = {"SURVIVES": survives, "PYTHONPATH": str(Path(__file__).parents[2])}
        died += subprocess.run([sys.executable, "-c", FOLLOWER, path], env=environment, check=False).returncode == 9
    assert died == 4
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [str(n) for n in range(1, 31)]


async def test_five_lines_follow_a_stream_through_any_fault(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"

    def rest(cut: int) -> Callable[[ReceivedRequest], Answer]:
        def answer(request: ReceivedRequest) -> Answer:
            after = int(request.headers.get("last-event-id", 0))
            body = b"".join(b'id: %d\ndata: {"n": %d}\n\n' % (n, n) for n in range(after + 1, 10)) + b"data: [DONE]\n\n"
            return Answer(body[:cut], then="cut")

        return answer

    async with FakeServer(rest(40), Answer(status=503), rest(60), rest(50), rest(10_000)) as server:
        async with EventSource(server.url, last_event_id=resume_point(path), backoff=Backoff(base=0)) as source:
            await to_file(until(source, "[DONE]"), path)
        async with EventSource(server.url, last_event_id=resume_point(path)) as source:  # answered 204
            await to_file(until(source, "[DONE]"), path)
    assert [json.loads(line)["data"] for line in path.read_text().splitlines()] == [f'{{"n": {n}}}' for n in range(1, 10)]

"""The load client: a figure counts only if every event is what was asked for, so the client notices when one isn't."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bench.harness import CLIENT_CORE
from bench.load import WrongEvents, canned, client, complete, events_path, get, load, post
from tests.support.require import missing, require

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
DONE = b"data: [DONE]\n\n"


@pytest.fixture(autouse=True)
def compiler() -> None:
    for name in ("cc", "gcc", "clang"):
        try:
            require(name)
        except pytest.skip.Exception:
            continue
        return
    missing("there is no C compiler")


def event(number: int, pad: str = "xxx", time: int = 1) -> bytes:
    return b'id: %d\ndata: {"n":%d,"t":%d,"pad":"%b"}\n\n' % (number + 1, number, time, pad.encode())


def chunked(*parts: bytes) -> bytes:
    return HEAD + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@contextmanager
def answering(*pieces: bytes) -> Iterator[int]:
    """A server that answers each connection with these pieces, each sent by itself, and closes it."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection.recv(65536)
                for piece in pieces:
                    connection.sendall(piece)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)


def asked(port: int, **keys: Any) -> Any:
    return load(port, **{"request": get("/bench"), "events": 3, "pad": 3, "limit": 10, **keys})


RIGHT = [event(0), event(1), event(2), DONE]


@pytest.mark.parametrize(
    "body",
    [
        RIGHT,
        [b": hello\n\n", b'id: 0\nretry: 1\nevent: connected\ndata: {"status":"ok"}\n\n', *RIGHT],
        [b"".join(RIGHT)],
        [event(0) + event(1)[:20], event(1)[20:] + event(2) + DONE],
        [event(0), event(1), event(2)],
        [b"data:" + event(0).partition(b"data: ")[2], *RIGHT[1:]],
    ],
    ids=["an event a chunk", "comments and the opening", "one chunk", "cut in an event", "no end", "no space"],
)
def test_the_events_that_were_asked_for_are_counted(body: list[bytes]) -> None:
    with answering(chunked(*body)) as port:
        figures = complete(asked(port, total=2))
    assert (figures.events, figures.connections, figures.finished) == (6, 2, 2)


def test_events_are_counted_wherever_the_bytes_are_cut() -> None:
    data = chunked(*RIGHT)
    for cut in range(0, len(data), 7):
        with answering(data[:cut], data[cut:]) as port:
            assert asked(port).events == 3


def test_a_body_that_ends_with_the_connection_is_read_too() -> None:
    with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(RIGHT)) as port:
        assert asked(port).events == 3


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([event(0), event(1), DONE], "after 2 events: ended too early"),
        ([event(0), event(1)], "after 2 events: the answer ended"),
        ([event(0), event(2), event(1), DONE], "after 1 events: not the next number"),
        ([event(0), event(0), event(1), event(2), DONE], "after 1 events: not the next number"),
        ([*RIGHT[:3], event(3), DONE], "after 3 events: one event too many"),
        ([event(0), event(1, "xxy"), event(2)], "after 1 events: not the padding"),
        ([event(0), event(1, "xxxx"), event(2)], "after 1 events: not the padding"),
        ([event(0), b'data: {"n":1}\n\n'], "after 1 events: not an event of the load"),
        ([event(0), b"event: error\n" + event(1)], "after 1 events: an event of a type"),
        ([event(0), event(1)[:-1] + event(1)], "after 1 events: two lines of data"),
    ],
    ids=[
        "one missing",
        "cut off",
        "swapped",
        "one twice",
        "one too many",
        "other padding",
        "longer",
        "no event",
        "error",
        "split",
    ],
)
def test_a_wrong_event_ends_the_measurement_and_is_shown(body: list[bytes], said: str) -> None:
    with answering(chunked(*body)) as port, pytest.raises(WrongEvents, match=said):
        asked(port)


def test_another_answer_than_200_is_shown() -> None:
    with answering(b"HTTP/1.1 503 Service Unavailable\r\n\r\n") as port, pytest.raises(WrongEvents, match="503 Service"):
        asked(port)


def test_an_answer_that_doesnt_end_in_time_is_not_complete() -> None:
    with canned() as server:
        figures = load(server.port, kind="texts", request=post("/", {"load": "load 10 60000000 {id} "}), events=10, limit=0.2)
    assert (figures.events, figures.finished) == (1, 0)
    with pytest.raises(WrongEvents, match=r"^1 of 1 answers did not end in time"):
        complete(figures)


def text(number: int) -> str:
    return f"{number}:1;"


def chat(*texts: str, key: str = "content") -> list[bytes]:
    return [b"data: " + json.dumps({"choices": [{"delta": {key: text}}]}).encode() + b"\n\n" for text in texts]


@pytest.mark.parametrize(
    "body",
    [chat(text(0), text(1), text(2)), chat(text(0) + text(1), text(2)), chat(text(0), text(1), text(2), key="delta")],
    ids=["one by one", "two together", "another format"],
)
def test_the_texts_of_an_answer_are_counted_in_any_format(body: list[bytes]) -> None:
    with answering(chunked(b'data: {"role": "assistant"}\n\n', *body)) as port:
        assert asked(port, kind="texts").events == 3


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        ((text(0), text(2), text(1)), "not the next text"),
        ((text(0), text(1)), "the answer ended"),
        ((text(0), "Hello"), "not a text of the load"),
    ],
)
def test_a_wrong_text_ends_the_measurement(texts: tuple[str, ...], said: str) -> None:
    with answering(chunked(*chat(*texts))) as port, pytest.raises(WrongEvents, match=said):
        asked(port, kind="texts")


def test_the_canned_server_writes_what_the_client_expects() -> None:
    with canned() as server:
        figures = complete(load(server.port, request=get(events_path(100)), total=3, events=100, pad=140))
    assert figures.events == 300
    assert figures.latency is not None


def test_who_leaves_is_told_of_at_both_ends() -> None:
    with canned(CLIENT_CORE) as server:
        request = post("/v1/chat/completions", {"messages": [{"role": "user", "content": "load 1000 10000 {id} "}]})
        with client(server.port, kind="texts", request=request, total=5, leave=2) as running:
            _, told = running.wait()
        closed = [line.split() for line in server.lines(2, 5)][:2]
    left = [line.split() for line in told]
    assert [line[:2] for line in left] == [["left", "0"], ["left", "1"]]
    assert [line[:2] for line in closed] == [["closed", "0"], ["closed", "1"]]
    assert all(int(before[2]) <= int(after[2]) for before, after in zip(left, closed, strict=True))

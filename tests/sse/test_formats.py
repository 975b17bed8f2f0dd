"""The plain format, to the byte; and the same, transliterated."""

import inspect
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from sse.errors import MissingExtra, SourceFailed
from sse.formats import Format, Transliterated, Written
from tests.support.streams import joined

CASES = [
    pytest.param(lambda plain: plain.opening("s1"), b'event: connected\ndata: {"status":"ok","stream":"s1"}\n\n', id="opening"),
    pytest.param(lambda plain: plain.item({"count": 1}), b'data: {"count":1}\n\n', id="item"),
    pytest.param(lambda plain: plain.item("a\r\nb\nc\rd"), b'data: "a\\r\\nb\\nc\\rd"\n\n', id="item with line ends"),
    pytest.param(lambda plain: plain.item("é\u2028€"), 'data: "é\u2028€"\n\n'.encode(), id="item beyond ASCII"),
    pytest.param(lambda plain: plain.item(None), b"data: null\n\n", id="item None"),
    pytest.param(
        lambda plain: plain.item(datetime(2030, 1, 2, tzinfo=UTC)),
        b'data: "2030-01-02T00:00:00+00:00"\n\n',
        id="item of any type",
    ),
    pytest.param(
        lambda plain: plain.item_error("ValueError: é\n"),
        'event: item_error\ndata: {"error":"ValueError: é\\n"}\n\n'.encode(),
        id="item error",
    ),
    pytest.param(lambda plain: plain.gap(3, 17), b'event: gap\ndata: {"first":3,"last":17}\n\n', id="gap"),
    pytest.param(lambda plain: plain.done(), b"data: [DONE]\n\n", id="done"),
    pytest.param(lambda plain: plain.cancelled("deleted"), b'event: cancelled\ndata: {"reason":"deleted"}\n\n', id="cancelled"),
    pytest.param(
        lambda plain: plain.failed(SourceFailed("Überlast\r\nid: x", "overloaded", retryable=True)),
        'event: error\ndata: {"error":"Überlast\\r\\nid: x","code":"overloaded","fatal":true}\n\n'.encode(),
        id="failed",
    ),
    pytest.param(
        lambda plain: plain.apology(),
        b'event: error\ndata: {"error":"internal error","code":"internal","fatal":true}\n\n',
        id="apology",
    ),
]


@pytest.mark.parametrize(("say", "expected"), CASES)
def test_plain_writes(say: Callable[[Format], bytes | None], expected: bytes) -> None:
    assert say(Format()) == expected


ASCII_CASES = [
    pytest.param(lambda plain: plain.item({"Größe": ["€", 5]}), b'data: {"Grosse":["EUR",5]}\n\n', id="item"),
    pytest.param(lambda plain: plain.item_error("ß"), b'event: item_error\ndata: {"error":"ss"}\n\n', id="item error"),
    pytest.param(
        lambda plain: plain.failed(SourceFailed("Überlast", "overloaded")),
        b'event: error\ndata: {"error":"Uberlast","code":"overloaded","fatal":true}\n\n',
        id="failed",
    ),
]


@pytest.mark.parametrize(("say", "expected"), ASCII_CASES)
def test_plain_transliterates_where_asked(say: Callable[[Format], bytes | None], expected: bytes) -> None:
    pytest.importorskip("anyascii")

    assert say(Transliterated(Format())) == expected


def test_plain_has_a_name_and_ids() -> None:
    assert (Format.name, Format.ids, Format.headers, Format.transliterated) == ("plain", True, (), True)


class Umlauts(Format):
    """Writes several events wherever that is possible, and none of them in ASCII."""

    name = "umlauts"
    ids = False
    headers = ((b"x-umlauts", b"yes"),)

    def opening(self, stream_id: str) -> bytes | None:
        return "data: ä\n\n".encode()

    def item(self, item: Any) -> Written:
        return ["data: ö\n\n".encode(), b"data: o\n\n"]

    def item_error(self, error: str) -> bytes:
        return "data: ü\n\n".encode()

    def gap(self, first: int, last: int) -> bytes:
        return "data: ß\n\n".encode()

    def done(self) -> Written:
        return ("data: Ä\n\n".encode(), b"data: [DONE]\n\n")

    def cancelled(self, reason: str) -> Written:
        return ["data: Ö\n\n".encode()]

    def failed(self, failure: SourceFailed) -> Written:
        return ["data: Ü\n\n".encode(), "data: é\n\n".encode()]


EVERYTHING = {
    "opening": lambda it: it.opening("s"),
    "item": lambda it: it.item(1),
    "item_error": lambda it: it.item_error("no"),
    "gap": lambda it: it.gap(1, 2),
    "done": lambda it: it.done(),
    "cancelled": lambda it: it.cancelled("deleted"),
    "failed": lambda it: it.failed(SourceFailed("no", "test")),
    "apology": lambda it: it.apology(),
}


@pytest.mark.parametrize(("method", "say"), EVERYTHING.items(), ids=EVERYTHING)
def test_whatever_a_format_writes_is_transliterated_event_by_event(method: str, say: Callable[[Format], Written]) -> None:
    pytest.importorskip("anyascii")
    written, plain = say(Transliterated(Umlauts())), say(Umlauts())

    assert joined(written).isascii()
    assert not joined(plain).isascii()
    assert isinstance(written, bytes) == isinstance(plain, bytes)
    assert isinstance(written, bytes) or len(written) == len(plain)


def test_no_method_of_a_format_is_left_out() -> None:
    methods = {name for name, _ in inspect.getmembers(Format, inspect.isfunction) if not name.startswith("_")}
    assert methods == set(EVERYTHING) == {name for name in vars(Transliterated) if not name.startswith("_")}


def test_what_else_a_format_says_of_itself_stays() -> None:
    pytest.importorskip("anyascii")
    format = Transliterated(Umlauts())
    assert (format.name, format.ids, format.headers) == ("umlauts", False, ((b"x-umlauts", b"yes"),))


def test_a_format_without_an_opening_has_none_in_ascii_either() -> None:
    class Quiet(Format):
        def opening(self, stream_id: str) -> bytes | None:
            return None

    pytest.importorskip("anyascii")
    assert Transliterated(Quiet()).opening("s") is None


def test_without_the_extra_nothing_is_wrapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyascii", None)
    with pytest.raises(MissingExtra):
        Transliterated(Format())


def test_an_apology_of_several_events_is_told_as_one() -> None:
    assert Umlauts().apology() == "data: Ü\n\ndata: é\n\n".encode()

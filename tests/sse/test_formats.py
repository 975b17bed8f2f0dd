"""The plain format, to the byte."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from sse.errors import SourceFailed
from sse.formats import Format, Written, events_of

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


def test_plain_has_a_name_and_ids() -> None:
    assert (Format.name, Format.ids, Format.headers, Format.transliterated) == ("plain", True, (), True)


class Two(Format):
    """Says a failure in two events."""

    def failed(self, failure: SourceFailed) -> Written:
        return [b"data: 1\n\n", b"data: 2\n\n"]


def test_an_apology_of_several_events_is_told_as_one() -> None:
    assert Two().apology() == b"data: 1\n\ndata: 2\n\n"


@pytest.mark.parametrize("written", [b"data: 1\n\n", [b"data: 1\n\n"], (b"data: 1\n\n",)], ids=["bytes", "list", "tuple"])
def test_what_a_method_returns_is_one_event_or_several(written: Written) -> None:
    assert events_of(written) == [b"data: 1\n\n"]

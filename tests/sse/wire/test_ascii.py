"""Transliteration: an encoded event stays the event it was, in ASCII."""

import json
import sys

import pytest

from sse.wire.ascii import to_ascii
from sse.wire.encoder import encode_json
from sse.wire.parser import Parser
from sse.wire.payload import dumps


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("plain", "plain"),
        ("Grüße", "Grusse"),
        ("“quoted”", '"quoted"'),
        ("naïve \\ back\\slash é", "naive \\ back\\slash e"),
        ({"schlüssel": ["ä", 1, None]}, {"schlussel": ["a", 1, None]}),
        ("line\u2028separator", "line separator"),
        ("日本", "RiBen"),
        ("tab\té", "tab\te"),
    ],
)
def test_an_event_keeps_its_shape_and_its_texts_become_ascii(value: object, expected: object) -> None:
    pytest.importorskip("anyascii")
    event = to_ascii(encode_json(dumps(value), "name"))
    assert event.isascii()
    [message] = Parser().feed(event)
    assert (message.type, json.loads(message.data)) == ("name", expected)


@pytest.mark.parametrize(
    ("escaped", "expected"),
    [
        (r'"\u00e9"', "e"),
        (r'"\ud83d\ude00"', ":grinning:"),
        (r'"\u0041\u0000"', "A\x00"),
        (r'"\\u00e9"', r"\u00e9"),
        (r'"\"\u00fc"', '"u'),
        (r'"a\ud83d"', "a"),
    ],
)
def test_escapes_are_texts_too(escaped: str, expected: str) -> None:
    pytest.importorskip("anyascii")
    [message] = Parser().feed(to_ascii(encode_json(escaped.encode())))
    assert json.loads(message.data) == expected


def test_without_anyascii_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "anyascii", None)
    with pytest.raises(ModuleNotFoundError, match="anyascii"):
        to_ascii(b"")

"""Texts that were cut inside of a surrogate pair."""

import pytest

from handlers.chat.texts import joined, write


def test_written_as_json_halves_stay_escapes() -> None:
    assert write({"a": "\ud83d", "b": "é"}) == b'{"a":"\\ud83d","b":"\\u00e9"}'


@pytest.mark.parametrize(
    ("pieces", "whole"),
    [(["a", "é"], "aé"), (["\ud83d", "\ude00"], "😀"), (["a\ud83d", "b"], "a\ufffdb"), ([], "")],
    ids=["whole", "a pair", "left alone", "nothing"],
)
def test_pieces_are_joined(pieces: list[str], whole: str) -> None:
    assert joined(pieces) == whole

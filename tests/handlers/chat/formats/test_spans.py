"""What a watcher is told that has missed some events: what it lacks, no more."""

import pytest

from handlers.chat.formats.spans import Spans


def spans() -> Spans:
    """Events 1 to 8: message( text( … ) call( call-input … )"""
    made = Spans()
    made.begin("message", b"message(")
    made.begin("text", b"text(", b")text")
    made.event(b"delta")
    made.end("text")
    made.begin("call", b"call(", b")call")
    made.begin("call", b"input")
    made.event(b"delta")
    made.end("call", b"output")
    return made


@pytest.mark.parametrize(
    ("first", "last", "told"),
    [
        (1, 1, [b"message("]),
        (1, 3, [b"message(", b"text("]),
        (1, 4, [b"message("]),
        (3, 3, []),  # of a text that goes on
        (2, 3, [b"text("]),
        (3, 4, [b")text"]),
        (4, 4, [b")text"]),
        (4, 5, [b")text", b"call("]),
        (1, 6, [b"message(", b"call(", b"input"]),
        (6, 7, [b"input"]),
        (6, 8, [b"output"]),
        (5, 8, []),
        (1, 8, [b"message("]),
    ],
)
def test_after_a_gap(first: int, last: int, told: list[bytes]) -> None:
    assert spans().across(first, last) == told


def test_what_is_open_is_ended_the_newest_first() -> None:
    made = Spans()
    made.begin("run", b"run(")
    made.begin("step", b"step(", b")step")
    made.begin("text", b"text(", b")text")
    assert ("text" in made, [*made.end_all()], "text" in made) == (True, [b")text", b")step"], False)
    assert made.number == 5

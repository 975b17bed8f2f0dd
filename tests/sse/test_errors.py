"""What is told of an error."""

import asyncio

import pytest

from sse.errors import LONGEST_MESSAGE, Full, describe


class Raising(Exception):
    """Raises as soon as somebody wants to know what it says."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __str__(self) -> str:
        raise self.error


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("no such table"), "ValueError: no such table"),
        (ValueError(), "ValueError"),
        (KeyError("name"), "KeyError: 'name'"),
        (SystemExit(3), "SystemExit: 3"),
        (ValueError("Größe\n\ud83d"), "ValueError: Größe\n\ud83d"),
        (ValueError("x" * 10 * LONGEST_MESSAGE), "ValueError: " + "x" * LONGEST_MESSAGE),
        (Raising(ValueError("x")), "Raising (its message can't be shown: ValueError)"),
        (Raising(SystemExit(3)), "Raising (its message can't be shown: SystemExit)"),
        (Raising(asyncio.CancelledError()), "Raising (its message can't be shown: CancelledError)"),
        (Raising(RecursionError()), "Raising (its message can't be shown: RecursionError)"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else type(value).__name__,
)
def test_an_error_is_told_by_its_type_and_what_it_says(error: BaseException, text: str) -> None:
    assert describe(error) == text


@pytest.mark.parametrize(
    ("what", "detail"),
    [
        ("streams", "No room: streams."),
        ("store", "The store doesn't answer."),
        ("shutting down", "The server is shutting down."),
    ],
)
def test_who_finds_no_room_is_told_why_and_when_to_come_back(what: str, detail: str) -> None:
    full = Full(what)
    assert (full.status, full.detail, full.headers, full.members) == (503, detail, {"retry-after": "5"}, {"limit": what})

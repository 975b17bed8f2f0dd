"""What is told of an error."""

import asyncio

import pytest

from sse.errors import LONGEST_MESSAGE, describe


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

import itertools
from email.utils import formatdate

import pytest

from sse.reconnection import NEXT_STATE, ON_STATUS, Backoff, ReadyState, Step, is_event_stream, retry_after

CONNECTING, OPEN, CLOSED = ReadyState
ANNOUNCE, REESTABLISH, FAIL, CLOSE = Step


@pytest.mark.parametrize(
    ("before", "step", "after"),
    [
        (CONNECTING, ANNOUNCE, OPEN),
        (CONNECTING, REESTABLISH, CONNECTING),
        (CONNECTING, FAIL, CLOSED),
        (CONNECTING, CLOSE, CLOSED),
        (OPEN, REESTABLISH, CONNECTING),
        (OPEN, FAIL, CLOSED),
        (OPEN, CLOSE, CLOSED),
        *((CLOSED, step, CLOSED) for step in Step),
    ],
)
def test_each_step_leads_where_the_standard_says(before: ReadyState, step: Step, after: ReadyState) -> None:
    assert NEXT_STATE[before, step] is after


def test_the_only_step_that_can_not_happen_is_to_announce_what_is_open() -> None:
    assert set(itertools.product(ReadyState, Step)) - set(NEXT_STATE) == {(OPEN, ANNOUNCE)}


def test_ready_states_have_the_standard_s_numbers() -> None:
    assert [int(state) for state in (CONNECTING, OPEN, CLOSED)] == [0, 1, 2]


def test_statuses_that_are_not_failures() -> None:
    assert {status: step for status, step in ON_STATUS.items() if step is not REESTABLISH} == {
        200: ANNOUNCE,
        204: CLOSE,
    }
    assert {status for status, step in ON_STATUS.items() if step is REESTABLISH} == {429, 502, 503, 504}


@pytest.mark.parametrize(
    ("content_type", "expected"),
    [
        ("text/event-stream", True),
        ("text/event-stream; charset=utf-8", True),
        ("Text/Event-Stream ;charset=x", True),
        ("text/event-streams", False),
        ("text/html", False),
        ("", False),
    ],
)
def test_the_type_counts_without_its_parameters_and_case(content_type: str, expected: bool) -> None:
    assert is_event_stream(content_type) is expected


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        pytest.param("7", 7.0, id="seconds"),
        pytest.param(formatdate(1_000_030, usegmt=True), 30.0, id="date"),
        pytest.param(formatdate(999_000, usegmt=True), 0.0, id="date in the past"),
        pytest.param("", 0.0, id="absent"),
        pytest.param("soon", 0.0, id="neither"),
        pytest.param("-5", 0.0, id="negative"),
        pytest.param("٣", 0.0, id="digits that are not ASCII"),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after(value, now=1_000_000) == seconds


def test_backoff_doubles_what_the_jitter_covers_up_to_the_ceiling() -> None:
    backoff = Backoff(base=1, ceiling=30, random=lambda: 1.0)
    assert [backoff.delay(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.delay(1_000_000) == 30


def test_jitter_is_full_and_comes_after_what_the_server_asked_for() -> None:
    none, half = Backoff(base=2, random=lambda: 0.0), Backoff(base=2, random=lambda: 0.5)
    assert (none.delay(1), half.delay(1)) == (0, 1)
    assert (none.delay(1, reconnection_time=2500), half.delay(1, reconnection_time=2500)) == (2.5, 3.5)
    assert half.delay(1, reconnection_time=2500, retry_after=60) == 61
    assert half.delay(1, reconnection_time=2500, retry_after=1) == 3.5


def test_jitter_differs_from_one_time_to_the_next() -> None:
    assert len({Backoff().delay(3) for _ in range(10)}) > 1

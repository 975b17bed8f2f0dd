"""Which type an Accept header prefers, of those that we have."""

import pytest

from sse.accept import names


@pytest.mark.parametrize(
    ("accept", "json", "events"),
    [
        ("", False, False),
        ("*/*", False, False),
        ("application/*", False, False),
        ("application/json-seq", False, False),
        ("application/json", True, False),
        ("text/event-stream", False, True),
        ("Text/Event-Stream", False, True),
        ("text/html, Application/JSON ;q=0.9, */*", True, False),
        ("application/json;q=0", False, False),
        ("application/json; q=0.000, */*", False, False),
        ("application/json;q=0.001", True, False),
        ("application/json, text/event-stream", True, True),
        ("application/json;q=0.5, text/event-stream;q=0.5", True, True),
        ("application/json;q=0.5, text/event-stream", False, True),
        ("application/json, text/event-stream;q=0.5", True, False),
        ("text/event-stream;q=0, application/json;Q=0.1", True, False),
        ("application/json;charset=utf-8;q=0.5, text/event-stream;q=0.4", True, False),
        ("application/json;q=much", False, False),
        ("application/json;q=1.5", False, False),
        ("application/json;q=1.000", True, False),
        ("application/json,,;", True, False),
    ],
)
def test_a_type_is_named_where_it_is_wanted_and_no_other_one_more(accept: str, json: bool, events: bool) -> None:
    assert (names(accept, "application/json"), names(accept, "text/event-stream")) == (json, events)

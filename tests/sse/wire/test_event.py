"""What can't be written safely can't be built."""

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from sse.wire.event import MAX_RECONNECTION_TIME, Comment, Event, MessageEvent


@pytest.mark.parametrize(
    ("field", "value"),
    [
        pytest.param("id", "a\nb", id="LF in id"),
        pytest.param("id", "a\rb", id="CR in id"),
        pytest.param("id", "a\0b", id="NUL in id"),
        pytest.param("id", "\ud83d", id="lone surrogate in id"),
        pytest.param("id", 7, id="id is a number"),
        pytest.param("event", "a\nb", id="LF in event"),
        pytest.param("event", "a\rb", id="CR in event"),
        pytest.param("event", "", id="event is empty"),
        pytest.param("event", "\udfff", id="lone surrogate in event"),
        pytest.param("event", b"add", id="event is bytes"),
        pytest.param("retry", -1, id="retry is negative"),
        pytest.param("retry", 1.0, id="retry is a float"),
        pytest.param("retry", "1", id="retry is text"),
        pytest.param("retry", True, id="retry is a bool"),
        pytest.param("retry", MAX_RECONNECTION_TIME + 1, id="retry is too long"),
        pytest.param("retry", 10**5000, id="retry is longer than Python writes"),
        pytest.param("data", "a\ud83d", id="lone surrogate in data"),
        pytest.param("data", b"a\xff", id="data is not UTF-8"),
        pytest.param("data", {"a": 1}, id="data is a dict"),
    ],
)
def test_event_refuses_with_the_name_of_the_field(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: "):
        Event(**{field: value})


@pytest.mark.parametrize("text", ["\ud800", b"bytes", None])
def test_comment_refuses_with_the_name_of_the_field(text: Any) -> None:
    with pytest.raises(ValueError, match=r"^text: "):
        Comment(text)


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="nothing"),
        pytest.param({"data": ""}, id="empty data"),
        pytest.param({"data": "a\r\nb\rc\nd\0"}, id="any lines in data"),
        pytest.param({"data": "é\U0001f600".encode()}, id="data as UTF-8"),
        pytest.param({"id": ""}, id="empty id"),
        pytest.param({"id": "a b:é\u2028"}, id="id with space, colon and U+2028"),
        pytest.param({"event": "message"}, id="event message"),
        pytest.param({"event": " \0é"}, id="event with space, NUL and é"),
        pytest.param({"retry": 0}, id="retry 0"),
        pytest.param({"retry": MAX_RECONNECTION_TIME}, id="the longest retry"),
    ],
)
def test_event_keeps_what_it_was_given(fields: dict[str, Any]) -> None:
    event = Event(**fields)
    given = {"data": None, "event": None, "id": None, "retry": None} | fields
    assert {name: getattr(event, name) for name in given} == given


@pytest.mark.parametrize("value", [Event("a"), Comment("a"), MessageEvent("message", "a", "")])
def test_values_are_frozen_and_have_no_dict(value: object) -> None:
    with pytest.raises((FrozenInstanceError, AttributeError)):
        setattr(value, "data" if not isinstance(value, Comment) else "text", "b")
    assert not hasattr(value, "__dict__")


def test_values_are_equal_by_their_fields_and_can_be_keys() -> None:
    assert {Event("a", id="1"), Event("a", id="1"), Event("a", id="2")} == {Event("a", id="1"), Event("a", id="2")}
    assert Comment("a") == Comment("a")

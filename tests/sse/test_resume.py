"""What a last event ID is answered with, row by row."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sse.ids import new_id
from sse.resume import GONE_ID, Held, LastEventID, Resumption, Verdict, decide, parse

RUNNING = Held("s", last=5, ended=False, same=True)
ENDED = Held("s", last=5, ended=True, same=True)
OTHER = Held("s", last=5, ended=False, same=False)
OTHER_ENDED = Held("s", last=5, ended=True, same=False)
KNOWN = [RUNNING, ENDED, OTHER, OTHER_ENDED]

TABLE = [
    # last event ID, what is known of the stream that the request names, the answer
    pytest.param(None, RUNNING, Resumption(Verdict.OPEN), id="none"),
    pytest.param(None, None, Resumption(Verdict.OPEN), id="none, of an unknown stream"),
    pytest.param("", RUNNING, Resumption(Verdict.OPEN), id="empty is none"),
    pytest.param("s.end", None, Resumption(Verdict.FINISHED), id="the end of an unknown stream"),
    pytest.param("s.end", RUNNING, Resumption(Verdict.FINISHED), id="the end, though it runs"),
    pytest.param("s.end", ENDED, Resumption(Verdict.FINISHED), id="the end of an ended stream"),
    pytest.param("s.end", OTHER, Resumption(Verdict.FINISHED), id="the end of another route's"),
    pytest.param("t.end", RUNNING, Resumption(Verdict.FINISHED), id="the end of another stream"),
    pytest.param("s", RUNNING, Resumption(Verdict.MALFORMED), id="malformed"),
    pytest.param("s", None, Resumption(Verdict.MALFORMED), id="malformed, of an unknown stream"),
    pytest.param("s.3", None, Resumption(Verdict.GONE), id="unknown or expired"),
    pytest.param("t.3", RUNNING, Resumption(Verdict.CONFLICT), id="another one"),
    pytest.param("t.3", ENDED, Resumption(Verdict.CONFLICT), id="another one, ended"),
    pytest.param("t.6", RUNNING, Resumption(Verdict.CONFLICT), id="another one, ahead"),
    pytest.param("s.3", OTHER, Resumption(Verdict.CONFLICT), id="of another route or query"),
    pytest.param("s.3", OTHER_ENDED, Resumption(Verdict.CONFLICT), id="of another route, ended"),
    pytest.param("s.6", OTHER, Resumption(Verdict.CONFLICT), id="of another route, ahead"),
    pytest.param("s.6", OTHER_ENDED, Resumption(Verdict.CONFLICT), id="of another route, ended, ahead"),
    pytest.param("s.0", ENDED, Resumption(Verdict.WATCH, 0), id="ended, the whole of it"),
    pytest.param("s.3", ENDED, Resumption(Verdict.WATCH, 3), id="ended, held"),
    pytest.param("s.5", ENDED, Resumption(Verdict.WATCH, 5), id="ended, the terminal event alone"),
    pytest.param("s.6", ENDED, Resumption(Verdict.WATCH, 5), id="ended, ahead"),
    pytest.param("s.999999999999999", ENDED, Resumption(Verdict.WATCH, 5), id="ended, far ahead"),
    pytest.param("s.6", RUNNING, Resumption(Verdict.CONFLICT), id="running, one ahead"),
    pytest.param("s.999999999999999", RUNNING, Resumption(Verdict.CONFLICT), id="running, far ahead"),
    pytest.param("s.5", RUNNING, Resumption(Verdict.WATCH, 5), id="running, up to date"),
    pytest.param("s.3", RUNNING, Resumption(Verdict.WATCH, 3), id="running, held or older"),
    pytest.param("s.0", RUNNING, Resumption(Verdict.WATCH, 0), id="running, before the first event"),
    pytest.param("s.0003", RUNNING, Resumption(Verdict.WATCH, 3), id="leading zeros"),
]


@pytest.mark.parametrize(("last_event_id", "held", "answer"), TABLE)
def test_a_last_event_id_is_answered(last_event_id: str | None, held: Held | None, answer: Resumption) -> None:
    assert decide(last_event_id, held) == answer


MALFORMED = {
    "no point": "s",
    "no stream": ".3",
    "no number": "s.",
    "a number alone": "3",
    "end alone": "end",
    "a word": "s.start",
    "another case of end": "s.END",
    "more after end": "s.end ",
    "negative": "s.-1",
    "signed": "s.+1",
    "fraction": "s.1.5",
    "underscore": "s.1_0",
    "other digits": "s.٣",
    "superscript": "s.²",
    "too many digits": "s.1234567890123456",
    "too long": "s" * 65 + ".3",
    "space before": " s.3",
    "space after": "s.3 ",
    "line end after": "s.3\n",
    "line end inside": "s\n.3",
    "NUL": "s\0.3",
    "slash": "a/b.3",
    "percent": "a%2e.3",
    "beyond ASCII": "é.3",
    "replacement character": "\ufffd.3",
}


@pytest.mark.parametrize("held", [None, *KNOWN])
@pytest.mark.parametrize("last_event_id", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_not_a_last_event_id_of_ours_is_malformed_whatever_is_held(last_event_id: str, held: Held | None) -> None:
    assert decide(last_event_id, held) == Resumption(Verdict.MALFORMED)


@pytest.mark.parametrize("held", [None, *KNOWN])
def test_whoever_has_the_end_is_finished_whatever_is_held(held: Held | None) -> None:
    assert decide("s.end", held) == decide("another.end", held) == Resumption(Verdict.FINISHED)


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("s.0", LastEventID("s", 0)),
        ("s.end", LastEventID("s", None)),
        ("-_-.999999999999999", LastEventID("-_-", 10**15 - 1)),
        ("s" * 64 + ".1", LastEventID("s" * 64, 1)),
        ("end.1", LastEventID("end", 1)),
        ("7.7", LastEventID("7", 7)),
    ],
)
def test_parse(text: str, parsed: LastEventID) -> None:
    assert parse(text) == parsed


def test_ids_that_streams_are_given_can_be_read() -> None:
    stream_id = new_id()

    assert parse(f"{stream_id}.12") == LastEventID(stream_id, 12)


def test_the_event_that_says_gone_ends_the_reconnects() -> None:
    assert decide(GONE_ID, None).verdict is Verdict.FINISHED


@given(st.one_of(st.text(), st.from_regex(r"[\w.-]{0,5}\.[0-9end]{0,17}")))
def test_no_text_at_all_makes_it_raise_or_start_work(text: str) -> None:
    answer = decide(text, RUNNING)

    assert (answer.verdict is Verdict.OPEN) == (text == "")
    assert answer.after <= RUNNING.last

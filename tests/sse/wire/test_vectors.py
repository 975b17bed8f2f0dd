"""tests/vectors.json, run whole, byte by byte, and at every pair of cuts."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from sse.wire.event import MessageEvent
from sse.wire.parser import Parser
from tests.support import reference

VECTORS = json.loads((Path(__file__).parents[2] / "vectors.json").read_text())["cases"]

pytestmark = pytest.mark.parametrize("case", VECTORS, ids=[f"{case['section']} {case['name']}" for case in VECTORS])


def _body(case: dict[str, Any]) -> bytes:
    return bytes.fromhex(case["hex"]) if "hex" in case else case["text"].encode()


def _check(parser: Parser, events: list[MessageEvent], case: dict[str, Any]) -> None:
    assert events == [tuple(event) for event in case["events"]]
    assert parser.last_event_id == case["last_event_id"]
    assert parser.reconnection_time == case["reconnection_time"]


def test_vector_whole(case: dict[str, Any]) -> None:
    parser = Parser()
    _check(parser, parser.feed(_body(case)), case)


def test_vector_byte_by_byte_with_each_event_at_its_last_byte(case: dict[str, Any]) -> None:
    parser, body = Parser(), _body(case)
    events: list[MessageEvent] = []
    for end in range(len(body)):
        events += parser.feed(body[end : end + 1])
        so_far = reference.parse(body[: end + 1])
        assert events == so_far.events
        assert parser.last_event_id == so_far.last_event_id
        assert parser.reconnection_time == so_far.reconnection_time
    _check(parser, events, case)


def test_vector_at_every_pair_of_cuts(case: dict[str, Any]) -> None:
    body = _body(case)
    for first, second in combinations(range(len(body) + 1), 2):
        parser = Parser()
        events = parser.feed(body[:first]) + parser.feed(body[first:second]) + parser.feed(body[second:])
        _check(parser, events, case)


def test_vector_holds_for_the_reference_too(case: dict[str, Any]) -> None:
    events = [tuple(event) for event in case["events"]]
    assert reference.parse(_body(case)) == (events, case["last_event_id"], case["reconnection_time"])

"""The soak of `bench/store.py`, short: what comes is whole, and what was used is given back."""

import pytest

from bench.store import soak
from sse.connections import REQUESTS, TASKS
from tests.support.require import require

pytestmark = pytest.mark.e2e


async def test_what_a_quarter_of_a_minute_has_used_is_given_back() -> None:
    require("redis-server")
    left = await soak(0.25, rate=300)
    assert (left["broken"], left["refused"]) == (0, 0)
    assert left["whole"] == left["streams"] > 40
    assert left["cancelled"] > 0
    assert left["keys"] == ["b'sidestream:{all}:processes'"]
    assert (left["channels"], left["held"]) == (2, [0, 0])
    assert left["tasks after"] == left["tasks"]
    assert left["connections"] <= 2 * (TASKS + REQUESTS)
    for before, after in zip(left["descriptors"], left["descriptors after"], strict=True):
        assert after <= before + REQUESTS

"""The account: what is charged, given back and refused, and when room is made."""

import gc

import pytest

from sse.budget import Budget, Charge
from sse.errors import Full

LIMIT = 64_000


def test_a_charge_is_given_back_when_what_holds_it_is_freed() -> None:
    budget = Budget(LIMIT)
    gc.disable()
    try:
        held = [Charge(budget), Charge(budget)]
        held[0].claim(1000)
        held[1].add(500)
        assert (budget.used, budget.charged) == (1500, 1500)
        del held[0]
        assert (budget.used, budget.charged) == (500, 500)
        held.clear()
    finally:
        gc.enable()
    assert (budget.used, budget.charged) == (0, 0)


def test_what_is_given_back_before_is_given_back_once() -> None:
    budget = Budget(LIMIT)
    charge = Charge(budget)
    charge.claim(1000)
    charge.claim(-400)
    assert (charge.size, budget.used) == (600, 600)
    charge.clear()
    charge.clear()
    del charge
    assert budget.used == 0


def test_more_than_there_is_is_refused_and_not_charged() -> None:
    budget = Budget(LIMIT)
    charge = Charge(budget)
    charge.claim(LIMIT * 7 // 8)
    with pytest.raises(Full, match="memory"):
        charge.claim(1)
    assert budget.used == charge.size == LIMIT * 7 // 8, "an eighth is for events"

    charge.add(LIMIT)
    charge.claim(-LIMIT)
    charge.claim(0)
    assert charge.size == LIMIT * 7 // 8, "less is never refused"


def test_events_leave_no_room_for_charges_either() -> None:
    budget = Budget(LIMIT)
    budget.used = LIMIT - 10
    charge = Charge(budget)
    charge.claim(10)
    with pytest.raises(Full):
        charge.claim(1)


def test_room_is_made_for_what_is_asked() -> None:
    asked: list[int] = []

    def relieve(size: int) -> None:
        asked.append(size)
        budget.used = 0

    budget = Budget(LIMIT, relieve)
    charge = Charge(budget)
    charge.claim(LIMIT // 2)
    charge.claim(LIMIT // 4 + LIMIT // 8)
    assert asked == []
    charge.clear()
    budget.used = LIMIT
    charge.claim(1000)
    assert (asked, budget.used) == ([1000], 1000)


def test_what_was_in_vain_is_tried_again_when_something_has_changed_or_a_64th_more_is_used() -> None:
    asked: list[int] = []
    budget = Budget(LIMIT, asked.append)
    Charge(budget).add(0)
    charge = Charge(budget)
    charge.add(LIMIT)

    for _ in range(100):
        assert not budget.room(1)
    assert len(asked) == 1

    budget.used += LIMIT // 64
    assert not budget.room(1)
    assert len(asked) == 1
    budget.used += 1
    assert not budget.room(1)
    assert not budget.room(1)
    assert len(asked) == 2

    budget.renew()
    assert not budget.room(1)
    assert not budget.room(1)
    assert len(asked) == 3

"""The comparison with another state: ratios to the bare callable, round by round."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench import quick
from bench.harness import Running
from bench.load import WrongEvents
from bench.rounds import Contender, Measure, Scenario, take_turns
from bench.servers import ROOT


def rounds(*cpu: float) -> list[dict[str, float]]:
    return [{"CPU µs": one} for one in cpu]


def test_a_machine_that_slows_down_changes_no_ratio() -> None:
    before, after, ratio = quick.change(rounds(10, 20, 40), rounds(20, 40, 80), rounds(22, 44, 88))
    assert (before, after, ratio) == pytest.approx((2, 2.2, 1.1))


def test_a_directory_is_a_state_by_itself() -> None:
    with quick.checkout(str(ROOT)) as directory:
        assert directory == ROOT.resolve()


def test_a_path_that_there_isnt_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        quick.main(["--only", "burst,nope"])
    assert "no hot path is called nope" in capsys.readouterr().err


def session(taken: list[str], wrong: str = "") -> object:
    @contextmanager
    def opened(server: Running, contender: Contender, upstream: Running | None) -> Iterator[Measure]:
        def measure() -> dict[str, float]:
            taken.append(contender.name)
            if contender.name == wrong:
                raise WrongEvents("one event too many")
            return {"CPU µs": 1.0}

        yield measure

    return opened


def turns(wrong: str = "") -> tuple[list[str], Scenario]:
    taken: list[str] = []
    contenders = [Contender(name, None) for name in "abc"]
    return taken, Scenario(session(taken, wrong), contenders, seconds=0, upstream=False)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def started(contender: Contender, upstream: Running | None) -> Iterator[Running]:
        yield Running(0, 0)

    monkeypatch.setattr("bench.rounds.started", started)


def test_all_take_part_in_turn_once_a_launch_at_least() -> None:
    taken, scenario = turns()
    results = take_turns(scenario, launches=2)
    assert taken == ["a", "b", "c"] * 2
    assert {name: len(rounds) for name, rounds in results.rounds.items()} == {"a": 2, "b": 2, "c": 2}


def test_who_sends_other_events_has_no_figures_and_a_reason() -> None:
    _, scenario = turns(wrong="b")
    results = take_turns(scenario)
    assert list(results.rounds) == ["a", "c"]
    assert results.failures == {"b": "one event too many"}

"""Scenarios, and the rounds in which servers are measured in one: short ones, in turn, since a machine's speed varies.

In:  a scenario and who takes part. Out: every round's figures by name, and why somebody has none.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import median

from bench.chat import OPENAI, Way, upstream_at
from bench.harness import CLIENT_CORE, Others, Running
from bench.load import Measured, WrongEvents, canned
from bench.servers import Server

Measure = Callable[[], Measured]


@dataclass(frozen=True, slots=True)
class Contender:
    """Who takes part. server: None is the upstream itself. way: how a chat is asked for."""

    name: str
    server: Server | None
    way: Way = OPENAI
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def lacks(self) -> str:
        return self.server.lacks() if self.server else ""


Session = Callable[[Running, Contender, Running | None], AbstractContextManager[Measure]]
"""Of a server that runs and the upstream, if there is one: what is called for each round."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """session: loads what is loaded late, and holds its clients meanwhile. seconds: for all rounds. upstream: whether there is
    one."""

    session: Session
    contenders: Sequence[Contender]
    seconds: float = 20
    upstream: bool = False


@dataclass(slots=True)
class Results:
    """rounds: of each that took part. failures: why one has no figures. others: the share of the machine that other processes
    have used meanwhile."""

    rounds: dict[str, list[Measured]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    others: float = 0.0

    def medians(self, name: str) -> dict[str, float]:
        rounds = self.rounds[name]
        return {column: median(one[column] for one in rounds) for column in rounds[0]}


FAILURES = (WrongEvents, OSError, SystemExit, ValueError)


@contextmanager
def started(contender: Contender, upstream: Running | None) -> Iterator[Running]:
    if contender.server is None:
        assert upstream is not None
        yield upstream
        return
    env = upstream_at(upstream.port) if upstream else {}
    with contender.server.run(**env, **contender.env) as running:
        yield running


def take_turns(scenario: Scenario, launches: int = 1) -> Results:
    """Rounds as the scenario's seconds allow, one a launch at least. launches: how often all servers are started anew."""
    results = Results()
    others = Others()
    for _ in range(launches):
        with ExitStack() as everything:
            upstream = everything.enter_context(canned(CLIENT_CORE)) if scenario.upstream else None
            rounds: dict[str, Measure] = {}
            for contender in scenario.contenders:
                if contender.lacks:
                    results.failures[contender.name] = contender.lacks
                    continue
                stack = everything.enter_context(ExitStack())
                try:
                    running = stack.enter_context(started(contender, upstream))
                    rounds[contender.name] = stack.enter_context(scenario.session(running, contender, upstream))
                except FAILURES as error:
                    results.failures[contender.name] = str(error)
            _rounds(rounds, results, scenario.seconds / launches)
    results.others = others.share()
    return results


def _rounds(rounds: dict[str, Measure], results: Results, seconds: float) -> None:
    """One for each, then more as the seconds allow. Who takes more than a tenth of them for a round has only one."""
    end = time.monotonic() + seconds
    names = list(rounds)
    for number in count():
        begin = time.monotonic()
        for name in [names[(number + which) % len(names)] for which in range(len(names))]:
            if name not in rounds:
                continue
            started = time.monotonic()
            try:
                results.rounds.setdefault(name, []).append(rounds[name]())
            except FAILURES as error:
                results.failures[name] = str(error)
                results.rounds.pop(name, None)
            if name in results.failures or time.monotonic() - started > max(seconds / 10, 2):
                del rounds[name]
        if not rounds or time.monotonic() + (time.monotonic() - begin) / 2 > end:
            return

"""The scenarios by name: who takes part in each, what is done in it, and which of its figures leads."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.request import urlopen

from bench import chat, streams
from bench.harness import Others, Running
from bench.load import Measured, events_path
from bench.rounds import FAILURES, Contender, Measure, Results, Scenario, Session, take_turns
from bench.servers import BARE, FASTAPI_PROXY, LITELLM, NCHAN, PEERS_OF_STREAMS, RAW_PROXY, ROOT, SIDESTREAM

# -- who


SELF = Contender("Sidestream", SIDESTREAM)
STREAMING = (SELF, *(Contender(server.name, server) for server in PEERS_OF_STREAMS))
WATCHED = (*STREAMING, Contender(NCHAN.name, NCHAN))
DIRECT = Contender("no proxy", None)
PROXIES = tuple(Contender(server.name, server) for server in (RAW_PROXY, FASTAPI_PROXY, LITELLM))
TYPED = Contender("Sidestream", SIDESTREAM, chat.TYPED)
OPENAI = Contender("Sidestream, /v1/chat", SIDESTREAM, chat.OPENAI)
PLAIN = Contender("Sidestream, plain", SIDESTREAM, chat.PLAIN)
RESPONSES = Contender("Sidestream, /v1/responses", SIDESTREAM, chat.RESPONSES)
CONFIGURED = Contender("Sidestream, with an upstream", SIDESTREAM, env={"OPENAI_BASE_URL": "http://127.0.0.1:9/v1"})


# -- sessions


def each_round(measure: Callable[[Running], Measured]) -> Session:
    """The same for each round, after a few streams by which what is loaded late is loaded."""

    @contextmanager
    def session(server: Running, contender: Contender, upstream: Running | None) -> Iterator[Measure]:
        streams.burst(server, 10, 20)
        yield lambda: measure(server)

    return session


def anew_each_round(measure: Callable[[Running], Measured]) -> Session:
    """The same, by a server that is started for the round and ends with it."""

    @contextmanager
    def session(server: Running, contender: Contender, upstream: Running | None) -> Iterator[Measure]:
        assert contender.server is not None
        peer = contender.server

        def measure_anew() -> Measured:
            with peer.run(**contender.env) as fresh:
                streams.burst(fresh, 10, 20)
                return measure(fresh)

        yield measure_anew

    return session


def bursts(interval: float = 0) -> Session:
    @contextmanager
    def session(server: Running, contender: Contender, upstream: Running | None) -> Iterator[Measure]:
        events = streams.fitting(server, interval)
        yield lambda: streams.burst(server, events=events, interval=interval)

    return session


def watched(watchers: int, events: int) -> Session:
    @contextmanager
    def session(server: Running, contender: Contender, upstream: Running | None) -> Iterator[Measure]:
        assert contender.server is not None
        with streams.watched(server, contender.server, watchers) as publish:
            fit = round(publish(2)["deliveries/s"] * 0.7 / watchers)
            yield lambda: publish(min(events, max(2, fit)))

    return session


def chunks(count: int = 0) -> Session:
    """So many in each of ten answers, or as many as fill a round."""

    @contextmanager
    def session(server: Running, contender: Contender, upstream: Running | None) -> Iterator[Measure]:
        fit = chat.fitting(server, contender.way)
        yield lambda: chat.chunks(server, contender.way, chunks=count or fit)

    return session


@contextmanager
def slow(server: Running, contender: Contender, upstream: Running | None) -> Iterator[Measure]:
    chat.chunks(server, contender.way, 10, 10)
    yield lambda: chat.slow(server, contender.way)


@contextmanager
def leaving(server: Running, contender: Contender, upstream: Running | None) -> Iterator[Measure]:
    assert upstream is not None
    chat.chunks(server, contender.way, 10, 10)
    yield lambda: chat.leaving(server, upstream, contender.way)


# -- what has rounds of its own


def starting(rounds: int = 10) -> Results:
    """Milliseconds from the start of the process to the first byte of a stream. In a first round, modules are compiled."""
    results, others = Results(), Others()
    for number in range(rounds + 1):
        for contender in (SELF, CONFIGURED, *STREAMING[1:]):
            assert contender.server is not None
            if contender.name in results.failures:
                continue
            try:
                if contender.lacks:
                    raise ValueError(contender.lacks)
                begin = time.perf_counter()
                with contender.server.run(**contender.env) as server:
                    with urlopen(f"http://127.0.0.1:{server.port}{events_path(1)}", timeout=20) as response:
                        response.read(1)
                    figures = {"ms": (time.perf_counter() - begin) * 1000, "RSS MiB": streams.mebibytes(server)}
                if number:
                    results.rounds.setdefault(contender.name, []).append(figures)
            except FAILURES as error:
                results.failures[contender.name] = str(error)
    results.others = others.share()
    return results


def separate(module: str, program: str = "") -> Callable[[], Results]:
    """What a module measures in a process of its own, and prints as JSON."""

    def run() -> Results:
        if program and shutil.which(program) is None:
            return Results(failures={SELF.name: f"{program} is not installed"})
        others = Others()
        command = [sys.executable, "-m", module]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            return Results(failures={SELF.name: f"{error}: {str(error.stderr)[-300:]}"})
        return Results(json.loads(done.stdout), {}, others.share())

    return run


# -- all of them


@dataclass(frozen=True, slots=True)
class Entry:
    """lead: the figure that is compared; higher: whether more of it is better. base: whom the ratio is to."""

    title: str
    run: Callable[[], Results]
    lead: str
    higher: bool = False
    base: str = BARE.name


def turns(scenario: Scenario) -> Callable[[], Results]:
    return lambda: take_turns(scenario)


PACED_FEW = anew_each_round(lambda server: streams.paced(server, 100, 50, spread=0.2))

SCENARIOS = {
    "burst": Entry("A source that never waits, 50 streams", turns(Scenario(bursts(), STREAMING, 25)), "events/s", higher=True),
    "each": Entry(
        "One event a send, 50 streams", turns(Scenario(bursts(streams.NO_WAIT), STREAMING, 25)), "events/s", higher=True
    ),
    "short": Entry(
        "1,500 streams of 20 events", turns(Scenario(each_round(streams.short), STREAMING, 60)), "events/s", higher=True
    ),
    "connect": Entry(
        "Streams of one event, 50 open at a time",
        turns(Scenario(each_round(streams.connecting), STREAMING, 30)),
        "streams/s",
        higher=True,
    ),
    "opening": Entry(
        "1,000 streams opened at once", turns(Scenario(each_round(streams.opening), STREAMING, 40)), "first p50 ms"
    ),
    "paced-100": Entry("100 streams of 50 events/s", turns(Scenario(PACED_FEW, STREAMING, 100)), "p50 µs"),
    "paced-1000": Entry(
        "1,000 streams of 20 events/s", turns(Scenario(anew_each_round(streams.paced), STREAMING, 240)), "p50 µs"
    ),
    "fanout-1000": Entry(
        "One event to 1,000 watchers", turns(Scenario(watched(1000, 20), WATCHED, 25)), "deliveries/s", higher=True
    ),
    "fanout-5000": Entry(
        "One event to 5,000 watchers", turns(Scenario(watched(5000, 6), WATCHED, 30)), "deliveries/s", higher=True
    ),
    "idle": Entry(
        "Memory of an idle stream, 5,000 of them", turns(Scenario(each_round(streams.idle), STREAMING, 1)), "KiB a stream"
    ),
    "start": Entry("Process start to first byte", starting, "ms"),
    "chunks": Entry(
        "A fast upstream, ten answers",
        turns(Scenario(chunks(), (TYPED, PLAIN, OPENAI, RESPONSES, *PROXIES, DIRECT), 25, upstream=True)),
        "chunks/s",
        higher=True,
        base=FASTAPI_PROXY.name,
    ),
    "slow": Entry(
        "A thousand answers of ten chunks a second",
        turns(Scenario(slow, (TYPED, OPENAI, *PROXIES, DIRECT), 60, upstream=True)),
        "each p50 ms",
        base=FASTAPI_PROXY.name,
    ),
    "cancel": Entry(
        "Client gone to upstream closed, beside a thousand answers",
        turns(Scenario(leaving, (OPENAI, PROXIES[1], DIRECT), 60, upstream=True)),
        "p99 ms",
        base=FASTAPI_PROXY.name,
    ),
    "bridge": Entry(
        "Progress from eight threads", separate("bench.bridge"), "items/s", higher=True, base="a wake-up for each item"
    ),
    "store": Entry(
        "Two processes and a Redis",
        separate("bench.store", "redis-server"),
        "events/s",
        higher=True,
        base="Sidestream without Redis",
    ),
}

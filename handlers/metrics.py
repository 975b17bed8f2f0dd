"""`GET /metrics`: what `counts` has counted and what goes on now, in Prometheus' text format.

Names begin with `sidestream_`, units are seconds and bytes, counters end in `_total`. Everything is collected when it is asked
for, into a registry of this service's own. One timer a second measures how late the event loop is, and nothing else polls.

Needs the extra `metrics` (prometheus-client), imported at the first request; without it the answer is 501 and says so.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sidecar.answers import Reply
from sidecar.counts import Counts, Histogram
from sidecar.service import Service
from sse.errors import Problem
from sse.http import Request, Response
from sse.stream import State, Stream
from sse.threads import Threads

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class LagTimer:
    """Once a second: how much later than it asked to be is it called?"""

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Called in the loop that is measured."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(1.0, self._tick, loop, loop.time() + 1.0)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._counts.loop_lag.observe(max(0.0, loop.time() - due))
        self.begin()

    def cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()


class Metrics:
    """Measures the event loop from the start on; its registry is made when it is first asked for. threads: of the jobs."""

    def __init__(self, service: Service, threads: Threads) -> None:
        self._collector = _Collector(service, threads)
        self._registry: CollectorRegistry | None = None
        self._lag = LagTimer(service.counts)

    def start(self) -> None:
        self._lag.begin()

    def stop(self) -> None:
        self._lag.cancel()

    async def show(self, service: Service, request: Request, stream: Stream | None) -> Reply:  # noqa: ARG002
        """`GET /metrics`."""
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
        except ImportError:
            raise Problem(501, "Metrics need the extra `metrics`: pip install prometheus-client.", extra="metrics") from None
        if self._registry is None:
            self._registry = CollectorRegistry(auto_describe=False)
            self._registry.register(self._collector)
            ProcessCollector(namespace="sidestream", registry=self._registry)  # memory, processor time, open files
        return Response(200, generate_latest(self._registry), {"content-type": CONTENT_TYPE})


class _Collector:
    """What prometheus-client asks for metrics."""

    def __init__(self, service: Service, threads: Threads) -> None:
        self._service = service
        self._threads = threads

    def collect(self) -> Iterator["Metric"]:
        counts = self._service.counts
        yield from self._now()
        yield from self._sent()
        yield _counters("requests", "Requests answered, by status.", ("status",), _keyed(counts.requests))
        yield _counters("watchers_ended", "Connections that watched, by how they ended.", ("outcome",), _keyed(counts.outcomes))
        yield _counters("streams_ended", "Streams that ended, by state and reason.", ("state", "reason"), counts.ended)
        yield _counters("failures", "Failed streams and chat requests, by code.", ("code",), _keyed(counts.failures))
        yield _histogram("upstream_first_token_seconds", "From the request to the first chunk.", counts.first_token)
        yield _histogram("event_loop_lag_seconds", "How late a timer is called, once a second.", counts.loop_lag)

    def _now(self) -> Iterator["Metric"]:
        """What goes on at this moment."""
        store = self._service.store
        private = [stream for stream in store.running.values() if stream.id not in store.streams]
        states = Counter({state.value: 0 for state in State})
        states.update(stream.state.value for stream in (*store.streams.values(), *private))
        yield _gauges("streams", "Streams held, by state.", ("state",), _keyed(states))
        yield _gauge("watchers", "Connections that watch.", store.watchers)
        yield _gauge("watchers_limit", "How many may.", store.limits.watchers)
        yield _gauge("log_bytes", "Memory that event logs hold.", store.budget.used)
        yield _gauge("log_bytes_limit", "How much they may.", store.budget.limit)
        text = "Jobs with a thread, waiting for one, or cancelled and still holding one."
        yield _gauges("jobs", text, ("state",), _keyed(self._threads.counts()))
        yield _gauge("draining", "1 from SIGTERM on.", int(store.draining))

    def _sent(self) -> Iterator["Metric"]:
        """Totals that live watchers are part of."""
        counts, store = self._service.counts, self._service.store
        live = counts.senders()
        yield _counter("events_sent", "Events handed to the server for watchers.", counts.events + sum(s.events for s in live))
        yield _counter("sent_bytes", "Bytes of event streams handed to the server.", counts.sent + sum(s.sent for s in live))
        waited = counts.send_time + sum(sender.send_time for sender in live)
        yield _counter("send_seconds", "Time that sends to watchers were pending.", waited)
        yield _counter("resumes", "Connections that came back to a stream that was held.", counts.resumes)
        gaps = store.gaps + sum(stream.log.gaps for stream in store.streams.values())
        yield _counter("gaps", "Times that a watcher was told of lost events.", gaps)


def _keyed(counts: Mapping[Any, int]) -> dict[tuple[str], int]:
    """Values by one label."""
    return {(str(name),): count for name, count in counts.items()}


def _gauge(name: str, text: str, value: float) -> "Metric":
    return _gauges(name, text, (), {(): value})


def _counter(name: str, text: str, value: float) -> "Metric":
    return _counters(name, text, (), {(): value})


def _gauges(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> "Metric":
    from prometheus_client.metrics_core import GaugeMetricFamily

    family = GaugeMetricFamily(f"sidestream_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _counters(name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> "Metric":
    from prometheus_client.metrics_core import CounterMetricFamily

    family = CounterMetricFamily(f"sidestream_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key, value)
    return family


def _histogram(name: str, text: str, histogram: Histogram) -> "Metric":
    from prometheus_client.metrics_core import HistogramMetricFamily

    return HistogramMetricFamily(f"sidestream_{name}", text, buckets=histogram.buckets(), sum_value=histogram.sum)

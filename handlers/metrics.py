"""`GET /metrics`: the totals of `counts` and the present state, in Prometheus' text format.

Names begin with `sidestream_`, and with `gen_ai_` where OpenTelemetry has a name for what is measured of models. Units are
seconds and bytes, counters end in `_total`. A request collects all metrics, into a registry of this service's own. One timer
measures every second how late the event loop is; nothing else polls.

The extra `metrics` (prometheus-client) is imported at the first request; without it the answer is 501 and says so.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from sidecar.counts import OPERATION_LABELS, OPERATIONS, Histogram
from sidecar.request import Reply, Request
from sidecar.service import Service
from sse.errors import Problem
from sse.http import Response
from sse.stream import State
from sse.threads import Threads

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Described: TypeAlias = tuple[str, str, Sequence[str], Mapping[Any, float]]
"""A metric: its name, its help, the names of its labels, and its value for each combination of the labels' values."""


class Metrics:
    """Measures once a second how late the event loop calls it. threads: of jobs."""

    def __init__(self, service: Service, threads: Threads) -> None:
        self._service = service
        self._threads = threads
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Called in the loop that is measured."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(1.0, self._tick, loop, loop.time() + 1.0)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self._service.counts.loop_lag.observe(max(0.0, loop.time() - due))
        self.start()

    async def show(self, request: Request) -> Reply:  # noqa: ARG002
        """`GET /metrics`."""
        try:
            from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
        except ImportError:
            raise Problem(501, "Metrics need the extra `metrics`: pip install prometheus-client.", extra="metrics") from None
        registry = CollectorRegistry(auto_describe=False)
        registry.register(self)
        ProcessCollector(namespace="sidestream", registry=registry)  # memory, processor time, open files
        return Response(200, generate_latest(registry), {"content-type": CONTENT_TYPE})

    def collect(self) -> Iterator["Metric"]:
        """All metrics; called by prometheus-client."""
        from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        for name, text, labels, values in self._now():
            yield _family(GaugeMetricFamily, name, text, labels, values)
        for name, text, labels, values in (*self._sent(), *self._ended()):
            yield _family(CounterMetricFamily, name, text, labels, values)
        for name, text, told in self._times():
            yield HistogramMetricFamily(f"sidestream_{name}", text, buckets=told.buckets(), sum_value=told.sum)
        for name, histograms in self._service.counts.operations.items():
            labels = (*OPERATION_LABELS, extra) if (extra := OPERATIONS[name][1]) else OPERATION_LABELS
            measured = HistogramMetricFamily(name, "As OpenTelemetry's conventions for generative AI have it.", labels=labels)
            for key, told in histograms.items():
                measured.add_metric(key, told.buckets(), told.sum)
            yield measured

    def _now(self) -> Iterator[Described]:
        """The present state."""
        store = self._service.store
        private = [stream for stream in store.running.values() if stream.id not in store.streams]
        held = [stream for stream in store.streams.values() if not stream.elsewhere]
        states = Counter({state.value: 0 for state in State})
        states.update(stream.state.value for stream in (*held, *private))
        yield "streams", "Streams held, by state.", ("state",), states
        yield "watchers", "Connections that watch.", (), {(): store.watchers}
        yield "watchers_limit", "How many may.", (), {(): store.limits.watchers}
        yield "memory_bytes", "Memory that is charged to SIDESTREAM_MEMORY.", (), {(): store.budget.used}
        yield "memory_bytes_limit", "How much may be charged.", (), {(): store.budget.limit}
        text = "Jobs with a thread, waiting for one, or cancelled and still holding one."
        yield "jobs", text, ("state",), self._threads.counts()
        yield "draining", "1 from SIGTERM on.", (), {(): int(store.draining)}
        if (link := store.backend.link) is not None:
            yield "store_up", "1 while the store answers.", (), {(): int(link.up)}
            yield "store_lag_events", "Events that the store doesn't have yet.", (), {(): link.lag}

    def _sent(self) -> Iterator[Described]:
        """Totals that include the watchers of this moment."""
        counts, store = self._service.counts, self._service.store
        live = counts.watching
        events = counts.events + sum(sender.events for sender in live)
        yield "events_sent", "Events handed to the server for watchers.", (), {(): events}
        sent = counts.sent + sum(sender.sent for sender in live)
        yield "sent_bytes", "Bytes of event streams handed to the server.", (), {(): sent}
        waited = counts.send_time + sum(sender.send_time for sender in live)
        yield "send_seconds", "Time that sends to watchers were pending.", (), {(): waited}
        yield "resumes", "Connections that came back to a stream that was held.", (), {(): counts.resumes}
        gaps = store.gaps + sum(stream.log.gaps for stream in store.streams.values())
        yield "gaps", "Times that a watcher was told of lost events.", (), {(): gaps}

    def _ended(self) -> Iterator[Described]:
        """Totals of the requests, streams and watchers that have ended."""
        if (link := self._service.store.backend.link) is not None:
            yield "store_errors", "Commands to the store that failed.", (), {(): link.errors}
            yield "store_reconnects", "Times that the store was back.", (), {(): link.reconnects}
        counts = self._service.counts
        yield "requests", "Requests answered, by status.", ("status",), counts.requests
        yield "refused", "Requests refused for want of room, by the limit that was reached.", ("limit",), counts.refused
        text = "Requests whose client left, or stopped reading, before it had its answer."
        yield "unanswered", text, (), {(): counts.unanswered}
        text = "Streams that were dropped before their time, for want of memory."
        yield "forgotten", text, (), {(): self._service.store.forgotten}
        yield "watchers_ended", "Connections that watched, by how they ended.", ("outcome",), counts.outcomes
        yield "streams_ended", "Streams that ended, by state and reason.", ("state", "reason"), counts.ended
        yield "failures", "Failed streams and chat requests, by code.", ("code",), counts.failures

    def _times(self) -> Iterator[tuple[str, str, Histogram]]:
        counts = self._service.counts
        yield "upstream_first_token_seconds", "From the request to the first chunk.", counts.first_token
        yield "event_loop_lag_seconds", "How late a timer is called, once a second.", counts.loop_lag


def _family(kind: Any, name: str, text: str, labels: Sequence[str], values: Mapping[Any, float]) -> Any:
    family = kind(f"sidestream_{name}", text, labels=labels)
    for key, value in values.items():
        family.add_metric(key if isinstance(key, tuple) else (str(key),), value)
    return family

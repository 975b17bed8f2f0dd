"""What has happened since the start, as plain numbers. `/metrics` reads them.

A request, a connection and a stream are counted once, when they end. `/metrics` asks those that go on for their own numbers.
"""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Final

from sse.sender import Outcome, Sender
from sse.stream import Stream


class Histogram:
    """Counts observed values in buckets. bounds: the upper bounds, ascending."""

    def __init__(self, *bounds: float) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float, times: int = 1) -> None:
        self._counts[bisect_left(self.bounds, value)] += times
        self.sum += value * times

    def buckets(self) -> list[tuple[str, int]]:
        """(upper bound, number of values at or below it), as Prometheus has them: the last bound is infinite."""
        return list(zip([*map(str, self.bounds), "+Inf"], accumulate(self._counts), strict=True))


@dataclass(slots=True)
class Operation:
    """One request to a model. model: as asked for. response_model: as answered. began, first, last: monotonic seconds; of the
    request, the first chunk and the last. chunks: how many came. error: the code of a failure, or `cancelled`."""

    model: str
    response_model: str = ""
    began: float = field(default_factory=time.monotonic)
    first: float | None = None
    last: float = 0.0
    chunks: int = 0
    usage: Any = None
    error: str = ""


MODELS: Final = 50
"""Names of models that are told apart in metrics; clients choose them, so that the others are `other`."""

_DURATIONS: Final = tuple(0.01 * 2**power for power in range(14))
_FIRST: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_BETWEEN: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS: Final = tuple(4**power for power in range(14))

OPERATIONS: Final = {
    "gen_ai_client_operation_duration_seconds": (_DURATIONS, "error_type"),
    "gen_ai_client_operation_time_to_first_chunk_seconds": (_FIRST, ""),
    "gen_ai_client_operation_time_per_output_chunk_seconds": (_BETWEEN, ""),
    "gen_ai_client_token_usage": (_TOKENS, "gen_ai_token_type"),
}
"""Metrics of OpenTelemetry's semantic conventions for generative AI, as Prometheus writes them: bounds, and a label besides."""

OPERATION_LABELS: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model", "gen_ai_response_model")


def _measured(operation: Operation) -> Iterator[tuple[str, float, str, int]]:
    """The metrics that an operation adds to: name, value, the value of the label besides, how many times."""
    duration, first, between, usage = OPERATIONS
    yield duration, time.monotonic() - operation.began, operation.error, 1
    if operation.first is not None:
        yield first, operation.first - operation.began, "", 1
        if operation.chunks > 1:
            yield between, (operation.last - operation.first) / (operation.chunks - 1), "", operation.chunks - 1
    for type, name in (("input", "prompt_tokens"), ("output", "completion_tokens")):
        tokens = operation.usage.get(name) if isinstance(operation.usage, dict) else None
        if isinstance(tokens, int) and not isinstance(tokens, bool) and 0 <= tokens < 1 << 53:
            yield usage, tokens, type, 1


class Counts:
    """watching: the senders of the connections that watch now. sent, events, send_time: totals of the watchers that have ended.

    unanswered: requests whose client left, or stopped reading, before it had its answer. refused: by the limit reached.
    operations: histograms, by metric and by labels. Limit: the time per chunk is the mean of an answer's, counted once for each
    chunk.
    """

    def __init__(self) -> None:
        self.watching: set[Sender] = set()
        self.sent = 0
        self.events = 0
        self.send_time = 0.0
        self.resumes = 0
        self.unanswered = 0
        self.refused: Counter[str] = Counter()
        self.outcomes = Counter({outcome.value: 0 for outcome in Outcome})
        self.ended: Counter[tuple[str, str]] = Counter()  # by state and reason
        self.failures: Counter[str] = Counter()  # by code
        self.requests: Counter[int] = Counter()  # by status
        self.operations: dict[str, dict[tuple[str, ...], Histogram]] = {name: {} for name in OPERATIONS}
        self.first_token = Histogram(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
        self.loop_lag = Histogram(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
        self._models: set[str] = set()

    def asked(self, provider: str, operation: Operation) -> None:
        """A request to a model of the provider's has ended."""
        labels = ("chat", provider, self._told(operation.model[:100]), self._told(operation.response_model[:100]))
        for name, value, label, times in _measured(operation):
            bounds, extra = OPERATIONS[name]
            key = (*labels, label) if extra else labels
            self.operations[name].setdefault(key, Histogram(*bounds)).observe(value, times)
        if operation.first is not None:
            self.first_token.observe(operation.first - operation.began)

    def _told(self, model: str) -> str:
        if model not in self._models and len(self._models) < MODELS:
            self._models.add(model)
        return model if model in self._models else "other"

    def stream_ended(self, stream: Stream) -> None:
        self.ended[stream.state.value, stream.reason or ""] += 1
        if stream.failure is not None:
            self.failures[stream.failure.code] += 1

    def unwatched(self, sender: Sender, outcome: Outcome) -> None:
        self.watching.discard(sender)
        self.outcomes[outcome.value] += 1
        self.sent += sender.sent
        self.events += sender.events
        self.send_time += sender.send_time

"""What has happened since the start, as plain numbers. `/metrics` reads them.

A request, a connection and a stream are counted once, when they end. `/metrics` asks those that go on for their own numbers.
"""

from bisect import bisect_left
from collections import Counter
from itertools import accumulate

from sse.sender import Outcome, Sender
from sse.stream import Stream
from sse.watch import EventStream


class Histogram:
    """Counts observed values in buckets. bounds: the upper bounds, ascending, in seconds."""

    def __init__(self, *bounds: float) -> None:
        self.bounds = bounds
        self.sum = 0.0
        self._counts = [0] * (len(bounds) + 1)

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, int]]:
        """(upper bound, number of values at or below it), as Prometheus has them: the last bound is infinite."""
        return list(zip([*map(str, self.bounds), "+Inf"], accumulate(self._counts), strict=True))


class Counts:
    """watching: the connections that watch now. sent, events, send_time: totals of the watchers that have ended.

    unanswered: requests whose client left, or stopped reading, before it had its answer. refused: by the limit reached.
    """

    def __init__(self) -> None:
        self.watching: set[EventStream] = set()
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
        self.first_token = Histogram(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
        self.loop_lag = Histogram(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)

    def stream_ended(self, stream: Stream) -> None:
        self.ended[stream.state.value, stream.reason or ""] += 1
        if stream.failure is not None:
            self.failures[stream.failure.code] += 1

    def unwatched(self, sender: Sender, outcome: Outcome) -> None:
        self.outcomes[outcome.value] += 1
        self.sent += sender.sent
        self.events += sender.events
        self.send_time += sender.send_time

    def senders(self) -> list[Sender]:
        """The senders of the connections that watch now."""
        return [watcher.sender for watcher in self.watching if watcher.sender is not None]

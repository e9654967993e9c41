"""Measures: the metrics of a worker, for Prometheus."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Final

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from galley.objects.node_cache import NodeCache
from galley_worker.circuit import Circuit
from galley_worker.retry_budget import RetryBudget

_SECONDS: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
_EDGES: Final = (*map(str, _SECONDS), "+Inf")


class _Durations:
    """Durations of the attempts of one lane: their sum, and the count of each bucket."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * len(_EDGES)
        self.seconds = 0.0


class Cache:
    """What the cache of objects counts; `galley.objects.node_cache.NodeCache` has the same attributes."""

    hits = fetches = fetched_bytes = 0


class Measures(Collector):
    """The worker's metrics: attempts by verdict and lane, their duration, slots and lost leases.

    Counted in plain numbers, and converted when the metrics are read: the library's counters take a lock
    for each.
    """

    def __init__(
        self, namespace: str, queue: str, slots: Callable[[], int], busy: Callable[[], int],
        cache: "Cache | NodeCache | None" = None,
    ) -> None:  # fmt: skip
        self._queue = namespace, queue
        self._cache = cache or Cache()
        self._slots = slots
        self._busy = busy
        self._attempts: Counter[tuple[str, str]] = Counter()
        self._durations: dict[str, _Durations] = {}
        self._lost = 0
        self._failed = 0
        self._ticks: Counter[tuple[str, str]] = Counter()
        self._late: dict[str, float] = {}
        self._notes_dropped = 0
        self.circuit: Circuit | None = None
        self.budget: RetryBudget | None = None
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def settled(self, verdict: str, seconds: float, lane: str) -> None:
        """Count an attempt that was settled."""
        self._attempts[lane, verdict] += 1
        durations = self._durations.get(lane)
        if durations is None:
            durations = self._durations[lane] = _Durations()
        durations.counts[bisect_left(_SECONDS, seconds)] += 1
        durations.seconds += seconds

    def lost(self) -> None:
        """Count an attempt dropped with its lease."""
        self._lost += 1

    def failed(self) -> None:
        """Count an attempt that failed outside its handler."""
        self._failed += 1

    def ticked(self, schedule: str, action: str, late: float = 0.0, *, count: int = 1) -> None:
        """Count ticks of a schedule, and by how much the last one was late."""
        self._ticks[schedule, action] += count
        if action == "Fired":
            self._late[schedule] = late

    def note_dropped(self) -> None:
        """Count a note that was not stored: progress, a checkpoint, or a part of an output."""
        self._notes_dropped += 1

    def _open(self) -> int:
        return int(self.circuit is not None and self.circuit.is_open)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics for the library."""
        labels = "namespace", "queue"
        attempts = CounterMetricFamily(
            "galley_attempts", "Attempts ended here, by what followed.", labels=(*labels, "lane", "verdict")
        )
        for (lane, verdict), count in self._attempts.items():
            attempts.add_metric((*self._queue, lane, verdict), count)
        yield attempts
        seconds = HistogramMetricFamily(
            "galley_attempt_seconds", "Time from delivery to verdict.", labels=(*labels, "lane")
        )
        for lane, durations in self._durations.items():
            buckets = list(zip(_EDGES, accumulate(durations.counts), strict=True))
            seconds.add_metric((*self._queue, lane), buckets, durations.seconds)
        yield seconds
        lost = CounterMetricFamily(
            "galley_leases_lost", "Attempts dropped because their lease could not be renewed.", labels=labels
        )
        lost.add_metric(self._queue, self._lost)
        yield lost
        failed = CounterMetricFamily(
            "galley_attempts_failed_internally", "Attempts that failed outside their handler.", labels=labels
        )
        failed.add_metric(self._queue, self._failed)
        yield failed
        ticks = CounterMetricFamily(
            "galley_schedule_ticks", "Ticks of schedules looked at here, by what became of them.",
            labels=(*labels, "schedule", "action"),
        )  # fmt: skip
        for (schedule, action), count in self._ticks.items():
            ticks.add_metric((*self._queue, schedule, action), count)
        yield ticks
        late = GaugeMetricFamily(
            "galley_schedule_late_seconds", "How late the last tick fired here was submitted.",
            labels=(*labels, "schedule"),
        )  # fmt: skip
        for schedule, seconds_late in self._late.items():
            late.add_metric((*self._queue, schedule), seconds_late)
        yield late
        dropped = CounterMetricFamily(
            "galley_notes_dropped", "Parts of output, progress and checkpoints not stored.", labels=labels
        )
        dropped.add_metric(self._queue, self._notes_dropped)
        yield dropped
        delayed = CounterMetricFamily(
            "galley_retries_delayed", "Retries put off by the retry budget of the queue.", labels=labels
        )
        delayed.add_metric(self._queue, self.budget.delayed if self.budget is not None else 0)
        yield delayed
        opened = CounterMetricFamily(
            "galley_circuit_opened", "Times the circuit of this worker opened.", labels=labels
        )
        opened.add_metric(self._queue, self.circuit.opened if self.circuit is not None else 0)
        yield opened
        for name, text, count in (
            (
                "galley_cache_hits",
                "Objects tasks needed that were on the machine.",
                self._cache.hits,
            ),
            ("galley_cache_fetches", "Objects that were fetched from an object store.", self._cache.fetches),
            ("galley_cache_fetched_bytes", "Their bytes.", self._cache.fetched_bytes),
        ):
            counter = CounterMetricFamily(name, text, labels=labels)
            counter.add_metric(self._queue, count)
            yield counter
        for name, text, read in (
            (
                "galley_circuit_open",
                "1 while this worker takes no tasks as all fail, else 0.",
                self._open,
            ),
            ("galley_slots", "Attempts this worker can run at once.", self._slots),
            ("galley_slots_busy", "Attempts under way.", self._busy),
        ):
            gauge = GaugeMetricFamily(name, text, labels=labels)
            gauge.add_metric(self._queue, read())
            yield gauge

"""What a worker counts, for Prometheus."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS: Final = (0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)


class Measures:
    """The worker's metrics: attempts by verdict and lane, their duration, slots and lost leases."""

    def __init__(self, namespace: str, queue: str, slots: Callable[[], int], busy: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        names = {"namespace": namespace, "queue": queue}
        labels = tuple(names)
        attempts = Counter(
            "galley_attempts", "Attempts ended here, by what followed.", (*labels, "lane", "verdict"),
            registry=self._registry,
        )  # fmt: skip
        duration = Histogram(
            "galley_attempt_seconds", "Time from delivery to verdict.", (*labels, "lane"),
            buckets=_SECONDS, registry=self._registry,
        )  # fmt: skip
        lost = Counter(
            "galley_leases_lost", "Attempts dropped because their lease could not be renewed.", labels,
            registry=self._registry,
        )  # fmt: skip
        for name, text, read in (
            ("galley_slots", "Attempts this worker can run at once.", slots),
            ("galley_slots_busy", "Attempts under way.", busy),
        ):
            Gauge(name, text, labels, registry=self._registry).labels(**names).set_function(read)
        self._names = names
        self._attempts = attempts
        self._duration = duration
        self._lost = lost.labels(**names)
        # Looking a labelled metric up costs more than counting with it.
        self._counters: dict[tuple[str, str], Counter] = {}
        self._durations: dict[str, Histogram] = {}

    def settled(self, verdict: str, seconds: float, lane: str) -> None:
        """Count an attempt that came to its verdict."""
        counter = self._counters.get((lane, verdict))
        if counter is None:
            counter = self._attempts.labels(**self._names, lane=lane, verdict=verdict)
            self._counters[lane, verdict] = counter
        counter.inc()
        duration = self._durations.get(lane)
        if duration is None:
            duration = self._durations[lane] = self._duration.labels(**self._names, lane=lane)
        duration.observe(seconds)

    def lost(self) -> None:
        """Count an attempt dropped with its lease."""
        self._lost.inc()

    def text(self) -> bytes:
        """Return all of it in Prometheus' text format."""
        return generate_latest(self._registry)

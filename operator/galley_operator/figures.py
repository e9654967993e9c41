"""The figures of all queues for Prometheus: what waits and runs now, and what was counted since each began.

The counts are those that workers handed over to the broker, so they go on when workers and operators end.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from galley.backlog import QueueBacklog, Totals
from galley.broker import counts
from galley.broker.counts import Counted, CountReader, Times
from galley.broker.errors import BrokerError
from galley.series import Kind, Series

log = logging.getLogger(__name__)

COUNT_SECONDS: Final = 5.0
"""Time between two looks at the counts; those that did not change are not read."""

Queue = tuple[str, str]

QUEUE: Final = ("namespace", "queue")
LANE: Final = (*QUEUE, "lane")

WAITING: Final = Series("galley_queue_waiting_tasks", Kind.GAUGE, "Tasks that wait for a free slot.", LANE)
RUNNING: Final = Series("galley_queue_running_tasks", Kind.GAUGE, "Tasks that workers hold.", LANE)
KEYED: Final = Series(
    "galley_queue_waiting_for_key_tasks", Kind.GAUGE,
    "Tasks that wait under their keys, by what for: `turn`, `permit`, `rate`, or `permit or rate`.",
    (*QUEUE, "reason"),
)  # fmt: skip
OLDEST: Final = Series(
    "galley_queue_oldest_wait_seconds", Kind.GAUGE,
    "Time the oldest waiting task has waited; 0 if none waits.", LANE,
)  # fmt: skip
LATER: Final = Series(
    "galley_queue_later_tasks", Kind.GAUGE, "Tasks that are scheduled, or wait for a retry.", QUEUE
)
DEAD: Final = Series("galley_queue_dead_letters", Kind.GAUGE, "Dead letters that are kept.", QUEUE)
PAUSED: Final = Series("galley_queue_paused", Kind.GAUGE, "1 while `galley pause` holds the queue.", QUEUE)
USED: Final = Series(
    "galley_queue_limit_used",
    Kind.GAUGE,
    "How much of a limit is used, in tasks or bytes.",
    (*QUEUE, "limit"),
)
LIMIT: Final = Series(
    "galley_queue_limit", Kind.GAUGE, "The limit itself: a field of `spec.limits`.", (*QUEUE, "limit")
)
SUBMITTED: Final = Series(
    "galley_queue_submitted_total", Kind.COUNTER, "Tasks submitted, redrives and repeated submits included.",
    QUEUE,
)  # fmt: skip
DEAD_TOTAL: Final = Series(
    "galley_queue_dead_letters_total", Kind.COUNTER, "Dead letters that were written.", QUEUE
)
OUTCOMES: Final = Series(
    "galley_queue_outcomes_total", Kind.COUNTER,
    "Tasks that ended, by outcome: `succeeded`, `failed` or `cancelled`.", (*LANE, "outcome"),
)  # fmt: skip
CONTINUED: Final = Series(
    "galley_queue_continued_attempts_total", Kind.COUNTER,
    "Attempts after which the task continues: `retried`, `deferred`, `handed-back`, or `lost` with a lease.",
    (*LANE, "reason"),
)  # fmt: skip
WAITS: Final = Series(
    "galley_queue_wait_seconds", Kind.HISTOGRAM,
    "Time from when a task could run to the start of its handler, by first deliveries.", LANE,
)  # fmt: skip
ATTEMPTS: Final = Series(
    "galley_queue_attempt_seconds", Kind.HISTOGRAM, "Time from delivery to the end of an attempt.", LANE
)

SERIES: Final = (
    WAITING, RUNNING, KEYED, OLDEST, LATER, DEAD, PAUSED, USED, LIMIT, SUBMITTED, DEAD_TOTAL, OUTCOMES,
    CONTINUED, WAITS, ATTEMPTS,
)  # fmt: skip


@dataclass(slots=True)
class QueueFigures:
    """What is known of one queue."""

    backlog: QueueBacklog | None = None
    totals: Totals | None = None
    counted: Counted = field(default_factory=lambda: Counted({}))


class FiguresOfQueues(Collector):
    """All that is known of all queues, as Prometheus reads it."""

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._clock = clock
        self._of: dict[Queue, QueueFigures] = {}

    def seen(self, queue: Queue, backlog: QueueBacklog) -> None:
        """Take in a backlog; what is not known in it stays as it was."""
        figures = self._of.setdefault(queue, QueueFigures())
        figures.backlog = backlog
        figures.totals = backlog.totals or figures.totals

    def counted(self, queue: Queue, counted: Counted) -> None:
        """Take in what workers counted."""
        self._of.setdefault(queue, QueueFigures()).counted = counted

    def changes(self) -> dict[Queue, int]:
        """Return how often the counts of each queue had changed when it was last seen."""
        return {queue: each.totals.counts for queue, each in self._of.items() if each.totals is not None}

    def forget(self, queue: Queue) -> None:
        """Show a queue no more."""
        self._of.pop(queue, None)

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics for the library."""
        yield from self._gauges()
        yield from self._counters()
        for series, kind in ((WAITS, counts.WAIT), (ATTEMPTS, counts.ATTEMPT)):
            histogram = HistogramMetricFamily(series.name, series.meaning, labels=series.labels)
            for queue, each in self._of.items():
                # Lanes without any as well: a rate needs a sample before the first.
                empty = {str(lane.lane): Times() for lane in each.backlog.lanes} if each.backlog else {}
                for lane, times in (empty | each.counted.times(kind)).items():
                    histogram.add_metric((*queue, lane), times.buckets, times.seconds)
            yield histogram

    def _gauges(self) -> Iterator[Metric]:
        known = [(queue, each.backlog) for queue, each in self._of.items() if each.backlog is not None]
        lanes = [(queue, lane) for queue, backlog in known for lane in backlog.lanes]
        usage = [(queue, used) for queue, backlog in known for used in backlog.usage]
        now = self._clock()

        def waited(since: datetime | None) -> float:
            return max(0.0, (now - since).total_seconds()) if since is not None else 0.0

        yield _gauge(WAITING, (((*queue, lane.lane), lane.waiting) for queue, lane in lanes))
        yield _gauge(RUNNING, (((*queue, lane.lane), lane.in_flight) for queue, lane in lanes))
        yield _gauge(KEYED, (((*queue, backlog.keyed_for), backlog.keyed) for queue, backlog in known))
        yield _gauge(OLDEST, (((*queue, lane.lane), waited(lane.oldest_at)) for queue, lane in lanes))
        yield _gauge(LATER, ((queue, backlog.later) for queue, backlog in known))
        yield _gauge(DEAD, ((queue, totals.dead) for queue, totals in self._totals()))
        yield _gauge(PAUSED, ((queue, backlog.paused) for queue, backlog in known))
        yield _gauge(USED, (((*queue, used.quota), used.used) for queue, used in usage))
        yield _gauge(LIMIT, (((*queue, used.quota), used.limit) for queue, used in usage))

    def _totals(self) -> Iterator[tuple[Queue, Totals]]:
        for queue, each in self._of.items():
            if each.totals is not None:
                yield queue, each.totals

    def _counters(self) -> Iterator[Metric]:
        yield _counter(SUBMITTED, ((queue, totals.submitted) for queue, totals in self._totals()))
        yield _counter(DEAD_TOTAL, ((queue, totals.dead_letters) for queue, totals in self._totals()))
        for series, names in ((OUTCOMES, counts.OUTCOMES), (CONTINUED, counts.CONTINUED)):
            yield _counter(
                series,
                (
                    ((*queue, lane, name), number)
                    for queue, each in self._of.items()
                    for lane, name, number in _from_zero(each, names)
                ),
            )


def _from_zero(figures: QueueFigures, names: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    """Yield the counts of each lane and name, 0 included: a rate needs a sample before the first."""
    lanes = [lane.lane for lane in figures.backlog.lanes] if figures.backlog is not None else []
    zeros: dict[tuple[str, str], int] = {(lane, name): 0 for lane in lanes for name in names}
    found: Mapping[tuple[str, str], int] = {
        (lane, name): number for lane, name, number in figures.counted.of(*names)
    }
    yield from ((lane, name, number) for (lane, name), number in (zeros | dict(found)).items())


def _gauge(series: Series, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    gauge = GaugeMetricFamily(series.name, series.meaning, labels=series.labels)
    for labels, value in samples:
        gauge.add_metric(labels, value)
    return gauge


def _counter(series: Series, samples: Iterable[tuple[tuple[str, ...], float]]) -> Metric:
    counter = CounterMetricFamily(series.name.removesuffix("_total"), series.meaning, labels=series.labels)
    for labels, value in samples:
        counter.add_metric(labels, value)
    return counter


class CountKeeper:
    """Takes in what is known of queues, and reads their counts as they change, for as long as `run` runs."""

    def __init__(
        self,
        reader: CountReader,
        figures: FiguresOfQueues,
        backlogs: Callable[[], Iterable[tuple[Queue, QueueBacklog]]],
    ) -> None:
        """Args: backlogs: yields what is known of each queue's tasks."""
        self._reader, self._figures, self._backlogs = reader, figures, backlogs
        self._read: dict[Queue, int] = {}

    async def run(self) -> None:
        """Read until cancelled; errors are logged, and what could not be read stays as it was."""
        while True:
            await self.look()
            await asyncio.sleep(COUNT_SECONDS)

    async def look(self) -> None:
        """Take in backlogs, and read the counts that have changed."""
        for queue, backlog in self._backlogs():
            self._figures.seen(queue, backlog)
        changes = self._figures.changes()
        for queue in [*self._read]:
            if changes.get(queue, 0) < self._read[queue]:
                # It is gone, or its stream was made again.
                self._reader.forget(*queue)
                del self._read[queue]
        for queue, change in changes.items():
            if change == self._read.get(queue, 0):
                continue
            try:
                counted = await self._reader.read(*queue)
            except BrokerError as error:
                log.warning("counts not read", extra={
                    "namespace": queue[0], "queue": queue[1], "error": str(error)})  # fmt: skip
                continue
            self._figures.counted(queue, counted)
            self._read[queue] = change

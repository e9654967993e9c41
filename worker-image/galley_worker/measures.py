"""Measures: the metrics of a worker, counted in plain numbers."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from galley.broker.counts import ATTEMPT, EXPIRED, LOST, MISSED, TOPICS, WAIT, Name, Times
from galley.logs import tracebacks
from galley.objects.node_cache import NodeCache
from galley.series import Kind, Series
from galley_worker.circuit import Circuit
from galley_worker.retry_budget import RetryBudget

if TYPE_CHECKING:
    from prometheus_client import Metric

QUEUE: Final = ("namespace", "queue")

ATTEMPTS: Final = Series(
    "galley_attempts_total", Kind.COUNTER, "Attempts that ended here, by what followed.",
    (*QUEUE, "lane", "verdict"),
)  # fmt: skip
ATTEMPT_SECONDS: Final = Series(
    "galley_attempt_seconds", Kind.HISTOGRAM, "Time from delivery to verdict.", (*QUEUE, "lane")
)
WAIT_SECONDS: Final = Series(
    "galley_wait_seconds", Kind.HISTOGRAM,
    "Time from when a task could run to the start of its handler, by first deliveries.", (*QUEUE, "lane"),
)  # fmt: skip
LEASES_LOST: Final = Series(
    "galley_leases_lost_total",
    Kind.COUNTER,
    "Attempts dropped because their lease could not be renewed.",
    QUEUE,
)
FAILED: Final = Series(
    "galley_attempts_failed_internally_total",
    Kind.COUNTER,
    "Attempts that failed outside their handler.",
    QUEUE,
)
UNEXPECTED: Final = Series(
    "galley_worker_unexpected_errors_total", Kind.COUNTER,
    "Exceptions the worker does not expect, by the part that raised them, or the logger: each is a bug.",
    (*QUEUE, "where"),
)  # fmt: skip
TICKS: Final = Series(
    "galley_schedule_ticks_total", Kind.COUNTER,
    "Ticks of schedules looked at here, by `action`: `Fired`, `Skipped`, `Missed` or `Refused`.",
    (*QUEUE, "schedule", "action"),
)  # fmt: skip
TICKS_LATE: Final = Series(
    "galley_schedule_late_seconds", Kind.GAUGE, "How late the last tick fired here was submitted.",
    (*QUEUE, "schedule"),
)  # fmt: skip
EVENTS: Final = Series(
    "galley_events_total", Kind.COUNTER,
    "Events looked at here for each subscription, by `action`: `Copied`, `Filtered`, `Missed`, as a dead "
    "letter, or `Expired`, since it could not be copied in time.",
    (*QUEUE, "topic", "action"),
)  # fmt: skip
EVENTS_HELD_BACK: Final = Series(
    "galley_events_held_back_total", Kind.COUNTER,
    "Times an event could not be copied yet, as when the queue is full; it is delivered again.",
    (*QUEUE, "topic"),
)  # fmt: skip
LIFE_MISSED: Final = Series(
    "galley_life_events_missed_total", Kind.COUNTER,
    "Life events that the topic in `spec.lifeEvents` did not take.", QUEUE,
)  # fmt: skip
WORKFLOWS: Final = Series(
    "galley_workflows_ended_total", Kind.COUNTER,
    "Workflows that this worker ended, by `outcome`: `succeeded` or `failed`.", (*QUEUE, "outcome"),
)  # fmt: skip
WORKFLOW_SECONDS: Final = Series(
    "galley_workflow_seconds", Kind.HISTOGRAM,
    "Time from the submission of a workflow to its end, of those that this worker ended.",
    (*QUEUE, "outcome"),
)  # fmt: skip
JOINS: Final = Series(
    "galley_joins_total", Kind.COUNTER, "Joins of workflows that became complete here.", QUEUE
)
BATCH_SIZE: Final = Series(
    "galley_batch_size", Kind.HISTOGRAM, "Tasks whose inputs a handler got by one call.", (*QUEUE, "handler")
)
NOTES_DROPPED: Final = Series(
    "galley_notes_dropped_total", Kind.COUNTER,
    "Parts of output, progress and checkpoints that were not stored.", QUEUE,
)  # fmt: skip
COUNTS_GIVEN_UP: Final = Series(
    "galley_counts_given_up_total", Kind.COUNTER,
    "Numbers for `galley_queue_...` that may not have reached NATS, since it was away too long.", QUEUE,
)  # fmt: skip
RETRIES_DELAYED: Final = Series(
    "galley_retries_delayed_total", Kind.COUNTER, "Retries put off by the retry budget of the queue.", QUEUE
)
CIRCUIT_OPENED: Final = Series(
    "galley_circuit_opened_total", Kind.COUNTER, "Times the circuit of this worker opened.", QUEUE
)
CIRCUIT: Final = Series(
    "galley_circuit_open", Kind.GAUGE, "1 while this worker takes no tasks since all fail, else 0.", QUEUE
)
CACHE_HITS: Final = Series(
    "galley_cache_hits_total", Kind.COUNTER, "Objects tasks needed that were on the machine already.", QUEUE
)
CACHE_FETCHES: Final = Series(
    "galley_cache_fetches_total", Kind.COUNTER, "Objects that were fetched from an object store.", QUEUE
)
CACHE_BYTES: Final = Series("galley_cache_fetched_bytes_total", Kind.COUNTER, "Their bytes.", QUEUE)
SLOTS: Final = Series("galley_slots", Kind.GAUGE, "Attempts this worker can run at once.", QUEUE)
BUSY: Final = Series("galley_slots_busy", Kind.GAUGE, "Attempts that run now.", QUEUE)

SERIES: Final = (
    ATTEMPTS, ATTEMPT_SECONDS, WAIT_SECONDS, SLOTS, BUSY, LEASES_LOST, FAILED, UNEXPECTED, RETRIES_DELAYED,
    CIRCUIT_OPENED, CIRCUIT, TICKS, TICKS_LATE, EVENTS, EVENTS_HELD_BACK,
    WORKFLOWS, WORKFLOW_SECONDS, JOINS,
    BATCH_SIZE, LIFE_MISSED, NOTES_DROPPED, COUNTS_GIVEN_UP, CACHE_HITS, CACHE_FETCHES,
    CACHE_BYTES,
)  # fmt: skip

_MISSED: Final = {"Missed": MISSED, "Expired": EXPIRED}
"""By what became of an event, the name it is counted by for those who look at its topic."""


class Cache:
    """What the cache of objects counts; `galley.objects.node_cache.NodeCache` has the same attributes."""

    hits = fetches = fetched_bytes = 0


class Measures:
    """The worker's metrics: attempts by verdict and lane, their duration, slots and lost leases.

    They are converted when they are read: the counters of Prometheus's library take a lock for each, and it
    takes long to import, which would delay the first task.
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
        self._durations: dict[str, Times] = {}
        self._waits: dict[str, Times] = {}
        self._lost: Counter[str] = Counter()
        self._failed = 0
        self._ticks: Counter[tuple[str, str]] = Counter()
        self._late: dict[str, float] = {}
        self._events: Counter[tuple[str, str]] = Counter()
        self._held_back: Counter[str] = Counter()
        self._workflows: dict[str, Times] = {}
        self._joins = 0
        self._notes_dropped = 0
        self._life_missed = 0
        self.circuit: Circuit | None = None
        self.budget: RetryBudget | None = None
        self.batch_sizes: Callable[[], Mapping[str, Counter[int]]] = dict
        self.counts_given_up: Callable[[], int] = lambda: 0

    def settled(self, verdict: str, seconds: float, lane: str) -> None:
        """Count an attempt that was settled."""
        self._attempts[lane, verdict] += 1
        durations = self._durations.get(lane)
        if durations is None:
            durations = self._durations[lane] = Times()
        durations.add(seconds)

    def waited(self, seconds: float, lane: str) -> None:
        """Count how long a task waited until its handler was started, since it could be."""
        waits = self._waits.get(lane)
        if waits is None:
            waits = self._waits[lane] = Times()
        waits.add(max(0.0, seconds))

    def totals(self, ended: Counter[Name]) -> Counter[Name]:
        """Return all that outlives this worker.

        Args:
            ended: what it settled, by lane and how it ended.
        """
        found = Counter(ended)
        found.update({(lane, LOST): count for lane, count in self._lost.items()})
        for (topic, action), count in self._events.items():
            if action in _MISSED:
                found[TOPICS, f"{_MISSED[action]}_{topic}"] = count
        for kind, lanes in ((WAIT, self._waits), (ATTEMPT, self._durations)):
            for lane, times in lanes.items():
                found.update({(lane, name): count for name, count in times.named(kind)})
        return found

    def lost(self, lane: str) -> None:
        """Count an attempt dropped with its lease."""
        self._lost[lane] += 1

    def failed(self) -> None:
        """Count an attempt that failed outside its handler."""
        self._failed += 1

    def ticked(self, schedule: str, action: str, late: float = 0.0, *, count: int = 1) -> None:
        """Count ticks of a schedule, and by how much the last one was late."""
        self._ticks[schedule, action] += count
        if action == "Fired":
            self._late[schedule] = late

    def copied(self, topic: str, action: str) -> None:
        """Count an event of a topic, by what became of it for one subscription."""
        self._events[topic, action] += 1

    def held_back(self, topic: str) -> None:
        """Count an event that could not be copied yet, and is delivered again."""
        self._held_back[topic] += 1

    def workflow_ended(self, outcome: str, seconds: float) -> None:
        """Count a workflow that was ended here, and how long it took."""
        self._workflows.setdefault(outcome, Times()).add(max(0.0, seconds))

    def joined(self) -> None:
        """Count a join that became complete."""
        self._joins += 1

    def note_dropped(self) -> None:
        """Count a note that was not stored: progress, a checkpoint, or a part of an output."""
        self._notes_dropped += 1

    def life_missed(self) -> None:
        """Count a life event that was not stored."""
        self._life_missed += 1

    def _open(self) -> int:
        return int(self.circuit is not None and self.circuit.is_open)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        from galley_worker.families import text_of  # noqa: PLC0415 - imports the library

        return text_of(self.collect)

    def collect(self) -> "Iterator[Metric]":
        """Yield all metrics for the library."""
        from galley_worker.families import Families  # noqa: PLC0415 - imports the library

        families = Families(self._queue)
        yield families.counter(
            ATTEMPTS, (((lane, verdict), count) for (lane, verdict), count in self._attempts.items())
        )
        yield families.histogram(ATTEMPT_SECONDS, self._durations)
        yield families.histogram(WAIT_SECONDS, self._waits)
        yield families.sizes(BATCH_SIZE, self.batch_sizes())
        yield families.counter(UNEXPECTED, (((where,), count) for where, count in tracebacks().items()))
        ticks = (((schedule, action), count) for (schedule, action), count in self._ticks.items())
        yield families.counter(TICKS, ticks)
        yield families.gauge(TICKS_LATE, (((schedule,), late) for schedule, late in self._late.items()))
        events = ((names, count) for names, count in self._events.items())
        yield families.counter(EVENTS, events)
        held_back = (((topic,), count) for topic, count in self._held_back.items())
        yield families.counter(EVENTS_HELD_BACK, held_back)
        ended = (((outcome,), sum(times.counts)) for outcome, times in self._workflows.items())
        yield families.counter(WORKFLOWS, ended)
        yield families.histogram(WORKFLOW_SECONDS, self._workflows)
        for series, count in (
            (JOINS, self._joins),
            (LEASES_LOST, self._lost.total()),
            (FAILED, self._failed),
            (LIFE_MISSED, self._life_missed),
            (NOTES_DROPPED, self._notes_dropped),
            (COUNTS_GIVEN_UP, self.counts_given_up()),
            (RETRIES_DELAYED, self.budget.delayed if self.budget is not None else 0),
            (CIRCUIT_OPENED, self.circuit.opened if self.circuit is not None else 0),
            (CACHE_HITS, self._cache.hits),
            (CACHE_FETCHES, self._cache.fetches),
            (CACHE_BYTES, self._cache.fetched_bytes),
        ):
            yield families.counter(series, (((), count),))
        for series, value in ((CIRCUIT, self._open()), (SLOTS, self._slots()), (BUSY, self._busy())):
            yield families.gauge(series, (((), value),))

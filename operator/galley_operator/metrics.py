"""Figures of the operator for Prometheus; those of queues' tasks are in `galley_operator.figures`."""

from collections.abc import Callable, Iterable
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from galley.resources.queue_status import ScalingLimit
from galley.series import Kind, Series
from galley_operator.broker_figures import BrokerFigures
from galley_operator.figures import QUEUE, FiguresOfQueues
from galley_operator.topic_figures import TopicFigures

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

QUEUES: Final = Series("galley_operator_queues", Kind.GAUGE, "TaskQueues served.")
QUEUES_READY: Final = Series(
    "galley_operator_queues_ready", Kind.GAUGE, "TaskQueues whose condition `Ready` is True."
)
READY: Final = Series(
    "galley_operator_queue_ready",
    Kind.GAUGE,
    "1 if the condition `Ready` of a TaskQueue is True, else 0.",
    QUEUE,
)
WORKERS: Final = Series(
    "galley_operator_workers", Kind.GAUGE,
    "Workers of a queue by `state`: `needed` by the work, `desired` within the limits, `present`, and of "
    "those `starting`, `ready`, `draining` or `busy`: running a task, in any of these states.",
    (*QUEUE, "state"),
)  # fmt: skip
ARRIVALS: Final = Series(
    "galley_operator_arrivals_per_second", Kind.GAUGE, "Tasks that become due in a second.", QUEUE
)
TASK_SECONDS: Final = Series(
    "galley_operator_task_seconds", Kind.GAUGE, "Time a task takes of a slot, on average.", QUEUE
)
START_SECONDS: Final = Series(
    "galley_operator_worker_start_seconds", Kind.GAUGE, "Time a worker takes to start.", QUEUE
)
HELD: Final = Series(
    "galley_operator_scaling_held", Kind.GAUGE,
    "1 while the number of workers is held because something is not known.", QUEUE,
)  # fmt: skip
LIMIT: Final = Series(
    "galley_operator_scaling_limit", Kind.GAUGE,
    "1 for the `limit` that keeps the number of workers from what the work needs, as in `status.scaling`.",
    (*QUEUE, "limit"),
)  # fmt: skip
SCALINGS: Final = Series(
    "galley_operator_scalings_total", Kind.COUNTER, "Changes of the number of workers, `out` or `in`.",
    (*QUEUE, "direction"),
)  # fmt: skip
RECONCILE_SECONDS: Final = Series(
    "galley_operator_reconcile_seconds", Kind.HISTOGRAM, "Time to reconcile a queue's streams and objects."
)
RECONCILE_ERRORS: Final = Series(
    "galley_operator_reconcile_errors_total", Kind.COUNTER, "Reconciles of a queue that failed, by reason.",
    ("reason",),
)  # fmt: skip
STATUS_WRITES: Final = Series(
    "galley_operator_queue_status_writes_total", Kind.COUNTER, "Writes of a TaskQueue's status."
)
FAULTS: Final = Series(
    "galley_operator_unexpected_errors_total", Kind.COUNTER,
    "Exceptions the operator does not expect: each is a bug.", ("where",),
)  # fmt: skip
INTERRUPTED: Final = Series(
    "galley_operator_loop_interruptions_total", Kind.COUNTER,
    "Loops of the operator that an error ended which it expects, such as NATS being away; each starts again.",
    ("where",),
)  # fmt: skip
LOOP_LAG: Final = Series("galley_operator_loop_lag_seconds", Kind.GAUGE, "Lateness of the event loop.")
LEADING: Final = Series("galley_operator_leading", Kind.GAUGE, "1 if this replica leads, else 0.")
SERVED: Final = Series(
    "galley_operator_namespace_served", Kind.GAUGE,
    "1 while this leader serves a namespace, 0 while its Lease `galley-serves` keeps it from that.",
    ("namespace",),
)  # fmt: skip

API_REQUESTS: Final = Series(
    "galley_operator_api_requests_total", Kind.COUNTER, "Requests the API server answered."
)
API_WITHOUT_ROOM: Final = Series(
    "galley_operator_api_requests_without_room_total",
    Kind.COUNTER,
    "Requests it refused with 429.",
)
CERTIFICATE: Final = Series(
    "galley_operator_certificate_expiry_timestamp_seconds", Kind.GAUGE,
    "When the certificate of the chart's NATS ends, in seconds since 1970.",
)  # fmt: skip
ACTIVE_TASKS: Final = Series("galley_operator_active_tasks", Kind.GAUGE, "Task objects that have not ended.")
CONNECTED: Final = Series(
    "galley_operator_broker_connected", Kind.GAUGE, "1 while there is a connection to NATS, else 0."
)
CONNECTIONS: Final = Series(
    "galley_operator_broker_connections_total", Kind.COUNTER, "Connections to NATS that were made."
)
ADMITTED: Final = Series(
    "galley_operator_tasks_admitted_total", Kind.COUNTER, "Tasks this process has given to NATS."
)
TASK_STATUS_WRITES: Final = Series(
    "galley_operator_task_status_writes_total", Kind.COUNTER, "Writes of a Task's status."
)
TASK_STATUS_WAITING: Final = Series(
    "galley_operator_task_status_waiting", Kind.GAUGE, "Statuses of Tasks that wait to be written."
)

SERIES: Final = (
    LEADING, SERVED, QUEUES, QUEUES_READY, READY, RECONCILE_SECONDS, RECONCILE_ERRORS, STATUS_WRITES, WORKERS,
    SCALINGS, HELD, LIMIT, ARRIVALS, TASK_SECONDS, START_SECONDS, CONNECTED, CONNECTIONS, API_REQUESTS,
    API_WITHOUT_ROOM, ACTIVE_TASKS, ADMITTED, TASK_STATUS_WRITES, TASK_STATUS_WAITING, CERTIFICATE,
    LOOP_LAG, FAULTS, INTERRUPTED,
)  # fmt: skip


class _Read(Collector):
    """A figure that another part keeps, read when it is asked for."""

    def __init__(self, series: Series, read: Callable[[], float]) -> None:
        self._series, self._read = series, read

    def collect(self) -> list[Metric]:
        name, meaning = self._series.name, self._series.meaning
        if self._series.kind is Kind.COUNTER:
            return [CounterMetricFamily(name.removesuffix("_total"), meaning, value=self._read())]
        return [GaugeMetricFamily(name, meaning, value=self._read())]


class OperatorMetrics:
    """What one operator process counts."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._of_queue: list[Gauge] = []
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.tasks = FiguresOfQueues()
        self.broker = BrokerFigures()
        registry.register(self.tasks)
        registry.register(self.broker)
        self.topics = TopicFigures()
        registry.register(self.topics)
        self.ready, self.held = self._gauge(READY), self._gauge(HELD)
        self.workers, self.limit = self._gauge(WORKERS), self._gauge(LIMIT)
        self.arrivals, self.task_seconds = self._gauge(ARRIVALS), self._gauge(TASK_SECONDS)
        self.start_seconds = self._gauge(START_SECONDS)
        self.loop_lag, self.leading = self._gauge(LOOP_LAG), self._gauge(LEADING)
        self.served = self._gauge(SERVED)
        self.scalings, self.reconcile_errors = self._counter(SCALINGS), self._counter(RECONCILE_ERRORS)
        self.queue_status_writes, self.faults = self._counter(STATUS_WRITES), self._counter(FAULTS)
        self.interrupted = self._counter(INTERRUPTED)
        self.reconcile_seconds = Histogram(
            RECONCILE_SECONDS.name, RECONCILE_SECONDS.meaning, buckets=_SECONDS, registry=registry
        )

    def _gauge(self, series: Series) -> Gauge:
        gauge = Gauge(series.name, series.meaning, series.labels, registry=self._registry)
        if series.labels == QUEUE:
            self._of_queue.append(gauge)
        return gauge

    def _counter(self, series: Series) -> Counter:
        return Counter(series.name, series.meaning, series.labels, registry=self._registry)

    def figure(self, series: Series, read: Callable[[], float]) -> None:
        """Show what another part keeps."""
        self._registry.register(_Read(series, read))

    def forget(self, namespace: str, queue: str) -> None:
        """Show a queue no more."""
        self.tasks.forget((namespace, queue))
        for state in ("desired", "present", "needed", "starting", "ready", "draining", "busy"):
            self.workers.remove(namespace, queue, state)
        for limit in ScalingLimit:
            self.limit.remove(namespace, queue, limit)
        for direction in ("out", "in"):
            self.scalings.remove(namespace, queue, direction)
        for gauge in self._of_queue:
            gauge.remove(namespace, queue)

    def families(self) -> Iterable[Metric]:
        """Return the figures for OTLP."""
        return self._registry.collect()

    def page(self) -> bytes:
        """Return the figures as Prometheus reads them."""
        return generate_latest(self._registry)

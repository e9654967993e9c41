"""Figures of the operator for Prometheus."""

from collections.abc import Callable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class OperatorMetrics:
    """What one operator process counts."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._figures: list[Gauge] = []
        self.queues = Gauge("galley_operator_queues", "TaskQueues served", registry=registry)
        self.queues_ready = Gauge(
            "galley_operator_queues_ready", "TaskQueues whose condition Ready is True", registry=registry
        )
        self.workers = Gauge(
            "galley_operator_workers",
            "Workers of a queue: needed, desired, present and ready",
            ["namespace", "queue", "state"],
            registry=registry,
        )
        self.waiting = Gauge(
            "galley_operator_waiting_tasks",
            "Tasks of a queue that wait for a free slot",
            ["namespace", "queue"],
            registry=registry,
        )
        self.running = self._of_queue("galley_operator_running_tasks", "Tasks of a queue that workers hold")
        self.oldest = self._of_queue(
            "galley_operator_oldest_wait_seconds", "Time the oldest waiting task has waited"
        )
        self.arrivals = self._of_queue(
            "galley_operator_arrivals_per_second", "Tasks that become due in a second"
        )
        self.task_seconds = self._of_queue(
            "galley_operator_task_seconds", "Time a task takes of a slot, on average"
        )
        self.start_seconds = self._of_queue(
            "galley_operator_worker_start_seconds", "Time a worker takes to start"
        )
        self.held = self._of_queue(
            "galley_operator_scaling_held",
            "1 while the number of workers is held because something is not known",
        )
        self.scalings = Counter(
            "galley_operator_scalings_total",
            "Changes of the number of workers",
            ["namespace", "queue", "direction"],
            registry=registry,
        )
        self.reconcile_seconds = Histogram(
            "galley_operator_reconcile_seconds",
            "Time to reconcile a queue's streams and objects",
            buckets=_SECONDS,
            registry=registry,
        )
        self.reconcile_errors = Counter(
            "galley_operator_reconcile_errors_total",
            "Reconciles of a queue that ended in an error",
            ["reason"],
            registry=registry,
        )
        self.queue_status_writes = Counter(
            "galley_operator_queue_status_writes_total", "Writes of a TaskQueue's status", registry=registry
        )
        self.faults = Counter(
            "galley_operator_unexpected_errors_total",
            "Exceptions the operator does not expect, and loops it started again",
            ["where"],
            registry=registry,
        )
        self.loop_lag = Gauge(
            "galley_operator_loop_lag_seconds",
            "Lateness of the event loop",
            registry=registry,
        )
        self.leading = Gauge("galley_operator_leading", "1 if this replica leads", registry=registry)

    def _of_queue(self, name: str, meaning: str) -> Gauge:
        gauge = Gauge(name, meaning, ["namespace", "queue"], registry=self._registry)
        self._figures.append(gauge)
        return gauge

    def figure(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Show what another part counts, as `galley_operator_<name>`."""
        Gauge(f"galley_operator_{name}", meaning, registry=self._registry).set_function(read)

    def forget(self, namespace: str, queue: str) -> None:
        """Show a queue no more."""
        for state in ("desired", "present", "ready", "needed"):
            self._remove(self.workers, namespace, queue, state)
        for gauge in (self.waiting, *self._figures):
            self._remove(gauge, namespace, queue)

    def page(self) -> bytes:
        """Return the figures as Prometheus reads them."""
        return generate_latest(self._registry)

    @staticmethod
    def _remove(gauge: Gauge, *labels: str) -> None:
        try:
            gauge.remove(*labels)
        except KeyError:
            return

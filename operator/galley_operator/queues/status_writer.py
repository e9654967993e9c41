"""Writing what is found of queues into their status: at once what changed, figures now and then."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from galley.backlog import QueueBacklog, Unknown
from galley.resources import TaskQueueStatus
from galley.resources.condition import Truth, condition
from galley.resources.queue_status import ScalingLimit
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ClusterError, ObjectNotFound
from galley_operator.cluster.resource import TASKQUEUES
from galley_operator.faults import Faults
from galley_operator.fleet.fleet import WorkerPhase, Workforce
from galley_operator.fleet.names import OPERATOR
from galley_operator.metrics import OperatorMetrics
from galley_operator.queues.conditions import READY, Situation
from galley_operator.queues.queues import Queues
from galley_operator.queues.reconcile import Reconciled
from galley_operator.queues.scaling_condition import Interference
from galley_operator.queues.served_queue import ServedQueue
from galley_operator.queues.status import occurrences, status_of, urgent

log = logging.getLogger(__name__)

LOOK_SECONDS: Final = 1.0
"""Time between two looks, and between two writes of one queue at least."""

FIGURES_SECONDS: Final = 5.0
"""Time between two writes of one queue if only figures changed."""

REFUSED_SECONDS: Final = 10.0
"""Pause after a write that failed: an API server in trouble needs no hammering."""

AT_ONCE: Final = 4
"""Writes under way at once."""


class QueueStatusWriter:
    """Writes for as long as `run` runs; `write_all` once."""

    def __init__(
        self,
        cluster: Cluster,
        queues: Queues,
        metrics: OperatorMetrics,
        faults: Faults,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._queues, self._metrics = cluster, queues, metrics
        self._faults, self._clock = faults, clock

    async def run(self) -> None:
        """Write what changed, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            next_look = loop.time() + LOOK_SECONDS
            await self.write_all()
            await asyncio.sleep(max(0.0, next_look - loop.time()))

    @property
    def ready(self) -> int:
        """How many queues are Ready, as was last written."""
        return sum(_is_ready(served.written) for served in self._queues.served.values())

    async def write_all(self) -> None:
        """Write what changed of each queue since it was last written."""
        room = asyncio.Semaphore(AT_ONCE)

        async def write(served: ServedQueue) -> None:
            async with room:
                try:
                    await self._write(served)
                except Exception as error:
                    self._faults.caught("queue status", error, "/".join(served.found.key))
                    served.write_again_at = asyncio.get_running_loop().time() + REFUSED_SECONDS

        async with asyncio.TaskGroup() as group:
            for served in list(self._queues.served.values()):
                if served.found_from is None or served.found_from != _source(served):
                    group.create_task(write(served))

    async def _write(self, served: ServedQueue) -> None:
        if not _looked_at(served):
            return
        source = _source(served)
        status = await self._found(served)
        self._show(served, status)
        if status == served.written:
            served.found_from = source
            return
        now = asyncio.get_running_loop().time()
        pause = 0.0 if urgent(status, served.written) else FIGURES_SECONDS
        if now < served.write_again_at or now - served.written_at < pause:
            return
        labels = {"namespace": served.found.namespace, "queue": served.found.name}
        try:
            await self._cluster.apply(
                TASKQUEUES, _body(served, status), manager=OPERATOR, subresource="status"
            )
        except ObjectNotFound:
            return
        except ClusterError as error:
            log.warning("queue status not written", extra=labels | {"error": str(error), "hint": error.hint})
            served.write_again_at = now + REFUSED_SECONDS
            return
        self._metrics.queue_status_writes.inc()
        for each in occurrences(served.found, status, served.written):
            self._queues.occur(each)
        served.written, served.written_at = status, now

    async def _found(self, served: ServedQueue) -> TaskQueueStatus:
        runtime, outcome = served.runtime, served.outcome or Reconciled()
        decision = runtime.scaler.last if runtime is not None else None
        signals = runtime.scaler.signals if runtime is not None else None
        backlog = signals.backlog if signals is not None else None
        situation = Situation(
            served.found.generation,
            outcome.streams,
            outcome.children,
            await runtime.workforce() if runtime is not None else None,
            runtime.trouble if runtime is not None else None,
            decision.desired if decision is not None else 0,
            served.found.queue,
            backlog.waiting if isinstance(backlog, QueueBacklog) else 0,
            backlog.usage if isinstance(backlog, QueueBacklog) else (),
            decision,
            held=isinstance(backlog, QueueBacklog) and backlog.paused,
            interference=_interference(served),
            withdrawn=outcome.withdrawn,
            budget_problem=runtime.scaler.budget_problem if runtime is not None else "",
        )
        return status_of(
            served.found.name,
            situation,
            backlog,
            decision,
            served.dead_letters,
            served.written,
            self._clock(),
        )

    def _show(self, served: ServedQueue, status: TaskQueueStatus) -> None:
        name = served.found.namespace, served.found.name
        self._metrics.ready.labels(*name).set(_is_ready(status))
        if (scaling := status.scaling) is not None:
            self._metrics.held.labels(*name).set(scaling.limit is ScalingLimit.SIGNALS)
            for limit in ScalingLimit:
                self._metrics.limit.labels(*name, limit).set(scaling.limit is limit)
            for gauge, figure in (
                (self._metrics.arrivals, scaling.arrivals_per_second),
                (self._metrics.task_seconds, scaling.task_seconds),
                (self._metrics.start_seconds, scaling.start_seconds),
            ):
                if figure is not None:
                    gauge.labels(*name).set(figure)
            if scaling.needed is not None:
                self._metrics.workers.labels(*name, "needed").set(scaling.needed)
        if (workers := status.workers) is not None:
            self._metrics.workers.labels(*name, "desired").set(workers.desired)
            self._metrics.workers.labels(*name, "present").set(workers.replicas)
            self._metrics.workers.labels(*name, "ready").set(workers.ready)
        if served.runtime is not None and (signals := served.runtime.scaler.signals) is not None:
            self._show_workers(name, signals.workforce)

    def _show_workers(self, name: tuple[str, str], workforce: Workforce | Unknown) -> None:
        if not isinstance(workforce, Workforce):
            return  # what is not known is not 0
        present = workforce.present
        states = Counter(worker.phase for worker in present)
        for state, number in (
            ("starting", states[WorkerPhase.STARTING]),
            ("draining", states[WorkerPhase.DRAINING]),
            ("busy", sum(bool(worker.busy) for worker in present)),
        ):
            self._metrics.workers.labels(*name, state).set(number)


def _body(served: ServedQueue, status: TaskQueueStatus) -> dict[str, Any]:
    metadata = {
        "namespace": served.found.namespace,
        "name": served.found.name,
        # Not of another queue that took its name meanwhile.
        "uid": served.found.uid,
    }
    written = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {"metadata": metadata, "status": written}


def _looked_at(served: ServedQueue) -> bool:
    """Whether there is something to be said that will still be true in a second."""
    return served.outcome is not None and (served.runtime is None or served.runtime.scaler.last is not None)


def _interference(served: ServedQueue) -> Interference | None:
    """Return what another client did lately to the Deployment."""
    now = asyncio.get_running_loop().time()
    by_fleet = served.runtime.interference if served.runtime is not None else None
    found = (each for each in (served.interference, by_fleet) if each is not None and now < each.until)
    return max(found, key=lambda each: each.until, default=None)


def _source(served: ServedQueue) -> object:
    """Return what the status of a queue at rest depends on; None for a queue that may change at any time."""
    scaler = served.runtime.scaler if served.runtime is not None else None
    if scaler is None or not scaler.resting:
        return None
    return served.found, served.outcome, served.dead_letters, scaler.last, _interference(served)


def _is_ready(status: TaskQueueStatus) -> bool:
    ready = condition(status.conditions, READY)
    return ready is not None and ready.status is Truth.TRUE

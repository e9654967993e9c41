"""What the leader does for one namespace, or for all of the cluster's: queues, Tasks, schedules, topics.

Each namespace that is served has parts of its own; they end together when another installation takes it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from galley.broker.connection import Broker
from galley_operator.broker_access import BrokerAccess
from galley_operator.cluster.client import Cluster
from galley_operator.data_path import DataPath, DataPathSettings, TaskView
from galley_operator.faults import Faults
from galley_operator.fleet.workloads import Queue, Workloads
from galley_operator.key_queue import KeyQueue
from galley_operator.metrics import OperatorMetrics
from galley_operator.queues.queues import Queues
from galley_operator.queues.shared_by_queues import SharedByQueues
from galley_operator.queues.status_writer import QueueStatusWriter
from galley_operator.schedules.keeper import ScheduleKeeper
from galley_operator.settings import OperatorSettings
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.topics.keeper import TopicsKeeper
from galley_operator.workflows.keeper import WorkflowKeeper

log = logging.getLogger(__name__)

_FLUSH_SECONDS: Final = 5.0
"""How long the last writes of status may take before the parts end."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the parts of all namespaces have in common."""

    cluster: Cluster
    broker: Broker
    settings: OperatorSettings
    access: BrokerAccess
    workloads: Workloads
    metrics: OperatorMetrics
    faults: Faults
    queues: SharedByQueues
    watch: Callable[[str | None, KnownQueues], Awaitable[None]]
    """Keeps what is known of the TaskQueues of a namespace up to date."""


class Scope:
    """The parts of one namespace. `run` has them work until it is cancelled."""

    def __init__(self, namespace: str | None, around: Surroundings, view: TaskView) -> None:
        """Args: namespace: None is all of the cluster's; view: its Tasks, which others keep up to date."""
        cluster, broker, settings, faults = around.cluster, around.broker, around.settings, around.faults
        where, access = (namespace,), around.access
        loop = asyncio.get_running_loop()
        self.began = loop.time()
        self.known = KnownQueues()
        self.turns: KeyQueue[Queue] = KeyQueue(loop.time)
        """Queues one of whose objects changed."""
        self.queues = Queues(
            cluster, broker, settings, around.workloads, around.metrics, self.known, self.turns, faults,
            access.secrets, access.client_tls, where, around.queues,
        )  # fmt: skip
        self.statuses = QueueStatusWriter(cluster, self.queues, around.metrics, faults)
        self.path = DataPath(
            cluster, broker, view, self.known,
            DataPathSettings(
                where, settings.task_ttl_seconds, settings.failed_task_ttl_seconds,
                users_recorded=settings.users_recorded, identity=settings.pod_name,
            ),
            faults, around.workloads.end_of,
        )  # fmt: skip
        self._schedules = ScheduleKeeper(cluster, broker, self.known, where, faults)
        self._workflows = WorkflowKeeper(
            cluster, broker, self.known, where, faults, one_queue=access.secrets is not None
        )
        self._topics = TopicsKeeper(
            cluster, broker, self.known, where, settings.install, faults, around.queues.reservations,
            around.metrics.topics, settings.stream_replicas,
        )  # fmt: skip
        self._faults, self._watch = faults, lambda: around.watch(namespace, self.known)

    async def run(self) -> None:
        """Work until cancelled."""
        listed = self.queues.first_listed
        loops: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
            ("queues", self.queues.run),
            ("queue status", self.statuses.run),
            ("tasks", lambda: _after(listed, self.path.run)),
            ("schedules", lambda: _after(listed, self._schedules.run)),
            ("topics", lambda: _after(listed, self._topics.run)),
            ("workflows", lambda: _after(listed, self._workflows.run)),
            ("kopf", lambda: _after(listed, self._watch)),
        )
        try:
            async with asyncio.TaskGroup() as group:
                for name, work in loops:
                    group.create_task(self._faults.keep_running(name, work), name=name)
        finally:
            await self._flush()

    async def _flush(self) -> None:
        """Write, at the end, what is not written yet."""
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                await self.statuses.write_all()
        except TimeoutError:
            log.warning("queue status not flushed")


async def _after(event: asyncio.Event, work: Callable[[], Awaitable[None]]) -> None:
    await event.wait()
    await work()

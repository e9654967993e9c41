"""The operator's data path: Tasks into the broker, and what became of them back into their status.

    reflector of Tasks ──> intake ──> broker ──> status keeper ──> status writer
                      └──> cancellations ─┘

Nothing here has to be told what happens elsewhere in the operator: it sees TaskQueues and Tasks by itself.
"""

import asyncio
from dataclasses import dataclass
from typing import Final

from galley.broker.connection import Broker
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.reflector import Reflector, Source
from galley_operator.cluster.resource import TASKQUEUES, TASKS
from galley_operator.intake.cancellations import Cancellations
from galley_operator.intake.intake import Intake
from galley_operator.intake.sweep import SWEEP_SECONDS, Sweep
from galley_operator.status.expiry import EXPIRY_SECONDS, Expiry
from galley_operator.status.keeper import EndOfWorker, StatusKeeper, nobody_knows
from galley_operator.status.writer import StatusWriter
from galley_operator.tasks.active_tasks import UNFINISHED, ActiveTask, ActiveTasks, Keeper, TaskObject
from galley_operator.tasks.known_queues import KnownQueue, KnownQueues, QueueObject, keep_queue

_FLUSH_SECONDS: Final = 5.0


@dataclass(frozen=True)
class DataPathSettings:
    """What can be chosen about the data path."""

    namespaces: tuple[str | None, ...] = (None,)
    """Namespaces whose Tasks count; None means all."""
    task_ttl_seconds: int | None = None
    """Seconds after its end at which a Task is deleted that says nothing about it; None: never."""
    sweep_seconds: float = SWEEP_SECONDS
    """Time between two comparisons of all Tasks with the broker."""
    expiry_seconds: float = EXPIRY_SECONDS
    """Time between two looks for Tasks whose time is over."""


class DataPath:
    """`watch` runs in every replica and keeps its view warm; `lead` runs in the leader, beside it."""

    def __init__(
        self,
        cluster: Cluster,
        broker: Broker,
        settings: DataPathSettings,
        end_of_worker: EndOfWorker = nobody_knows,
    ) -> None:
        """Args: end_of_worker: tells how a worker ended that was lost, where anybody knows."""
        self._settings = settings
        self._keeper = Keeper()
        self.tasks = ActiveTasks(self._keeper)
        self.queues = KnownQueues()
        self.task_reflector: Reflector[TaskObject, ActiveTask] = Reflector(
            cluster,
            Source(TASKS, TaskObject, self._keeper.keep, settings.namespaces, fields=UNFINISHED),
            self.tasks,
        )
        self.queue_reflector: Reflector[QueueObject, KnownQueue] = Reflector(
            cluster, Source(TASKQUEUES, QueueObject, keep_queue, settings.namespaces), self.queues
        )
        self.writer = StatusWriter(cluster)
        self.status = StatusKeeper(broker, self.tasks, self.queues, self.writer, end_of_worker)
        self.intake = Intake(cluster, broker, self.tasks, self.queues, self.status)
        self.cancellations = Cancellations(cluster, broker, self.queues)
        self.expiry = Expiry(cluster, settings.namespaces, settings.task_ttl_seconds)
        self.sweep = Sweep(
            broker, self.tasks, self.queues, orphan=self.cancellations.add_orphan, lost=self.intake.look_again
        )

    @property
    def synced(self) -> bool:
        """Whether all Tasks and TaskQueues there are have been seen."""
        return self.task_reflector.synced.is_set() and self.queue_reflector.synced.is_set()

    @property
    def heard_at(self) -> float:
        """When the API server was last heard of, by a monotonic clock."""
        return min(self.task_reflector.heard_at, self.queue_reflector.heard_at)

    async def watch(self) -> None:
        """See Tasks and TaskQueues, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.task_reflector.run(), name="reflect Tasks")
            group.create_task(self.queue_reflector.run(), name="reflect TaskQueues")

    async def lead(self) -> None:
        """Let tasks in, keep their status, cancel and clean up, until cancelled; needs `watch` beside it."""
        await self.task_reflector.synced.wait()
        await self.queue_reflector.synced.wait()
        self.tasks.on_gone = self._on_gone
        # The writer is in the outer group, so that it still writes what the others had to say.
        async with asyncio.TaskGroup() as writing:
            writer = writing.create_task(self.writer.run(), name="write statuses")
            try:
                await self._lead()
            finally:
                await self._flush()
                writer.cancel()

    async def run(self) -> None:
        """Watch and lead, where there is but one replica."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.watch(), name="watch")
            group.create_task(self.lead(), name="lead")

    async def _lead(self) -> None:
        settings = self._settings
        async with asyncio.TaskGroup() as group:
            group.create_task(self.status.run(), name="keep statuses")
            group.create_task(self.intake.run(), name="let tasks in")
            group.create_task(self.cancellations.run(), name="cancel tasks")
            group.create_task(self.sweep.run(settings.sweep_seconds), name="sweep")
            group.create_task(self.expiry.run(settings.expiry_seconds), name="expire")

    async def _flush(self) -> None:
        """Write what is known before going: nobody has to find it out again then."""
        if len(self.writer):
            flushing = asyncio.ensure_future(self.writer.flush(_FLUSH_SECONDS))
            await asyncio.shield(flushing)

    def _on_gone(self, last: ActiveTask) -> None:
        self.intake.forget(last)
        self.writer.forget(last.uid)
        if not last.ended:
            self.cancellations.add(last)

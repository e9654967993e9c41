"""The operator's data path: Tasks into the broker, and their outcomes back into their status.

    reflector of Tasks -> active tasks -> intake -> broker -> workers
    broker -> status keeper -> status writer -> API server

Each arrow is a value handed on. `TaskView` runs in every replica, so that a new leader knows all Tasks at
once; `DataPath` is made by the leader.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker.connection import Broker
from galley.broker.follow import Follower, React
from galley.broker.held import held
from galley.broker.topology import DECLARED_KEPT_SECONDS
from galley.record import Record, Stored
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.reflector import Reflector, Source
from galley_operator.cluster.resource import TASKS
from galley_operator.events import Events
from galley_operator.faults import Faults
from galley_operator.intake.broker_tasks import NatsTasks
from galley_operator.intake.departures import Departures
from galley_operator.intake.intake import Intake
from galley_operator.intake.look import Look
from galley_operator.intake.orphans import SWEEP_SECONDS, Orphans
from galley_operator.intake.redrives import Redrives
from galley_operator.status.expiry import EXPIRY_SECONDS, Expiry, KeptSeconds
from galley_operator.status.keeper import EndOfWorker, StatusKeeper, unknown_end
from galley_operator.status.progress import ProgressNews
from galley_operator.status.records import RecordStreams
from galley_operator.status.writer import StatusWriter
from galley_operator.tasks.active_tasks import UNFINISHED, ActiveTask, ActiveTasks, QueueKey
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.task_object import TaskObject

_FLUSH_SECONDS: Final = 5.0

RESYNC_SECONDS: Final = 600.0
"""Time between two looks for all admitted Tasks in the broker."""


@dataclass(frozen=True)
class DataPathSettings:
    """What can be chosen about the data path."""

    namespaces: tuple[str | None, ...] = (None,)
    """Namespaces whose Tasks count; None means all."""
    task_ttl_seconds: int | None = None
    """Seconds after its end at which a Task is deleted that says nothing about it; None: never."""
    failed_task_ttl_seconds: int | None = None
    """The same for Tasks that failed."""
    identity: str = "operator"
    """Who writes events."""
    resync_seconds: float = RESYNC_SECONDS
    """Time between two looks for all admitted Tasks in the broker."""
    users_recorded: bool = False
    """Whether the API server writes who created a Task."""
    sweep_seconds: float = SWEEP_SECONDS
    """Time between two looks for work whose Task is gone."""
    expiry_seconds: float = EXPIRY_SECONDS
    """Time between two looks for Tasks whose time is over."""


class TaskView:
    """All Tasks that have not ended, kept up to date for as long as `run` runs."""

    def __init__(self, cluster: Cluster, namespaces: tuple[str | None, ...], faults: Faults) -> None:
        self.tasks = ActiveTasks()
        self._reflector: Reflector[TaskObject, ActiveTask] = Reflector(
            cluster,
            Source(TASKS, TaskObject, self.tasks.keep, namespaces, fields=UNFINISHED),
            self.tasks,
            faults,
        )

    @property
    def synced(self) -> asyncio.Event:
        """Set once all Tasks there are have been seen."""
        return self._reflector.synced

    @property
    def heard_at(self) -> float:
        """When the API server was last heard of, by a monotonic clock."""
        return self._reflector.heard_at

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._reflector.run()


class DataPath:
    """Admits tasks, keeps their status, cancels and cleans up, for as long as `run` runs."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        cluster: Cluster,
        broker: Broker,
        view: TaskView,
        queues: KnownQueues,
        settings: DataPathSettings,
        faults: Faults,
        end_of_worker: EndOfWorker = unknown_end,
    ) -> None:
        """Args: end_of_worker: tells how a worker ended that was lost, where that is known."""
        tasks = view.tasks
        self._settings, self._faults, self._view, self._broker = settings, faults, view, broker
        self._queues, self._nats = queues, NatsTasks(broker)
        self.writer = StatusWriter(cluster, tasks, faults)
        self.status = StatusKeeper(tasks, queues, self.writer, self._own, end_of_worker)
        self.records = RecordStreams(self._follow, self.status.heard, faults)
        self.look = Look(cluster, self._nats, queues, self._kept, users_recorded=settings.users_recorded)
        self.intake = Intake(
            tasks,
            queues,
            Departures(cluster, self._nats, self._kept),
            self.records,
            self.look,
            self.status,
            faults,
            broker,
        )
        kept = KeptSeconds(settings.task_ttl_seconds, settings.failed_task_ttl_seconds)
        self.expiry = Expiry(cluster, settings.namespaces, kept, self._remember)
        self.progress = ProgressNews(broker, tasks, self.status.progressed, settings.namespaces)
        events = Events(cluster, settings.identity)
        self.redrives = Redrives(cluster, broker, settings.namespaces, faults, events)
        self.orphans = Orphans(self._nats, self._held, tasks, queues, self.intake.withdraw)

    async def run(self) -> None:
        """Work until cancelled; needs the view's `run` beside it."""
        await self._view.synced.wait()
        async with AsyncExitStack() as stack:
            stack.callback(self._broker.on_reconnect(self.intake.reconnected))
            # The writer is in the outer group, so that it still writes what the others had to say.
            writing = await stack.enter_async_context(asyncio.TaskGroup())
            writer = writing.create_task(
                self._faults.keep_running("statuses written", self.writer.run), name="write statuses"
            )
            try:
                await self._lead()
            finally:
                await self._flush()
                writer.cancel()

    async def _lead(self) -> None:
        settings, keep_running = self._settings, self._faults.keep_running
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_running("records", self.records.run), name="follow records")
            group.create_task(keep_running("records owned", self.status.run), name="own records")
            group.create_task(keep_running("intake", self.intake.run), name="admit tasks")
            group.create_task(
                keep_running("resync", lambda: self.intake.resync(settings.resync_seconds)), name="resync"
            )
            group.create_task(
                keep_running("orphans", lambda: self.orphans.run(settings.sweep_seconds)), name="orphans"
            )
            group.create_task(keep_running("progress", self.progress.run), name="hear progress")
            group.create_task(keep_running("redrives", self.redrives.run), name="redrive tasks")
            group.create_task(
                keep_running("expiry", lambda: self.expiry.run(settings.expiry_seconds)), name="expire"
            )

    async def _flush(self) -> None:
        """Write what is known before the end, so that it need not be found out again."""
        if len(self.writer):
            flushing = asyncio.ensure_future(self.writer.flush(_FLUSH_SECONDS))
            await asyncio.shield(flushing)

    def _follow(self, queue: QueueKey, react: React) -> Follower:
        return Follower(self._broker, queue, react, self._known)

    def _known(self, namespace: str, task_id: str) -> bool:
        return self._view.tasks.knows(namespace, task_id)

    def _held(self, queue: QueueKey, kind: Kind) -> AsyncIterator[TaskAddress]:
        return held(self._broker, *queue, kind)

    async def _own(self, address: TaskAddress, stored: Stored, record: Record) -> None:
        await self._nats.mark(address, stored, record, self._kept(address))

    async def _remember(self, address: TaskAddress, uid: str) -> None:
        """Have a record say that its Task was deleted since its time was over."""
        stored = await self._nats.record(address)
        if stored is not None and stored.record.done and stored.record.uid in ("", uid):
            record = replace(stored.record, uid=uid, remembered=True)
            await self._nats.mark(address, stored, record, self._kept(address))

    def _kept(self, address: TaskAddress) -> int:
        queue = self._queues.get((address.namespace, address.queue))
        return queue.keep_seconds if queue is not None else DECLARED_KEPT_SECONDS

"""Keeping the status of Tasks true to the records of their tasks."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, TypeAlias

from galley.address import Kind, TaskAddress
from galley.broker.connection import Broker
from galley.broker.follow import Follower
from galley.record import Stored
from galley.task_status import Phase
from galley_operator.status.writer import LINGER_SECONDS, StatusWriter
from galley_operator.status.written_status import WrittenStatus, lost_worker, recorded, without_queue
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks
from galley_operator.tasks.known_queues import KnownQueues

log = logging.getLogger(__name__)

BRIEF_SECONDS: Final = 5.0
"""A state that is over sooner is not written: most tasks are done by then."""


EndOfWorker: TypeAlias = Callable[[str, str], str]
"""Takes a namespace and a worker; returns how it ended, as a sentence, or nothing if that is not known."""


def nobody_knows(_namespace: str, _worker: str) -> str:
    """Return that nothing is known of the end of a worker."""
    return ""


class StatusKeeper:
    """Listens to the records of declared tasks, for as long as `run` runs; only the leader runs it."""

    def __init__(
        self,
        broker: Broker,
        tasks: ActiveTasks,
        queues: KnownQueues,
        writer: StatusWriter,
        end_of_worker: EndOfWorker = nobody_knows,
    ) -> None:
        self.heard_of = 0
        """Records of unfinished Tasks heard so far."""
        self._broker, self._tasks, self._queues, self._writer = broker, tasks, queues, writer
        self._end_of_worker = end_of_worker
        self._followers: dict[str, Follower] = {}
        self._wanted: asyncio.Queue[Follower] = asyncio.Queue()

    async def run(self) -> None:
        """Follow the records of each namespace somebody asked for, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                follower = await self._wanted.get()
                group.create_task(follower.run(), name="follow records")

    async def following(self, namespace: str) -> None:
        """Return once no record of a namespace can be missed any more."""
        follower = self._followers.get(namespace)
        if follower is None:
            follower = Follower(self._broker, namespace, Kind.DECLARED, self.heard)
            self._followers[namespace] = follower
            self._wanted.put_nowait(follower)
        if not follower.started.is_set():
            await follower.started.wait()

    def heard(self, address: TaskAddress, stored: Stored) -> None:
        """Take in a record; that of a Task which has ended, or is unknown here, changes nothing."""
        task = self._tasks.by_uid.get(address.id)
        if task is None or task.ended:
            return
        self.heard_of += 1
        task.recorded = task.in_broker = True
        self._tasks.keeper.drop_spec(task)
        record = stored.record
        lost = lost_worker(record)
        status = recorded(task, record, self._end_of_worker(address.namespace, lost) if lost else "")
        linger = BRIEF_SECONDS
        if status.final:
            task.ended, linger = True, LINGER_SECONDS
        elif status.body["phase"] == Phase.RUNNING and record.started_at is not None:
            ran = (datetime.now(UTC) - record.started_at).total_seconds()
            linger = min(BRIEF_SECONDS, max(LINGER_SECONDS, BRIEF_SECONDS - ran))
        self.write(task, status, linger)

    def write(self, task: ActiveTask, status: WrittenStatus, linger: float = LINGER_SECONDS) -> None:
        """Write what was found out about a task."""
        if (task.namespace, task.queue) not in self._queues.queues:
            status = without_queue(task, status)
        self._writer.offer(task, status, linger)

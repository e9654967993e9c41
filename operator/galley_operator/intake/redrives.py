"""Running a failed Task again in place: a label asks for it, and its task runs again under its own name.

The operator does not watch Tasks that have ended, but for those with this label. The value that was heeded
last travels with the task into its next dead letter, so a task that fails again is not run again by the same.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from galley.audit import Action
from galley.broker.connection import Broker
from galley.broker.publish import Publisher
from galley.broker.records import Records
from galley.client import task_address
from galley.errors import DeadLetterNotFound, GalleyError, NotRedrivable
from galley.record import Outcome
from galley.redrive import AsyncDeadLetters, Redriven
from galley.task_status import Phase
from galley_operator.audit import About, record
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.reflector import Key, Reflector, Source
from galley_operator.cluster.resource import TASKS
from galley_operator.events import Events, Occurrence
from galley_operator.faults import Faults
from galley_operator.key_queue import KeyQueue
from galley_operator.status.written_status import queued
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks
from galley_operator.tasks.task_object import TaskObject

log = logging.getLogger(__name__)

REDRIVE_LABEL: Final = "galley.dev/redrive"
"""On a Task that failed: each new value has it run again once."""

_PATIENCE_SECONDS: Final = 2.0
_PAUSE_SECONDS: Final = 5.0
"""Before a redrive that could not be done is tried again."""


class Redrives:
    """Has failed Tasks run again whose label asks for it, while `run` runs; only the leader runs it."""

    def __init__(
        self,
        cluster: Cluster,
        broker: Broker,
        namespaces: tuple[str | None, ...],
        faults: Faults,
        events: Events,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._cluster, self._broker, self._faults, self._now = cluster, broker, faults, now
        self._events = events
        self._asked: KeyQueue[Key] = KeyQueue(asyncio.get_running_loop().time)
        """Each Task is in it at most once, however often it changes."""
        source = Source(
            TASKS, TaskObject, ActiveTasks().keep, namespaces,
            fields=f"status.phase={Phase.FAILED}", labels=REDRIVE_LABEL,
        )  # fmt: skip
        self._reflector: Reflector[TaskObject, ActiveTask] = Reflector(cluster, source, self, faults)

    def changed(self, key: Key, now: ActiveTask, *, listed: bool) -> None:
        """Take in a Task that failed and has the label."""
        if (now.labels or {}).get(REDRIVE_LABEL):
            self._asked.add(key, patient=listed)

    def gone(self, _key: Key, _last: ActiveTask) -> None:
        """Take in that it runs again, or is gone."""

    async def run(self) -> None:
        """Watch and redrive until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._reflector.run(), name="watch redrives")
            while True:
                key = await self._asked.get()
                task = self._reflector.things.get(key)
                if task is not None and not await self._tried(task):
                    self._asked.add_later(key, _PAUSE_SECONDS)
                self._asked.done(key)

    async def _tried(self, task: ActiveTask) -> bool:
        """Redrive a Task; returns False if that is to be tried again."""
        try:
            await self._heed(task)
        except ObjectNotFound as error:
            log.warning("task not redriven", extra=_about(task, error))
        except GalleyError as error:
            log.warning("task not redriven", extra=_about(task, error))
            return False
        except Exception as error:  # whatever it is costs this Task alone
            self._faults.caught("redrive", error, "/".join(task.key))
            return False
        return True

    async def _heed(self, task: ActiveTask) -> None:
        """Redrive a Task, or say on it why that can never be done."""
        try:
            await self._redrive(task)
        except (NotRedrivable, DeadLetterNotFound) as error:
            log.warning("task not redriven", extra=_about(task, error))
            await self._events.write(Occurrence(task, "NotRedriven", _note(error), warning=True, kind="Task"))

    async def _redrive(self, task: ActiveTask) -> None:
        mark = (task.labels or {}).get(REDRIVE_LABEL)
        if not mark:
            return  # the label was taken away meanwhile
        publisher = Publisher(self._broker, patience_seconds=_PATIENCE_SECONDS)
        letters = AsyncDeadLetters(
            self._broker, task.namespace, publisher,
            lambda queue, task_id: task_address(task.namespace, queue, task_id),
        )  # fmt: skip
        try:
            if await letters.redrive_declared(task.queue, task.name, task.uid, mark) is Redriven.HEEDED:
                return
        except DeadLetterNotFound:
            # One that was redriven by a process that ended before it could say so has moved on.
            stored = await Records(self._broker).look_up(task.address)
            if stored is None or stored.record.uid != task.uid or stored.record.outcome is Outcome.FAILED:
                raise
        record(Action.REDRIVE, task.namespace, task.queue, About(task=task.name, uid=task.uid))
        status = queued(task, self._now())
        await self._cluster.replace_status(TASKS, task.namespace, task.name, task.version, status.body)


def _note(error: GalleyError) -> str:
    if isinstance(error, DeadLetterNotFound):
        return f"{error}; to run it again, delete this Task and apply it again"
    return f"{error}; {error.hint}"


def _about(task: ActiveTask, error: GalleyError) -> dict[str, str]:
    return {"task": "/".join(task.key), "error": str(error), "hint": error.hint}

"""Keeping the status of Tasks true to what intake reports and to the records of their tasks."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TypeAlias

from msgspec.structs import replace

from galley.address import TaskAddress
from galley.record import Record, Stored
from galley.task_status import Phase
from galley_operator.status import written_status
from galley_operator.status.writer import LINGER_SECONDS, StatusWriter
from galley_operator.status.written_status import WrittenStatus
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.report import (
    Admitted,
    AlreadyRan,
    Pending,
    Recorded,
    Rejected,
    Report,
    Unclear,
    Until,
)

BRIEF_SECONDS: Final = 5.0
"""A state that is over sooner is not written: most tasks are done by then."""

_LINGER: Final = {Until.QUEUE_CHANGES: 1.0, Until.ROOM: 5.0, Until.LATER: 1.0, Until.PAUSE: 2.0}
"""Seconds before a task reports that it was not admitted: queue and tasks are often applied together, and
room is often there a moment later."""


EndOfWorker: TypeAlias = Callable[[str, str], str]
"""Takes a namespace and a worker; returns how it ended, as a sentence, or nothing if that is not known."""


def unknown_end(_namespace: str, _worker: str) -> str:
    """Return that nothing is known of the end of a worker."""
    return ""


Own: TypeAlias = Callable[[TaskAddress, Stored, Record], Awaitable[object]]
"""Replaces a last record, unless another was written meanwhile."""


class StatusKeeper:
    """Makes the status of each Task, and hands it to the writer. `run` writes into records whose they are."""

    def __init__(  # noqa: PLR0917 - what it is made of
        self,
        tasks: ActiveTasks,
        queues: KnownQueues,
        writer: StatusWriter,
        own: Own,
        end_of_worker: EndOfWorker = unknown_end,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Args: end_of_worker: tells how a worker ended that was lost, where that is known."""
        self._tasks, self._queues, self._writer = tasks, queues, writer
        self._own, self._end_of_worker, self._now = own, end_of_worker, now
        self._unowned: asyncio.Queue[tuple[TaskAddress, Stored, Record]] = asyncio.Queue()

    async def run(self) -> None:
        """Write into last records whose they are: workers of before 0.2, and a cancel, do not say so."""
        while True:
            await self._own(*await self._unowned.get())

    def report(self, task: ActiveTask, report: Report) -> Report:
        """Take in what a look at a Task came to, and have it written; returns it."""
        now = self._now()
        match report:
            case Admitted() if (known := self._tasks.admitted(task, now)) is not None and not known.recorded:
                self._write(known, written_status.queued(known, known.queued_at or now))
            case Recorded(stored):
                self._tasks.admitted(task, now)
                self.heard(task.address, stored)
            case AlreadyRan(stored) if (known := self._tasks.heard(task, ended=True)) is not None:
                mine = replace(stored.record, uid=task.uid, remembered=False)
                self._unowned.put_nowait((task.address, stored, mine))
                self._write(known, written_status.already_ran(known, stored.record))
            case Rejected(reason, message) if (known := self._tasks.rejected(task)) is not None:
                self._write(known, written_status.rejected(known, reason, message, now), 0.0)
            case Pending(reason, message, until) if until is not Until.PAUSE or not task.in_broker:
                known = self._tasks.lost(task)
                if known is not None:
                    self._write(known, written_status.pending(known, reason, message), _LINGER[until])
            case Unclear():
                self._tasks.doubted(task)
            case _:
                pass  # the Task is gone, or an error says nothing about a task that is in the broker
        return report

    def heard(self, address: TaskAddress, stored: Stored) -> None:
        """Take in a record; one of a Task that has ended, or of another Task, changes nothing."""
        task, record = self._tasks.find(address), stored.record
        if task is None or task.ended or record.uid not in ("", task.uid):
            return
        lost = written_status.lost_worker(record)
        explained = self._end_of_worker(address.namespace, lost) if lost else ""
        status = written_status.recorded(task, record, explained)
        known = self._tasks.heard(task, ended=status.final)
        linger = BRIEF_SECONDS
        if status.final:
            linger = LINGER_SECONDS
            if not record.uid:
                self._unowned.put_nowait((address, stored, replace(record, uid=task.uid)))
        elif status.body["phase"] == Phase.RUNNING and record.started_at is not None:
            ran = (self._now() - record.started_at).total_seconds()
            linger = min(BRIEF_SECONDS, max(LINGER_SECONDS, BRIEF_SECONDS - ran))
        self._write(known or task, status, linger)

    def forget(self, task: ActiveTask) -> None:
        """Write nothing more about a Task that is gone."""
        self._writer.forget(task.uid)

    def _write(self, task: ActiveTask, status: WrittenStatus, linger: float = LINGER_SECONDS) -> None:
        if (task.namespace, task.queue) not in self._queues:
            status = written_status.without_queue(task, status)
        self._writer.offer(task, status, linger)

"""Keeping the status of Tasks true to what intake reports and to the records of their tasks."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeAlias

from msgspec.structs import replace

from galley.address import TaskAddress
from galley.errors import GalleyError
from galley.note import Progress
from galley.record import Record, State, Stored
from galley_operator.cluster.reflector import Key
from galley_operator.status.linger import PROGRESS_SECONDS, linger_of
from galley_operator.status.writer import StatusWriter
from galley_operator.status.written_status import Context, lost_worker, status_of
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.report import AlreadyRan, Pending, Recorded, Report, Until

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
        self._runs: dict[str, Recorded] = {}
        """The last record of each Task that runs, by uid."""
        self._unowned: asyncio.Queue[tuple[TaskAddress, Stored, Record]] = asyncio.Queue()

    async def run(self) -> None:
        """Write into last records whose they are: workers of before 0.2, and a cancel, do not say so."""
        while True:
            await self._own(*await self._unowned.get())

    def report(self, task: ActiveTask, report: Report) -> Report:
        """Take in what a look at a Task, or a record, came to, and have it written; returns it."""
        now = self._now()
        known = self._tasks.take(task, report, now)
        if known is None:
            return report
        self._remember_run(known, report)
        status = status_of(known, report, self._context(known, report, now))
        if status is not None:
            self._writer.offer(known, status, linger_of(report, status, now))
        if isinstance(report, AlreadyRan | Recorded) and known.ended:
            self._own_record(known, report.stored)
        return report

    def failing(self, key: Key, error: GalleyError) -> Report:
        """Take in that a look at a Task failed, and have that written if it lasts; returns the report."""
        report = Pending(error.reason, f"{error}; {error.hint}", Until.PAUSE)
        task = self._tasks.get(key)
        return report if task is None else self.report(task, report)

    def heard(self, address: TaskAddress, stored: Stored) -> None:
        """Take in a record; that of a task which is no Task's changes nothing."""
        task = self._tasks.find(address)
        if task is not None:
            self.report(task, Recorded(stored))

    def progressed(self, address: TaskAddress, progress: Progress) -> None:
        """Take in how far a task is; that of a task which is no Task's changes nothing.

        Where its record is not known yet, that writes it.
        """
        task = self._tasks.progressed(address, progress)
        run = self._runs.get(task.uid) if task is not None else None
        if task is None or run is None:
            return
        status = status_of(task, run, self._context(task, run, self._now()))
        if status is not None:
            self._writer.offer(task, status, PROGRESS_SECONDS)

    def _context(self, task: ActiveTask, report: Report, now: datetime) -> Context:
        return Context(now, (task.namespace, task.queue) in self._queues, self._end_of(task, report))

    def _remember_run(self, task: ActiveTask, report: Report) -> None:
        if isinstance(report, Recorded) and report.stored.record.state is State.RUN:
            self._runs[task.uid] = report
        elif isinstance(report, Recorded) or task.ended:
            self._runs.pop(task.uid, None)

    def _end_of(self, task: ActiveTask, report: Report) -> str:
        lost = lost_worker(report.stored.record) if isinstance(report, Recorded) else ""
        return self._end_of_worker(task.namespace, lost) if lost else ""

    def _own_record(self, task: ActiveTask, stored: Stored) -> None:
        mine = replace(stored.record, uid=task.uid, remembered=False)
        if mine != stored.record:
            self._unowned.put_nowait((task.address, stored, mine))

    def forget(self, task: ActiveTask) -> None:
        """Write nothing more about a Task that is gone."""
        self._runs.pop(task.uid, None)
        self._writer.forget(task.uid)

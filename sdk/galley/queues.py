"""Queues as a whole: look at them, pause, drain and empty them, and cancel many of their tasks at once."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

from msgspec import Struct

from galley.audit import Action
from galley.broker import inspect, pause, queue_view
from galley.broker.audit import note
from galley.broker.cancel import Cancelled
from galley.broker.connection import Broker
from galley.broker.queue_view import QueueView
from galley.calls import check_queue_name
from galley.errors import CancelIncomplete, DrainTimeout, GalleyError, SubmissionInvalid, TaskNotFound
from galley.handle import AsyncHandle
from galley.labels import selector
from galley.task_status import Phase, TaskStatus

_AT_ONCE: Final = 32
_LOOK_SECONDS: Final = 0.25

WAITING: Final = (Phase.SCHEDULED, Phase.QUEUED, Phase.RETRYING)
"""Phases of tasks that no worker runs, and that have not ended."""
UNFINISHED: Final = (*WAITING, Phase.RUNNING)


class TaskSelection(Struct, frozen=True, kw_only=True):
    """Which tasks of a queue are meant; each field that is None admits all."""

    phases: tuple[Phase, ...] | None = None
    handler: str | None = None
    labels: str | None = None
    """Only those whose labels fit this selector, such as `team=billing,tier!=low`."""
    older_than: timedelta | None = None
    """Only those submitted at least so long ago."""
    younger_than: timedelta | None = None
    """Only those submitted less than so long ago."""

    def __post_init__(self) -> None:
        """Refuse a selector that cannot be read.

        Raises:
            SelectorInvalid: if `labels` is none.
        """
        selector(self.labels or "")

    def of(self, tasks: Sequence[TaskStatus], now: datetime) -> list[TaskStatus]:
        """Return the tasks that are meant. Ages of tasks whose time is not known fit none."""
        fits = selector(self.labels or "")
        return [status for status in tasks if fits(status.labels) and self._admits(status, now)]

    def _admits(self, status: TaskStatus, now: datetime) -> bool:
        if self.phases is not None and status.phase not in self.phases:
            return False
        if self.handler not in (None, status.handler):
            return False
        if self.older_than is None and self.younger_than is None:
            return True
        if status.submitted_at is None:
            return False
        age = now - status.submitted_at
        return (self.older_than is None or age >= self.older_than) and (
            self.younger_than is None or age < self.younger_than
        )


ALL: Final = TaskSelection()


class AsyncQueues:
    """The queues of a namespace. What changes something is for credentials of a manager."""

    def __init__(self, broker: Broker, namespace: str) -> None:
        self._broker, self._namespace = broker, namespace

    async def get(self, queue: str) -> QueueView:
        """Return one queue: its lanes, how many tasks it holds, and whether it is paused.

        Raises:
            QueueNotFound, QueueNameInvalid: there is no such queue, or there can be none.
            BrokerUnreachable: the broker does not answer.
        """
        self._broker.check_usable()
        return await queue_view.queue(self._broker, self._namespace, check_queue_name(queue))

    async def find(self, queue: str, which: TaskSelection = ALL) -> list[TaskStatus]:
        """Return the tasks of a queue that are meant, in the order they were submitted.

        Raises:
            QueueNotFound, QueueNameInvalid, BrokerUnreachable: as `get`.
            NotAllowed: the credentials may not list the queue.
            SubmissionInvalid: `which` is no selection.
        """
        if not isinstance(which, TaskSelection):
            hint = "pass galley.TaskSelection(phases=..., labels=...)"
            raise SubmissionInvalid("which", f"it is of type {type(which).__name__}", hint)
        await self.get(queue)
        found = await inspect.tasks_in_order(self._broker, self._namespace, queue)
        return which.of(found, datetime.now(UTC))

    async def cancel_all(
        self, queue: str, which: TaskSelection = ALL, *, dry_run: bool = False
    ) -> list[TaskStatus]:
        """Cancel the tasks that are meant and have not ended; returns those that were cancelled.

        Args:
            queue: its name.
            which: those that are meant; by default all.
            dry_run: cancel none, and return those that would be.

        Raises:
            CancelIncomplete: not all of them; it holds the ids of those that were, and `__cause__` says why
                the next one was not. Doing it again goes on.
            QueueNotFound, QueueNameInvalid, BrokerUnreachable, NotAllowed: as `find`.
        """
        meant = [status for status in await self.find(queue, which) if status.phase in UNFINISHED]
        return meant if dry_run else await self.cancel_these(queue, meant)

    async def cancel_these(self, queue: str, tasks: Sequence[TaskStatus]) -> list[TaskStatus]:
        """Cancel tasks that were found before; returns those that had not ended.

        Raises:
            CancelIncomplete: as `cancel_all`.
        """
        room = asyncio.Semaphore(_AT_ONCE)

        async def cancel(status: TaskStatus) -> bool:
            async with room:
                try:
                    outcome = await AsyncHandle[object](self._broker, status.address, None).cancel_unnoted()
                except TaskNotFound:  # it has ended, and its record has expired
                    return False
                return outcome is not Cancelled.TOO_LATE

        outcomes = await asyncio.gather(*map(cancel, tasks), return_exceptions=True)
        done = [status for status, outcome in zip(tasks, outcomes, strict=True) if outcome is True]
        if done:
            await self._note(queue, Action.CANCEL, count=len(done))
        for outcome in outcomes:
            if isinstance(outcome, GalleyError):
                ids = [status.address.id for status in done]
                raise CancelIncomplete(queue, ids, len(tasks) - len(ids), str(outcome)) from outcome
            if isinstance(outcome, BaseException):
                raise outcome
        return done

    async def purge(self, queue: str, *, dry_run: bool = False) -> list[TaskStatus]:
        """Cancel all tasks that wait, whether for a slot, a time or a retry; what runs goes on.

        With `dry_run` none is cancelled, and those that would be are returned.

        Raises:
            CancelIncomplete, QueueNotFound, QueueNameInvalid, BrokerUnreachable, NotAllowed: as `cancel_all`.
        """
        return await self.cancel_all(queue, TaskSelection(phases=WAITING), dry_run=dry_run)

    async def pause(self, queue: str) -> None:
        """Start no further task of a queue until `resume`. Tasks are still accepted, and what runs goes on.

        It needs no operator, and outlives restarts of workers, operator and NATS.

        Raises:
            QueueNotFound, QueueNameInvalid, BrokerUnreachable: as `get`; pausing again is safe.
            NotAllowed: the credentials are not those of a manager of this queue.
        """
        self._broker.check_usable()
        await pause.pause(self._broker, self._namespace, check_queue_name(queue))
        await self._note(queue, Action.PAUSE)

    async def resume(self, queue: str) -> None:
        """Start tasks of a queue again. A queue that its manifest pauses stays paused (`spec.paused`).

        Raises:
            QueueNotFound, QueueNameInvalid, BrokerUnreachable, NotAllowed: as `pause`.
        """
        self._broker.check_usable()
        await pause.resume(self._broker, self._namespace, check_queue_name(queue))
        await self._note(queue, Action.RESUME)

    async def _note(self, queue: str, action: Action, count: int | None = None) -> None:
        await note(self._broker, self._namespace, queue, action, count=count)

    async def drain(self, queue: str, within: float | None = None) -> None:
        """Pause a queue, and return when no worker holds a task of it. It stays paused.

        Args:
            queue: its name.
            within: seconds to wait at most; None waits without a limit.

        Raises:
            DrainTimeout: some tasks still run; the queue is paused.
            SubmissionInvalid: `within` is less than 0; the queue is not paused.
            QueueNotFound, QueueNameInvalid, BrokerUnreachable, NotAllowed: as `pause`.
        """
        if within is not None and not within >= 0:
            raise SubmissionInvalid("within", f"{within!r} s", "use 0 or more seconds, or None")
        await self.pause(queue)
        held = await pause.held_by_workers(self._broker, self._namespace, queue)
        try:
            async with asyncio.timeout(within):
                # The broker does not tell when a task was acknowledged.
                while held:
                    await asyncio.sleep(_LOOK_SECONDS)
                    held = await pause.held_by_workers(self._broker, self._namespace, queue)
        except TimeoutError:
            raise DrainTimeout(queue, within or 0.0, held) from None

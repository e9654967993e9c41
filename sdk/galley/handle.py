"""A hold on one submitted task."""

import asyncio
from contextlib import suppress
from typing import Generic, TypeVar, cast

import msgspec

from galley.address import TaskAddress
from galley.broker import inspect
from galley.broker.cancel import Cancelled, cancel
from galley.broker.connection import Broker
from galley.broker.waiting import wait_until_done
from galley.envelope import Envelope
from galley.errors import BrokerError, ResultTimeout, TaskCancelled, TaskFailed
from galley.record import NULL, Outcome, Record, State
from galley.task_status import TaskStatus

R = TypeVar("R")

CANCELLED_KEPT_SECONDS = 24 * 3600
"""How long the record of a cancelled task is kept, so that no copy of it can run."""


class Handle(Generic[R]):
    """A submitted task: ask how it is, wait for its result, cancel it."""

    def __init__(self, broker: Broker, address: TaskAddress, envelope: Envelope | None) -> None:
        self._broker = broker
        self._envelope = envelope
        self.address = address

    @property
    def id(self) -> str:
        """The task's id."""
        return self.address.id

    def __repr__(self) -> str:
        return f"<task {self.address}>"

    async def result(self, within: float | None = None) -> R:
        """Wait until the task has ended and return what its handler returned.

        Args:
            within: seconds to wait at most; None waits as long as it takes.

        Raises:
            TaskFailed: it will not be tried again.
            TaskCancelled: somebody cancelled it.
            ResultTimeout: it had not ended in time; it goes on.
            QueueNotFound: the namespace never had a queue.
            BrokerUnreachable: the broker does not answer.
        """
        try:
            async with asyncio.timeout(within):
                stored = await wait_until_done(self._broker, self.address)
        except TimeoutError:
            waited = within or 0.0
            # Asking takes a moment, which one who waits for less should not pay for.
            problem = await self.worker_problem() if waited >= 1 else ""
            raise ResultTimeout(self.id, waited, problem) from None
        record = stored.record
        if record.outcome is Outcome.SUCCEEDED:
            return cast("R", msgspec.json.decode(record.result or NULL))
        if record.outcome is Outcome.CANCELLED:
            raise TaskCancelled(self.id)
        failure = record.failure
        raise TaskFailed(
            self.id, failure.reason if failure else "Unknown", failure.message if failure else ""
        )

    async def status(self) -> TaskStatus:
        """Return where the task is now.

        Raises:
            TaskNotFound: it neither waits nor has a record.
            QueueNotFound: there is no such queue either.
            BrokerUnreachable: the broker does not answer.
        """
        return await inspect.status(self._broker, self.address)

    async def worker_problem(self) -> str:
        """Return why no worker of the task's queue can start; empty if one can, or nothing is known.

        Only what starts the workers knows, which `galley dev` tells.
        """
        with suppress(BrokerError):
            return await inspect.worker_problem(self._broker, self.address.namespace, self.address.queue)
        return ""

    async def cancel(self) -> Cancelled:
        """Cancel the task, in whatever state it is; says what that came to.

        Raises:
            TaskNotFound, QueueNotFound: it neither waits nor has a record.
            BrokerUnreachable: the broker does not answer; it may or may not be cancelled.
        """
        if self._envelope is None:
            # Asked first, so that cancelling a task nobody submitted leaves no record behind.
            known = await self.status()
            handler, submitted_at, lane = known.handler, known.submitted_at, known.address.lane
        else:
            handler, submitted_at = self._envelope.handler, self._envelope.submitted_at
            lane = self.address.lane
        about = Record(State.RUN, 0, handler=handler, lane=lane, submitted_at=submitted_at)
        return await cancel(self._broker, self.address, about, CANCELLED_KEPT_SECONDS)

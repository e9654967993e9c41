"""Comparing Tasks and broker now and then, for what no event told: work without a Task, and the reverse."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Final

from galley.address import Kind, TaskAddress
from galley.broker.connection import Broker
from galley.broker.held import held
from galley.errors import GalleyError
from galley_operator.tasks.active_tasks import ActiveTask, ActiveTasks, QueueKey
from galley_operator.tasks.known_queues import KnownQueues

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 600.0

_FIRST_SECONDS: Final = 20.0
"""Before each of the first two: whoever led before may have died between a deletion and its cancel."""


class Sweep:
    """Compares for as long as `run` runs; only the leader runs it, with a listing that is complete."""

    def __init__(
        self,
        broker: Broker,
        tasks: ActiveTasks,
        queues: KnownQueues,
        *,
        orphan: Callable[[TaskAddress], None],
        lost: Callable[[ActiveTask], None],
    ) -> None:
        """Describe what to do.

        Args:
            broker: an open connection.
            tasks: the Tasks that have not ended.
            queues: the TaskQueues there are.
            orphan: called with work whose Task was missing in two sweeps.
            lost: called with a Task that should be in the broker and was not there in two sweeps.
        """
        self._broker, self._tasks, self._queues = broker, tasks, queues
        self._orphan, self._lost = orphan, lost
        self._suspects: set[str] = set()

    async def run(self, seconds: float = SWEEP_SECONDS) -> None:
        """Sweep until cancelled."""
        first = min(seconds, _FIRST_SECONDS)
        for pause in chain((first, first), repeat(seconds)):
            await asyncio.sleep(pause)
            try:
                await self.once()
            except GalleyError as error:
                log.warning("sweep incomplete", extra={"error": str(error), "hint": error.hint})

    async def once(self) -> None:
        """Compare all queues; what is odd for the second time is told."""
        before, self._suspects = self._suspects, set()
        began = datetime.now(UTC)
        for queue in list(self._queues.queues):
            there = await held(self._broker, *queue, Kind.DECLARED)
            if there is not None:
                self._compare(queue, there, before, began)

    def _compare(
        self, queue: QueueKey, there: dict[str, TaskAddress], before: set[str], began: datetime
    ) -> None:
        orphans = {uid: address for uid, address in there.items() if uid not in self._tasks}
        lost = {
            task.uid: task
            for task in self._tasks.of_queue(queue)
            if task.in_broker and not task.ended and task.uid not in there and task.created < began
        }
        for uid, address in orphans.items():
            if uid in before:
                log.warning("work of a deleted Task", extra={"task": uid, "queue": "/".join(queue)})
                self._orphan(address)
        for uid, task in lost.items():
            if uid in before:
                log.warning("Task without work", extra={"task": uid, "queue": "/".join(queue)})
                self._lost(task)
        self._suspects |= orphans.keys() | lost.keys()

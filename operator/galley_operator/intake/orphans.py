"""Work in the broker whose Task object was deleted while no operator watched."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from itertools import chain, repeat
from typing import Final

from galley.address import Kind, TaskAddress
from galley.broker.errors import BrokerError, BrokerUnreachable
from galley_operator.intake.broker_tasks import BrokerTasks
from galley_operator.tasks.active_tasks import ActiveTasks, QueueKey
from galley_operator.tasks.known_queues import KnownQueues

log = logging.getLogger(__name__)

SWEEP_SECONDS: Final = 3600.0
"""Time between two sweeps. A deletion while this operator leads is seen by the watch."""

_FIRST_SECONDS: Final = 20.0
"""Before each of the first two: the previous leader may have ended between a deletion and its cancel."""

_NAME: Final = re.compile(r"[a-z0-9-]+")
"""What the name of a Task looks like; ids made by clients have capitals."""

MOST_SUSPECTS: Final = 10_000
"""Tasks of a queue and kind that are remembered from one sweep to the next. Who submits to a queue chooses
ids, and there may be millions of them: those that follow have their turn after these were looked at twice."""

Held = Callable[[QueueKey, Kind], AsyncIterator[TaskAddress]]
"""Returns the tasks of a queue that have a message."""


class Orphans:
    """Looks for them for as long as `run` runs; only the leader runs it, with a listing that is complete."""

    def __init__(
        self,
        broker: BrokerTasks,
        held: Held,
        tasks: ActiveTasks,
        queues: KnownQueues,
        withdraw: Callable[[TaskAddress, str], None],
    ) -> None:
        """Args: withdraw: is called with work whose Task was missing in two sweeps, and the Task's uid."""
        self._broker, self._held, self._tasks, self._queues = broker, held, tasks, queues
        self._withdraw = withdraw
        self._suspects: set[TaskAddress] = set()
        self._passed: dict[tuple[QueueKey, Kind], tuple[int, bool]] = {}
        """Of a queue with more suspects: how many the next look passes over, and whether it is the second."""

    async def run(self, seconds: float = SWEEP_SECONDS) -> None:
        """Sweep until cancelled."""
        first = min(seconds, _FIRST_SECONDS)
        for pause in chain((first, first), repeat(seconds)):
            await asyncio.sleep(pause)
            await self.once()

    async def once(self) -> None:
        """Look through all queues; what is found for the second time is withdrawn.

        Raises:
            BrokerUnreachable: if the broker does not answer. What it refuses for one queue keeps no other.
        """
        before, self._suspects = self._suspects, set()
        for place in [each for each in self._passed if each[0] not in self._queues]:
            del self._passed[place]
        for queue in self._queues:
            try:
                await self._look_at(queue, before)
            except BrokerUnreachable:
                raise
            except BrokerError as error:
                extra = {"queue": "/".join(queue), "error": str(error), "hint": error.hint}
                log.warning("work of deleted Tasks not looked for", extra=extra)

    async def _look_at(self, queue: tuple[str, str], before: set[TaskAddress]) -> None:
        for kind in Kind:
            passed, again = self._passed.pop((queue, kind), (0, False))
            number = 0
            async for address in self._held(queue, kind):
                if not _NAME.fullmatch(address.id) or self._tasks.find(address) is not None:
                    continue
                number += 1
                if number <= passed:
                    continue
                await self._suspect(address, before)
                if number == passed + MOST_SUSPECTS:
                    self._passed[queue, kind] = (number, False) if again else (passed, True)
                    break
            else:
                if passed and not again:
                    self._passed[queue, kind] = passed, True

    async def _suspect(self, address: TaskAddress, before: set[TaskAddress]) -> None:
        if address not in before:
            self._suspects.add(address)
            return
        trace = await self._broker.trace(address)
        uid = address.id if address.kind is Kind.DECLARED else trace.uid
        if uid:  # else it was submitted without a Task
            queue = f"{address.namespace}/{address.queue}"
            log.warning("work of a deleted Task", extra={"task": address.id, "queue": queue})
            self._withdraw(address, uid)

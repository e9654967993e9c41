"""Cancelling the tasks of Tasks that were deleted before they had ended."""

import asyncio
import logging
import random
from datetime import datetime
from typing import Final, NamedTuple

from galley.address import TaskAddress
from galley.broker.cancel import cancel
from galley.broker.connection import Broker
from galley.broker.pipeline import NO_RESPONDERS
from galley.broker.topology import DECLARED_KEPT_SECONDS
from galley.errors import BrokerRefused, GalleyError
from galley.record import Record, State
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.resource import TASKS
from galley_operator.errors import ObjectNotFound
from galley_operator.key_queue import Backoff, KeyQueue
from galley_operator.tasks.active_tasks import ActiveTask
from galley_operator.tasks.known_queues import KnownQueues

log = logging.getLogger(__name__)

_AT_ONCE: Final = 16
_STREAM_NOT_FOUND: Final = 10059


class _Gone(NamedTuple):
    """A task to be cancelled, and what its Task was."""

    address: TaskAddress
    created: datetime | None
    name: str
    """Empty if it is not known."""


class Cancellations:
    """Cancels what it is given, for as long as `run` runs; only the leader runs it."""

    def __init__(self, cluster: Cluster, broker: Broker, queues: KnownQueues) -> None:
        self.cancelled = 0
        self._cluster, self._broker, self._queues = cluster, broker, queues
        self._tasks: dict[str, _Gone] = {}
        self._turns: KeyQueue[str] = KeyQueue(asyncio.get_running_loop().time)
        self._backoff: Backoff[str] = Backoff(random.random)

    def add(self, task: ActiveTask) -> None:
        """Cancel the task of a Task that is no longer among the unfinished ones, if it was deleted."""
        self._tasks[task.uid] = _Gone(task.address, task.created, task.name)
        self._turns.add(task.uid)

    def add_orphan(self, address: TaskAddress) -> None:
        """Cancel a task of which nobody knows the Task any more."""
        self._tasks[address.id] = _Gone(address, None, "")
        self._turns.add(address.id)

    async def run(self) -> None:
        """Cancel until cancelled."""
        room = asyncio.Semaphore(_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            while True:
                await room.acquire()
                uid = await self._turns.get()
                turn = group.create_task(self._turn(uid), name=f"cancel {uid}")
                turn.add_done_callback(lambda _: room.release())

    async def _turn(self, uid: str) -> None:
        gone = self._tasks.get(uid)
        try:
            if gone is not None and not await self._is_there(gone):
                await self._cancel(gone)
            self._tasks.pop(uid, None)
            self._backoff.forget(uid)
        except GalleyError as error:
            log.info("task not cancelled yet", extra={"task": uid, "error": str(error), "hint": error.hint})
            self._turns.add_later(uid, self._backoff.after_failure(uid))
        except Exception:
            log.exception("task not cancelled yet", extra={"task": uid})
            self._turns.add_later(uid, self._backoff.after_failure(uid))
        finally:
            self._turns.done(uid)

    async def _is_there(self, gone: _Gone) -> bool:
        """Return whether the Task still exists: then it has ended, as somebody else found out.

        A watch tells "deleted" and "no longer unfinished" by the same event, with the state before it.
        """
        if not gone.name:
            return False
        try:
            present = await self._cluster.get(TASKS, gone.address.namespace, gone.name)
        except ObjectNotFound:
            return False
        return bool(present["metadata"]["uid"] == gone.address.id)

    async def _cancel(self, gone: _Gone) -> None:
        address = gone.address
        queue = self._queues.queues.get((address.namespace, address.queue))
        keep_seconds = DECLARED_KEPT_SECONDS if queue is None else queue.keep_seconds
        about = Record(State.RUN, 0, lane=address.lane, submitted_at=gone.created)
        try:
            what = await cancel(self._broker, address, about, keep_seconds)
        except BrokerRefused as refusal:
            if refusal.code not in (NO_RESPONDERS, _STREAM_NOT_FOUND):
                raise
            return  # the queue has no streams any more, or never had; then nothing of the task is left
        self.cancelled += 1
        log.info(
            "task of a deleted object", extra={"task": address.id, "queue": address.queue, "outcome": what}
        )

"""Tasks whose Task object is gone: cancelled, unless they have ended."""

import logging
from collections.abc import Callable
from typing import NamedTuple

from galley.address import TaskAddress
from galley.audit import Action
from galley_operator.audit import About, record
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.reflector import Key
from galley_operator.cluster.resource import TASKS
from galley_operator.intake.broker_tasks import BrokerTasks
from galley_operator.intake.look import Objects

log = logging.getLogger(__name__)


class _Departed(NamedTuple):
    """A task whose Task object is no longer among the unfinished ones."""

    address: TaskAddress
    uid: str
    name: str
    """Of the object; empty if it is known that it was deleted, and not that it has ended."""


class Departures:
    """What is known of such tasks, until they are settled."""

    def __init__(
        self, objects: Objects, broker: BrokerTasks, kept_seconds: Callable[[TaskAddress], int]
    ) -> None:
        """Args: kept_seconds: returns how long the record of a cancelled task is kept."""
        self.cancelled = 0
        """Tasks cancelled so far."""
        self._objects, self._broker, self._kept_seconds = objects, broker, kept_seconds
        self._departed: dict[Key, dict[TaskAddress, _Departed]] = {}

    def add(self, address: TaskAddress, uid: str, name: str = "") -> Key:
        """Note a task whose object was deleted, or has ended if `name` is given; returns whose turn it is."""
        key = address.namespace, name or address.id
        self._departed.setdefault(key, {})[address] = _Departed(address, uid, name)
        return key

    async def settle(self, key: Key) -> None:
        """Cancel what was under a name, before another Task of that name is looked at.

        Raises:
            BrokerError, ClusterError: if that was not done; it has to be tried again.
        """
        departed = self._departed.get(key, {})
        for each in list(departed.values()):
            if not (each.name and await self._has_ended(each)):
                await self._cancel(each)
            departed.pop(each.address)
        if not departed:
            self._departed.pop(key, None)

    async def _has_ended(self, departed: _Departed) -> bool:
        """Return whether the Task object still exists: then it has ended.

        A watch tells "deleted" and "no longer unfinished" by the same event, with the state before it.
        """
        try:
            present = await self._objects.get(TASKS, departed.address.namespace, departed.name)
        except ObjectNotFound:
            return False
        return bool(present["metadata"]["uid"] == departed.uid)

    async def _cancel(self, departed: _Departed) -> None:
        address = departed.address
        trace = await self._broker.trace(address)
        if not trace.unfinished or trace.uid not in ("", departed.uid):
            return  # it has ended, or the name is another's by now
        outcome = await self._broker.cancel(address, trace, self._kept_seconds(address))
        if outcome is not None:
            self.cancelled += 1
            about = About(task=address.id, uid=departed.uid)
            record(Action.CANCEL, address.namespace, address.queue, about)
            labels = {"namespace": address.namespace, "queue": address.queue, "task": address.id}
            log.info("task of a deleted object", extra=labels | {"outcome": str(outcome)})

"""Gathering what has to be known before it is decided about a Task."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from galley.declared import DeclaredSpec, read_spec
from galley.errors import ManifestInvalid
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.resource import TASKS, Resource
from galley_operator.intake.admission import Facts
from galley_operator.intake.broker_tasks import BrokerTasks, Trace
from galley_operator.tasks.active_tasks import ActiveTask
from galley_operator.tasks.known_queues import KnownQueues


class Objects(Protocol):
    """Where a Task can be read again."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """Return an object, or raise `ObjectNotFound`."""
        ...


class Reading:
    """Reads what the broker has, what the Task asks for, and what its queue allows."""

    def __init__(
        self,
        objects: Objects,
        broker: BrokerTasks,
        queues: KnownQueues,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._objects, self._broker, self._queues, self._now = objects, broker, queues, now

    async def facts(self, task: ActiveTask) -> Facts:
        """Return all there is to know about a Task.

        Raises:
            BrokerError, ClusterError: if something cannot be read; it has to be tried again.
        """
        trace = await self._trace(task)
        if trace.empty and task.unsure:
            # An operator before 0.2 put it there under its uid.
            earlier = replace(task, by_uid=True)
            by_uid = await self._broker.trace(earlier.address)
            task, trace = (task, trace) if by_uid.empty else (earlier, by_uid)
        # Most of those in the broker are theirs by their uid; their spec would have to be read again.
        ours = not trace.empty and (task.by_uid or trace.uid == task.uid)
        queue = self._queues.get((task.namespace, task.queue))
        spec, labels = (None, None) if ours else await self._spec(task)
        return Facts(task, trace, spec, queue, self._now(), labels)

    async def _trace(self, task: ActiveTask) -> Trace:
        """Return what the broker has under a Task's name.

        That of a new Task may be remembered; what only waits under it is found by the publish.
        """
        address = task.address
        return await self._broker.trace(address) if task.unsure else Trace(await self._broker.record(address))

    async def _spec(
        self, task: ActiveTask
    ) -> tuple[DeclaredSpec | ManifestInvalid | None, dict[str, str] | None]:
        """Return what a Task asks for, or why that cannot be read, and its labels; None if it is gone."""
        body, labels = task.spec, task.labels
        try:
            if body is None:
                present = await self._objects.get(TASKS, task.namespace, task.name)
                if present["metadata"]["uid"] != task.uid:
                    return None, None
                body, labels = msgspec.json.encode(present["spec"]), present["metadata"].get("labels")
            return read_spec(task.name, body), labels
        except ObjectNotFound:
            return None, None
        except ManifestInvalid as error:
            return error, None

"""One look at a Task: reading what has to be known, deciding, and doing it in the broker."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import msgspec
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.audit import Action
from galley.declared import DeclaredSpec, read_spec
from galley.encryption import EncryptionError
from galley.errors import InputInvalid, ManifestInvalid, QueueFull, QueueNotFound, Refused, UniqueConflict
from galley.objects.errors import ObjectError, ObjectMissing
from galley_operator.audit import About, record
from galley_operator.cluster.errors import ObjectNotFound
from galley_operator.cluster.resource import TASKS, Resource
from galley_operator.intake.admission import Facts, Publish, Step, decide
from galley_operator.intake.broker_tasks import BrokerTasks, Trace
from galley_operator.tasks.active_tasks import ActiveTask
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.report import Admitted, Pending, Rejected, Report, Unclear, Until


class Objects(Protocol):
    """Where a Task can be read again."""

    async def get(self, resource: Resource, namespace: str | None, name: str) -> dict[str, Any]:
        """Return an object, or raise `ObjectNotFound`."""
        ...


class Look:
    """Looks at Tasks: reads what the broker has and what is asked for, and makes the broker have it."""

    def __init__(
        self,
        objects: Objects,
        broker: BrokerTasks,
        queues: KnownQueues,
        kept_seconds: Callable[[TaskAddress], int],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        *,
        users_recorded: bool = False,
    ) -> None:
        """Describe where it looks.

        Args:
            objects: where the specs of Tasks are read again.
            broker: where tasks are put.
            queues: what the queues allow.
            kept_seconds: returns how long the record of a cancelled task is kept.
            now: the present time.
            users_recorded: whether the API server writes who created a Task.
        """
        self.admitted = 0
        """Tasks put into the broker so far."""
        self._objects, self._broker, self._queues, self._now = objects, broker, queues, now
        self._kept_seconds, self._users_recorded = kept_seconds, users_recorded

    async def once(self, task: ActiveTask) -> tuple[ActiveTask, Report]:
        """Read, decide and act; returns the Task, as it was found in the broker, and what that came to.

        Raises:
            BrokerError, ClusterError: if it is not known what it came to; doing it again is safe.
        """
        facts = await self.facts(task)
        return facts.task, await self.carry_out(facts.task, decide(facts))

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

    async def carry_out(self, task: ActiveTask, step: Step) -> Report:
        """Do what is to be done about a Task, and return what it came to.

        Raises:
            BrokerError: if it is not known what it came to; doing it again is safe.
        """
        if not isinstance(step, Publish):
            return step
        address = task.address
        if step.earlier is not None:
            if step.earlier.unfinished:
                await self._broker.cancel(address, step.earlier, self._kept_seconds(address))
            await self._broker.forget(address)
        try:
            added = await self._broker.publish(address, step.envelope, step.unique)
        except (Refused, InputInvalid, EncryptionError, ObjectError) as error:
            return _refused(error)
        if not added:
            return Unclear()  # ours, from before a crash or a lost answer, or work of another door
        self.admitted += 1
        user = task.user if self._users_recorded else ""
        record(Action.SUBMIT, task.namespace, task.queue, About(task=task.name, uid=task.uid, user=user))
        return Admitted()


def _refused(error: Refused | InputInvalid | EncryptionError | ObjectError) -> Report:
    """Return what it means for a Task that the broker has not taken it."""
    match error:
        case UniqueConflict():
            return Rejected(error.reason, f"{error}; apply it again under another name when that has ended")
        case InputInvalid() | ObjectMissing():
            return Rejected(error.reason, f"{error}; {error.hint}; then apply the Task under another name")
        case QueueNotFound():
            # Its TaskQueue is there, or it would not have come so far: streams follow in a moment.
            return Pending("QueueNotReady", f"{error}; {_AGAIN}", Until.ROOM)
        case QueueFull():
            return Pending(error.reason, f"{error}; {_AGAIN}", Until.ROOM)
        case _:
            return Pending(error.reason, f"{error}; {error.hint}", Until.LATER)


_AGAIN: Final = "it is tried again until the queue takes it"

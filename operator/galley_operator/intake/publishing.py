"""Doing what was decided about a Task: making room for it in the broker, and putting it there."""

from collections.abc import Callable
from typing import Final

from galley.address import TaskAddress
from galley.encryption import EncryptionError
from galley.errors import InputInvalid, QueueFull, QueueNotFound, Refused, UniqueConflict
from galley.objects.errors import ObjectError, ObjectMissing
from galley_operator.audit import About, record
from galley_operator.intake.admission import Publish, Step
from galley_operator.intake.broker_tasks import BrokerTasks
from galley_operator.tasks.active_tasks import ActiveTask
from galley_operator.tasks.report import Admitted, Pending, Rejected, Report, Unclear, Until


class Publishing:
    """Carries out steps."""

    def __init__(
        self, broker: BrokerTasks, kept_seconds: Callable[[TaskAddress], int], *, users_recorded: bool = False
    ) -> None:
        """Describe how steps are carried out.

        Args:
            broker: where tasks are put.
            kept_seconds: returns how long the record of a cancelled task is kept.
            users_recorded: whether the API server writes who created a Task.
        """
        self._users_recorded = users_recorded
        self.admitted = 0
        """Tasks put into the broker so far."""
        self._broker, self._kept_seconds = broker, kept_seconds

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
        record("submit", task.namespace, task.queue, About(task=task.name, uid=task.uid, user=user))
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

"""Roster: the attempts under way in a worker, found by their message or by their task."""

from typing import Final

from galley.broker.pull import Delivery
from galley.workflow.state import step_id
from galley_worker.ending import Cancelled, CutOff
from galley_worker.leases import Lease, LeaseKeeper
from galley_worker.under_way import Message, UnderWay

REMEMBERED_CANCELS: Final = 10_000
"""Ids of cancelled tasks kept, for messages that were being delivered when the task was cancelled."""


class Roster:
    """The attempts under way in one worker, with their leases, and the tasks that were cancelled lately."""

    def __init__(self, leases: LeaseKeeper) -> None:
        self._leases = leases
        self._cancelled: dict[str, None] = {}
        self.under_way: dict[Message, UnderWay] = {}
        """By `message_of` their deliveries, which is written out where it is needed for each task."""

    def lease(self, delivery: Delivery) -> Lease | None:
        """Return the lease of a delivery, which is renewed from now on; None if it may have ended."""
        message = delivery.source.stream, delivery.sequence
        return self._leases.hold(delivery.reply, lambda: self._lose(message))

    def enter(self, present: UnderWay) -> None:
        """Add an attempt that begins."""
        delivery = present.delivery
        self.under_way[delivery.source.stream, delivery.sequence] = present

    def leave(self, present: UnderWay) -> None:
        """Forget an attempt that is over."""
        delivery = present.delivery
        message = delivery.source.stream, delivery.sequence
        # A message whose lease was lost may have been delivered here again by now.
        if self.under_way.get(message) is present:
            del self.under_way[message]
        self._leases.release(present.lease)

    def known(self, delivery: Delivery) -> bool:
        """Return whether this very message is under way here, and if so use its new delivery from now on.

        The broker delivers a message again after a restart, or when it received no renewal for too long; the
        attempt that is running goes on.
        """
        present = self.under_way.get((delivery.source.stream, delivery.sequence))
        if present is None or present.lease_lost:
            return False
        present.delivered_again(delivery.reply)
        return True

    def holds(self, message: Message) -> UnderWay | None:
        """Return the attempt of a message, if it is under way here and its lease is not lost."""
        present = self.under_way.get(message)
        return None if present is None or present.lease_lost else present

    def find(self, task: str) -> UnderWay | None:
        """Return the attempt of a task, named `<kind>.<id>`, if one is under way here."""
        return next(
            (present for present in self.under_way.values() if task_of(present.delivery) == task), None
        )

    def running(self, task: str, message: Message | None = None) -> UnderWay | None:
        """Return the attempt of a task whose handler was started here, and not one that still claims it.

        Args:
            task: as in `find`.
            message: what runs under that counts, too: a step in the place of one that has ended.
        """
        present = self.find(task)
        if present is None and message is not None:
            present = self.holds(message)
        return None if present is None or present.execution is None else present

    def cancel(self, task: str) -> UnderWay | None:
        """Stop the attempt of a task, now or when its message arrives; return it if it is under way."""
        self._cancelled[task] = None
        if len(self._cancelled) > REMEMBERED_CANCELS:
            del self._cancelled[next(iter(self._cancelled))]
        present = self.find(task)
        if present is not None:
            present.stop(Cancelled())
        return present

    def is_cancelled(self, delivery: Delivery) -> bool:
        """Return whether the task of a delivery was cancelled lately."""
        return bool(self._cancelled) and task_of(delivery) in self._cancelled

    def cancel_flow(self, flow: str, home: str = "") -> None:
        """Stop the steps of a workflow that run here; others look at it before they begin.

        Args:
            flow: its id.
            home: the queue that keeps it; empty if who asks did not say.
        """
        prefix = step_id(flow, 0)[:-1]
        for present in self.under_way.values():
            address, held = present.delivery.address, present.held
            kept_by = (held.envelope.flow if held is not None else "") or address.queue
            if address.id.startswith(prefix) and home in ("", kept_by):
                present.stop(Cancelled())

    def cut(self, why: str) -> None:
        """Stop all attempts; those that have not ended are handed back."""
        for present in self.under_way.values():
            present.stop(CutOff(why))

    def _lose(self, message: Message) -> None:
        present = self.under_way.get(message)
        if present is not None:
            present.lease_lost = True
            present.stop(CutOff("its lease could not be renewed"))


def task_of(delivery: Delivery) -> str:
    """Return the task of a delivery as requests name it."""
    return f"{delivery.address.kind}.{delivery.address.id}"

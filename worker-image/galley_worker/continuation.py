"""Handlers that returned `galley.then(...)`: their tasks wait for a workflow, and hold no slot.

    the workflow stored > the record says what the task waits for > scheduled > acknowledged
    delivered again: the workflow begun > scheduled for a later look > acknowledged
    the workflow ends > the schedule is brought forward > delivered: the task ends as the workflow did

The record decides: a message from before it does not run the handler again. A look now and then makes up for
whatever is lost in between, so no task waits much longer than until its workflow's deadline.
"""

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from galley.broker.connection import Broker
from galley.broker.flow_values import Place
from galley.encryption import EncryptionError
from galley.failpoint import failpoint
from galley.objects.errors import ObjectError, ObjectMissing
from galley.objects.store import RESULT
from galley.record import Failure, Outcome, Record, State
from galley.workflow.errors import WorkflowNotFound
from galley.workflow.state import Root, outcome_address
from galley_worker.claim import Held
from galley_worker.flows import Workflows
from galley_worker.ledger import Ledger
from galley_worker.verdict import DEADLINE_EXCEEDED, Bury, Cancel, Succeed, Verdict

SHORTEST_LOOK_SECONDS: Final = 5.0
LONGEST_LOOK_SECONDS: Final = 300.0
"""Bounds of the time between two looks at a workflow; it is as long as the workflow has taken so far."""

GRACE_SECONDS: Final = 60.0
"""Time after the deadline of a workflow at which a task does not wait for it any more."""


class Continuations:
    """The tasks of one worker that a workflow takes the place of."""

    def __init__(self, broker: Broker, ledger: Ledger, flows: Workflows, now: Callable[[], datetime]) -> None:
        self._broker, self._ledger, self._flows, self._now = broker, ledger, flows, now

    async def look(self, held: Held) -> bool:
        """Look at what a task waits for; returns whether it waits on, and has been scheduled.

        Raises:
            NoRoom: a stream of the queue has no room; the message stays as it is.
        """
        address = held.delivery.address
        place = Place(address.namespace, address.queue, held.flags.awaits)
        if not await self._waits(held) or await self._outcome(place) is not None:
            return False
        root = await self._flows.root(place)
        if root is None:
            return False
        if self._now() >= self._last(root):
            why = f"it had not ended by its deadline, {root.deadline.isoformat()}"
            await self._flows.end(place, root, Failure(DEADLINE_EXCEEDED, why))
            return False
        await self._flows.begin(place, root)
        now = self._now()
        pause = min(max((now - root.created_at).total_seconds(), SHORTEST_LOOK_SECONDS), LONGEST_LOOK_SECONDS)
        due = min(now + timedelta(seconds=pause), self._last(root))
        failpoint("then.before_schedule")
        await self._ledger.schedule(address, held.envelope, held.flags, due)
        if await self._outcome(place) is not None:
            # Who ended it meanwhile may have found no schedule to bring forward.
            await self._ledger.schedule(address, held.envelope, held.flags, now)
        return True

    async def verdict(self, held: Held) -> Verdict:
        """Return what the end of its workflow makes of a task."""
        address = held.delivery.address
        place = Place(address.namespace, address.queue, held.flags.awaits)
        try:
            final = await self._outcome(place)
            if final is None:
                missing = WorkflowNotFound(place.queue, place.flow)
                return Bury(Failure(missing.reason, f"{missing}, for which the task waited"), held.history)
            if final.outcome is Outcome.CANCELLED:
                return Cancel(Failure("WorkflowCancelled", f"workflow {place.flow} was cancelled"))
            if final.outcome is Outcome.FAILED:
                why = final.failure or Failure("WorkflowFailed", "no reason was recorded")
                return Bury(Failure("WorkflowFailed", f"workflow {place.flow}: {why.message}"), held.history)
            if (large := final.large) is not None and not await self._flows.insist(
                lambda: self._broker.objects.refer(address, large, RESULT), f"keep the result of {place.flow}"
            ):
                lost = ObjectMissing("its result", f"of queue {place.queue!r}")
                return Bury(Failure(lost.reason, f"workflow {place.flow}: {lost}"), held.history)
        except (ObjectError, EncryptionError) as error:
            return Bury(Failure(error.reason, f"workflow {place.flow}: {error}"), held.history)
        return Succeed(final.result, final.large)

    async def stop(self, held: Held) -> None:
        """End the workflow of a task that does not wait for it any more."""
        address = held.delivery.address
        place = Place(address.namespace, address.queue, held.flags.awaits)
        root = await self._flows.root(place)
        if root is not None and root.ended is None:
            await self._flows.end(
                place, root, Failure("Cancelled", f"task {address.id} does not wait for it")
            )

    async def _waits(self, held: Held) -> bool:
        stored = await self._ledger.read(held.delivery.address, held.flags.fence)
        if stored is None or stored.record.state is not State.RETRY:
            return False
        return stored.record.awaits == held.flags.awaits

    async def _outcome(self, place: Place) -> Record | None:
        final = await self._flows.record(outcome_address(*place))
        return None if final is None or final.outcome is None else final

    @staticmethod
    def _last(root: Root) -> datetime:
        return root.deadline + timedelta(seconds=GRACE_SECONDS)

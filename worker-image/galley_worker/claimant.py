"""The slow path: writing `run` into the record before an attempt begins, until it is clear who may run it."""

from collections.abc import Callable
from datetime import datetime

from galley.failpoint import failpoint
from galley.retry import RetryPolicy
from galley_worker import journal
from galley_worker.claim import (
    ClaimAt,
    DropIt,
    Ended,
    LeaveIt,
    ScheduleAgain,
    Who,
    claim_of,
    claiming_record,
    first_claim,
    what_next,
)
from galley_worker.held import Held
from galley_worker.ledger import Beaten, Ledger
from galley_worker.settle import Settler
from galley_worker.verdict import taken_over


class Claimant:
    """Claims tasks for one worker."""

    def __init__(self, ledger: Ledger, settler: Settler, who: Who, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._settler = settler
        self._who = who
        self._now = now

    async def claim(self, held: Held, policy: RetryPolicy) -> bool:
        """Claim a task; returns whether its attempt may begin here.

        If not, all that its message still called for has been done.
        """
        step = first_claim(held.envelope, held.flags)
        while True:
            if step.lost_worker:
                counted = await self._count_crash(held, policy, step)
                if counted is None:
                    return False
                step = counted
            record = claiming_record(
                held.delivery, held.envelope, held.flags,
                history=step.history, worker=self._who, now=held.started_at,
            )  # fmt: skip
            failpoint("claim.before_record")
            written = await self._ledger.write(held.delivery.address, record, step.fence)
            if not isinstance(written, Beaten):
                failpoint("claim.after_record")
                held.fence, held.claimed, held.history = written, True, step.history
                return True
            found = await self._look(held, written)
            if found is None:
                return False
            step = found

    async def _look(self, held: Held, beaten: Beaten) -> ClaimAt | None:
        """Return the claim to try instead of the one that was refused, or do what there is to do."""
        failpoint("claim.before_look")
        stored = await self._ledger.read(held.delivery.address, beaten.by)
        mine = claim_of(held.delivery, self._who.holder)
        match what_next(mine, held.flags, held.envelope, stored):
            case ClaimAt() as step:
                return step
            case DropIt(why):
                journal.dropped(held.delivery, why)
                self._settler.drop(held.delivery)
            case Ended(final):
                journal.dropped(held.delivery, "the task has ended")
                await self._settler.finish(held.delivery, final)
            case ScheduleAgain(envelope, flags, due_at):
                await self._settler.schedule_again(held, envelope, flags, due_at)
            case LeaveIt(why):
                journal.left_alone(held, why)
        return None

    async def _count_crash(self, held: Held, policy: RetryPolicy, step: ClaimAt) -> ClaimAt | None:
        """Return the claim with one more crash in its history; None if that was once too often."""
        history, last = taken_over(step.history, policy, step.lost_worker, held.flags.attempt, self._now())
        if last is None:
            return ClaimAt(step.fence, history)
        held.fence, held.history = step.fence, history
        by_us = await self._settler.settle(held, last)
        journal.settled(held, last, 0.0, by_us=by_us)
        return None

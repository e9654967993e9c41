"""The slow path: writing `run` into the record before an attempt begins, until it is clear who may run it.

If another process claimed the same message, it is asked whether it still runs the attempt: a broker that was
killed delivers again what it had delivered shortly before (docs/adr/0016-who-counts-a-crash.md).
"""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final

from galley.address import TaskAddress
from galley.broker.connection import Broker
from galley.broker.control import Question, ask_holder
from galley.broker.errors import BrokerError
from galley.failpoint import failpoint
from galley.record import Claim
from galley.retry import RetryPolicy
from galley_worker import journal
from galley_worker.claim import (
    AskHolder,
    ClaimAt,
    DropIt,
    Ended,
    Held,
    HeldElsewhere,
    Holder,
    LeaveIt,
    LookAgain,
    ScheduleAgain,
    Who,
    claim_of,
    claiming_record,
    first_claim,
    take_over,
    what_next,
)
from galley_worker.ledger import Beaten, Ledger
from galley_worker.settle import Settler
from galley_worker.solitude import AWAY_TIMES, Solitude, patience
from galley_worker.verdict import taken_over

RECONNECT_SECONDS: Final = 5.0
"""How long others may take to reconnect to a broker that was restarted; a lease, if that is longer."""

_ASK_AGAIN_SECONDS: Final = 0.5
_ASK_TIMES: Final = 4
CLOCKS_DIFFER: Final = timedelta(seconds=5)
"""By how much the clocks of nodes may differ."""
LOOK_AGAIN_SECONDS: Final = 2.0
"""After this a message comes again whose holder may still be reconnecting; meanwhile its slot is free."""

Ask = Callable[[TaskAddress, Claim], Awaitable[Holder]]
"""Finds out about the process that made a claim."""


class Holders:
    """Asks other worker processes about the attempts they claimed."""

    def __init__(self, broker: Broker, clock: Callable[[], float], lease_seconds: float) -> None:
        self._broker = broker
        self._clock = clock
        self._away_seconds = max(lease_seconds, RECONNECT_SECONDS)
        self._connection = broker.connection
        self._connected_at = clock()
        broker.on_reconnect(self._on_reconnect)

    async def _on_reconnect(self) -> None:
        self._notice_connection()

    def _notice_connection(self) -> None:
        if self._connection != self._broker.connection:
            self._connection, self._connected_at = self._broker.connection, self._clock()

    async def ask(self, address: TaskAddress, claim: Claim) -> Holder:
        """Return what is known of the process that made a claim.

        On a connection younger than the longest time others may be away, no answer proves nothing.
        """
        question = Question(claim.stream, claim.sequence)
        for _ in range(_ASK_TIMES):
            try:
                answer = await ask_holder(
                    self._broker, address.namespace, address.queue, claim.holder, question
                )
                found = Holder.GONE if answer is None else Holder.IDLE
                if answer is not None and answer.started_at is not None:
                    return Holder.RUNNING
            except BrokerError:
                found = Holder.SILENT
            if found is Holder.IDLE:
                return found
            self._notice_connection()
            if self._broker.connected and self._clock() - self._connected_at >= self._away_seconds:
                return found
            await asyncio.sleep(_ASK_AGAIN_SECONDS)
        return Holder.AWAITED


class Claimant:
    """Claims tasks for one worker."""

    def __init__(  # noqa: PLR0917 - what a claim needs
        self, ledger: Ledger, settler: Settler, who: Who, now: Callable[[], datetime], ask: Ask,
        solitude: Solitude,
    ) -> None:  # fmt: skip
        self._ask = ask
        self._ledger = ledger
        self._settler = settler
        self._who = who
        self._now = now
        self._solitude = solitude

    async def claim(self, held: Held, policy: RetryPolicy) -> bool:
        """Claim a task; returns whether its attempt may begin here.

        If not, all that its message still called for has been done.
        """
        step = first_claim(held.envelope, held.flags)
        while True:
            if step.lost_worker:
                counted = await self._take_over(held, policy, step)
                if counted is None:
                    return False
                step = counted
            if step.history.crashes >= policy.crashes and not held.alone:
                # Not claimed before it is alone: those it waits for may take this worker down.
                within = patience(max(0, held.delivery.delivered - 1 - step.history.crashes))
                if not await self._solitude.alone(within):
                    self._settler.look_again(held.delivery, AWAY_TIMES * (within or 0.0))
                    journal.gave_way(held)
                    return False
                held.alone, held.started_at = True, self._now()
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
        step = what_next(mine, held.flags, held.envelope, stored)
        if isinstance(step, AskHolder):
            return await self._ask_holder(held, step)
        match step:
            case ClaimAt():
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

    async def _ask_holder(self, held: Held, step: AskHolder) -> ClaimAt | None:
        match take_over(step, await self._ask(held.delivery.address, step.claim)):
            case ClaimAt() as claim:
                return claim
            case HeldElsewhere(why):
                # Its renewals name the message, so they hold it though it was delivered here.
                journal.dropped(held.delivery, why)
            case LookAgain(why):
                journal.dropped(held.delivery, why)
                self._settler.look_again(held.delivery, LOOK_AGAIN_SECONDS)
        return None

    async def _take_over(self, held: Held, policy: RetryPolicy, step: ClaimAt) -> ClaimAt | None:
        """Return the claim with the attempt of another worker in its history; None if that ends the task."""
        end = await self._ledger.end_of(held.delivery.address, step.lost_worker) if step.crashed else None
        # One from before the attempt is of an earlier life of a container that was restarted.
        known = end is not None and (step.since is None or end.at + CLOCKS_DIFFER >= step.since)
        history, last = taken_over(
            step.history, policy, step.lost_worker, held.flags.attempt, self._now(),
            crashed=step.crashed, end=end.said if end is not None and known else "",
        )  # fmt: skip
        if last is None:
            return ClaimAt(step.fence, history)
        held.fence, held.history = step.fence, history
        by_us = await self._settler.settle(held, last)
        journal.settled(held, last, 0.0, by_us=by_us)
        return None

"""One attempt from delivery to verdict: lease, claim, timeout and cancel around the handler."""

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from galley import envelope as wire
from galley.broker.pull import Delivery
from galley.broker.topology import later_stream
from galley.envelope import Envelope, Flags
from galley.errors import EnvelopeInvalid
from galley.record import Failure
from galley.retry import RetryPolicy
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
    must_claim,
    what_next,
)
from galley_worker.ending import Cancelled, CutOff, Ending, TimedOut
from galley_worker.held import Held
from galley_worker.leases import Lease, LeaseKeeper
from galley_worker.ledger import Beaten, Ledger
from galley_worker.measures import Measures
from galley_worker.runners.execution import Execution
from galley_worker.runners.runners import Runners
from galley_worker.settle import Settler
from galley_worker.verdict import DEADLINE_EXCEEDED, Bury, Circumstances, HandBack, Verdict, judge, taken_over
from galley_worker.work import Work

log = logging.getLogger(__name__)

REMEMBERED_CANCELS: Final = 10_000
"""Ids of cancelled tasks kept, for messages that were on their way when the cancel came."""


@dataclass(slots=True)
class UnderWay:
    """An attempt of this worker, from delivery to verdict."""

    delivery: Delivery
    lease: Lease
    began: float
    execution: Execution | None = None
    stopped: Cancelled | CutOff | None = None
    """Why it must not go on, if somebody said so, perhaps before the handler began."""
    lease_lost: bool = False

    def stop(self, because: Cancelled | CutOff) -> None:
        """End it, whether or not its handler has begun."""
        self.stopped = self.stopped or because
        if self.execution is not None:
            self.execution.stop(because)


@dataclass(frozen=True)
class Rules:
    """What the queue lays down for each attempt."""

    namespace: str
    queue: str
    worker: Who
    policy: RetryPolicy
    timeout_seconds: float


@dataclass
class Parts:
    """What attempts are made with."""

    runners: Runners
    ledger: Ledger
    settler: Settler
    leases: LeaseKeeper
    measures: Measures
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    jitter: Callable[[], float] = random.random


class Attempts:
    """The attempts of one worker."""

    def __init__(self, rules: Rules, parts: Parts) -> None:
        self._rules = rules
        self._parts = parts
        self._later = later_stream(rules.namespace, rules.queue)
        self._cancelled: dict[str, None] = {}
        self.under_way: dict[str, UnderWay] = {}
        """By `<kind>.<id>`."""

    def known(self, delivery: Delivery) -> bool:
        """Return whether this very message is under way here, and if so lean on its new delivery.

        The broker sends a message again after a restart, or after a lease it saw lapse; the attempt
        that is running need not begin anew for that.
        """
        present = self.under_way.get(_key(delivery))
        if present is None or not _same(present.delivery, delivery) or present.lease_lost:
            return False
        present.delivery = present.delivery._replace(reply=delivery.reply)
        present.lease.reply = delivery.reply
        return True

    def cancel(self, task: str) -> UnderWay | None:
        """Stop the attempt of a task, now or when its message arrives; returns it if it is under way."""
        self._cancelled[task] = None
        if len(self._cancelled) > REMEMBERED_CANCELS:
            del self._cancelled[next(iter(self._cancelled))]
        present = self.under_way.get(task)
        if present is not None:
            present.stop(Cancelled())
        return present

    def cut(self, why: str) -> None:
        """Stop all attempts; what has not ended is handed back."""
        for present in self.under_way.values():
            present.stop(CutOff(why))

    async def run(self, delivery: Delivery) -> None:
        """Carry one delivery to its end."""
        key = _key(delivery)
        lease = self._parts.leases.hold(delivery.reply, lambda: self._lose(key))
        if lease is None:
            log.warning("delivery dropped", extra={"task": delivery.address.id, "why": "read too late"})
            return
        present = UnderWay(delivery, lease, self._parts.clock())
        self.under_way[key] = present
        try:
            await self._run(key, present)
        finally:
            del self.under_way[key]
            self._parts.leases.release(lease)

    async def _run(self, key: str, present: UnderWay) -> None:
        delivery = present.delivery
        try:
            flags = Flags.decode(delivery.header)
            envelope = wire.decode(delivery.body)
        except EnvelopeInvalid as error:
            log.warning("task not readable", extra={"task": delivery.address.id, "error": str(error)})
            await self._parts.settler.bury_unreadable(delivery, Failure(error.reason, str(error)))
            return
        held = await self._hold(present, envelope, flags)
        if held is None:
            return
        if key in self._cancelled:
            present.stop(Cancelled())
        ending = await self._end(present, held)
        if present.lease_lost and isinstance(ending, CutOff):
            # Another worker may hold the task by now: nothing of ours may touch it.
            log.warning("attempt dropped", extra={**_about(held), "why": "its lease was lost"})
            self._parts.measures.lost()
            return
        verdict = self._judge(held, ending)
        held.delivery = present.delivery
        settled = await self._parts.settler.settle(held, verdict)
        seconds = self._parts.clock() - present.began
        self._parts.measures.settled(type(verdict).__name__, seconds, held.delivery.address.lane)
        self._log(held, verdict, seconds, settled=settled)

    async def _hold(self, present: UnderWay, envelope: Envelope, flags: Flags) -> Held | None:
        """Return the task if its attempt may begin here; None if it is somebody else's or over."""
        delivery = present.delivery
        started_at = self._parts.now()
        held = Held(delivery, envelope, flags, 0, False, envelope.history, started_at)
        if must_claim(delivery, flags, self._later):
            return await self._claim(present, held)
        return held

    async def _claim(self, present: UnderWay, held: Held) -> Held | None:
        """Write `run` into the record, as often as it takes to learn who may run the attempt."""
        step = first_claim(held.envelope, held.flags)
        address = held.delivery.address
        while True:
            if step.lost_worker:
                history, last = taken_over(
                    step.history, self._policy(held), step.lost_worker, held.flags.attempt, self._parts.now()
                )
                if last is not None:
                    held.fence, held.history = step.fence, history
                    await self._parts.settler.settle(held, last)
                    self._log(held, last, 0.0, settled=True)
                    return None
                step = ClaimAt(step.fence, history)
            record = claiming_record(
                held.delivery, held.envelope, held.flags,
                history=step.history, worker=self._rules.worker, now=held.started_at,
            )  # fmt: skip
            written = await self._parts.ledger.write(address, record, step.fence)
            if not isinstance(written, Beaten):
                held.fence, held.claimed, held.history = written, True, step.history
                return held
            stored = await self._parts.ledger.read(address, written.by)
            match what_next(
                claim_of(held.delivery, self._rules.worker.holder), held.flags, held.envelope, stored
            ):
                case ClaimAt() as next_step:
                    step = next_step
                case DropIt(why):
                    log.info("message dropped", extra={**_about(held), "why": why})
                    await self._parts.settler.drop(present.delivery)
                    return None
                case Ended(final):
                    await self._parts.settler.finish(present.delivery, final)
                    return None
                case LeaveIt(why):
                    log.error("message left alone", extra={**_about(held), "why": why})
                    return None
                case ScheduleAgain(envelope, flags, due_at):
                    await self._parts.settler.schedule_again(held, envelope, flags, due_at)
                    return None

    async def _end(self, present: UnderWay, held: Held) -> Ending:
        """Run the handler and return how that ended."""
        if present.stopped is not None:
            return present.stopped
        timeout = self._timeout(held)
        if timeout <= 0:
            return TimedOut(0.0)
        execution = self._parts.runners.start(
            Work(
                task_id=held.delivery.address.id,
                queue=self._rules.queue,
                lane=held.delivery.address.lane,
                handler=held.envelope.handler,
                attempt=held.flags.attempt,
                input=held.envelope.input,
                timeout=timeout,
            )
        )
        present.execution = execution
        if not log.isEnabledFor(logging.DEBUG):
            return await execution.ending
        delivery = held.delivery
        log.debug("attempt started", extra={
            **_about(held), "stream": delivery.source.stream, "sequence": delivery.sequence,
            "delivered": delivery.delivered, "flagged": held.flags.republished,
        })  # fmt: skip
        ending = await execution.ending
        log.debug("attempt ended", extra={**_about(held), "ending": type(ending).__name__})
        return ending

    def _judge(self, held: Held, ending: Ending) -> Verdict:
        now = self._parts.now()
        deadline = held.envelope.deadline
        given = Circumstances(
            held.flags.attempt, self._rules.worker.name, held.started_at, deadline, held.history
        )
        if isinstance(ending, TimedOut) and deadline is not None and now >= deadline:
            failure = Failure(DEADLINE_EXCEEDED, f"it had not ended by its deadline, {deadline.isoformat()}")
            return Bury(failure, held.history)
        return judge(ending, self._policy(held), given, now, self._parts.jitter)

    def _policy(self, held: Held) -> RetryPolicy:
        return held.envelope.retry or self._rules.policy

    def _timeout(self, held: Held) -> float:
        """Return the seconds this attempt has: its own or the queue's, bounded by the deadline."""
        timeout = held.envelope.timeout_seconds or self._rules.timeout_seconds
        if held.envelope.deadline is None:
            return timeout
        return min(timeout, (held.envelope.deadline - self._parts.now()).total_seconds())

    def _lose(self, key: str) -> None:
        present = self.under_way.get(key)
        if present is not None:
            present.lease_lost = True
            present.stop(CutOff("its lease could not be renewed"))

    def _log(self, held: Held, verdict: Verdict, seconds: float, *, settled: bool) -> None:
        level = logging.WARNING if isinstance(verdict, Bury) else logging.INFO
        if not log.isEnabledFor(level):
            return
        more: dict[str, object] = {}
        if isinstance(verdict, Bury) or (not isinstance(verdict, HandBack) and hasattr(verdict, "failure")):
            more = {"reason": verdict.failure.reason, "error": verdict.failure.message}
        log.log(
            level,
            "attempt settled" if settled else "attempt overtaken",
            extra={
                **_about(held),
                "verdict": type(verdict).__name__,
                "milliseconds": round(seconds * 1000, 1),
                **more,
            },
        )


def _same(one: Delivery, other: Delivery) -> bool:
    return (one.source.stream, one.sequence) == (other.source.stream, other.sequence)


def _key(delivery: Delivery) -> str:
    return f"{delivery.address.kind}.{delivery.address.id}"


def _about(held: Held) -> dict[str, object]:
    address = held.delivery.address
    return {
        "task": address.id,
        "queue": address.queue,
        "lane": address.lane.value,
        "attempt": held.flags.attempt,
        "handler": held.envelope.handler,
    }

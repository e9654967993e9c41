"""Attempts: lease, claim, timeout and cancellation around a handler, from the delivery to the verdict."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker.errors import NotAllowed
from galley.broker.pull import Delivery
from galley.broker.topology import later_stream
from galley.broker.unique_keys import REPLACED
from galley.encryption.payloads import Payloads
from galley.envelope import FIRST, Envelope, encode
from galley.error_group import ungrouped
from galley.failpoint import failpoint
from galley.history import History
from galley.objects.errors import CacheUnusable, ObjectError, ObjectStoreUnavailable
from galley.record import Failure
from galley.workflow.plan import START
from galley.workflow.state import is_step
from galley_worker import journal
from galley_worker.circuit import Circuit
from galley_worker.claim import Held, Onward, must_claim
from galley_worker.claimant import Claimant
from galley_worker.clock import utc_now
from galley_worker.continuation import Continuations
from galley_worker.ending import (
    Cancelled,
    CutOff,
    Ending,
    Finish,
    NotBegun,
    Returned,
    ReturnedLarge,
    TimedOut,
)
from galley_worker.fast_path import FastPath, Hand
from galley_worker.flows import Workflows
from galley_worker.gates import Gates
from galley_worker.judge import Judge, Rules
from galley_worker.leases import LeaseKeeper
from galley_worker.measures import Measures
from galley_worker.notebook import Notebook
from galley_worker.objects import TaskObjects
from galley_worker.opener import Opener
from galley_worker.retry_budget import RetryBudget
from galley_worker.roster import Roster
from galley_worker.runners.execution import Execution
from galley_worker.runners.runners import Runners
from galley_worker.settle import Settler, Tried
from galley_worker.solitude import Solitude
from galley_worker.traces import Traces, parent_of
from galley_worker.turns import Turns
from galley_worker.under_way import UnderWay, message_of
from galley_worker.uniqueness import Uniqueness
from galley_worker.verdict import (
    INTERNAL_ERROR,
    Bury,
    Cancel,
    Defer,
    RetryAt,
    Succeed,
    Verdict,
)
from galley_worker.work import Work

UNDECIDED_SECONDS: Final = 30.0
"""Pause before a message is delivered again whose attempt failed outside its handler and was not settled."""

UNDECIDED_TIMES: Final = 10
"""Deliveries of such a message after which it becomes a dead letter."""

OBJECT_STORE_SECONDS: Final = 15.0
"""Pause before a task is tried again whose objects cannot be had now; costs no attempt."""


@dataclass
class Parts:
    """What attempts need."""

    runners: Runners
    claimant: Claimant
    settler: Settler
    leases: LeaseKeeper
    measures: Measures
    uniqueness: Uniqueness
    notebook: Notebook
    solitude: Solitude
    payloads: Payloads = field(default_factory=Payloads)
    objects: TaskObjects | None = None
    flows: Workflows | None = None
    continuations: Continuations | None = None
    turns: Turns | None = None
    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = utc_now
    jitter: Callable[[], float] = random.random
    budget: RetryBudget | None = None
    """None schedules retries as their policies say."""
    circuit: Circuit | None = None
    traces: Traces | None = None


class Attempts:
    """The attempts of one worker."""

    def __init__(self, rules: Rules, parts: Parts) -> None:
        self._rules = rules
        self._parts = parts
        self._later = later_stream(rules.namespace, rules.queue)
        self.judge = Judge(rules, parts.runners, parts.now, parts.jitter)
        self.roster = Roster(parts.leases)
        self.gates = Gates(parts.settler, parts.turns, parts.continuations, parts.now)
        self._opener = Opener(
            parts.payloads,
            parts.settler,
            plaintext=rules.plaintext,
            key_service_seconds=rules.key_service_seconds,
            missing_key_seconds=rules.unknown_handler_seconds,
        )
        self.idle: Callable[[], bool] = lambda: False
        """Whether no task of the queue waits for a slot, as far as this worker knows."""
        parts.settler.fenced = self._fenced
        if parts.flows is not None:
            parts.flows.here = self._runs_here
        self.begin: Callable[[Delivery, Hand], bool] = FastPath(self, rules, parts, self._later).begin
        """Begins the attempt of one delivery on the fast path; returns False if it needs `run`."""

    async def run(self, delivery: Delivery) -> None:
        """Run the attempt of one delivery and settle it. Does not raise because of what an attempt does."""
        lease = self.roster.lease(delivery)
        if lease is None:
            journal.dropped(delivery, "read too late: its lease may have ended")
            return
        present = UnderWay(delivery, lease, self._parts.clock())
        self.roster.enter(present)
        try:
            await self._parts.solitude.enter()
            await self._guard(present, self._dispatch)
        finally:
            self.leave(present)

    async def _guard(self, present: UnderWay, take: Callable[[UnderWay], Awaitable[None]]) -> None:
        """Run a part of an attempt that has entered; an error costs this attempt, not the worker."""
        solitude = self._parts.solitude
        try:
            await take(present)
        except Exception as error:
            await self._recover(present, error)
        finally:
            try:
                if present.span is not None:
                    Traces.end(present.span, None)
            finally:
                if present.held is not None and present.held.alone:
                    solitude.leave_alone()
                else:
                    solitude.leave()

    async def _dispatch(self, present: UnderWay) -> None:
        """Run the attempt of a task, and the next steps of its workflow in its place; or take a turn."""
        if present.delivery.address.kind is Kind.TURN:
            assert self._parts.turns is not None, "a worker takes turns"
            await self._parts.turns.take(present.delivery)
        else:
            await self._open(present)
            while present.held is not None and present.held.onward is not None:
                await self._run_in_place(present, present.held.onward)

    async def _open(self, present: UnderWay) -> None:
        """Read the message, and get the task's large input and files; then claim and run it."""
        delivery = present.delivery
        if delivery.source.stream != self._later and await self._parts.settler.refused_id(delivery):
            return
        opened = await self._opener.open(delivery)
        if opened is None:
            return
        flags, envelope, refused = opened
        held = Held(present.delivery, envelope, flags, 0, False, envelope.history, self._parts.now())
        if refused is not None:
            held.refused = Failure(refused.reason, f"{refused}; {refused.hint}")
        present.held = held
        if envelope.handler == START and is_step(delivery.address.id):
            await self._parts.settler.start_flow(present.delivery, envelope)
            return
        if not await self.gates.let(present, held):
            return
        if (envelope.large is None and not envelope.files) or flags.awaits:
            await self._claim_and_run(present, held)
            return
        assert self._parts.objects is not None, "a worker has objects"
        try:
            async with AsyncExitStack() as kept:
                try:
                    # Before the task is claimed: a store that is away costs no attempt.
                    held.large, held.files = await kept.enter_async_context(
                        self._parts.objects.of(delivery.address, envelope)
                    )
                except ObjectError as error:
                    if isinstance(error, ObjectStoreUnavailable | CacheUnusable):
                        raise
                    held.refused = held.refused or Failure(error.reason, f"{error}; {error.hint}")
                await self._claim_and_run(present, held)
        except (ObjectStoreUnavailable, CacheUnusable) as error:
            journal.not_fetched(delivery, f"{error}; {error.hint}")
            self._parts.settler.look_again(present.delivery, OBJECT_STORE_SECONDS)

    async def _claim_and_run(self, present: UnderWay, held: Held) -> None:
        """Claim a task whose message was read, run it unless something forbids that, and settle it."""
        delivery, flags, envelope, refused = present.delivery, held.flags, held.envelope, held.refused
        known = envelope.handler in self._parts.runners.handlers
        unique = envelope.unique
        step = self._parts.flows is not None and is_step(delivery.address.id)
        claims = (
            refused is not None or not known or unique is not None or must_claim(delivery, flags, self._later)
        )
        over, claimed = await self._claim(held, step=step) if claims or step else (None, True)
        if not claimed and flags.permit and self._parts.turns is not None:
            await self._parts.turns.give_back_if_gone(delivery.address, envelope.key)
        if not claimed:
            return
        if self.roster.is_cancelled(delivery):
            present.stop(Cancelled())
        never = self._refusal(held, over)
        if flags.awaits:
            await self._after_workflow(present, held, never)
            return
        if never is not None and present.stopped is None:
            await self._settle(present, held, never)
            return
        if not known and present.stopped is None:
            await self._settle(present, held, self.judge.without_handler(held))
            return
        if unique is not None and flags.attempt == 1 and present.stopped is None:
            again = delivery.delivered > 1 or bool(held.history.attempts)
            try:
                by = await self._parts.uniqueness.begin(delivery.address, unique, delivered_before=again)
            except NotAllowed as error:
                # Whether it was replaced cannot be told here, now or later.
                failure = Failure(error.reason, f"{error}; {error.hint}")
                await self._settle(present, held, Bury(failure, held.history))
                return
            if by:
                failure = Failure(REPLACED, f"task {by} of the same unique key took its place")
                await self._settle(present, held, Cancel(failure))
                return
        await self._settle_ending(present, held, await self._execute(present, held))

    async def _claim(self, held: Held, *, step: bool) -> tuple[Failure | None, bool]:
        """Claim a task, and check the workflow of a step.

        Returns:
            Why the step must not run, None if it may; and whether this worker has the claim.
        """
        flows = self._parts.flows
        if not step or flows is None:
            return None, await self._parts.claimant.claim(held, self.judge.policy(held))
        with ungrouped():
            async with asyncio.TaskGroup() as both:
                claimed = both.create_task(self._parts.claimant.claim(held, self.judge.policy(held)))
                over = both.create_task(flows.may_begin(held.delivery.address, held.envelope))
        return over.result(), claimed.result()

    @staticmethod
    def _refusal(held: Held, over: Failure | None) -> Verdict | None:
        """Return the verdict on a task that must not run; None if it may."""
        if over is not None:
            return Cancel(over)
        return Bury(held.refused, held.history) if held.refused is not None else None

    async def _execute(self, present: UnderWay, held: Held) -> Ending:
        """Run the handler and return how the attempt ended."""
        timeout = self.judge.timeout(held)
        checkpoint = b""
        if held.flags.attempt > 1 or held.flags.fence or held.delivery.delivered > 1:
            checkpoint = await self._parts.notebook.checkpoint(held.delivery.address)
        begun = self.start(present, held, timeout, checkpoint)
        if not isinstance(begun, Execution):
            return begun
        if (life := self._parts.settler.life) is not None:
            await life.started(held, self._rules.worker.name)
        return await self._after_handler(present, held, await begun.ending)

    def start(
        self, present: UnderWay, held: Held, timeout: float, checkpoint: bytes = b""
    ) -> Execution | Cancelled | CutOff | TimedOut:
        """Start the handler of an attempt; returns its ending if it must not start any more."""
        address = held.delivery.address
        failpoint("run.before_start")
        began = self._parts.now()
        # This process may have been frozen since the delivery: last of all, so that little can still happen.
        self._parts.leases.check(present.lease)
        if present.stopped is not None:
            return present.stopped
        if timeout <= 0:
            return TimedOut(0.0)
        if self._parts.traces is not None:
            present.span = self._parts.traces.begin(held)
        traced = present.span is not None or held.envelope.trace
        traceparent = parent_of(held.envelope.trace, present.span) if traced else ""
        present.execution = execution = self._parts.runners.start(
            Work(
                task_id=address.id,
                queue=address.queue,
                lane=address.lane,
                handler=held.envelope.handler,
                attempt=held.flags.attempt,
                input=held.envelope.input,
                timeout=timeout,
                submitted_at=held.envelope.submitted_at,
                deadline=held.envelope.deadline,
                last_error=_last_error(held.history) if held.history.attempts else "",
                large=held.large,
                files=held.files,
                ancestors=held.envelope.ancestors,
                kind=address.kind,
                checkpoint=checkpoint,
                trace=traceparent,
                apart=bool(held.history.attempts) and (held.alone or held.history.apart),
            )
        )
        if held.delivery.delivered == 1:
            # Of one that is delivered again, most of the time was an attempt.
            waited = held.started_at.timestamp() - held.delivery.stored_at
            self._parts.measures.waited(waited, address.lane)
        journal.started(held, began)
        return execution

    async def _after_handler(self, present: UnderWay, held: Held, ran: Finish) -> Ending:
        """Store the notes and the large result of a handler that ended; return how the attempt ended."""
        assert present.execution is not None, "it was started"
        if not self._parts.notebook.empty:
            await self._parts.notebook.finish(present.execution.work)
        failpoint("run.after_end")
        if isinstance(ran, ReturnedLarge):
            assert self._parts.objects is not None, "a worker has objects"
            ran = await self._parts.objects.store(held.delivery.address, ran)
        ending: Ending = ran
        journal.ended(held, ending)
        return ending

    async def _settle_ending(self, present: UnderWay, held: Held, ending: Ending) -> None:
        """Settle an attempt by how it ended; one whose lease was lost is left to its new holder."""
        if present.lease_lost and isinstance(ending, CutOff | NotBegun):
            journal.lost(held, "its lease was lost")
            self._parts.measures.lost(held.delivery.address.lane)
            await self._parts.settler.let_go(held, self.judge.dropped(held))
            return
        await self._settle(present, held, self.judge.verdict(held, ending))

    async def _settle(
        self, present: UnderWay, held: Held, verdict: Verdict, tried: Tried | None = None
    ) -> None:
        if tried is None:
            verdict = self.paced(held, verdict)
        held.goes_on = isinstance(verdict, Succeed) and self._may_run_next_step(present, held)
        by_us = await self._parts.settler.settle(held, verdict, tried)
        self.settled(present, held, verdict, by_us=by_us)
        if present.span is not None:
            Traces.end(present.span, verdict)
            present.span = None
        if held.envelope.unique is not None and isinstance(verdict, Succeed | Bury | Cancel):
            await self._parts.uniqueness.release(held.delivery.address, held.envelope.unique)
        if held.flags.permit and self._parts.turns is not None:
            over = isinstance(verdict, Succeed | Bury | Cancel)
            if over or (isinstance(verdict, RetryAt | Defer) and not held.keeps_permit):
                await self._parts.turns.give_back(held.delivery.address, held.envelope.key)

    def paced(self, held: Held, verdict: Verdict) -> Verdict:
        """Count a verdict in retry budget and circuit; return it, delayed if the budget requires that."""
        budget, circuit = self._parts.budget, self._parts.circuit
        if budget is not None:
            now = self._parts.now()
            budget.ended(now)
            if isinstance(verdict, RetryAt):
                verdict = budget.paced(verdict, now, held.envelope.deadline)
        if circuit is not None and isinstance(verdict, Succeed | RetryAt | Bury):
            circuit.ended(failed=not isinstance(verdict, Succeed))
        return verdict

    def settled(self, present: UnderWay, held: Held, verdict: Verdict, *, by_us: bool) -> None:
        """Count and log an attempt that is settled."""
        seconds = self._parts.clock() - present.began
        self._parts.measures.settled(type(verdict).__name__, seconds, held.delivery.address.lane)
        journal.settled(held, verdict, seconds, by_us=by_us)

    async def _after_workflow(self, present: UnderWay, held: Held, over: Verdict | None) -> None:
        """Settle a task by the outcome of the workflow that replaced its handler."""
        continuations = self._parts.continuations
        assert continuations is not None, "a worker has continuations"
        if isinstance(present.stopped, CutOff):  # the workflow stays as it is for the next worker
            await self._settle_ending(present, held, present.stopped)
            return
        if present.stopped is not None:
            over = Cancel()
        if over is not None:
            await continuations.stop(held)
        await self._settle(present, held, over or await continuations.verdict(held))

    def _may_run_next_step(self, present: UnderWay, held: Held) -> bool:
        """Return whether the next step of the workflow may run in place of this one."""
        begun = present.execution
        return (
            is_step(held.delivery.address.id)
            and replace(held.flags, republished=False) == FIRST
            and not (held.alone or held.envelope.key or held.envelope.unique)
            and begun is not None
            and begun.batch is None
            and present.stopped is None
        )

    def _runs_here(self, address: TaskAddress, task: Envelope) -> bool:
        """Return whether a task can run here at once: it needs no other checks, and its handler is quick."""
        parts = self._parts
        asks = task.key or task.unique or task.large or task.files or task.sealed or task.not_before
        return (
            not asks
            and parts.runners.quick(task.handler)
            and self.gates.limit is None
            and not parts.solitude.closed
            and parts.traces is None
            and parts.settler.life is None
            and self._rules.plaintext
            and parts.payloads.keys_of(address) is None
            and self.idle()
        )

    async def _run_in_place(self, present: UnderWay, onward: Onward) -> None:
        """Run the next step of a workflow under the message of the one that ended."""
        now = self._parts.now()
        delivery = present.delivery._replace(
            address=onward.address, body=encode(onward.envelope), header=FIRST.encode(), delivered=1,
            old=False, stored_at=now.timestamp(),
        )  # fmt: skip
        if present.stopped is not None or self.roster.is_cancelled(delivery):
            # The worker that gets the message next publishes the step.
            assert present.held is not None
            present.held.onward = None
            if not present.lease_lost:
                self._parts.settler.give_back(present.delivery)
            return
        present.held = held = Held(delivery, onward.envelope, FIRST, 0, False, onward.envelope.history, now)
        present.delivery, present.execution, present.began = delivery, None, self._parts.clock()
        await self._settle_ending(present, held, await self._execute(present, held))

    async def resume(self, present: UnderWay, ran: Finish, tried: Tried | None) -> None:
        """Continue and settle an attempt that the fast path began.

        Args:
            present: the attempt.
            ran: how its handler ended, or why it did not begin.
            tried: its final record, if it was written and not stored.
        """
        try:
            await self._guard(present, lambda _present: self._finish(present, ran, tried))
        finally:
            self.leave(present)

    async def _finish(self, present: UnderWay, ran: Finish, tried: Tried | None) -> None:
        held = present.held
        assert held is not None, "the fast path reads it first"
        if tried is not None:
            assert isinstance(ran, Returned)
            await self._settle(present, held, Succeed(ran.result), tried)
            return
        if present.execution is not None:
            ran = await self._after_handler(present, held, ran)
        assert not isinstance(ran, ReturnedLarge), "only what ran returns"
        await self._settle_ending(present, held, ran)

    async def recover(self, present: UnderWay, error: Exception) -> None:
        """Settle an attempt of the fast path that failed outside its handler."""

        async def fail(_present: UnderWay) -> None:
            raise error

        try:
            await self._guard(present, fail)
        finally:
            self.leave(present)

    async def _recover(self, present: UnderWay, error: Exception) -> None:
        """Settle an attempt that failed outside its handler as an error, or have it delivered again."""
        delivery, held = present.delivery, present.held
        journal.failed(delivery, error)
        self._parts.measures.failed()
        failure = Failure(INTERNAL_ERROR, f"{type(error).__name__}: {error}")
        try:
            if present.execution is not None:
                present.stop(CutOff("its attempt failed outside its handler"))
                await present.execution.ending
            if held is not None:
                await self._settle(present, held, self.judge.after_error(held, failure))
                return
        except Exception as again:
            journal.failed(delivery, again)
        await self._leave_undecided(delivery, failure)

    async def _leave_undecided(self, delivery: Delivery, failure: Failure) -> None:
        """Have a message delivered again that was not read or not settled, and bury it after many times.

        Many, since deliveries of a task that was given back count, too.
        """
        try:
            if delivery.delivered >= UNDECIDED_TIMES:
                await self._parts.settler.bury_unreadable(delivery, failure)
                return
        except Exception as again:
            journal.failed(delivery, again)
        self._parts.settler.look_again(delivery, UNDECIDED_SECONDS)

    def failed(self, delivery: Delivery, error: Exception) -> None:
        """Have a message delivered again later because its attempt could not start, and count that."""
        journal.failed(delivery, error)
        self._parts.measures.failed()
        self._parts.settler.look_again(delivery, UNDECIDED_SECONDS)

    def leave(self, present: UnderWay) -> None:
        """Forget an attempt that is over."""
        try:
            if present.execution is not None and (batch := present.execution.batch) is not None:
                batch.settled(batch)
        finally:
            self.roster.leave(present)

    def _fenced(self, delivery: Delivery) -> bool:
        present = self.roster.under_way.get(message_of(delivery))
        if present is None:
            return False
        self._parts.leases.check(present.lease)
        return present.lease_lost


def _last_error(history: History) -> str:
    last = history.attempts[-1]
    return f"{last.reason}: {last.message}"

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
from galley.retry import RetryPolicy
from galley.workflow.plan import START
from galley.workflow.state import is_step
from galley_worker import journal
from galley_worker.circuit import Circuit
from galley_worker.claim import Held, Onward, Who, must_claim
from galley_worker.claimant import Claimant
from galley_worker.clock import utc_now
from galley_worker.continuation import Continuations
from galley_worker.ending import (
    Cancelled,
    CutOff,
    Ending,
    Finish,
    NotBegun,
    Raised,
    Returned,
    ReturnedLarge,
    TimedOut,
)
from galley_worker.fast_path import FastPath, Hand
from galley_worker.flows import Workflows
from galley_worker.gates import Gates
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
    DEADLINE_EXCEEDED,
    INTERNAL_ERROR,
    Bury,
    Cancel,
    Circumstances,
    Defer,
    RetryAt,
    Succeed,
    Verdict,
    dropped,
    judge,
    without_handler,
)
from galley_worker.work import Work

UNDECIDED_SECONDS: Final = 30.0
"""Pause before a message is delivered again whose attempt failed outside its handler and was not settled."""

UNDECIDED_TIMES: Final = 10
"""Deliveries of such a message after which it becomes a dead letter."""

OBJECT_STORE_SECONDS: Final = 15.0
"""Pause before a task is tried again whose objects cannot be had now; costs no attempt."""


@dataclass(frozen=True)
class Rules:
    """What holds for each attempt of the queue."""

    namespace: str
    queue: str
    worker: Who
    policy: RetryPolicy
    timeout_seconds: float
    unknown_handler_seconds: float
    """How long a task may wait for a worker that knows its handler, or has its key."""
    key_service_seconds: float = 15.0
    """Pause before a task is tried again that cannot be decrypted since the key service does not answer."""
    plaintext: bool = True
    """Whether a task that is not encrypted may run."""


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
        """Tells whether no task of the queue waits for a slot, as far as this worker sees."""
        parts.settler.fenced = self._fenced
        if parts.flows is not None:
            parts.flows.here = self._runs_here
        self.begin: Callable[[Delivery, Hand], bool] = FastPath(self, rules, parts, self._later).begin
        """Begins the attempt of one delivery on the fast path; if only `run` can, returns False at once."""

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
            await self._to_its_end(present, self._take)
        finally:
            self.leave(present)

    async def go_on(self, present: UnderWay, ran: Finish, tried: Tried | None) -> None:
        """Settle an attempt that the fast path began.

        Args:
            present: the attempt.
            ran: how its handler ended, or why it did not begin.
            tried: its final record, if it was written and not stored.
        """
        try:
            await self._to_its_end(present, lambda _present: self._resume(present, ran, tried))
        finally:
            self.leave(present)

    async def recover(self, present: UnderWay, error: Exception) -> None:
        """Settle an attempt of the fast path that failed outside its handler."""

        async def fail(_present: UnderWay) -> None:
            raise error

        try:
            await self._to_its_end(present, fail)
        finally:
            self.leave(present)

    def failed(self, delivery: Delivery, error: Exception) -> None:
        """Have a message delivered again later with which nothing could be begun, and count that."""
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

    async def _to_its_end(self, present: UnderWay, take: Callable[[UnderWay], Awaitable[None]]) -> None:
        """Have an attempt taken to its end that has entered."""
        solitude = self._parts.solitude
        try:
            await take(present)
        except Exception as error:  # whatever it is costs this attempt, not the worker
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

    async def _resume(self, present: UnderWay, ran: Finish, tried: Tried | None) -> None:
        held = present.held
        assert held is not None, "the fast path reads it first"
        if tried is not None:
            assert isinstance(ran, Returned)
            await self._settle(present, held, Succeed(ran.result), tried)
            return
        if present.execution is not None:
            ran = await self._ended(present, held, ran)
        assert not isinstance(ran, ReturnedLarge), "only what ran returns"
        await self._decide(present, held, ran)

    async def _take(self, present: UnderWay) -> None:
        if present.delivery.address.kind is Kind.TURN:
            assert self._parts.turns is not None, "a worker takes turns"
            await self._parts.turns.take(present.delivery)
        else:
            await self._run(present)
            while present.held is not None and present.held.onward is not None:
                await self._run_in_place(present, present.held.onward)

    async def _run_in_place(self, present: UnderWay, onward: Onward) -> None:
        """Run the next step of a workflow in the place of the one that ended, under its message."""
        now = self._parts.now()
        delivery = present.delivery._replace(
            address=onward.address, body=encode(onward.envelope), header=FIRST.encode(), delivered=1,
            old=False, stored_at=now.timestamp(),
        )  # fmt: skip
        if present.stopped is not None or self.roster.is_cancelled(delivery):
            # Whatever that was for: who is delivered the message publishes the step.
            assert present.held is not None
            present.held.onward = None
            if not present.lease_lost:
                self._parts.settler.give_back(present.delivery)
            return
        present.held = held = Held(delivery, onward.envelope, FIRST, 0, False, onward.envelope.history, now)
        present.delivery, present.execution, present.began = delivery, None, self._parts.clock()
        await self._decide(present, held, await self._end(present, held))

    def _may_go_on(self, present: UnderWay, held: Held) -> bool:
        """Return whether the step after this one may run in its place."""
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
        """Return whether a task that nothing has to be asked about would begin here at once, and be quick."""
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

    def _fenced(self, delivery: Delivery) -> bool:
        present = self.roster.under_way.get(message_of(delivery))
        if present is None:
            return False
        self._parts.leases.check(present.lease)
        return present.lease_lost

    async def _run(self, present: UnderWay) -> None:
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
            await self._attempt(present, held)
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
                await self._attempt(present, held)
        except (ObjectStoreUnavailable, CacheUnusable) as error:
            journal.not_fetched(delivery, f"{error}; {error.hint}")
            self._parts.settler.look_again(present.delivery, OBJECT_STORE_SECONDS)

    async def _attempt(self, present: UnderWay, held: Held) -> None:
        """Run and settle what was read."""
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
        never = self._never(held, over)
        if flags.awaits:
            await self._after_workflow(present, held, never)
            return
        if never is not None and present.stopped is None:
            await self._settle(present, held, never)
            return
        if not known and present.stopped is None:
            await self._settle(present, held, self._without_handler(held))
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
        await self._decide(present, held, await self._end(present, held))

    async def _decide(self, present: UnderWay, held: Held, ending: Ending) -> None:
        """Settle an attempt that ended like that."""
        if present.lease_lost and isinstance(ending, CutOff | NotBegun):
            journal.lost(held, "its lease was lost")
            self._parts.measures.lost(held.delivery.address.lane)
            await self._parts.settler.let_go(held, dropped(self._circumstances(held), self._parts.now()))
            return
        await self._settle(present, held, self._judge(held, ending))

    async def _after_workflow(self, present: UnderWay, held: Held, over: Verdict | None) -> None:
        """Settle a task as the workflow ended that took the place of its handler."""
        continuations = self._parts.continuations
        assert continuations is not None, "a worker has continuations"
        if present.stopped is not None:
            over = Cancel()
        if over is not None:
            await continuations.stop(held)
        await self._settle(present, held, over or await continuations.verdict(held))

    @staticmethod
    def _never(held: Held, over: Failure | None) -> Verdict | None:
        """Return the verdict on what is not to run, whatever its handler would do."""
        if over is not None:
            return Cancel(over)
        return Bury(held.refused, held.history) if held.refused is not None else None

    async def _claim(self, held: Held, *, step: bool) -> tuple[Failure | None, bool]:
        """Claim a task, and look at the workflow of a step: why it is not to run, and if it is ours."""
        flows = self._parts.flows
        if not step or flows is None:
            return None, await self._parts.claimant.claim(held, self._policy(held))
        with ungrouped():
            async with asyncio.TaskGroup() as both:
                claimed = both.create_task(self._parts.claimant.claim(held, self._policy(held)))
                over = both.create_task(flows.may_begin(held.delivery.address, held.envelope))
        return over.result(), claimed.result()

    async def _settle(
        self, present: UnderWay, held: Held, verdict: Verdict, tried: Tried | None = None
    ) -> None:
        if tried is None:
            verdict = self.paced(held, verdict)
        held.goes_on = isinstance(verdict, Succeed) and self._may_go_on(present, held)
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

    def settled(self, present: UnderWay, held: Held, verdict: Verdict, *, by_us: bool) -> None:
        """Count and log an attempt that is settled."""
        seconds = self._parts.clock() - present.began
        self._parts.measures.settled(type(verdict).__name__, seconds, held.delivery.address.lane)
        journal.settled(held, verdict, seconds, by_us=by_us)

    def paced(self, held: Held, verdict: Verdict) -> Verdict:
        """Return a verdict as the budget of retries allows it; the circuit hears of it, too."""
        budget, circuit = self._parts.budget, self._parts.circuit
        if budget is not None:
            now = self._parts.now()
            budget.ended(now)
            if isinstance(verdict, RetryAt):
                verdict = budget.paced(verdict, now, held.envelope.deadline)
        if circuit is not None and isinstance(verdict, Succeed | RetryAt | Bury):
            circuit.ended(failed=not isinstance(verdict, Succeed))
        return verdict

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
                ending = Raised(failure, retryable=True)
                given = self._circumstances(held)
                # With a policy of our own: the task's may be what cannot be applied.
                verdict = judge(ending, RetryPolicy(), given, self._parts.now(), self._parts.jitter)
                await self._settle(present, held, verdict)
                return
        except Exception as again:
            journal.failed(delivery, again)
        await self._leave_undecided(delivery, failure)

    async def _leave_undecided(self, delivery: Delivery, failure: Failure) -> None:
        """Have a message delivered again that was not read, or not settled; a dead letter after many times.

        Only then, since deliveries of a task that was given back count, too.
        """
        try:
            if delivery.delivered >= UNDECIDED_TIMES:
                await self._parts.settler.bury_unreadable(delivery, failure)
                return
        except Exception as again:
            journal.failed(delivery, again)
        self._parts.settler.look_again(delivery, UNDECIDED_SECONDS)

    def _without_handler(self, held: Held) -> Verdict:
        known = ", ".join(sorted(self._parts.runners.handlers)) or "none"
        message = (
            f"no handler {held.envelope.handler!r} in queue {self._rules.queue!r};"
            f" known to worker {self._rules.worker.name}: {known}"
        )
        return without_handler(
            message, self._circumstances(held), self._parts.now(), self._rules.unknown_handler_seconds
        )

    def _circumstances(self, held: Held) -> Circumstances:
        return Circumstances(
            held.flags.attempt,
            self._rules.worker.name,
            held.started_at,
            held.envelope.deadline,
            held.history,
        )

    async def _end(self, present: UnderWay, held: Held) -> Ending:
        """Run the handler and return how the attempt ended."""
        timeout = self.timeout(held)
        checkpoint = b""
        if held.flags.attempt > 1 or held.flags.fence or held.delivery.delivered > 1:
            checkpoint = await self._parts.notebook.checkpoint(held.delivery.address)
        begun = self.start(present, held, timeout, checkpoint)
        if not isinstance(begun, Execution):
            return begun
        if (life := self._parts.settler.life) is not None:
            await life.started(held, self._rules.worker.name)
        return await self._ended(present, held, await begun.ending)

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

    async def _ended(self, present: UnderWay, held: Held, ran: Finish) -> Ending:
        """Store what an attempt left behind whose handler ended; return how it ended."""
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

    def _judge(self, held: Held, ending: Ending) -> Verdict:
        now = self._parts.now()
        deadline = held.envelope.deadline
        given = self._circumstances(held)
        if isinstance(ending, TimedOut) and deadline is not None and now >= deadline:
            failure = Failure(DEADLINE_EXCEEDED, f"it had not ended by its deadline, {deadline.isoformat()}")
            return Bury(failure, held.history)
        return judge(ending, self._policy(held), given, now, self._parts.jitter)

    def _policy(self, held: Held) -> RetryPolicy:
        if held.envelope.retry is not None:
            return held.envelope.retry
        rules = self._parts.runners.rules.get(held.envelope.handler)
        return self._rules.policy if rules is None or rules.retry is None else rules.retry

    def timeout(self, held: Held) -> float:
        """Return the seconds this attempt has: its own, its handler's or the queue's, up to the deadline."""
        rules = self._parts.runners.rules.get(held.envelope.handler)
        own = held.envelope.timeout_seconds or (rules.timeout_seconds if rules is not None else None)
        timeout = own or self._rules.timeout_seconds
        if held.envelope.deadline is None:
            return timeout
        return min(timeout, (held.envelope.deadline - self._parts.now()).total_seconds())


def _last_error(history: History) -> str:
    last = history.attempts[-1]
    return f"{last.reason}: {last.message}"

"""Attempts: lease, claim, timeout and cancellation around a handler, from the delivery to the verdict."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from galley.address import Kind
from galley.broker.errors import BrokerError
from galley.broker.pull import Delivery
from galley.broker.topology import later_stream
from galley.broker.unique_keys import REPLACED
from galley.encryption import DecryptionKeyMissing, EncryptionError, KeyServiceUnavailable
from galley.encryption.payloads import Payloads
from galley.envelope import Envelope, Flags
from galley.envelope import decode as decode_envelope
from galley.error_group import ungrouped
from galley.errors import EnvelopeInvalid
from galley.failpoint import failpoint
from galley.history import History
from galley.objects.errors import CacheUnusable, ObjectError, ObjectStoreUnavailable
from galley.record import Failure
from galley.retry import RetryPolicy
from galley.schedule import ticks_of
from galley.workflow.plan import START
from galley.workflow.state import is_step, step_id
from galley_worker import journal
from galley_worker.circuit import Circuit
from galley_worker.claim import Held, Who, must_claim
from galley_worker.claimant import Claimant
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
from galley_worker.leases import Lease, LeaseKeeper
from galley_worker.ledger import NoRoom
from galley_worker.measures import Measures
from galley_worker.notebook import Notebook
from galley_worker.objects import TaskObjects
from galley_worker.queue_limit import QueueLimit
from galley_worker.retry_budget import RetryBudget
from galley_worker.runners.execution import Execution
from galley_worker.runners.runners import Runners
from galley_worker.settle import NO_ROOM_SECONDS, Settler, Tried
from galley_worker.solitude import Solitude
from galley_worker.traces import Traces, parent_of
from galley_worker.turns import Turns
from galley_worker.under_way import Message, UnderWay, message_of
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

KEY_TIMES: Final = 8
"""Times a task is looked at whose key is missing, in the time a task waits for an unknown handler: a new key
reaches one process before another."""

LIMIT_SECONDS: Final = 1.0
"""Pause before a task is tried again whose start could not be taken, since the broker did not answer."""

OBJECT_STORE_SECONDS: Final = 15.0
"""Pause before a task is tried again whose objects cannot be had now; costs no attempt."""

REMEMBERED_CANCELS: Final = 10_000
"""Ids of cancelled tasks kept, for messages that were being delivered when the task was cancelled."""


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
    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
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
        self._cancelled: dict[str, None] = {}
        self._fast_path = FastPath(self, rules, parts, self._later)
        self.limit: QueueLimit | None = None
        """The limit of the queue, if it has one."""
        self.under_way: dict[Message, UnderWay] = {}

    def known(self, delivery: Delivery) -> bool:
        """Return whether this very message is under way here, and if so use its new delivery from now on.

        The broker delivers a message again after a restart, or when it received no renewal for too long; the
        attempt that is running goes on.
        """
        present = self.holds(message_of(delivery))
        if present is None:
            return False
        present.delivered_again(delivery.reply)
        return True

    def holds(self, message: Message) -> UnderWay | None:
        """Return the attempt of a message, if it is under way here and its lease is not lost."""
        present = self.under_way.get(message)
        return None if present is None or present.lease_lost else present

    def find(self, task: str) -> UnderWay | None:
        """Return the attempt of a task, named `<kind>.<id>`, if one is under way here."""
        return next((present for present in self.under_way.values() if _task(present.delivery) == task), None)

    def running(self, task: str) -> UnderWay | None:
        """Return the attempt of a task whose handler was started here, and not one that still claims it."""
        present = self.find(task)
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
        return bool(self._cancelled) and _task(delivery) in self._cancelled

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

    def begin(self, delivery: Delivery, hand: Hand) -> bool:
        """Begin the attempt of one delivery on the fast path; returns False if only `run` can.

        Then nothing was done.
        """
        return self._fast_path.begin(delivery, hand)

    async def run(self, delivery: Delivery) -> None:
        """Run the attempt of one delivery and settle it. Does not raise because of what an attempt does."""
        lease = self.lease(delivery)
        if lease is None:
            journal.dropped(delivery, "read too late: its lease may have ended")
            return
        present = UnderWay(delivery, lease, self._parts.clock())
        self.under_way[message_of(delivery)] = present
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

    def lease(self, delivery: Delivery) -> Lease | None:
        """Return the lease of a delivery, which is renewed from now on; None if it may have ended."""
        message = message_of(delivery)
        return self._parts.leases.hold(delivery.reply, lambda: self._lose(message))

    def leave(self, present: UnderWay) -> None:
        """Forget an attempt that is over."""
        message = message_of(present.delivery)
        # A message whose lease was lost may have been delivered here again by now.
        if self.under_way.get(message) is present:
            del self.under_way[message]
        if present.execution is not None and (batch := present.execution.batch) is not None:
            batch.settled(batch)
        self._parts.leases.release(present.lease)

    async def _to_its_end(self, present: UnderWay, take: Callable[[UnderWay], Awaitable[None]]) -> None:
        """Have an attempt taken to its end that has entered."""
        solitude = self._parts.solitude
        try:
            await take(present)
        except Exception as error:  # whatever it is costs this attempt, not the worker
            await self._recover(present, error)
        finally:
            if present.span is not None:
                Traces.end(present.span, None)
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

    async def _run(self, present: UnderWay) -> None:
        delivery = present.delivery
        if delivery.source.stream != self._later and await self._parts.settler.refused_id(delivery):
            return
        opened = await self._open(delivery)
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
        if not await self._may_begin(present, held):
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

    async def _may_begin(self, present: UnderWay, held: Held) -> bool:
        """Return whether an attempt goes on, as far as keys, workflows and the rate of the queue go."""
        if (held.envelope.key and not await self._has_turn(held)) or (
            held.flags.awaits and await self._waits_on(held)
        ):
            return False
        return self.limit is None or await self._may_start(present, held, self.limit)

    async def _may_start(self, present: UnderWay, held: Held, limit: QueueLimit) -> bool:
        """Wait until the rate of the queue lets a task start; returns False if it is delivered again."""
        if held.flags.awaits:
            return True
        try:
            seconds = await limit.start()
        except BrokerError as error:
            journal.no_room(held.delivery, str(error))
            self._parts.settler.look_again(present.delivery, LIMIT_SECONDS)
            return False
        if seconds > 0 and present.stopped is None:
            present.woken = asyncio.Event()
            with limit.waiting(), suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await present.woken.wait()
            held.started_at = self._parts.now()
        return True

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
        if self.is_cancelled(delivery):
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
            by = await self._parts.uniqueness.begin(delivery.address, unique, delivered_before=again)
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

    async def _waits_on(self, held: Held) -> bool:
        """Return whether a task waits for a workflow and is done with for now."""
        assert self._parts.continuations is not None, "a worker has continuations"
        try:
            if not await self._parts.continuations.look(held):
                return False
        except NoRoom as error:
            self._parts.settler.keep(held.delivery, str(error))
            return True
        self._parts.settler.drop(held.delivery)
        return True

    async def _after_workflow(self, present: UnderWay, held: Held, over: Verdict | None) -> None:
        """Settle a task as the workflow ended that took the place of its handler."""
        continuations = self._parts.continuations
        assert continuations is not None, "a worker has continuations"
        if present.stopped is not None:
            over = Cancel()
        if over is not None:
            await continuations.stop(held)
        await self._settle(present, held, over or await continuations.verdict(held))

    async def _has_turn(self, held: Held) -> bool:
        """Return whether a task with a key may run now; if not, it waits under its key."""
        turns, delivery = self._parts.turns, held.delivery
        if turns is None or ticks_of(delivery.address.id) is not None:
            return True  # what a schedule makes takes no turns
        try:
            if await turns.may_run(delivery.address, held.envelope, held.flags):
                held.keeps_permit = held.flags.permit and turns.rules.ordered
                return True
            await turns.park(delivery, held.envelope, held.flags)
        except BrokerError as error:
            journal.no_room(delivery, str(error))
            self._parts.settler.look_again(delivery, NO_ROOM_SECONDS)
        return False

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

    async def _open(self, delivery: Delivery) -> tuple[Flags, Envelope, EncryptionError | None] | None:
        """Return the task of a delivery, and why it must not run if so; None if it is done with for now."""
        try:
            flags, envelope, refused = await self._read(delivery)
        except EnvelopeInvalid as error:
            journal.dropped(delivery, str(error))
            await self._parts.settler.bury_unreadable(delivery, Failure(error.reason, str(error)))
            return None
        except KeyServiceUnavailable as error:
            journal.not_decrypted(delivery, str(error))
            self._parts.settler.look_again(delivery, self._rules.key_service_seconds)
            return None
        if isinstance(refused, DecryptionKeyMissing) and self._may_come(delivery):
            journal.not_decrypted(delivery, str(refused))
            self._parts.settler.look_again(delivery, self._rules.unknown_handler_seconds / KEY_TIMES)
            return None
        return flags, envelope, refused

    async def _read(self, delivery: Delivery) -> tuple[Flags, Envelope, EncryptionError | None]:
        """Return the task of a delivery, and why it cannot be decrypted, or must not run, if so.

        Raises:
            EnvelopeInvalid: if it is no task.
            KeyServiceUnavailable: if the key service does not answer.
        """
        payloads, address = self._parts.payloads, delivery.address
        # Before anything is written about it, so that no write waits for the key service.
        await payloads.prepare(address)
        if delivery.problem:
            raise EnvelopeInvalid(delivery.problem)
        flags = Flags.decode(delivery.header)
        try:
            envelope = await payloads.read_task(address, delivery.body, plaintext=self._rules.plaintext)
        except KeyServiceUnavailable:
            raise
        except EncryptionError as error:
            return flags, decode_envelope(delivery.body), error
        return flags, envelope, payloads.missing(address, envelope.sealed) if envelope.sealed else None

    def _may_come(self, delivery: Delivery) -> bool:
        """Whether a missing key may still reach this worker."""
        return self._rules.unknown_handler_seconds > 0 and delivery.delivered <= KEY_TIMES

    async def _settle(
        self, present: UnderWay, held: Held, verdict: Verdict, tried: Tried | None = None
    ) -> None:
        if tried is None:
            verdict = self.paced(held, verdict)
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
        budget, circuit, now = self._parts.budget, self._parts.circuit, self._parts.now()
        if budget is not None:
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
            if held is None or delivery.delivered >= UNDECIDED_TIMES:
                await self._parts.settler.bury_unreadable(delivery, failure)
                return
            ending = Raised(failure, retryable=True)
            given = self._circumstances(held)
            # With a policy of our own: the task's may be what cannot be applied.
            verdict = judge(ending, RetryPolicy(), given, self._parts.now(), self._parts.jitter)
            await self._settle(present, held, verdict)
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
                last_error=_last_error(held.history),
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

    def _lose(self, message: Message) -> None:
        present = self.under_way.get(message)
        if present is not None:
            present.lease_lost = True
            present.stop(CutOff("its lease could not be renewed"))


def _last_error(history: History) -> str:
    if not history.attempts:
        return ""
    last = history.attempts[-1]
    return f"{last.reason}: {last.message}"


def _task(delivery: Delivery) -> str:
    return f"{delivery.address.kind}.{delivery.address.id}"

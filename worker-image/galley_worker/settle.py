"""Settling: writing what a verdict says, first the record, then the acknowledgement. All tasks end here."""

from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Final, NamedTuple, assert_never

from msgspec import Raw
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker import counts
from galley.broker.pipeline import Ack, Hear
from galley.broker.pull import Delivery
from galley.broker.topology import DECLARED_KEPT_SECONDS
from galley.dead_letter import NO_TASK, DeadLetter
from galley.envelope import Envelope, Flags
from galley.envelope import decode as decode_envelope
from galley.errors import EnvelopeInvalid, IdReserved
from galley.failpoint import failpoint
from galley.history import History
from galley.record import NULL, REFERRING_VERSION, Failure, Outcome, Record, State
from galley.schedule import ticks_of
from galley.workflow.state import is_step
from galley_worker import journal
from galley_worker.claim import Held, Onward, Who, claiming_record
from galley_worker.flows import Workflows
from galley_worker.ledger import Beaten, Ledger, NoRoom, TooLarge
from galley_worker.life import Life
from galley_worker.verdict import TOO_LARGE, Await, Bury, Cancel, Defer, HandBack, RetryAt, Succeed, Verdict

NO_ROOM_SECONDS: Final = 5.0
"""Pause before a message is delivered again for whose retry or dead letter there was no room."""

TICK_KEPT_SECONDS: Final = 24 * 3600
"""How long the record of a tick's task is kept at least, so that none runs twice."""


class Tried(NamedTuple):
    """A final record that was written at once, and the answer, which was no success."""

    final: Record
    ack: Ack


class Settler:
    """Settles the attempts of one worker."""

    def __init__(
        self, ledger: Ledger, worker: Who, keep_seconds: int, now: Callable[[], datetime],
        flows: Workflows | None = None, *, life: Life | None = None,
    ) -> None:  # fmt: skip
        """Make the settler.

        Args:
            ledger: what it writes with.
            worker: whose attempts they are.
            keep_seconds: how long records are kept.
            now: the present time.
            flows: carries workflows on; None leaves tasks of workflows as others.
            life: publishes what happens to tasks; None where the queue does not ask for it.
        """
        self.life = life
        self.fenced: Callable[[Delivery], bool] = lambda _delivery: False
        """Tells whether the lease of a delivery has ended; then another worker may have its message."""
        self._ledger = ledger
        self._flows = flows
        self._worker = worker
        self._keep_seconds = keep_seconds
        self._now = now
        self.ended: Counter[counts.Name] = Counter()
        """Attempts settled here, by lane and how they ended; not those another worker had settled."""

    async def settle(self, held: Held, verdict: Verdict, tried: Tried | None = None) -> bool:
        """Write what the verdict says; return False if the task had been settled by another worker before.

        Args:
            held: the attempt.
            verdict: what follows from its end.
            tried: what `store_at_once` tried, if it was asked before.
        """
        match verdict:
            case Succeed(result, large):
                final = tried.final if tried else self.success(held, result)
                if large is not None:
                    final = replace(final, v=REFERRING_VERSION, large=large)
                name, by_us = counts.SUCCEEDED, await self._end(held, final, tried and tried.ack)
            case Await(plan):
                name, by_us = counts.DEFERRED, await self._await(held, plan)
            case Cancel(failure):
                final = self._final(held, Outcome.CANCELLED, failure=failure)
                name, by_us = counts.CANCELLED, await self._end(held, final)
            case Bury(failure, history):
                final = self._final(held, Outcome.FAILED, failure=failure, history=history)
                name, by_us = counts.FAILED, await self._end(held, final)
            case RetryAt(due_at, failure, history):
                again = held.flags.attempt + 1
                name, by_us = counts.RETRIED, await self._schedule(held, again, due_at, failure, history)
            case Defer(due_at, failure, history):
                again = held.flags.attempt
                name, by_us = counts.DEFERRED, await self._schedule(held, again, due_at, failure, history)
            case HandBack(history):
                name, by_us = counts.HANDED_BACK, await self._hand_back(held, history)
            case _:
                assert_never(verdict)
        if by_us:
            self.ended[held.delivery.address.lane, name] += 1
        return by_us

    def success(self, held: Held, result: Raw) -> Record:
        """Return the final record of a task that succeeded."""
        return self._final(held, Outcome.SUCCEEDED, result=result)

    def store_at_once(self, held: Held, final: Record, hear: Hear) -> bool:
        """Write a final record without waiting; `hear` gets the answer, perhaps before this returns.

        If it is stored, `succeeded` is next, else `settle`.

        Returns:
            False if the write would have to wait; then nothing was done.
        """
        failpoint("settle.before_record")
        keep = self._kept_of(held, final)
        return self._ledger.write_at_once(held.delivery.address, final, held.fence, keep, hear)

    def succeeded(self, held: Held) -> None:
        """Acknowledge a task whose final record was stored at once. It is no step, and has no life events."""
        self._acknowledge(held.delivery)
        self.ended[held.delivery.address.lane, counts.SUCCEEDED] += 1

    def _kept_of(self, held: Held, final: Record) -> int:
        return self._kept(held.delivery.address, final.uid, held.envelope.schedule)

    def _kept(self, address: TaskAddress, uid: str = "", schedule: str = "") -> int:
        least = DECLARED_KEPT_SECONDS if uid or address.kind is Kind.DECLARED else 0
        least = max(least, TICK_KEPT_SECONDS) if schedule or is_step(address.id) else least
        return max(self._keep_seconds, least)

    async def bury_unreadable(self, delivery: Delivery, failure: Failure) -> None:
        """Keep a message that is not a task as a dead letter, and end the task of that id as failed."""
        try:
            await self.end_unreadable(delivery, failure)
        except NoRoom as error:
            self.keep(delivery, str(error))
        else:
            self._acknowledge(delivery)

    async def end_unreadable(self, delivery: Delivery, failure: Failure) -> None:
        """Do the same, without acknowledging the message.

        Raises:
            NoRoom: the queue's dead letters have no room left, or there is none for what follows a step.
        """
        final = Record(
            State.DONE,
            1,
            worker=self._worker.name,
            lane=delivery.address.lane,
            ended_at=self._now(),
            outcome=Outcome.FAILED,
            failure=failure,
        )
        # A record that exists was made by a readable message of the same id, and stays.
        await self._ledger.write(delivery.address, final, 0, self._kept(delivery.address))
        letter = replace(
            _letter(final, delivery), envelope=NO_TASK, body=delivery.body, header=delivery.header
        )
        failpoint("unreadable.before_letter")
        await self._bury(delivery, letter)
        await self._carry_on(delivery, final)
        self.ended[delivery.address.lane, counts.FAILED] += 1

    async def refused_id(self, delivery: Delivery) -> bool:
        """Return whether a producer's message has an id that only a tick may have; then it is a dead letter.

        No record is written: that would stand for the end of the tick's task, which it would suppress.
        """
        if ticks_of(delivery.address.id) is None:
            return False
        schedule = await self._ledger.reserved_for(delivery.address)
        if not schedule:
            return False
        problem = IdReserved(delivery.address.queue, delivery.address.id, schedule)
        failure = Failure(problem.reason, f"{problem}; {problem.hint}")
        final = Record(
            State.DONE, 1, worker=self._worker.name, lane=delivery.address.lane, ended_at=self._now(),
            outcome=Outcome.FAILED, failure=failure,
        )  # fmt: skip
        try:
            await self._bury(delivery, _letter(final, delivery))
        except NoRoom as error:
            self.keep(delivery, str(error))
        else:
            journal.dropped(delivery, str(problem))
            self._acknowledge(delivery)
        return True

    async def finish(self, delivery: Delivery, final: Record, writer: Held | None = None) -> None:
        """Write the dead letter of a task that has ended, if it failed, and acknowledge its message.

        The record is written before the dead letter, so that there is no letter of a task that succeeded or
        was cancelled; the next worker that finds the record writes the letter if this one dies in between.

        Args:
            delivery: its message.
            final: its record.
            writer: the attempt, if it was this one that wrote the record. The next step of its workflow may
                run in its place: then it gets that, and the message stays until that has ended.
        """
        if writer is None and is_step(delivery.address.id) and self.fenced(delivery):
            # Who has the message now may have gone on in its place.
            journal.dropped(delivery, "it has ended, and its lease, too")
            return
        onward = None
        try:
            if final.outcome is Outcome.FAILED:
                failpoint("settle.before_letter")
                await self._bury(delivery, _letter(final, delivery))
            onward = await self._carry_on(delivery, final, writer)
        except NoRoom as error:
            self.keep(delivery, str(error))
            return
        if self.life is not None:
            await self.life.ended(delivery, final)
        if writer is not None and onward is not None:
            writer.onward = onward
            return
        self._acknowledge(delivery)

    async def start_flow(self, delivery: Delivery, envelope: Envelope) -> None:
        """Publish the first steps of a workflow, then acknowledge the message it began with."""
        assert self._flows is not None, "a worker runs workflows"
        try:
            await self._flows.start(delivery.address, envelope)
        except NoRoom as error:
            self.keep(delivery, str(error))
            return
        self._acknowledge(delivery)

    async def _carry_on(self, delivery: Delivery, final: Record, writer: Held | None = None) -> Onward | None:
        """Do what follows from the end of a step; return the next one if it is to run in its place.

        Raises:
            NoRoom: the queue has no room for it.
        """
        if self._flows is None or not is_step(delivery.address.id):
            return None
        if writer is not None:
            goes_on = writer.goes_on
            return await self._flows.settled(delivery.address, writer.envelope, final, goes_on=goes_on)
        envelope = None
        with suppress(EnvelopeInvalid):
            envelope = decode_envelope(delivery.body)
        return await self._flows.settled(delivery.address, envelope, final)

    async def schedule_again(self, held: Held, envelope: Envelope, flags: Flags, due_at: datetime) -> None:
        """Have the broker deliver the attempt that the record announces, and acknowledge this message."""
        if held.refused is not None:
            # What cannot be decrypted cannot be written again either.
            held.fence, held.history = flags.fence, envelope.history
            await self._end(held, self._final(held, Outcome.FAILED, failure=held.refused))
            return
        try:
            await self._ledger.schedule(held.delivery.address, envelope, flags, due_at)
        except TooLarge as error:
            held.fence, held.history = flags.fence, envelope.history
            await self._end(held, self._too_large(held, error))
            return
        except NoRoom as error:
            self.keep(held.delivery, str(error))
            return
        self.drop(held.delivery)

    def drop(self, delivery: Delivery) -> None:
        """Acknowledge a message that is outdated."""
        self._acknowledge(delivery)

    def give_back(self, delivery: Delivery) -> None:
        """Have a message delivered again, to whichever worker."""
        failpoint("hand_back.before_nak")
        self._ledger.give_back(delivery.reply)

    async def let_go(self, held: Held, history: History) -> None:
        """Write into the claim of an attempt whose lease was lost that its handler does not run any more.

        The next worker may find this process gone by then, and would count a crash. If another one has
        claimed the attempt already, its record stays.
        """
        if held.claimed:
            failpoint("let_go.before_record")
            await self._mark_handed_back(held, history)

    def _acknowledge(self, delivery: Delivery) -> None:
        failpoint("settle.before_ack")
        self._ledger.acknowledge(delivery.reply)
        failpoint("settle.after_ack")

    def look_again(self, delivery: Delivery, seconds: float) -> None:
        """Have a message delivered again after a while, since nothing can be decided about it now."""
        self._ledger.give_back(delivery.reply, seconds)

    async def _end(self, held: Held, final: Record, first: Ack | None = None) -> bool:
        address = held.delivery.address
        keep = self._kept_of(held, final)
        if first is None:
            failpoint("settle.before_record")
        try:
            written = await self._ledger.write(address, final, held.fence, keep, first)
        except TooLarge as error:
            if final.outcome is Outcome.SUCCEEDED:
                final = self._too_large(held, error)
            final = _shortened(final)
            written = await self._ledger.write(address, final, held.fence, keep)
        if isinstance(written, Beaten):
            return await self._yield_to(held, written)
        await self.finish(held.delivery, final, held)
        return True

    def keep(self, delivery: Delivery, why: str) -> None:
        """Leave a message in its stream: the next worker finds its record, and stores what is missing."""
        journal.no_room(delivery, why)
        self.look_again(delivery, NO_ROOM_SECONDS)

    async def _bury(self, delivery: Delivery, letter: DeadLetter) -> None:
        """Keep a dead letter, without the task and its history if the broker does not accept its size.

        Raises:
            NoRoom: the queue's dead letters have no room left.
        """
        try:
            await self._store(delivery, letter)
        except NoRoom as error:
            raise NoRoom(f"dead letters (spec.limits.deadLetterBytes): {error}") from error

    async def _store(self, delivery: Delivery, letter: DeadLetter) -> None:
        try:
            await self._ledger.bury(delivery.address, letter)
        except TooLarge as error:
            journal.shortened(delivery, str(error))
            size = f"; the task of {len(delivery.body)} bytes is not kept: {error}"
            failure = replace(letter.failure, message=letter.failure.message + size, traceback="")
            history = _counts(letter.history)
            letter = replace(letter, failure=failure, envelope=NO_TASK, body=None, history=history)
            await self._ledger.bury(delivery.address, letter)

    async def _schedule(  # noqa: PLR0917 - what the record and the message say
        self, held: Held, attempt: int, due_at: datetime, failure: Failure | None, history: History,
        awaits: str = "",
    ) -> bool:  # fmt: skip
        """Write that the task waits for `attempt`, and have the broker deliver it at that time."""
        address = held.delivery.address
        record = Record(
            State.RETRY,
            attempt,
            worker=self._worker.name,
            handler=held.envelope.handler,
            lane=address.lane,
            submitted_at=held.envelope.submitted_at,
            started_at=held.started_at,
            due_at=due_at,
            failure=failure,
            history=history,
            uid=held.envelope.uid,
            digest=held.envelope.digest,
            labels=held.envelope.labels,
            awaits=awaits,
        )
        failpoint("retry.before_record")
        try:
            sequence = await self._ledger.write(address, record, held.fence)
        except TooLarge:
            sequence = await self._ledger.write(address, _shortened(record), held.fence)
        if isinstance(sequence, Beaten):
            return await self._yield_to(held, sequence)
        if self.life is not None and failure is not None and attempt > held.flags.attempt:
            await self.life.retried(held, record)
        again = replace(held.envelope, history=history)
        failpoint("retry.before_schedule")
        permit = held.flags.permit if awaits else held.keeps_permit
        flags = Flags(attempt, sequence, awaits=awaits, permit=permit)
        await self.schedule_again(held, again, flags, due_at)
        return True

    async def _await(self, held: Held, plan: bytes) -> bool:
        """Store the workflow that takes the place of a task, then say so in its record; then it may begin."""
        assert self._flows is not None, "a worker runs workflows"
        attempt = held.flags.attempt
        try:
            flow = await self._flows.store(held.delivery.address, attempt, held.envelope, plan)
        except NoRoom as error:
            self.keep(held.delivery, str(error))
            return False
        failpoint("then.before_record")
        return await self._schedule(held, attempt, self._now(), None, held.history, flow)

    def _too_large(self, held: Held, error: TooLarge) -> Record:
        failure = Failure(TOO_LARGE, f"larger than the broker stores: {error}")
        return self._final(held, Outcome.FAILED, failure=failure)

    async def _hand_back(self, held: Held, history: History) -> bool:
        # On the fast path there is no record, and without one no crash is counted.
        if held.claimed:
            failpoint("hand_back.before_record")
            written = await self._mark_handed_back(held, history)
            if isinstance(written, Beaten):
                return await self._yield_to(held, written)
        self.give_back(held.delivery)
        return True

    async def _mark_handed_back(self, held: Held, history: History) -> int | Beaten:
        claim = claiming_record(
            held.delivery, held.envelope, held.flags,
            history=history, worker=self._worker, now=held.started_at,
        )  # fmt: skip
        return await self._ledger.write(held.delivery.address, replace(claim, handed_back=True), held.fence)

    async def _yield_to(self, held: Held, beaten: Beaten) -> bool:
        """Another record was written first: if it is final, acknowledge this message.

        Otherwise the worker that wrote it needs this message, or has one of its own.
        """
        stored = await self._ledger.read(held.delivery.address, beaten.by)
        if stored is not None and stored.record.done:
            await self.finish(held.delivery, stored.record)
        return False

    def _final(
        self,
        held: Held,
        outcome: Outcome,
        *,
        result: Raw = NULL,
        failure: Failure | None = None,
        history: History | None = None,
    ) -> Record:
        return Record(
            State.DONE,
            held.flags.attempt,
            worker=self._worker.name,
            handler=held.envelope.handler,
            lane=held.delivery.address.lane,
            submitted_at=held.envelope.submitted_at,
            started_at=held.started_at,
            ended_at=self._now(),
            outcome=outcome,
            result=result,
            failure=failure,
            history=held.history if history is None else history,
            uid=held.envelope.uid,
            digest=held.envelope.digest,
            labels=held.envelope.labels,
        )


def _shortened(record: Record) -> Record:
    """Return a record without the parts that may be long."""
    failure = record.failure and replace(record.failure, traceback="", message=record.failure.message[:200])
    return replace(record, failure=failure, history=_counts(record.history))


def _counts(history: History) -> History:
    return replace(history, attempts=())


def _letter(final: Record, delivery: Delivery) -> DeadLetter:
    assert final.failure is not None
    assert final.ended_at is not None
    return DeadLetter(
        final.failure,
        final.ended_at,
        final.worker,
        final.attempt,
        final.lane,
        history=final.history,
        envelope=Raw(delivery.body),
    )

"""Claims: whether the message of a task may run its attempt. Pure.

The first delivery of a message that was certainly published once needs no claim (the fast path). Every other
one (redelivered, flagged, not above the mark of the server's life, fired from a schedule) first writes `run`
into the record; if another record is there, it shows what has happened in the meantime (the slow path).
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, assert_never

from msgspec import Struct
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker.pull import Delivery
from galley.envelope import Envelope, Flags
from galley.history import History
from galley.record import Claim, Failure, Record, State, Stored


class Who(NamedTuple):
    """A worker as records name it."""

    name: str
    """For people."""
    holder: str
    """Identifies the process: a worker that is restarted under the same name gets another one."""


class Onward(NamedTuple):
    """The next step of a workflow, which may run in the place of the one that ended."""

    address: TaskAddress
    envelope: Envelope


class Held(Struct, eq=False):
    """A delivery whose attempt may begin, with all that settling it needs."""

    delivery: Delivery
    envelope: Envelope
    flags: Flags
    fence: int
    """Sequence of the record that the next one replaces; 0 if there is none."""
    claimed: bool
    """Whether this worker wrote a `run` record for it."""
    history: History
    started_at: datetime
    alone: bool = False
    """Whether no other attempt runs on this worker meanwhile."""
    keeps_permit: bool = False
    """Whether the next attempt has the permit of this one."""
    refused: Failure | None = None
    """Why it cannot run, found when it was read: it is claimed only to be ended."""
    large: str = ""
    """File with its input, if that is too large for a message."""
    files: dict[str, str] | None = None
    """Where the files in its input are on this machine, by `digest/name`; None if there are none."""
    goes_on: bool = False
    """Whether the next step may run in its place, under the same message."""
    onward: Onward | None = None
    """That step, once this one is settled; its end is what the message is acknowledged for."""


@dataclass(frozen=True, slots=True)
class ClaimAt:
    """Write the claim in place of the record with the sequence `fence`."""

    fence: int
    history: History
    lost_worker: str = ""
    """Worker that ran it before and did not end it; empty if there is none, or if it was handed back."""
    crashed: bool = False
    """Whether the process of `lost_worker` is gone, which counts as a crash."""
    since: datetime | None = None
    """When `lost_worker` began it."""


@dataclass(frozen=True, slots=True)
class AskHolder:
    """Another process claimed this very message and has not said that it is done: ask it."""

    fence: int
    history: History
    worker: str
    claim: Claim
    since: datetime | None = None


class Holder(StrEnum):
    """What is known of the process that claimed a message."""

    RUNNING = "it runs the attempt"
    IDLE = "it lives, and does not run the attempt"
    SILENT = "it is connected and does not answer"
    GONE = "it has no connection to the broker"
    AWAITED = "it does not answer, and may still be reconnecting"


@dataclass(frozen=True, slots=True)
class HeldElsewhere:
    """The process that claimed it runs the attempt and renews its lease: leave the message to it."""

    why: str


@dataclass(frozen=True, slots=True)
class LookAgain:
    """It is not known yet whether the attempt still runs: have the message delivered again shortly."""

    why: str


@dataclass(frozen=True, slots=True)
class DropIt:
    """Another message runs the attempt: acknowledge this one and forget it."""

    why: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The task has ended: write its dead letter if one is missing, then acknowledge this message."""

    final: Record


@dataclass(frozen=True, slots=True)
class LeaveIt:
    """The protocol rules this state out: write nothing, so that the message stays and can be examined."""

    why: str


@dataclass(frozen=True, slots=True)
class ScheduleAgain:
    """The attempt failed, and its worker died before it scheduled the next one: schedule it."""

    envelope: Envelope
    flags: Flags
    due_at: datetime


Next = ClaimAt | AskHolder | DropIt | Ended | LeaveIt | ScheduleAgain


def claim_of(delivery: Delivery, holder: str) -> Claim:
    """Return the claim of a message by a process."""
    return Claim(delivery.source.stream, delivery.sequence, holder)


def must_claim(delivery: Delivery, flags: Flags, later_stream: str) -> bool:
    """Return whether an attempt may begin only after its record was written."""
    return (
        delivery.delivered > 1 or flags.republished or delivery.old or delivery.source.stream == later_stream
    )


def first_claim(envelope: Envelope, flags: Flags) -> ClaimAt:
    """Return the claim to try before any record was read."""
    return ClaimAt(flags.fence, envelope.history)


def what_next(mine: Claim, flags: Flags, envelope: Envelope, stored: Stored | None) -> Next:  # noqa: PLR0911
    """Return what follows when a claim is refused.

    Args:
        mine: the claim that was refused.
        flags: attempt and fence of the message.
        envelope: the task.
        stored: the present record, not older than the refusal; None if it has expired.
    """
    if stored is None:
        return ClaimAt(0, envelope.history)
    record = stored.record
    match record.state:
        case State.DONE:
            return Ended(record)
        case State.RETRY if record.attempt > flags.attempt and record.due_at is not None:
            # Even several attempts later: a late publish of an earlier schedule, perhaps this one, may have
            # replaced the present one.
            again = replace(envelope, history=record.history)
            following = Flags(record.attempt, stored.sequence, awaits=record.awaits, permit=flags.permit)
            return ScheduleAgain(again, following, record.due_at)
        case State.RETRY if record.awaits not in ("", flags.awaits) and record.due_at is not None:
            # Its handler has ended: this message came before that, and must not run it again.
            again = replace(envelope, history=record.history)
            following = Flags(record.attempt, stored.sequence, awaits=record.awaits, permit=flags.permit)
            return ScheduleAgain(again, following, record.due_at)
        case State.RETRY if record.attempt == flags.attempt:
            return ClaimAt(stored.sequence, envelope.history)
        case State.RUN if record.attempt == flags.attempt and _same_message(record.claim, mine):
            assert record.claim is not None
            if record.handed_back or record.claim.holder == mine.holder:
                return ClaimAt(stored.sequence, record.history)
            return AskHolder(stored.sequence, record.history, record.worker, record.claim, record.started_at)
        case State.RUN if record.attempt >= flags.attempt:
            return DropIt(f"another message runs attempt {record.attempt}")
        case _:
            return LeaveIt(f"its record is of attempt {record.attempt}, before its own")


def take_over(step: AskHolder, holder: Holder) -> ClaimAt | HeldElsewhere | LookAgain:
    """Return what follows from what is known of the process that claimed a message.

    A crash is counted only of a process that is gone. One that lives dropped the attempt, for want of its
    lease; one that does not answer is frozen, or cut off from the broker, and drops it when it finds out.
    """
    match holder:
        case Holder.RUNNING:
            return HeldElsewhere(f"worker {step.worker} runs it")
        case Holder.AWAITED:
            return LookAgain(f"worker {step.worker} may still be reconnecting")
        case Holder.IDLE | Holder.SILENT | Holder.GONE:
            return ClaimAt(step.fence, step.history, step.worker, holder is Holder.GONE, step.since)
        case _:
            assert_never(holder)


def _same_message(one: Claim | None, other: Claim) -> bool:
    return one is not None and (one.stream, one.sequence) == (other.stream, other.sequence)


def claiming_record(
    delivery: Delivery, envelope: Envelope, flags: Flags, *, history: History, worker: Who, now: datetime
) -> Record:
    """Return the `run` record that claims an attempt for a message."""
    return Record(
        State.RUN,
        flags.attempt,
        worker=worker.name,
        handler=envelope.handler,
        lane=delivery.address.lane,
        submitted_at=envelope.submitted_at,
        started_at=now,
        claim=claim_of(delivery, worker.holder),
        history=history,
        uid=envelope.uid,
        digest=envelope.digest,
        labels=envelope.labels,
    )

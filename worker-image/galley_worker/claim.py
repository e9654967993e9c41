"""Whether this message may run its attempt: the slow path's question to the record.

A first delivery from the work stream that nobody can have published twice needs no claim. Everything
else (redelivered, flagged, older than the connection, or fired from a schedule) first writes `run` into
the record; if another record stands there, that one tells what has happened meanwhile.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from galley.broker.pull import Delivery
from galley.envelope import Envelope, Flags
from galley.history import History
from galley.record import Claim, Record, State, Stored


class Who(NamedTuple):
    """A worker as it stands in records."""

    name: str
    """For people."""
    holder: str
    """Of this process alone: a worker started again under the same name is another one."""


@dataclass(frozen=True, slots=True)
class ClaimAt:
    """Write the claim in place of the record with this sequence."""

    fence: int
    history: History
    lost_worker: str = ""
    """Who ran it before and vanished; empty if nobody did, or if it was handed back."""


@dataclass(frozen=True, slots=True)
class DropIt:
    """Somebody else has taken the task: acknowledge this message and forget it."""

    why: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The task has ended: acknowledge this message, once all that its end calls for is there."""

    final: Record


@dataclass(frozen=True, slots=True)
class LeaveIt:
    """What should not be: touch nothing, so that the message comes back and somebody can look."""

    why: str


@dataclass(frozen=True, slots=True)
class ScheduleAgain:
    """The attempt failed and its worker died before it scheduled the next one: do that for it."""

    envelope: Envelope
    flags: Flags
    due_at: datetime


Next = ClaimAt | DropIt | Ended | LeaveIt | ScheduleAgain


def claim_of(delivery: Delivery, holder: str) -> Claim:
    """Return what names this message, and the process that has it, in a record."""
    return Claim(delivery.source.stream, delivery.sequence, holder)


def must_claim(delivery: Delivery, flags: Flags, later_stream: str) -> bool:
    """Return whether the record has to be asked before the attempt begins."""
    return (
        delivery.delivered > 1 or flags.republished or delivery.old or delivery.source.stream == later_stream
    )


def first_claim(envelope: Envelope, flags: Flags) -> ClaimAt:
    """Return the claim a message makes before it knows of any other record."""
    return ClaimAt(flags.fence, envelope.history)


def what_next(mine: Claim, flags: Flags, envelope: Envelope, stored: Stored | None) -> Next:  # noqa: PLR0911
    """Return what a message does whose claim was refused.

    Args:
        mine: what names the message.
        flags: its attempt and fence.
        envelope: the task.
        stored: the record that stands there, not older than the refusal; None if it has expired.
    """
    if stored is None:
        return ClaimAt(0, envelope.history)
    record = stored.record
    match record.state:
        case State.DONE:
            return Ended(record)
        case State.RETRY if record.attempt > flags.attempt and record.due_at is not None:
            # Also when it is several attempts on: a late publish of an earlier schedule, perhaps this one,
            # may have taken the place of the present one.
            again = replace(envelope, history=record.history)
            return ScheduleAgain(again, Flags(record.attempt, stored.sequence), record.due_at)
        case State.RETRY if record.attempt == flags.attempt:
            return ClaimAt(stored.sequence, envelope.history)
        case State.RUN if record.attempt == flags.attempt and _same_message(record.claim, mine):
            ours = record.claim is not None and record.claim.holder == mine.holder
            lost_worker = "" if record.handed_back or ours else record.worker
            return ClaimAt(stored.sequence, record.history, lost_worker)
        case State.RUN if record.attempt >= flags.attempt:
            return DropIt(f"another message runs attempt {record.attempt}")
        case _:
            return LeaveIt(f"its record is of attempt {record.attempt}, before its own")


def _same_message(one: Claim | None, other: Claim) -> bool:
    return one is not None and (one.stream, one.sequence) == (other.stream, other.sequence)


def claiming_record(
    delivery: Delivery, envelope: Envelope, flags: Flags, *, history: History, worker: Who, now: datetime
) -> Record:
    """Return the record that claims an attempt for a message."""
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
    )

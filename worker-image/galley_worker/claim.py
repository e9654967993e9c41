"""Whether this message may run its attempt: the slow path's question to the record.

A first delivery from the work stream that nobody can have published twice needs no claim. Everything
else (redelivered, flagged, or fired from a schedule) first writes `run` into the record; if another
record stands there, that one tells what has happened meanwhile.
"""

from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from galley.broker.pull import Delivery
from galley.envelope import Envelope, Flags
from galley.history import History
from galley.record import Claim, Record, State, Stored


@dataclass(frozen=True, slots=True)
class ClaimAt:
    """Write the claim in place of the record with this sequence."""

    fence: int
    history: History
    lost_worker: str = ""
    """Who ran it before and vanished; empty if nobody did, or if it was handed back."""


@dataclass(frozen=True, slots=True)
class DropIt:
    """Somebody else has taken or ended the task: acknowledge this message and forget it."""

    why: str


@dataclass(frozen=True, slots=True)
class ScheduleAgain:
    """The attempt failed and its worker died before it scheduled the next one: do that for it."""

    envelope: Envelope
    flags: Flags
    due_at: datetime


Next = ClaimAt | DropIt | ScheduleAgain


def claim_of(delivery: Delivery) -> Claim:
    """Return what names this message in a record."""
    return Claim(delivery.source.stream, delivery.sequence)


def must_claim(delivery: Delivery, flags: Flags, later_stream: str) -> bool:
    """Return whether the record has to be asked before the attempt begins."""
    return delivery.delivered > 1 or flags.republished or delivery.source.stream == later_stream


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
            return DropIt("the task has ended")
        case State.RETRY if record.attempt == flags.attempt + 1 and record.due_at is not None:
            again = replace(envelope, history=record.history)
            return ScheduleAgain(again, Flags(record.attempt, stored.sequence), record.due_at)
        case State.RETRY if record.attempt > flags.attempt:
            return DropIt(f"attempt {record.attempt} is due")
        case State.RUN if record.attempt == flags.attempt and record.claim == mine:
            lost_worker = "" if record.handed_back else record.worker
            return ClaimAt(stored.sequence, record.history, lost_worker)
        case State.RUN if record.attempt >= flags.attempt:
            return DropIt(f"another message runs attempt {record.attempt}")
        case _:
            # A record of an earlier attempt than this message stands for has been overtaken by it.
            return ClaimAt(stored.sequence, envelope.history)


def claiming_record(
    delivery: Delivery, envelope: Envelope, flags: Flags, *, history: History, worker: str, now: datetime
) -> Record:
    """Return the record that claims an attempt for a message."""
    return Record(
        State.RUN,
        flags.attempt,
        worker=worker,
        handler=envelope.handler,
        lane=delivery.address.lane,
        submitted_at=envelope.submitted_at,
        started_at=now,
        claim=claim_of(delivery),
        history=history,
    )

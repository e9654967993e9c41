"""Builders of what a claim is decided from."""

from datetime import UTC, datetime
from typing import Any, Final

from galley import envelope as wire
from galley.broker.pull import Delivery, Source
from galley.broker.topology import later_stream, work_stream
from galley.envelope import Envelope, Flags
from galley.history import EndedBy, History, PastAttempt
from galley.record import Claim, Record, State, Stored
from tests.support.builders import an_address, an_envelope

NOON: Final = datetime(2026, 8, 21, 12, tzinfo=UTC)
WORK: Final = work_stream("default", "images")
LATER: Final = later_stream("default", "images")


def a_delivery(
    flags: Flags | None = None, envelope: Envelope | None = None, *, stream: str = WORK, **changes: Any
) -> Delivery:
    """Return the first delivery of a message that came after the connection was made."""
    address = changes.pop("address", None) or an_address(id="t1")
    defaults: dict[str, Any] = {
        "address": address,
        "source": Source(stream, address.lane),
        "sequence": 7,
        "delivered": 1,
        "old": False,
        "reply": "ack.7",
        "body": wire.encode(envelope or an_envelope(submitted_at=NOON)),
        "header": (flags or Flags()).encode(),
    }
    return Delivery(**{**defaults, **changes})


def a_past(errors: int = 0, crashes: int = 0, preemptions: int = 0) -> History:
    """Return a history of so many past attempts."""
    history = History()
    for by, count in (
        (EndedBy.ERROR, errors),
        (EndedBy.CRASH, crashes),
        (EndedBy.PREEMPTION, preemptions),
    ):
        for number in range(count):
            history = history.with_attempt(PastAttempt(number + 1, by, "Reason", "message", "w0", NOON))
    return history


def stored(state: State, attempt: int, sequence: int = 40, **changes: Any) -> Stored:
    """Return a record as it stands in the broker."""
    return Stored(Record(state, attempt, **{"worker": "w1", "handler": "resize", **changes}), sequence)


def a_claim(sequence: int = 7, holder: str = "h1", stream: str = WORK) -> Claim:
    """Return the claim of a message by a process."""
    return Claim(stream, sequence, holder)

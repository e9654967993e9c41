"""A task in this worker's hands: all that settling it needs."""

from dataclasses import dataclass
from datetime import datetime

from galley.broker.pull import Delivery
from galley.envelope import Envelope, Flags
from galley.history import History


@dataclass(slots=True)
class Held:
    """One delivery whose attempt may begin."""

    delivery: Delivery
    envelope: Envelope
    flags: Flags
    fence: int
    """Sequence of the record that its next one replaces; 0 if it has none."""
    claimed: bool
    """Whether a `run` record of ours stands there."""
    history: History
    started_at: datetime

"""How much work a queue has, as far as that is known."""

from dataclasses import dataclass, field
from datetime import datetime

from galley.lanes import Lane


@dataclass(frozen=True, slots=True)
class Unknown:
    """Stands in place of a figure that is not known, so that it cannot be mistaken for 0."""

    why: str
    since: datetime
    """When it was last known, or first asked for without an answer."""


@dataclass(frozen=True, slots=True)
class LaneBacklog:
    """The tasks of one lane, fresh and due ones together."""

    lane: Lane
    waiting: int
    """Never started, or handed back and not held by a worker now: what a free slot would take."""
    in_flight: int
    """Held by a worker, or by one that died and whose lease has not expired."""
    oldest_at: datetime | None = None
    """Since when the oldest waiting task waits, as of a few seconds ago at most; None if nothing waits
    or it is not known."""
    stale: Unknown | None = None
    """Set if the figures are the last known ones and no longer confirmed."""


@dataclass(frozen=True, slots=True)
class Usage:
    """How much of one limit a queue has used."""

    quota: str
    """The field of `spec.limits`."""
    used: int
    limit: int


@dataclass(frozen=True, slots=True)
class Totals:
    """What ever happened in a queue, by the sequences of its streams; each begins at 0 with its stream."""

    submitted: int
    """Tasks that were submitted, redrives and repeated submits included."""
    dead_letters: int
    """Dead letters that were written."""
    dead: int
    """Dead letters there are."""
    counts: int
    """Changes of the queue's counts (`galley.broker.counts`)."""


@dataclass(frozen=True, slots=True)
class QueueBacklog:
    """The tasks of one queue, highest lane first."""

    lanes: tuple[LaneBacklog, ...]
    later: int = 0
    """Tasks that are not to start yet: scheduled, or waiting for a retry."""
    usage: tuple[Usage, ...] = ()
    """Of each limit of the queue, as far as known."""
    paused: bool = False
    """Whether `galley pause` paused the queue, so that a free slot takes nothing."""
    totals: Totals | None = field(default=None, compare=False)
    """None while the streams cannot be listed, or those of dead letters are shared with other queues."""

    coming: tuple[tuple[datetime, int], ...] = ()
    """When tasks for later fall due, to the second, and how many, the first ones first."""

    keyed: int = 0
    """Tasks that wait under their keys. Those of a queue without limits are among the waiting ones, too."""
    keyed_for: str = "turn"
    """What tasks of this queue wait for under their keys: `turn`, `permit`, `rate`, or `permit or rate`."""

    @property
    def waiting(self) -> int:
        """Tasks of all lanes that a free slot would take."""
        return sum(lane.waiting for lane in self.lanes)

    @property
    def in_flight(self) -> int:
        """Tasks of all lanes held by workers."""
        return sum(lane.in_flight for lane in self.lanes)

    @property
    def oldest_at(self) -> datetime | None:
        """Since when the oldest waiting task waits."""
        return min((lane.oldest_at for lane in self.lanes if lane.oldest_at is not None), default=None)

    @property
    def stale(self) -> Unknown | None:
        """What is longest unconfirmed about it, if anything."""
        gone = [lane.stale for lane in self.lanes if lane.stale is not None]
        return min(gone, key=lambda unknown: unknown.since, default=None)

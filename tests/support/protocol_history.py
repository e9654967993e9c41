"""Whether what was seen of one task is something the attempt protocol allows.

A test records what happened, from two sources, and asks `history_allowed`:

- every revision of the record, from the republish subject of the records stream: `RecordWritten`;
- the handlers' own log of when they started and ended, and with which delivery: `Started`, `Ended`;
- what the test itself did: it published (`Published`), and it killed or froze a worker (`LeaseLost`).

Times may be of any clock that all sources share; events of equal time keep the order they were given in.
`skew` allows for sources whose clocks differ a little.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

WORK = "work"
LATER = "later"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A copy of the task was accepted, by a producer or from a schedule."""

    at: float
    flagged: bool = False
    """Whether it says that it may be a repetition (`r`)."""


@dataclass(frozen=True, kw_only=True)
class Started:
    """A handler began to run."""

    at: float
    worker: str
    stream: str
    sequence: int
    delivered: int
    attempt: int
    flagged: bool = False

    @property
    def slow(self) -> bool:
        """Whether its record had to be claimed first."""
        return self.delivered > 1 or self.flagged or self.stream == LATER


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A handler ended, or its worker knows that it did."""

    at: float
    worker: str
    attempt: int
    ending: str


@dataclass(frozen=True, kw_only=True)
class RecordWritten:
    """The broker accepted a revision of the record."""

    at: float
    sequence: int
    state: Literal["run", "retry", "done"]
    attempt: int
    claim: tuple[str, int] | None = None
    """For `run`: stream and sequence of the message that may run it."""
    outcome: str | None = None


@dataclass(frozen=True, kw_only=True)
class LeaseLost:
    """The test took a worker's leases away: it killed or froze it, its child, or the broker."""

    at: float
    worker: str
    """The worker, or `*` for all of them: the broker was killed."""


@dataclass(frozen=True, kw_only=True)
class Acked:
    """A worker acknowledged a message, so it will not come again."""

    at: float
    stream: str
    sequence: int


@dataclass(frozen=True, kw_only=True)
class HandedBack:
    """A worker gave a message back."""

    at: float
    stream: str
    sequence: int


@dataclass(frozen=True, kw_only=True)
class DeadLettered:
    """A dead letter was written."""

    at: float


Event = Published | Started | Ended | RecordWritten | LeaseLost | Acked | HandedBack | DeadLettered


def history_allowed(events: Iterable[Event], *, complete: bool = True, skew: float = 0.0) -> str | None:
    """Return what the protocol forbids in the history of one task, or None.

    Args:
        events: what was seen, in any order.
        complete: whether the task has been given the time to end, so that it must have.
        skew: seconds by which the sources' clocks may differ.
    """
    ordered = sorted(events, key=lambda event: event.at)
    records = sorted((e for e in ordered if isinstance(e, RecordWritten)), key=lambda record: record.sequence)
    starts = [event for event in ordered if isinstance(event, Started)]
    return (
        _chain(records)
        or _attempts(records, starts)
        or _starts_after_done(records, starts, skew)
        or _unclaimed(records, starts, skew)
        or _overlap(ordered, starts, skew)
        or _early_ack(ordered, records, skew)
        or _letter(ordered, records, complete=complete)
        or (_end(records) if complete else None)
    )


def redriven_history_allowed(events: Iterable[Event], skew: float = 0.0) -> str | None:
    """Return what the protocol forbids in the history of a task that may have been redriven, or None.

    Each redrive begins a history of its own: with the attempt after the last one, and after that one failed.
    The task must have ended, and its last dead letter, if it has one, must be in the last history.
    """
    events = list(events)
    records = sorted((e for e in events if isinstance(e, RecordWritten)), key=lambda record: record.sequence)
    failed = [record for record in records[:-1] if record.state == "done" and record.outcome == "failed"]
    before = 0
    for number, end in enumerate([*failed, None]):
        last = end.attempt if end is not None else 10**9
        life = [renumbered for event in events if (renumbered := _of_life(event, before, last)) is not None]
        if number:
            begun = failed[number - 1].at
            early = [e for e in life if isinstance(e, Started) and e.at < begun - skew]
            if early:
                return f"{_named(early[0])} of a redrive came before the failure at {begun:g}"
        letter = [e for e in events if isinstance(e, DeadLettered) and end is None]
        wrong = history_allowed([*life, *letter], complete=end is None, skew=skew)
        if wrong is not None:
            return f"after {number} redrives: {wrong}"
        before = last
    return None


def _of_life(event: Event, before: int, last: int) -> Event | None:
    """Return an event with attempts counted from `before`, or None if it is of another life."""
    if isinstance(event, DeadLettered):
        return None
    if not isinstance(event, Started | Ended | RecordWritten):
        return event
    # A task that was cancelled before it was claimed has a record of attempt 0.
    least = before + 1 if before else 0
    return replace(event, attempt=event.attempt - before) if least <= event.attempt <= last else None


def _chain(records: list[RecordWritten]) -> str | None:
    """Once done nothing follows, attempts never go back, and each retry is written once."""
    retried = latest = 0
    done: RecordWritten | None = None
    for record in records:
        if done is not None:
            return f"{_named(record)} was written after {_named(done)}"
        if record.state == "done":
            done = record
        elif record.attempt < latest:
            return f"{_named(record)} goes back behind attempt {latest}"
        elif record.state == "retry" and record.attempt <= retried:
            return f"the retry chain forked: {_named(record)} follows retry {retried}"
        elif record.state == "run" and record.claim is None:
            return f"{_named(record)} names no message"
        if record.state == "retry":
            retried = record.attempt
        latest = max(latest, record.attempt)
    return None


def _attempts(records: list[RecordWritten], starts: list[Started]) -> str | None:
    """Attempts are numbered from 1 without gaps, and each but the first was announced by a retry."""
    seen = {start.attempt for start in starts}
    missing = set(range(1, max(seen, default=0) + 1)) - seen
    if missing:
        return f"attempt {max(seen)} started, attempt {min(missing)} never did"
    announced = {record.attempt for record in records if record.state == "retry"}
    for attempt in sorted(seen - {1} - announced):
        return f"attempt {attempt} started, but no record says retry {attempt}"
    return None


def _starts_after_done(records: list[RecordWritten], starts: list[Started], skew: float) -> str | None:
    """A task that a run has ended does not start again. A cancel may cross a first delivery on its way."""
    done = next((record for record in records if record.state == "done"), None)
    for start in starts:
        if done is None or start.at <= done.at + skew:
            continue
        if done.outcome != "cancelled" or start.slow:
            return f"{_named(start)} came after {_named(done)}"
    return None


def _unclaimed(records: list[RecordWritten], starts: list[Started], skew: float) -> str | None:
    """On the slow path a run record that names the message comes first, one for each start."""
    unused = [record for record in records if record.state == "run"]
    for start in (start for start in starts if start.slow):
        mine = (
            record for record in unused
            if record.attempt == start.attempt
            and record.claim == (start.stream, start.sequence)
            and record.at <= start.at + skew
        )  # fmt: skip
        claim = next(mine, None)
        if claim is None:
            return f"{_named(start)} has no run record of its own before it"
        unused.remove(claim)
    return None


def _overlap(ordered: list[Event], starts: list[Started], skew: float) -> str | None:
    """Two runs at once need a reason: the first one's worker was killed or frozen, or the broker was."""
    lost = [event for event in ordered if isinstance(event, LeaseLost)]
    for number, start in enumerate(starts):
        end = _end_of(start, ordered) - skew
        for other in starts[number + 1 :]:
            excused = any(one.worker in {start.worker, "*"} and one.at <= other.at + skew for one in lost)
            if other.at < end and not excused:
                return f"{_named(other)} began while {_named(start)} ran, whose worker had its lease"
    return None


def _end_of(start: Started, ordered: list[Event]) -> float:
    for event in ordered:
        mine = isinstance(event, Ended) and (event.worker, event.attempt) == (start.worker, start.attempt)
        if mine and event.at >= start.at:
            return event.at
    return float("inf")


def _early_ack(ordered: list[Event], records: list[RecordWritten], skew: float) -> str | None:
    """A message goes only when the record says what follows: done, a retry, or another message's claim."""
    for ack in (event for event in ordered if isinstance(event, Acked)):
        known = (record for record in records if record.at <= ack.at + skew)
        if all(record.state == "run" and record.claim == (ack.stream, ack.sequence) for record in known):
            return f"{ack.stream}#{ack.sequence} was acked at {ack.at:g}, before any record said what follows"
    return None


def _letter(ordered: list[Event], records: list[RecordWritten], *, complete: bool) -> str | None:
    """A dead letter and an outcome that says so come together."""
    done = next((record for record in records if record.state == "done"), None)
    written = any(isinstance(event, DeadLettered) for event in ordered)
    if written and done is not None and done.outcome != "failed":
        return f"there is a dead letter, but the record says done ({done.outcome})"
    if complete and done is not None and done.outcome == "failed" and not written:
        return "the record says done (failed), but there is no dead letter"
    return None


def _end(records: list[RecordWritten]) -> str | None:
    if not records:
        return "no record was ever written: the task is lost"
    return (
        None if records[-1].state == "done" else f"{_named(records[-1])} is the last record: the task is lost"
    )


def _named(event: Started | RecordWritten) -> str:
    if isinstance(event, Started):
        return f"the start of attempt {event.attempt} by {event.worker} at {event.at:g}"
    outcome = f" ({event.outcome})" if event.outcome else ""
    return f"record {event.state} {event.attempt}{outcome} #{event.sequence}"

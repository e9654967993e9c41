"""One state of the world around one task, as values that compare and hash."""

from dataclasses import dataclass
from typing import Final, NamedTuple

Key = tuple[str, int]
"""A message: its stream and the sequence there."""

WORK: Final = "work"
LATER: Final = "later"
NO_KEY: Final[Key] = ("", 0)

FREE: Final = -1
"""Holder of a message that waits."""
UNATTENDED: Final = 9
"""Holder of a message whose worker is gone: the lease will end by itself."""

DROPPED: Final = -1
"""Writer of a record that lives, and no longer has that delivery."""
GONE: Final = -2
"""Writer of a record that died."""


class Record(NamedTuple):
    """What the broker knows about the task."""

    sequence: int = 0
    state: str = ""
    attempt: int = 0
    claim: Key = NO_KEY
    handed_back: bool = False
    crashes: int = 0
    by: int = DROPPED
    """The worker that wrote it, while it still has the same delivery, or `DROPPED` or `GONE`."""
    outcome: str = ""
    deferred: bool = False
    """Whether a `retry` is of the same attempt, for a worker that knows the handler."""


NOTHING: Final = Record()


class Message(NamedTuple):
    """A copy of the task in one of the two streams."""

    key: Key
    lane: int
    attempt: int
    fence: int
    flagged: bool
    delivered: int
    """Deliveries so far; two stands for two or more."""
    holder: int
    old: bool = False
    """Whether it was in the stream before the broker's present life, so before any connection."""


class Worker(NamedTuple):
    """Where a worker is inside the protocol, and what it holds."""

    at: str = "idle"
    key: Key = NO_KEY
    attempt: int = 0
    fence: int = 0
    crashes: int = 0
    plan: int = 0
    """The attempt it is about to schedule."""
    retrying: bool = False
    """Whether its own run has failed, and not a retry record it found."""
    stale: bool = False
    """It has fenced itself, but one write is on its way already."""
    away: bool = False
    """The broker was killed, and it has not reconnected yet."""
    seen: Record = NOTHING
    """The record that refused it."""


IDLE: Final = Worker()


class Mark(NamedTuple):
    """Above which messages of the work stream the broker has counted all deliveries; and who writes it."""

    counts: bool = False
    """Whether it names the broker's present life."""
    below: tuple[Key, ...] = ()
    """The messages that were there when the last sequence was asked for."""
    at: str = ""
    """Where the one is that writes it: `sequence`, `life`, `write`, or `make`, to make a consumer again."""
    knows_life: bool = False
    """Whether the life it noted is still the present one."""
    noted: tuple[Key, ...] = ()
    """What it found in the stream."""


class Cancel(NamedTuple):
    """Where the canceller is."""

    at: str = ""
    fence: int = 0


class Redrive(NamedTuple):
    """Where a program is that has a dead task run again."""

    at: str = ""
    fence: int = 0
    attempt: int = 0


class Budget(NamedTuple):
    """How often each disturbance may still happen."""

    crashes: int = 0
    lapses: int = 0
    refires: int = 0
    republishes: int = 0
    drains: int = 0
    cancels: int = 0
    unseen: int = 0
    expiries: int = 0
    kills: int = 0
    """Of the broker, without time to write down what it had delivered."""
    unknown: int = 0
    """Deliveries to a worker that does not know the task's handler, or whose handler asks to run later."""
    exits: int = 0
    """Ends of a worker that has dropped its attempt."""
    redrives: int = 0
    marks: int = 0
    """Times a program begins to write the mark of the broker's life."""
    yields: int = 0
    """Times a task that has to run alone gives way to the others of a worker."""
    remakes: int = 0
    """Times the consumer is made again, which forgets deliveries as a killed broker does."""

    def less(self, name: str) -> "Budget":
        """Return the budget with one of that disturbance spent."""
        return self._replace(**{name: getattr(self, name) - 1})


class State(NamedTuple):
    """Everything there is."""

    messages: tuple[Message, ...]
    schedule: tuple[int, int]
    """Attempt and fence of the one schedule of the task; (0, 0) is none."""
    record: Record
    previous: Record
    """The version before, for a follower that lags."""
    top: int
    """The highest record sequence anything still refers to."""
    workers: tuple[Worker, ...]
    cancel: Cancel
    letter: bool
    """Whether a dead letter is written."""
    ended: str
    """The first outcome, kept after its record has expired."""
    retried: int
    """The latest attempt a retry record was written for."""
    in_flight: bool
    """Whether the very first publish has still to arrive."""
    left: Budget
    flaw: str = ""
    redrive: Redrive = Redrive()
    alone: bool = False
    """Whether the handler of the present record began alone on its worker."""
    mark: Mark = Mark()


@dataclass(frozen=True)
class Scenario:
    """How a task is submitted, what its policy is, and what may go wrong."""

    name: str
    budget: Budget
    submitted: str = "plain"
    """`plain`, `flagged`, `delayed`, or `late`: the first publish may arrive after its repetition."""
    attempts: int = 2
    crash_limit: int = 1
    """Crashes of one attempt after which it runs alone, and one more buries it; 0 is never, and then they are
    not counted."""
    stale_nak: bool = False
    """Whether the nak of a lost lease may still be on its way: it frees the message under its next holder."""

    def begin(self) -> State:
        """Return the state right after the submit."""
        messages: tuple[Message, ...] = ()
        if self.submitted in {"plain", "flagged"}:
            messages = (Message((WORK, 1), 0, 1, 0, self.submitted == "flagged", 0, FREE),)
        return State(
            messages,
            (1, 0) if self.submitted == "delayed" else (0, 0),
            NOTHING, NOTHING, 0, (IDLE, IDLE), Cancel(), letter=False, ended="", retried=0,
            in_flight=self.submitted == "late", left=self.budget,
        )  # fmt: skip


def canonical(state: State) -> tuple[State, bool]:
    """Return the one state that stands for all that differ only in names, and whether the workers swapped.

    Record sequences are compared and ordered, never counted, so ranks do. Message sequences within a
    stream are only compared. The two workers are alike.
    """
    first, second = state.workers
    used = {0, state.record.sequence, state.previous.sequence, state.schedule[1], state.cancel.fence}
    used.add(state.redrive.fence)
    used.update((first.fence, second.fence, first.seen.sequence, second.seen.sequence))
    used.update([message.fence for message in state.messages])
    if len(used) != state.top + 1:
        state = _ranked(state, {sequence: rank for rank, sequence in enumerate(sorted(used))})
        first, second = state.workers
    swapped = second < first
    if swapped:
        state = state._replace(
            workers=(second._replace(seen=_swapped(second.seen)), first._replace(seen=_swapped(first.seen))),
            record=_swapped(state.record),
            previous=_swapped(state.previous),
            messages=tuple(
                [m._replace(holder=1 - m.holder) if 0 <= m.holder <= 1 else m for m in state.messages]
            ),
        )
    return state, swapped


def _ranked(state: State, rank: dict[int, int]) -> State:
    def record(one: Record) -> Record:
        return one._replace(sequence=rank[one.sequence]) if one.sequence else one

    return state._replace(
        record=record(state.record),
        previous=record(state.previous),
        schedule=(state.schedule[0], rank[state.schedule[1]]),
        cancel=state.cancel._replace(fence=rank[state.cancel.fence]),
        redrive=state.redrive._replace(fence=rank[state.redrive.fence]),
        top=len(rank) - 1,
        messages=tuple([m._replace(fence=rank[m.fence]) if m.fence else m for m in state.messages]),
        workers=tuple([w._replace(fence=rank[w.fence], seen=record(w.seen)) for w in state.workers]),
    )


def _swapped(record: Record) -> Record:
    return record._replace(by=1 - record.by) if record.by >= 0 else record

"""What every party of the model shares: the rules in force, and the one way to write the record."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.unit.protocol.rules import PROTOCOL, Flaw, Rule
from tests.unit.protocol.state import (
    DROPPED,
    GONE,
    IDLE,
    NO_KEY,
    NOTHING,
    UNATTENDED,
    Key,
    Record,
    Scenario,
    State,
    Worker,
)

Steps = Iterator[tuple[str, State, bool]]
"""What can happen next: a label, the state after it, and whether it is a disturbance no task may need."""


@dataclass(frozen=True)
class World:
    """A scenario under a set of rules."""

    scenario: Scenario
    rules: frozenset[Rule] = PROTOCOL

    def put(self, state: State, record: Record, expected: int) -> State | None:
        """Return the state after a compare-and-set, or None if it was refused."""
        forced = record.state == "done" and Rule.DONE_BY_CAS not in self.rules
        if state.record.sequence != expected and not forced:
            return None
        flaw, ended, retried = state.flaw, state.ended, state.retried
        if record.state == "done":
            if ended:
                flaw = Flaw.TWO_OUTCOMES
            elif state.letter and record.outcome != "dead":
                flaw = Flaw.GHOST_LETTER
            ended = ended or record.outcome
        elif record.state == "retry":
            # A deferral schedules the same attempt once more.
            if record.attempt <= retried and not record.deferred:
                flaw = Flaw.FORKED
            retried = max(retried, record.attempt)
        if self.burned(state, record.crashes):
            flaw = Flaw.BURNED
        return state._replace(
            record=record._replace(sequence=state.top + 1),
            previous=NOTHING if Rule.READ_UP_TO_REFUSED in self.rules else state.record,
            top=state.top + 1,
            ended=ended,
            retried=retried,
            flaw=flaw,
        )

    def burned(self, state: State, crashes: int) -> bool:
        """Whether more crashes are counted than workers died."""
        return crashes > self.scenario.budget.crashes - state.left.crashes


def moved(state: State, index: int, worker: Worker) -> State:
    """Return the state with one worker replaced."""
    workers = (worker, state.workers[1]) if index == 0 else (state.workers[0], worker)
    return state._replace(workers=workers)


def held(state: State, key: Key, holder: int) -> State:
    """Return the state with a message given to another holder."""
    return state._replace(
        messages=tuple([m._replace(holder=holder) if m.key == key else m for m in state.messages])
    )


def left(state: State, index: int) -> State:
    """Return the state with a worker idle that has no message any more."""
    record = state.record._replace(by=DROPPED) if state.record.by == index else state.record
    return moved(state._replace(record=record), index, IDLE)


def dropped(state: State, index: int) -> State:
    """Return the state with a worker idle whose message, if it holds it, waits for its lease to end."""
    key = state.workers[index].key
    if key != NO_KEY and any(m.key == key and m.holder == index for m in state.messages):
        state = held(state, key, UNATTENDED)
    return left(state, index)


def died(state: State, index: int) -> State:
    """Return the state with a worker dead: one that is new takes its place."""
    after = dropped(state, index)
    return after._replace(record=after.record._replace(by=GONE)) if state.record.by == index else after

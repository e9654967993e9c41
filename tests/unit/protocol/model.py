"""The attempt protocol as a transition system: one task, two workers, and all that may disturb them."""

from collections.abc import Iterator
from typing import NamedTuple

from tests.unit.protocol.rules import PROTOCOL, Rule
from tests.unit.protocol.state import FREE, Scenario, State, Worker, canonical
from tests.unit.protocol.surroundings import broker, canceller, marker, producer, redriver
from tests.unit.protocol.worker import MOVES, RECORD_WRITES, WRITES, intended
from tests.unit.protocol.world import Steps, World, died, held, left, moved


class Step(NamedTuple):
    """One thing that can happen next."""

    label: str
    state: State
    fault: bool
    swapped: bool
    """Whether the workers changed places, for those who want to name them."""


class Model:
    """The transitions of one scenario under a set of rules."""

    def __init__(self, scenario: Scenario, rules: frozenset[Rule] = PROTOCOL) -> None:
        self.world = World(scenario, rules)

    def begin(self) -> State:
        """Return the state right after the submit."""
        return canonical(self.world.scenario.begin())[0]

    def steps(self, state: State) -> Iterator[Step]:
        """Yield all that can happen in a state, each with its canonical successor."""
        for label, after, fault in self._all(state):
            state_after, swapped = canonical(after)
            yield Step(label, state_after, fault, swapped)

    def settled(self, state: State) -> bool:
        """Whether the task has its outcome and all that belongs to it."""
        return bool(state.ended) and (state.ended != "dead" or state.letter)

    def _all(self, state: State) -> Steps:
        yield from broker(self.world, state)
        yield from producer(self.world, state)
        yield from canceller(self.world, state)
        yield from redriver(self.world, state)
        yield from marker(self.world, state)
        for index, worker in enumerate(state.workers):
            if worker.at == "idle":
                continue
            if worker.away:
                yield f"worker {index} reconnects", moved(state, index, worker._replace(away=False)), False
                yield from self._disturbed(state, index, worker)
                continue
            for move, after in MOVES[worker.at](self.world, state, index, worker):
                if worker.stale:
                    # The write arrives, but the worker that sent it has fenced itself and goes no further.
                    late = self._dropping(after, index)._replace(flaw=_unless_run(state, after))
                    yield f"worker {index} {move}, late", late, True
                else:
                    yield f"worker {index} {move}", after, False
            if worker.stale:
                yield f"worker {index}'s late {worker.at} is lost", self._dropping(state, index), False
            else:
                yield from self._disturbed(state, index, worker)

    def _disturbed(self, state: State, index: int, worker: Worker) -> Steps:
        budget = state.left
        if budget.crashes:
            crashed = died(state._replace(left=budget.less("crashes")), index)
            yield f"worker {index} dies at {worker.at}", crashed, True
        if budget.lapses and any(m.key == worker.key and m.holder == index for m in state.messages):
            lapsed = held(state._replace(left=budget.less("lapses")), worker.key, FREE)
            label = f"worker {index} cannot renew at {worker.at}, its lease ends"
            yield label, self._fenced(lapsed, index, worker), True
        if budget.drains and worker.at in {"run", "claim"}:
            marks = worker.at == "run" and Rule.HAND_BACK_IN_RECORD in self.world.rules
            drained = worker._replace(at="hand back" if marks else "nak")
            after = moved(state._replace(left=budget.less("drains")), index, drained)
            yield f"worker {index} is drained at {worker.at}", after, True
        if budget.unseen and not worker.away and worker.at in RECORD_WRITES:
            written = self.world.put(state, intended(self.world, index, worker), worker.fence)
            if written is not None:
                unseen = written._replace(left=budget.less("unseen"))
                yield f"worker {index}'s {worker.at} is stored, the answer lost", unseen, True

    def _fenced(self, lapsed: State, index: int, worker: Worker) -> State:
        if Rule.SELF_FENCE not in self.world.rules:
            return lapsed
        in_flight = worker.at in WRITES and (worker.at != "nak" or self.world.scenario.stale_nak)
        return (
            moved(lapsed, index, worker._replace(stale=True)) if in_flight else self._dropping(lapsed, index)
        )

    def _dropping(self, state: State, index: int) -> State:
        """Return the state with a worker that drops its attempt, and marks a claim it has written."""
        worker = state.workers[index]
        claimed = state.record.by == index and state.record.state == "run" and not state.record.handed_back
        if not claimed or Rule.MARK_DROPPED not in self.world.rules:
            return left(state, index)
        # A claim whose answer was lost is read back, so its sequence is known in the end.
        marking = worker._replace(at="mark", fence=state.record.sequence, stale=False)
        return moved(state, index, marking)


def _unless_run(before: State, after: State) -> str:
    """Return the flaw of a late write: that of a start does not count, as nothing starts."""
    started = any(worker.at == "run" for worker in after.workers) and after.record.state == "run"
    return before.flaw if started else after.flaw

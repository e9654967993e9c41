"""Breadth-first search through all states of a model, with the shortest way to a bad one."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.unit.protocol.fairness import Edge, Node, fair_circles
from tests.unit.protocol.model import Model, Step
from tests.unit.protocol.rules import Flaw
from tests.unit.protocol.state import State


@dataclass(frozen=True)
class Finding:
    """A bad state, and the shortest way there."""

    flaw: Flaw
    trace: tuple[str, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number:2}. {label}" for number, label in enumerate(self.trace, 1))
        return f"{self.flaw}, after {len(self.trace)} steps:\n{steps}"


@dataclass
class Exploration:
    """What a search saw."""

    states: int = 0
    steps: int = 0
    outcomes: frozenset[str] = frozenset()
    findings: dict[Flaw, Finding] = field(default_factory=dict)
    """The first, so the shortest, of each kind."""

    def __str__(self) -> str:
        return f"{self.states} states, {self.steps} steps, {len(self.findings)} kinds of bad states"


def explore(
    model: Model,
    *,
    until: Flaw | None = None,
    tolerated: frozenset[Flaw] = frozenset(),
    limit: int = 2_000_000,
) -> Exploration:
    """Return what is reachable.

    Args:
        model: the transitions.
        until: stop at the first state with this flaw.
        tolerated: flaws that are neither noted nor an end of their path.
        limit: a bound on the number of states; more is an error of the test.
    """
    graph = _Graph(model, tolerated)
    graph.grow(until, limit)
    if until not in graph.seen.findings:
        graph.find_dead_ends()
        graph.find_livelock()
    graph.seen.states = len(graph.states)
    graph.seen.outcomes = frozenset(state.ended for state in graph.states if state.ended)
    return graph.seen


class _Graph:
    def __init__(self, model: Model, tolerated: frozenset[Flaw]) -> None:
        self.model, self.tolerated = model, tolerated
        self.states: list[State] = [model.begin()]
        self.index: dict[State, int] = {self.states[0]: 0}
        self.parents: list[tuple[int, str, bool]] = [(-1, "", False)]
        self.progress: dict[int, list[int]] = {}
        """Per state explored, its successors without a fault; states with a flaw are not explored further."""
        self.seen = Exploration()

    def grow(self, until: Flaw | None, limit: int) -> None:
        at = 0
        while at < len(self.states):
            state = self.states[at]
            if state.flaw:
                self._note(Flaw(state.flaw), at)
                if state.flaw == until:
                    return
            else:
                self._expand(at)
                assert len(self.states) <= limit, f"more than {limit} states: lower the budgets"
            at += 1

    def _steps(self, at: int) -> Iterator[Step]:
        for step in self.model.steps(self.states[at]):
            tolerated = step.state.flaw in self.tolerated
            yield step._replace(state=step.state._replace(flaw="")) if tolerated else step

    def _expand(self, at: int) -> None:
        successors: list[int] = []
        for label, after, fault, swapped in self._steps(at):
            self.seen.steps += 1
            known = self.index.get(after)
            if known is None:
                known = self.index[after] = len(self.states)
                self.states.append(after)
                self.parents.append((at, label, swapped))
            if not fault:
                successors.append(known)
        self.progress[at] = successors

    def _note(self, flaw: Flaw, at: int) -> None:
        if flaw not in self.seen.findings:
            way: list[tuple[str, bool]] = []
            while at > 0:
                at, label, swapped = self.parents[at]
                way.append((label, swapped))
            self.seen.findings[flaw] = Finding(flaw, _told(way[::-1]))

    def find_dead_ends(self) -> None:
        """Note a state from which, without help from a fault, the task cannot end any more."""
        before: dict[int, list[int]] = {}
        for at, successors in self.progress.items():
            for successor in successors:
                before.setdefault(successor, []).append(at)
        good = {
            at for at, state in enumerate(self.states) if at not in self.progress or self.model.settled(state)
        }
        waiting = deque(good)
        while waiting:
            for at in before.get(waiting.popleft(), ()):
                if at not in good:
                    good.add(at)
                    waiting.append(at)
        for at, state in enumerate(self.states):
            if at not in good:
                self._note(Flaw.LETTER_LOST if state.ended else Flaw.LOST, at)

    def find_livelock(self) -> None:
        """Note a state on a circle of steps without a fault in which no worker waits forever for a turn."""
        circling = self._trimmed()
        steps = {at: list(self._steps(at)) for at in circling}
        edges: dict[Node, list[Edge]] = {}
        for at in circling:
            for turned in (False, True):
                edges[at, turned] = [
                    Edge(_actor(step.label, turned), (self.index[step.state], turned ^ step.swapped))
                    for step in steps[at]
                    if not step.fault
                ]
        for component in fair_circles(edges):
            self._note(Flaw.LIVELOCK, min(at for at, _ in component))

    def _trimmed(self) -> set[int]:
        """Return the states left when those without a way in or out are taken away, again and again."""
        onward = {
            at: [to for to in successors if to in self.progress] for at, successors in self.progress.items()
        }
        return set(_entered(_reversed(_entered(onward))))


def _entered(graph: dict[int, list[int]]) -> dict[int, list[int]]:
    """Return the graph without the states nothing leads to, nor, then, those only they led to."""
    entering = dict.fromkeys(graph, 0)
    for successors in graph.values():
        for successor in successors:
            entering[successor] += 1
    free = deque(at for at, count in entering.items() if not count)
    while free:
        for successor in graph[free.popleft()]:
            entering[successor] -= 1
            if not entering[successor]:
                free.append(successor)
    return {at: [to for to in successors if entering[to]] for at, successors in graph.items() if entering[at]}


def _reversed(graph: dict[int, list[int]]) -> dict[int, list[int]]:
    reverse: dict[int, list[int]] = {at: [] for at in graph}
    for at, successors in graph.items():
        for successor in successors:
            reverse[successor].append(at)
    return reverse


def _actor(label: str, turned: bool) -> str:
    """Return whose turn a step is: a worker by its lasting name, or for the broker the very thing it does."""
    if "receives" in label:
        return label.partition(" receives ")[2] + " is delivered"
    if label.startswith("worker "):
        return "worker " + ("AB", "BA")[turned][int(label[7])]
    return label


def _told(way: list[tuple[str, bool]]) -> tuple[str, ...]:
    """Return the labels with each worker keeping its name, though states let them change places."""
    names, told = ["A", "B"], []
    for label, swapped in way:
        told.append(label.replace("worker 0", f"worker {names[0]}").replace("worker 1", f"worker {names[1]}"))
        if swapped:
            names.reverse()
    return tuple(told)

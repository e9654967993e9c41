"""The protocol of a step that runs in the place of the one before it, as a transition system.

The worker that ended a step goes on with the next one under the same message, without publishing or claiming
it. Here three steps follow each other, or two of them lead to a join and the third. A worker may die between
any two writes, a message may be delivered while its worker still lives, and the whole may be cancelled.
"""

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from tests.unit.protocol.ways import Ways, search


class PlaceRule(StrEnum):
    """One rule of steps that run in place."""

    WRITER = "only the worker that wrote the record of a step goes on in its place"
    HOLD = "the message is acknowledged after the step that runs in place has ended"
    LOOK = "the write of the mark shows whether the workflow has ended, before the next step begins"
    ONE_SOURCE = "a step that a join leads to is published"
    CLAIM = "a step that was published is claimed"
    FENCE = "a worker whose lease has ended does not begin the next step"
    LEAVE = "a worker whose lease has ended leaves a step that it finds ended to who has the message now"


PLACE_PROTOCOL: Final = frozenset(PlaceRule)

PLACE_WHY: Final = {
    PlaceRule.WRITER: "Of a step that is found ended, the next one may have run, by a message of its own.",
    PlaceRule.HOLD: "A worker that dies leaves no message.",
    PlaceRule.LOOK: "No message, and so no claim, comes between two steps: nothing else would be looked at.",
    PlaceRule.ONE_SOURCE: "Who is delivered the other member again finds the join complete, and publishes.",
    PlaceRule.CLAIM: "What was published after a death may have run in place before it.",
    PlaceRule.FENCE: "While a worker was frozen, another one may have published the step, and it has run.",
    PlaceRule.LEAVE: "It would publish what runs in place, and acknowledge the message of that.",
}


class PlaceFlaw(StrEnum):
    """A bad state."""

    TWICE = "a step ran again after its end"
    BESIDE = "a step ran twice at a time though no lease ended"
    AFTER_CANCEL = "a step began after the cancellation had returned"
    WAITS = "nothing happens any more, and the workflow has not ended"


class Hand(NamedTuple):
    """A worker with a message."""

    name: str
    message: int
    """The step whose message it is; -1 if it was acknowledged before the end."""
    step: int
    """The step it is at."""
    at: str
    """`look`, `run`, `go on`, `publish` or `acknowledge`."""
    wrote: bool = False
    """Whether it wrote the record of the step."""
    lost: bool = False
    """Whether its lease has ended, and another worker has the message."""


class PlaceState(NamedTuple):
    """Everything there is."""

    messages: tuple[int, ...]
    records: tuple[str, ...] = ("", "", "")
    """Of each step: nothing, the worker that claimed it, or `ok`."""
    arrived: frozenset[int] = frozenset()
    marks: frozenset[int] = frozenset()
    end: str = ""
    hands: tuple[Hand, ...] = ()
    deaths: int = 0
    doubles: int = 0
    cancels: int = 0
    overlap: bool = False
    """Whether a lease has ended while its worker lived."""
    flaw: str = ""


class PlaceScenario(NamedTuple):
    """What may go wrong."""

    name: str
    join: bool = False
    """Whether the first two steps lead to the third; else each leads to the next."""
    deaths: int = 0
    doubles: int = 0
    cancels: int = 0

    def begin(self) -> PlaceState:
        """Return the state after the submission."""
        first = (1, 1, 0) if self.join else (1, 0, 0)
        return PlaceState(first, deaths=self.deaths, doubles=self.doubles, cancels=self.cancels)


Next = Iterator[tuple[str, PlaceState]]


class PlaceModel:
    """The transitions of a scenario under a set of rules."""

    def __init__(self, scenario: PlaceScenario, rules: frozenset[PlaceRule] = PLACE_PROTOCOL) -> None:
        self.scenario, self.rules = scenario, rules

    def steps(self, state: PlaceState) -> Next:
        """Yield all that can happen next."""
        if state.flaw:
            return
        free = next((name for name in "ab" if all(hand.name != name for hand in state.hands)), "")
        for step, count in enumerate(state.messages):
            held = sum(hand.message == step for hand in state.hands)
            new = _with(state, Hand(free, step, step, "look"))
            if free and count and not held:
                yield f"step {step} is delivered", new
            elif free and held == 1 and state.doubles:
                frozen = next(hand for hand in state.hands if hand.message == step)
                late = _with(_moved(state, frozen, lost=True), Hand(free, step, step, "look"))
                late = late._replace(doubles=state.doubles - 1, overlap=True)
                yield f"the lease of step {step} ends, and it is delivered", late
        if state.cancels:
            end = state.end or "cancelled"
            yield "the whole is cancelled", state._replace(cancels=state.cancels - 1, end=end)
        for hand in state.hands:
            for label, after in self._worker(state, hand):
                yield f"worker {hand.name} {label}", after
            if state.deaths:
                dead = _without(state, hand)._replace(deaths=state.deaths - 1)
                yield f"worker {hand.name} dies", dead

    def _worker(self, state: PlaceState, hand: Hand) -> Next:
        match hand.at:
            case "look":
                yield f"looks at step {hand.step}", self._looked(state, hand)
            case "run":
                yield f"records step {hand.step}", self._recorded(state, hand)
            case "go on":
                yield from self._goes_on(state, hand)
            case "blind":
                following = self._following(state, hand.step)
                yield f"goes on with step {following}", self._in_place(state, hand, following)
            case "publish":
                following = self._following(state, hand.step)
                messages = list(state.messages)
                # Refused while there is a message of that step.
                messages[following] = 1
                after = state._replace(messages=tuple(messages))
                yield f"publishes step {following}", _moved(after, hand, at="acknowledge")
            case "acknowledge":
                gone = _without(state, hand)
                yield "acknowledges", gone if hand.message < 0 else _taken(gone, hand.message)

    def _looked(self, state: PlaceState, hand: Hand) -> PlaceState:
        if state.records[hand.step] == "ok" and PlaceRule.CLAIM in self.rules:
            return _moved(state, hand, at="go on", wrote=False)
        if state.end:
            return _moved(state, hand, at="acknowledge")
        claimed = state
        if PlaceRule.CLAIM in self.rules:
            claimed = _recorded(state, hand.step, hand.name)
        return self._begun(claimed, hand, hand.step)

    def _begun(self, state: PlaceState, hand: Hand, step: int) -> PlaceState:
        flaw = ""
        beside = any(each.step == step and each.at == "run" for each in state.hands if each.name != hand.name)
        if state.records[step] == "ok":
            flaw = PlaceFlaw.TWICE
        elif beside and not state.overlap:
            flaw = PlaceFlaw.BESIDE
        elif state.end == "cancelled":
            flaw = PlaceFlaw.AFTER_CANCEL
        return _moved(state, hand, step=step, at="run", wrote=False)._replace(flaw=flaw)

    def _recorded(self, state: PlaceState, hand: Hand) -> PlaceState:
        word = state.records[hand.step]
        if word == "ok":
            return _moved(state, hand, at="go on", wrote=False)
        if word not in ("", hand.name):
            return _without(state, hand)  # another worker has claimed it, and the message
        return _moved(_recorded(state, hand.step, "ok"), hand, at="go on", wrote=True)

    def _following(self, state: PlaceState, step: int) -> int:
        """Return the step after one that has ended; 3 if there is none yet."""
        if not self.scenario.join:
            return step + 1
        return 2 if step < 2 and state.arrived >= {0, 1} else 3

    def _goes_on(self, state: PlaceState, hand: Hand) -> Next:
        """Mark a step, and do what follows."""
        if hand.lost and not hand.wrote and PlaceRule.LEAVE in self.rules:
            yield "leaves it", _without(state, hand)
            return
        over = bool(state.end)
        marks = state.marks | {hand.step}
        marked = state._replace(marks=marks, arrived=state.arrived | {hand.step})
        if len(marks) == 3:
            marked = marked._replace(end=state.end or "ok")
        following = self._following(marked, hand.step)
        if over or following > 2:
            yield f"marks step {hand.step}", _moved(marked, hand, at="acknowledge")
            return
        yield f"marks step {hand.step}", _moved(marked, hand, at="publish")
        may = hand.wrote or PlaceRule.WRITER not in self.rules
        if may and (not self.scenario.join or PlaceRule.ONE_SOURCE not in self.rules):
            yield f"goes on with step {following}", self._in_place(marked, hand, following)
            if PlaceRule.LOOK not in self.rules:
                yield f"marks step {hand.step}, without a look", _moved(marked, hand, at="blind")

    def _in_place(self, state: PlaceState, hand: Hand, following: int) -> PlaceState:
        if hand.lost and PlaceRule.FENCE in self.rules:
            return _without(state, hand)
        if PlaceRule.HOLD not in self.rules and hand.message >= 0:
            state = _taken(_moved(state, hand, message=-1), hand.message)
            hand = hand._replace(message=-1)
        return self._begun(state, hand, following)

    def verdict(self, state: PlaceState) -> str:
        """Return the flaw of a state in which nothing more happens, if it has one."""
        return state.flaw or ("" if state.end else PlaceFlaw.WAITS)


def explore_place(
    scenario: PlaceScenario, rules: frozenset[PlaceRule] = PLACE_PROTOCOL, until: str = ""
) -> Ways:
    """Return how many states can be reached, and the shortest way to each kind of bad one."""
    model = PlaceModel(scenario, rules)
    return search(scenario.begin(), model.steps, model.verdict, ("dies", "cancelled", "lease"), until)


def _with(state: PlaceState, hand: Hand) -> PlaceState:
    return state._replace(hands=tuple(sorted((*state.hands, hand))))


def _without(state: PlaceState, hand: Hand) -> PlaceState:
    return state._replace(hands=tuple(each for each in state.hands if each.name != hand.name))


def _moved(state: PlaceState, hand: Hand, **changes: object) -> PlaceState:
    return _with(_without(state, hand), hand._replace(**changes))  # type: ignore[arg-type]


def _taken(state: PlaceState, step: int) -> PlaceState:
    messages = list(state.messages)
    messages[step] = 0
    return state._replace(messages=tuple(messages))


def _recorded(state: PlaceState, step: int, word: str) -> PlaceState:
    records = list(state.records)
    records[step] = word
    return state._replace(records=tuple(records))

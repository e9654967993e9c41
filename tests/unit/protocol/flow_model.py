"""The protocol of workflows as a transition system: two steps, a join of both, and the step after it.

A task's own protocol is in `model`; here a message is delivered, perhaps twice, and its worker may die
between any two writes. The client may die while it submits, and may cancel the whole, or one member by hand.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from tests.unit.protocol.ways import Ways, search


class FlowRule(StrEnum):
    """One rule of workflows."""

    ONE_MESSAGE = "a workflow begins with one message, stored after its plan"
    RECORD_FIRST = "the record of a step before its successors"
    ACKNOWLEDGE_LAST = "a step is acknowledged after its successors are stored"
    SET = "a join keeps which members arrived, and not how many"
    JOIN_BY_CAS = "a join is written by compare-and-set"
    REPEAT = "a worker that finds a join complete publishes what follows, too"
    DERIVED_ID = "the id of a step follows from its workflow, and its record refuses a second run"
    LOOK = "a step looks whether its workflow has ended before it begins"
    ONE_END = "the end of a workflow is a record written by compare-and-set"
    KEEP_MESSAGE = "cancelling a step by hand leaves its message"
    ALL_END = "a step that does not run ends for the steps after it, too"
    NOT_CLEARED = "who arrives at a join that is not there looks whether the workflow has succeeded"


FLOW_PROTOCOL: Final = frozenset(FlowRule)

FLOW_WHY: Final = {
    FlowRule.ONE_MESSAGE: "A client that dies after the first of two steps leaves a join that waits.",
    FlowRule.RECORD_FIRST: "The step may run again, and end in another way than its successor was given.",
    FlowRule.ACKNOWLEDGE_LAST: "A worker that dies after the acknowledgement leaves nothing that goes on.",
    FlowRule.SET: "A step that is delivered twice arrives twice.",
    FlowRule.JOIN_BY_CAS: "Of two that arrive at once, one is forgotten.",
    FlowRule.REPEAT: "The worker that completed the join may die before it publishes.",
    FlowRule.DERIVED_ID: "Publishing is repeated whenever it is not known whether it happened.",
    FlowRule.LOOK: "A step may have been published just before the cancellation.",
    FlowRule.ONE_END: "A cancellation and the last step may decide at the same moment.",
    FlowRule.KEEP_MESSAGE: "Without a message no worker learns that the step has ended.",
    FlowRule.NOT_CLEARED: "Two that were frozen since before the end write a new one, and it fires again.",
    FlowRule.ALL_END: "A failed member leaves a step that never runs, and the workflow would wait for it.",
}


class FlowFlaw(StrEnum):
    """A bad state."""

    WAITS = "nothing happens any more, and the workflow has not ended"
    EARLY = "the join fired before all its members had ended"
    TWICE = "a step ran again after its end"
    OTHER_END = "a successor ran though the record of its member says that it failed"
    AFTER_CANCEL = "a step began after the cancellation had returned"
    TWO_ENDS = "the workflow ended in two ways"
    AGAIN = "the join fired twice"


MEMBERS: Final = (0, 1)
AFTER: Final = 2
STEPS: Final = 3


class Hand(NamedTuple):
    """A worker with a message."""

    step: int
    at: str
    """`look`, `run`, `record`, `join`, `publish`, `skip`, `mark`, `finish`, `acknowledge`."""
    ok: bool = True
    """How the handler ended."""
    seen: tuple[int, ...] = ()
    """What the worker read of the join, where it writes without compare-and-set."""
    reading: bool = False
    won: bool = False
    """Whether this worker's write completed the join."""
    open: bool = True
    """Whether the workflow had not ended when this worker looked at it."""


class FlowState(NamedTuple):
    """Everything there is."""

    client: str
    """`plan`, `first`, `second`, `accepted`, `gone`; then `cancelled` and `returned`."""
    messages: tuple[int, ...]
    """Of each step: how many messages there are."""
    records: tuple[str, ...]
    """Of each step: nothing, `ok`, `failed` or `cancelled`."""
    arrived: tuple[int, ...]
    good: tuple[int, ...]
    """The members that arrived, and those of them that succeeded; with repetitions if they are counted."""
    marks: frozenset[int]
    end: str
    hands: tuple[Hand, ...]
    deaths: int
    doubles: int
    cancels: int
    by_hand: int
    fired: bool = False
    flaw: str = ""


@dataclass(frozen=True)
class FlowScenario:
    """What may go wrong."""

    name: str
    fails: bool = False
    """Whether handlers may fail."""
    deaths: int = 0
    doubles: int = 0
    cancels: int = 0
    by_hand: int = 0
    client_dies: bool = False
    workers: int = 2

    def begin(self) -> FlowState:
        """Return the state before the submission."""
        return FlowState(
            "plan", (0,) * STEPS, ("",) * STEPS, (), (), frozenset(), "", (),
            self.deaths, self.doubles, self.cancels, self.by_hand,
        )  # fmt: skip


Next = Iterator[tuple[str, FlowState]]


class FlowModel:
    """The transitions of a scenario under a set of rules."""

    def __init__(self, scenario: FlowScenario, rules: frozenset[FlowRule] = FLOW_PROTOCOL) -> None:
        self.scenario, self.rules = scenario, rules

    def steps(self, state: FlowState) -> Next:
        """Yield all that can happen next."""
        if state.flaw:
            return
        yield from self._client(state)
        for step in range(STEPS):
            held = sum(hand.step == step for hand in state.hands)
            if state.messages[step] > held and len(state.hands) < self.scenario.workers:
                yield f"step {step} is delivered", _with(state, Hand(step, "look"))
            elif (
                held
                and state.doubles
                and held == state.messages[step]
                and len(state.hands) < self.scenario.workers
            ):
                again = state._replace(doubles=state.doubles - 1)
                yield f"step {step} is delivered twice", _with(again, Hand(step, "look"))
            if state.by_hand and not held and state.messages[step] and not state.records[step]:
                ended = _record(state, step, "cancelled")._replace(by_hand=state.by_hand - 1)
                if FlowRule.KEEP_MESSAGE not in self.rules:
                    ended = _message(ended, step, -1)
                yield f"step {step} is cancelled by hand", ended
        for index, hand in enumerate(state.hands):
            for label, after in self._worker(state, index, hand):
                yield f"{label} step {hand.step}", after
            if state.deaths:
                dead = state._replace(deaths=state.deaths - 1)
                yield f"the worker of step {hand.step} dies before {hand.at}", _without(dead, index)

    def _client(self, state: FlowState) -> Next:
        match state.client:
            case "plan":
                if FlowRule.ONE_MESSAGE in self.rules:
                    # The worker that is handed the one message publishes both, before it acknowledges.
                    both = _message(_message(state, 0, 1), 1, 1)
                    yield "the client stores the plan and the message", both._replace(client="accepted")
                else:
                    yield "the client publishes step 0", _message(state, 0, 1)._replace(client="second")
            case "second":
                yield "the client publishes step 1", _message(state, 1, 1)._replace(client="accepted")
                if self.scenario.client_dies:
                    yield "the client dies", state._replace(client="gone")
            case "accepted" if state.cancels:
                took, flaw = self._decided(state, "cancelled")
                after = took._replace(client="returned", cancels=state.cancels - 1, flaw=flaw)
                yield "the client cancels the whole", after

    def _decided(self, state: FlowState, end: str) -> tuple[FlowState, str]:
        """Return the state with an end, and the flaw of having two."""
        if not state.end:
            return state._replace(end=end), ""
        if FlowRule.ONE_END in self.rules or state.end == end:
            return state, ""
        return state._replace(end=end), FlowFlaw.TWO_ENDS

    def _worker(self, state: FlowState, index: int, hand: Hand) -> Next:
        step = hand.step
        match hand.at:
            case "look":
                yield "a worker looks at", self._looked(state, index, hand)
            case "run":
                yield "the handler returns:", self._ended(state, index, hand, ok=True)
                if self.scenario.fails:
                    yield "the handler fails:", self._ended(state, index, hand, ok=False)
            case "record":
                yield "a worker records", self._recorded(state, index, hand)
            case "join":
                yield from self._joins(state, index, hand)
            case "publish":
                yield "a worker publishes what follows", self._published(state, index, hand)
            case "mark":
                yield from self._marks(state, index, hand)
            case "finish":
                yield "a worker ends the workflow at", self._finished(state, index, hand)
            case "acknowledge":
                last = FlowRule.ACKNOWLEDGE_LAST in self.rules
                gone = _message(state, step, -1) if last else state
                yield "a worker acknowledges", _without(gone, index)

    def _recorded(self, state: FlowState, index: int, hand: Hand) -> FlowState:
        step = hand.step
        word = state.records[step] or ("ok" if hand.ok else "failed")
        other = state.records[AFTER] == "" and step in MEMBERS and word != "ok" and self._good(state, step)
        stored = _record(state, step, word)._replace(flaw=FlowFlaw.OTHER_END if other else "")
        if FlowRule.ACKNOWLEDGE_LAST not in self.rules:
            stored = _message(stored, step, -1)
        at = "join" if FlowRule.RECORD_FIRST in self.rules else "mark"
        return _moved(stored, index, hand._replace(at=at, ok=word == "ok"))

    def _marks(self, state: FlowState, index: int, hand: Hand) -> Next:
        yield "a worker marks", self._marked(state, index, hand)
        if len(state.marks | {hand.step}) == STEPS:
            # The last mark may be written with the end: no step waits for it.
            yield "a worker does not mark", _moved(state, index, hand._replace(at="finish"))

    @staticmethod
    def _marked(state: FlowState, index: int, hand: Hand) -> FlowState:
        marked = state._replace(marks=state.marks | {hand.step})
        at = "finish" if len(marked.marks) == STEPS else "acknowledge"
        return _moved(marked, index, hand._replace(at=at))

    def _finished(self, state: FlowState, index: int, hand: Hand) -> FlowState:
        good = all(word == "ok" for word in state.records)
        ended, flaw = self._decided(state, "ok" if good else "failed")
        if ended.end == "ok":
            # What it consists of is removed.
            ended = ended._replace(arrived=(), good=())
        return _moved(ended, index, hand._replace(at="acknowledge"))._replace(flaw=flaw)

    def _good(self, state: FlowState, step: int) -> bool:
        return step in state.good and FlowRule.RECORD_FIRST not in self.rules

    def _looked(self, state: FlowState, index: int, hand: Hand) -> FlowState:
        step = hand.step
        word = state.records[step]
        if word:
            if FlowRule.DERIVED_ID not in self.rules and step == AFTER and word == "ok":
                return _moved(state, index, hand)._replace(flaw=FlowFlaw.TWICE)
            at = "join" if FlowRule.RECORD_FIRST in self.rules else "mark"
            return _moved(state, index, hand._replace(at=at, ok=word == "ok", open=not state.end))
        if state.end and FlowRule.LOOK in self.rules:
            return _moved(_record(state, step, "cancelled"), index, hand._replace(at="mark", ok=False))
        flaw = FlowFlaw.AFTER_CANCEL if state.client == "returned" and state.end == "cancelled" else ""
        return _moved(state, index, hand._replace(at="run", open=not state.end))._replace(flaw=flaw)

    def _ended(self, state: FlowState, index: int, hand: Hand, *, ok: bool) -> FlowState:
        at = "record" if FlowRule.RECORD_FIRST in self.rules or hand.step == AFTER else "join"
        return _moved(state, index, hand._replace(at=at, ok=ok))

    def _joins(self, state: FlowState, index: int, hand: Hand) -> Next:
        then = "mark" if FlowRule.RECORD_FIRST in self.rules else "record"
        if hand.step == AFTER or not hand.open:
            yield "a worker has nothing to join for", _moved(state, index, hand._replace(at=then))
            return
        if FlowRule.JOIN_BY_CAS not in self.rules and not hand.reading:
            yield (
                "a worker reads the join for",
                _moved(state, index, hand._replace(seen=state.arrived, reading=True)),
            )
            return
        if not state.arrived and state.end == "ok" and FlowRule.NOT_CLEARED in self.rules:
            yield "a worker finds no join for", _moved(state, index, hand._replace(at="acknowledge"))
            return
        arrived = hand.seen if hand.reading else state.arrived
        already = hand.step in arrived
        if not already or FlowRule.SET not in self.rules:
            good = (*state.good, hand.step) if hand.ok else state.good
            state = state._replace(arrived=(*arrived, hand.step), good=good)
        complete = len(state.arrived) >= len(MEMBERS)
        at = "publish" if complete else then
        won = not already
        flaw = FlowFlaw.AGAIN if complete and won and state.fired else state.flaw
        state = state._replace(fired=state.fired or complete, flaw=flaw)
        yield (
            "a worker stores the arrival of",
            _moved(state, index, hand._replace(at=at, reading=False, won=won, seen=())),
        )

    def _published(self, state: FlowState, index: int, hand: Hand) -> FlowState:
        then = hand._replace(at="mark" if FlowRule.RECORD_FIRST in self.rules else "record")
        if not hand.won and FlowRule.REPEAT not in self.rules:
            return _moved(state, index, then)
        flaw = ""
        if FlowRule.RECORD_FIRST in self.rules and not all(state.records[each] for each in MEMBERS):
            flaw = FlowFlaw.EARLY
        if any(each not in state.good for each in MEMBERS):
            # Something failed: what follows does not run, and counts as ended.
            if FlowRule.ALL_END in self.rules:
                state = _record(state, AFTER, state.records[AFTER] or "skipped")
                state = state._replace(marks=state.marks | {AFTER})
            return _moved(state, index, then)._replace(flaw=flaw)
        there = state.messages[AFTER] > 0
        if not there and (not state.records[AFTER] or FlowRule.DERIVED_ID not in self.rules):
            state = _message(state, AFTER, 1)
        return _moved(state, index, then)._replace(flaw=flaw)

    def verdict(self, state: FlowState) -> str:
        """Return the flaw of a state in which nothing more happens, if it has one."""
        if state.flaw:
            return state.flaw
        return FlowFlaw.WAITS if not state.end else ""


def explore_flow(scenario: FlowScenario, rules: frozenset[FlowRule] = FLOW_PROTOCOL, until: str = "") -> Ways:
    """Return how many states can be reached, and the shortest way to each kind of bad one."""
    model = FlowModel(scenario, rules)
    # Deaths and cancellations that do not happen leave nothing to do either.
    return search(scenario.begin(), model.steps, model.verdict, ("dies", "cancel"), until)


def _with(state: FlowState, hand: Hand) -> FlowState:
    return state._replace(hands=tuple(sorted((*state.hands, hand))))


def _without(state: FlowState, index: int) -> FlowState:
    return state._replace(hands=state.hands[:index] + state.hands[index + 1 :])


def _moved(state: FlowState, index: int, hand: Hand) -> FlowState:
    return _with(_without(state, index), hand)


def _message(state: FlowState, step: int, more: int) -> FlowState:
    changed = list(state.messages)
    changed[step] = max(0, changed[step] + more)
    return state._replace(messages=tuple(changed))


def _record(state: FlowState, step: int, word: str) -> FlowState:
    changed = list(state.records)
    changed[step] = word
    return state._replace(records=tuple(changed))

"""The protocol of keys as a transition system: one key with one permit, its tasks, and what may fail.

A task's own protocol is in `model`. Here a task waits on the subject of its key, gets the permit, is moved to
its lane, runs, and ends; a *turn* is the message that has a worker look at the key. Each step of a hand is
one request to the broker, and a hand may die after any.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple


class TurnRule(StrEnum):
    """One rule of keys."""

    HELD_FIRST = "the permit is written before the task is moved to its lane"
    COMPARE_AND_SET = "permits are written by compare-and-set"
    MOVE_THEN_REMOVE = "a task is stored in its lane before it is removed from where it waits"
    ACK_LAST = "a turn is acknowledged after what it did"
    LOOK_AFTER_EMPTY = "a key that looks empty is looked at once more"
    LOOK_WHILE_FULL = "while tasks wait for a permit, the key is looked at once a lease"
    PERMIT_FOLLOWS_TASK = "a permit whose task has no message is free"
    RECORD_DECIDES = "a task that was moved claims its record before it runs"
    LANES_SHARE = "a start that a lower lane is due goes to it, which is written with the permit"
    HELD_ANYWHERE = "a look after a lease moves a task that has a permit and waits behind others"


KEY_TURNS: Final = frozenset(TurnRule)

TURN_WHY: Final = {
    TurnRule.HELD_FIRST: "Another turn finds the permit free while the task is on its way.",
    TurnRule.COMPARE_AND_SET: "Two turns that read the same state give the same permit.",
    TurnRule.MOVE_THEN_REMOVE: "A worker that dies between the two loses the task.",
    TurnRule.ACK_LAST: "A worker that dies after it leaves nothing that has the key looked at.",
    TurnRule.LOOK_AFTER_EMPTY: "A producer rings while the turn is still there, and is not stored.",
    TurnRule.LOOK_WHILE_FULL: "A worker dies between the end of its task and giving the permit back.",
    TurnRule.PERMIT_FOLLOWS_TASK: "A worker dies between the end of its task and giving the permit back.",
    TurnRule.RECORD_DECIDES: "A worker that dies before it removes a task that it moved has it moved again.",
    TurnRule.LANES_SHARE: "Tasks of a higher lane that come again and again take every permit.",
    TurnRule.HELD_ANYWHERE: "A worker dies after a task is to run again and before its permit is given back.",
}


class TurnFlaw(StrEnum):
    """A bad state."""

    TWO_RUN = "two tasks of the key run at once"
    AGAIN = "a task that ended runs again"
    STUCK = "an accepted task can never end"
    STARVED = "a task of a lower lane waits while one after the other of a higher lane starts"


class Hand(NamedTuple):
    """A worker that is busy with the key."""

    at: str = ""
    """Nothing, or what it asks the broker next."""
    turn: int = -1
    """The turn it looks for: 0 from the producers, 1 from a schedule; -1 is none."""
    task: int = -1
    """The task it moves, runs, or gives the permit of back."""
    held: frozenset[int] = frozenset()
    """Permits as it read them."""
    rung: bool = False
    """Whether it saw a producer's turn before it looked."""
    passed: int = 0
    """Starts of the higher lane in a row, as it read them."""


class Turns(NamedTuple):
    """Everything there is."""

    producers: tuple[str, ...]
    """`store`, `ring`, `accepted` or `gone`, for each task."""
    wait: tuple[int, ...] = ()
    lane: frozenset[int] = frozenset()
    ended: frozenset[int] = frozenset()
    permits: frozenset[int] = frozenset()
    turns: tuple[bool, bool] = (False, False)
    """Whether there is a turn from a producer, and one that a schedule fired."""
    scheduled: bool = False
    hands: tuple[Hand, ...] = ()
    deaths: int = 0
    passed: int = 0
    """Starts of the higher lane in a row while the lower one waited, as it is written with the permits."""
    over: int = 0
    """The same as it is."""
    retries: int = 0
    """Attempts that may fail yet: their task waits under the key again, behind the others."""
    flaw: str = ""


@dataclass(frozen=True)
class TurnScenario:
    """How many submit, and how many hands may die."""

    name: str
    tasks: int
    hands: int = 2
    deaths: int = 0
    met: bool = False
    """Whether it begins where all tasks wait, and two turns are there: one is from a look before."""
    low: bool = False
    """Whether the first task is of a lower lane than the others."""
    retries: int = 0
    """How many attempts may fail."""

    def begin(self) -> Turns:
        """Return the state before the first submission."""
        hands = (Hand(),) * self.hands
        if not self.met:
            return Turns(("store",) * self.tasks, hands=hands, deaths=self.deaths, retries=self.retries)
        waiting = tuple(range(self.tasks))
        return Turns(("accepted",) * self.tasks, waiting, turns=(True, True), hands=hands, deaths=self.deaths)


_SHARE: Final = 1
"""Starts of the higher lane in a row after which the lower one has the next."""

Next = Iterator[tuple[str, Turns]]


class TurnModel:
    """The transitions under a set of rules."""

    def __init__(self, rules: frozenset[TurnRule] = KEY_TURNS, *, low: bool = False) -> None:
        self.rules, self.low = rules, low

    def steps(self, state: Turns) -> Next:
        """Yield all that can happen next."""
        for index, at in enumerate(state.producers):
            if at == "ring" or (at == "store" and "store" not in state.producers[:index]):
                yield from self._producer(state, index, at)
        if state.scheduled and not state.turns[1]:
            yield "a schedule fires", state._replace(scheduled=False, turns=(state.turns[0], True))
        for number, hand in enumerate(state.hands):
            if hand.at:
                yield from self._hand(state, number, hand)
                if state.deaths:
                    dead = _with(state, number, Hand())._replace(deaths=state.deaths - 1)
                    yield f"hand {number} dies at {hand.at}", dead
            elif not number or state.hands[number - 1].at:
                yield from self._begin(state, number)

    @staticmethod
    def _producer(state: Turns, index: int, at: str) -> Next:
        producers = list(state.producers)
        if at == "store":
            producers[index] = "ring"
            stored = state._replace(producers=tuple(producers), wait=(*state.wait, index))
            yield f"task {index} is stored", stored
        elif at == "ring":
            producers[index] = "accepted"
            rung = state._replace(producers=tuple(producers), turns=(True, state.turns[1]))
            yield f"the producer of task {index} rings", rung

    def _begin(self, state: Turns, number: int) -> Next:
        for turn, there in enumerate(state.turns):
            if there and all(each.turn != turn for each in state.hands):
                taken = state
                if TurnRule.ACK_LAST not in self.rules:
                    taken = _acknowledged(state, turn)
                yield f"hand {number} takes turn {turn}", _with(taken, number, Hand("read", turn))
        for task in sorted(state.lane):
            if all(each.task != task or each.at not in {"run", "claim"} for each in state.hands):
                yield f"hand {number} takes task {task}", _with(state, number, Hand("claim", task=task))

    def _hand(self, state: Turns, number: int, hand: Hand) -> Next:
        yield f"hand {number}: {hand.at}", getattr(self, f"_{hand.at}")(state, number, hand)
        if hand.at == "run" and state.retries and hand.task not in state.ended:
            wait = (*state.wait, hand.task)
            turns = (True, state.turns[1])
            failed = state._replace(retries=state.retries - 1, wait=wait, turns=turns)
            yield f"hand {number}: the attempt fails, the task waits again", self._left(failed, number, hand)

    # -- a task in its lane

    def _claim(self, state: Turns, number: int, hand: Hand) -> Turns:
        if hand.task in state.ended:
            if TurnRule.RECORD_DECIDES not in self.rules:
                return state._replace(flaw=TurnFlaw.AGAIN)
            return self._left(state, number, hand)
        running = _with(state, number, hand._replace(at="run"))
        busy = {each.task for each in running.hands if each.at == "run"}
        return running._replace(flaw=TurnFlaw.TWO_RUN) if len(busy) > 1 else running

    def _run(self, state: Turns, number: int, hand: Hand) -> Turns:
        return self._left(state._replace(ended=state.ended | {hand.task}), number, hand)

    def _left(self, state: Turns, number: int, hand: Hand) -> Turns:
        """Acknowledge the message of a task that has ended; then its permit is given back."""
        acknowledged = state._replace(lane=state.lane - {hand.task})
        return _with(acknowledged, number, Hand("release", task=hand.task))

    def _release(self, state: Turns, number: int, hand: Hand) -> Turns:
        return _with(state, number, Hand("give_back", -1, hand.task, state.permits))

    def _give_back(self, state: Turns, number: int, hand: Hand) -> Turns:
        written = self._put(state, hand, hand.held - {hand.task})
        if written is None:
            return _with(state, number, Hand("release", task=hand.task))
        return _with(written, number, Hand("read"))

    # -- a look at the key

    def _read(self, state: Turns, number: int, hand: Hand) -> Turns:
        rung = hand.turn == 1 and state.turns[0]
        read = Hand("look", hand.turn, held=state.permits, rung=rung, passed=state.passed)
        return _with(state, number, read)

    def _look(self, state: Turns, number: int, hand: Hand) -> Turns:
        if not state.wait:
            again = TurnRule.LOOK_AFTER_EMPTY in self.rules and (hand.turn == 0 or hand.rung)
            return _done(state, number, hand, again=again)
        head = self._head(state.wait, hand)
        if head in hand.held:
            return _with(state, number, hand._replace(at="move", task=head))
        if hand.held:
            return self._full(state, number, hand)
        at = "take" if TurnRule.HELD_FIRST in self.rules else "move"
        return _with(state, number, hand._replace(at=at, task=head))

    def _head(self, wait: tuple[int, ...], hand: Hand) -> int:
        """Return which task is to be moved next: of two lanes, the first one is the lower."""
        if not self.low:
            return wait[0]
        high = [task for task in wait if task]
        due = TurnRule.LANES_SHARE in self.rules and hand.passed >= _SHARE
        return high[0] if high and not (0 in wait and due) else 0

    def _full(self, state: Turns, number: int, hand: Hand) -> Turns:
        again = {task for task in hand.held if task in state.wait and task not in state.lane}
        if again and hand.turn == 1 and TurnRule.HELD_ANYWHERE in self.rules:
            return _with(state, number, hand._replace(at="move", task=min(again)))
        gone = {task for task in hand.held if task not in state.wait and task not in state.lane}
        if gone and hand.turn == 1 and TurnRule.PERMIT_FOLLOWS_TASK in self.rules:
            written = self._put(state, hand, hand.held - gone)
            return _with(written or state, number, Hand("read", hand.turn))
        return _done(state, number, hand, again=TurnRule.LOOK_WHILE_FULL in self.rules)

    def _take(self, state: Turns, number: int, hand: Hand) -> Turns:
        written = self._put(state, hand, hand.held | {hand.task})
        if written is None:
            return _with(state, number, Hand("read", hand.turn))
        if self.low:
            over = state.over + 1 if hand.task and 0 in state.wait else 0
            flaw = TurnFlaw.STARVED if over > _SHARE + 1 else ""
            written = written._replace(passed=over and hand.passed + 1, over=over, flaw=flaw)
        return _with(written, number, Hand("move", hand.turn, hand.task))

    def _move(self, state: Turns, number: int, hand: Hand) -> Turns:
        if TurnRule.MOVE_THEN_REMOVE not in self.rules:
            removed = tuple(task for task in state.wait if task != hand.task)
            return _with(state._replace(wait=removed), number, hand._replace(at="moved"))
        moved = state._replace(lane=state.lane | {hand.task})
        return _with(moved, number, hand._replace(at="remove"))

    def _moved(self, state: Turns, number: int, hand: Hand) -> Turns:
        moved = state._replace(lane=state.lane | {hand.task})
        return _with(moved, number, Hand("read", hand.turn))

    def _remove(self, state: Turns, number: int, hand: Hand) -> Turns:
        left = state._replace(wait=tuple(task for task in state.wait if task != hand.task))
        if TurnRule.HELD_FIRST not in self.rules:
            written = self._put(left, hand, hand.held | {hand.task})
            left = written or left
        return _with(left, number, Hand("read", hand.turn))

    def _arm(self, state: Turns, number: int, hand: Hand) -> Turns:
        return _done(state._replace(scheduled=True), number, hand, again=False)

    def _end(self, state: Turns, number: int, hand: Hand) -> Turns:
        acknowledged = _acknowledged(state, hand.turn) if TurnRule.ACK_LAST in self.rules else state
        return _with(acknowledged, number, Hand())

    def _put(self, state: Turns, hand: Hand, permits: frozenset[int]) -> Turns | None:
        if TurnRule.COMPARE_AND_SET in self.rules and state.permits != hand.held:
            return None
        return state._replace(permits=permits)


def explore_turns(
    scenario: TurnScenario, rules: frozenset[TurnRule] = KEY_TURNS, wanted: str = ""
) -> dict[str, list[str]]:
    """Return the shortest way to each kind of bad state, and under `""` the number of states."""
    model, begin = TurnModel(rules, low=scenario.low), scenario.begin()
    ways: dict[Turns, tuple[Turns | None, str]] = {begin: (None, "")}
    before: dict[Turns, list[Turns]] = {}
    found: dict[str, list[str]] = {}
    good: list[Turns] = []
    waiting = deque([begin])
    while waiting:
        state = waiting.popleft()
        if state.flaw:
            found.setdefault(state.flaw, _way(ways, state))
            if state.flaw == wanted:
                return found
            good.append(state)
            continue
        if len(state.ended) == scenario.tasks:
            good.append(state)
        for label, following in model.steps(state):
            after = _canonical(following)
            before.setdefault(after, []).append(state)
            if after not in ways:
                ways[after] = state, label
                waiting.append(after)
    ends = _leading_to(good, before)
    stuck = next((state for state in ways if state not in ends), None)
    if stuck is not None:
        found[TurnFlaw.STUCK] = _way(ways, stuck)
    found[""] = [str(len(ways))]
    return found


def _leading_to(good: list[Turns], before: dict[Turns, list[Turns]]) -> set[Turns]:
    ends = set(good)
    while good:
        for state in before.get(good.pop(), ()):
            if state not in ends:
                ends.add(state)
                good.append(state)
    return ends


def _way(ways: dict[Turns, tuple[Turns | None, str]], state: Turns) -> list[str]:
    labels: list[str] = []
    while (before := ways[state])[0] is not None:
        labels.append(before[1])
        assert before[0] is not None
        state = before[0]
    return labels[::-1]


def _done(state: Turns, number: int, hand: Hand, *, again: bool) -> Turns:
    """Return the state in which a hand has looked, and has the key looked at again if so."""
    if not again and hand.turn < 0:
        return _with(state, number, Hand())
    return _with(state, number, Hand("arm" if again else "end", hand.turn))


def _acknowledged(state: Turns, turn: int) -> Turns:
    if turn < 0:
        return state
    left = list(state.turns)
    left[turn] = False
    return state._replace(turns=(left[0], left[1]))


def _with(state: Turns, number: int, hand: Hand) -> Turns:
    changed = list(state.hands)
    changed[number] = hand
    return state._replace(hands=tuple(changed))


def _canonical(state: Turns) -> Turns:
    """Return the state with its hands in an order that does not tell them apart."""
    return state._replace(hands=tuple(sorted(state.hands, key=repr)))

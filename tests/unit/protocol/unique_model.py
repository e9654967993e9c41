"""The protocol of unique keys as a transition system: one key, up to three submissions, and what may fail.

A task's own protocol is in `model`; here a task is sent, begins, ends, or is dropped since another one took
its place. The key is one record, written by compare-and-set only.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from tests.unit.protocol.ways import Ways, search


class KeyRule(StrEnum):
    """One rule of unique keys."""

    CONFIRM = "a producer confirms its claim once its task is stored, and accepts it only then"
    WORKER_CHECKS = "a worker looks at the key before a task begins"
    BEGUN_BY_CAS = "a worker writes into the key that its task begins"
    UNKNOWN_IS_FREE = "an unconfirmed claim for a task that is not there is free"
    PREVIOUS_KEPT = "an unconfirmed claim leaves the key to what it replaces"
    RECORD_FIRST = "the record of the end before the release of the key"
    BEGUN_LISTED = "the key lists the tasks that began, also after others have it"
    RECORD_FREES = "the record of the end frees the key, also if nothing releases it"


KEY_PROTOCOL: Final = frozenset(KeyRule)

KEY_WHY: Final = {
    KeyRule.CONFIRM: "Another producer may have looked for the task before it was stored, and taken the key.",
    KeyRule.WORKER_CHECKS: "A replaced task is still in the stream; a producer has no right to remove it.",
    KeyRule.BEGUN_BY_CAS: "A claim that was not confirmed can be taken while its task already runs.",
    KeyRule.UNKNOWN_IS_FREE: "A producer may die between its claim and its task.",
    KeyRule.PREVIOUS_KEPT: "A producer that dies before its task is stored must not take another's place.",
    KeyRule.RECORD_FIRST: "A worker that dies between the two runs its task again, beside the next one.",
    KeyRule.BEGUN_LISTED: "A task that began, and whose worker died, finds the key with a later task.",
    KeyRule.RECORD_FREES: "A task that is cancelled ends without a worker.",
}


class KeyFlaw(StrEnum):
    """A bad state."""

    TWO_RUN = "two tasks of one key run at once"
    LOST = "an accepted task was dropped, and none ran in its place"
    BLOCKED = "no task of the key is left, and the key is not free"
    TWO_WAIT = "two accepted tasks of one key wait"


class Held(NamedTuple):
    """The key's record."""

    task: int
    state: str
    """`claimed`, `confirmed`, `begun` or `ended`."""
    previous: int
    """The task an unconfirmed claim replaces; -1 is none."""
    begun: frozenset[int] = frozenset()
    """The tasks that began."""


class Submission(NamedTuple):
    """A task and its producer."""

    at: str = "read"
    """The producer: `read`, `claim`, `publish`, `confirm`, `accepted`, `refused`, `gone`."""
    fence: int = 0
    previous: int = -1
    task: str = ""
    """The task: nothing, `sent`, `ended` or `dropped`."""
    began: bool = False


class Hand(NamedTuple):
    """The worker that has a task's message."""

    at: str = ""
    """Nothing, `begin`, `run`, `end` or `release`."""
    fence: int = 0


class KeyState(NamedTuple):
    """Everything there is."""

    key: Held | None
    sequence: int
    """Of the key's record; 0 if it has none."""
    top: int
    submissions: tuple[Submission, ...]
    hands: tuple[Hand, ...]
    producers_die: int
    workers_die: int
    cancels: int
    flaw: str = ""


@dataclass(frozen=True)
class KeyScenario:
    """Who submits, and what may go wrong."""

    name: str
    replaces: tuple[bool, ...]
    """Per submission, whether it replaces a task that waits, and is not refused."""
    until_finished: bool
    """Whether the key is held until the end of its task, and not until its begin."""
    producers_die: int = 0
    workers_die: int = 0
    cancels: int = 0

    def begin(self) -> KeyState:
        """Return the state before the first submission."""
        count = len(self.replaces)
        return KeyState(
            None, 0, 0, (Submission(),) * count, (Hand(),) * count,
            self.producers_die, self.workers_die, self.cancels,
        )  # fmt: skip


Next = Iterator[tuple[str, KeyState]]


class KeyModel:
    """The transitions of a scenario under a set of rules."""

    def __init__(self, scenario: KeyScenario, rules: frozenset[KeyRule] = KEY_PROTOCOL) -> None:
        self.scenario, self.rules = scenario, rules

    def steps(self, state: KeyState) -> Next:
        """Yield all that can happen next."""
        if state.flaw:
            return
        for index, one in enumerate(state.submissions):
            yield from self._producer(state, index, one)
            if one.task == "sent":
                yield from self._worker(state, index, one, state.hands[index])
            if state.cancels and one.task == "sent" and not state.hands[index].at:
                ended = _submission(state, index, one._replace(task="ended", began=True))
                yield f"task {index} is cancelled", ended._replace(cancels=state.cancels - 1)

    def owner(self, state: KeyState) -> int:
        """Return the task that holds the key, or -1 if it is free."""
        key = state.key
        if key is None or key.state == "ended":
            return -1
        task = state.submissions[key.task].task
        if key.state == "claimed" and not task and KeyRule.UNKNOWN_IS_FREE in self.rules:
            previous = key.previous
            return previous if previous >= 0 and self._waits(state, previous) else -1
        if key.state == "begun" and not self.scenario.until_finished:
            return -1
        over = task in {"ended", "dropped"} and KeyRule.RECORD_FREES in self.rules
        return -1 if over else key.task

    def _waits(self, state: KeyState, index: int) -> bool:
        return state.submissions[index].task == "sent"

    def _producer(self, state: KeyState, index: int, one: Submission) -> Next:
        if one.at == "read":
            yield f"producer {index} reads the key", self._decided(state, index, one)
        elif one.at == "claim":
            claim = Held(index, "claimed", one.previous, _begun(state))
            after = _put(state, claim, one.fence)
            at = "read" if after is None else "publish"
            moved = one._replace(at=at, fence=after.sequence if after else 0)
            yield f"producer {index} claims", _submission(after or state, index, moved)
        elif one.at == "publish":
            at = "confirm" if KeyRule.CONFIRM in self.rules else "accepted"
            yield (
                f"producer {index} publishes",
                self._waiting(_submission(state, index, one._replace(at=at, task="sent"))),
            )
        elif one.at == "confirm":
            yield f"producer {index} confirms", self._confirmed(state, index, one)
        if one.at in {"claim", "publish", "confirm"} and state.producers_die:
            dead = _submission(state, index, one._replace(at="gone"))
            yield f"producer {index} dies", dead._replace(producers_die=state.producers_die - 1)

    def _decided(self, state: KeyState, index: int, one: Submission) -> KeyState:
        key, owner = state.key, self.owner(state)
        if owner >= 0:
            assert key is not None
            begun = key.state == "begun"
            if not self.scenario.replaces[index] or begun:
                return _submission(state, index, one._replace(at="refused"))
            previous = owner
            if key.state == "claimed" and key.task == owner and key.previous >= 0:
                previous = key.previous  # that claim is not confirmed, so what it replaces still counts
        else:
            previous = -1
        if KeyRule.PREVIOUS_KEPT not in self.rules:
            previous = -1
        claiming = one._replace(at="claim", fence=state.sequence, previous=previous)
        return _submission(state, index, claiming)

    def _confirmed(self, state: KeyState, index: int, one: Submission) -> KeyState:
        after = _put(state, Held(index, "confirmed", -1, _begun(state)), one.fence)
        if after is None:
            lost = state.key is not None and state.key.task != index and index not in _begun(state)
            told = one._replace(at="refused" if lost else "accepted")
            return self._waiting(_submission(state, index, told))
        return self._waiting(_submission(after, index, one._replace(at="accepted")))

    def _worker(self, state: KeyState, index: int, one: Submission, hand: Hand) -> Next:
        if not hand.at:
            yield f"a worker receives task {index} and looks", self._looked(state, index, one)
        elif hand.at == "begin":
            listed = _begun(state) | {index} if KeyRule.BEGUN_LISTED in self.rules else _begun(state)
            key = Held(index, "begun", -1, listed)
            after = _put(state, key, hand.fence)
            moved = Hand() if after is None else Hand("run", after.sequence)
            yield f"task {index} begins", self._running(_hand(after or state, index, moved), index, moved)
        elif hand.at == "run":
            at = "end" if KeyRule.RECORD_FIRST in self.rules else "release"
            yield f"the handler of task {index} returns", _hand(state, index, hand._replace(at=at))
        elif hand.at == "end":
            ended = _submission(state, index, one._replace(task="ended"))
            again = KeyRule.RECORD_FIRST in self.rules
            yield f"task {index} is recorded", ended if not again else self._released(ended, index, hand)
        elif hand.at == "release":
            yield f"task {index} releases", _hand(self._released(state, index, hand), index, Hand("end"))
        if hand.at and state.workers_die:
            dead = _hand(state, index, Hand())._replace(workers_die=state.workers_die - 1)
            yield f"the worker of task {index} dies at {hand.at}", dead
            if hand.at == "end" and KeyRule.RECORD_FIRST in self.rules:
                recorded = _submission(dead, index, one._replace(task="ended"))
                yield f"the worker of task {index} dies before it releases", recorded

    def _released(self, state: KeyState, index: int, hand: Hand) -> KeyState:
        key = state.key
        if not self.scenario.until_finished or key is None or key.task != index:
            return _hand(state, index, Hand())
        released = _put(state, key._replace(state="ended"), hand.fence) or state
        return _hand(released, index, Hand())

    def _looked(self, state: KeyState, index: int, one: Submission) -> KeyState:
        key = state.key
        begun = Hand("run", state.sequence)
        if KeyRule.WORKER_CHECKS not in self.rules:
            return self._running(_hand(state, index, begun), index, begun)
        if key is None or index in key.begun:
            return self._running(_hand(state, index, begun), index, begun)
        if key.task != index and not (key.state == "claimed" and key.previous == index):
            return _submission(state, index, one._replace(task="dropped"))
        if key.state in {"begun", "ended"} or KeyRule.BEGUN_BY_CAS not in self.rules:
            return self._running(_hand(state, index, begun), index, begun)
        return _hand(state, index, Hand("begin", state.sequence))

    def _running(self, state: KeyState, index: int, hand: Hand) -> KeyState:
        if hand.at != "run":
            return state
        one = state.submissions[index]
        state = _submission(state, index, one._replace(began=True))
        running = sum(each.at in {"run", "end"} for each in state.hands)
        if running > 1 and self.scenario.until_finished:
            return state._replace(flaw=KeyFlaw.TWO_RUN)
        return state

    def _waiting(self, state: KeyState) -> KeyState:
        """Return the state with a flaw if the key would let two tasks begin that were accepted."""
        waiting = [
            index
            for index, one in enumerate(state.submissions)
            if one.at == "accepted" and one.task == "sent" and not one.began
            and self._looked(state, index, one).submissions[index].task != "dropped"
        ]  # fmt: skip
        return state._replace(flaw=KeyFlaw.TWO_WAIT) if len(waiting) > 1 else state

    def verdict(self, state: KeyState) -> str:
        """Return the flaw of a state in which nothing more happens, if it has one."""
        if state.flaw:
            return state.flaw
        ran = any(one.task == "ended" for one in state.submissions)
        for index, one in enumerate(state.submissions):
            if one.at == "accepted" and one.task == "dropped":
                later = [
                    other.at == "accepted" or other.task == "ended"
                    for place, other in enumerate(state.submissions)
                    if place != index and self.scenario.replaces[place]
                ]
                if one.began or not any(later) or not ran:
                    return KeyFlaw.LOST
        if all(one.task != "sent" for one in state.submissions) and self.owner(state) >= 0:
            return KeyFlaw.BLOCKED
        return ""


def explore_keys(scenario: KeyScenario, rules: frozenset[KeyRule] = KEY_PROTOCOL, until: str = "") -> Ways:
    """Return how many states can be reached, and the shortest way to each kind of bad one."""
    model = KeyModel(scenario, rules)
    return search(scenario.begin(), model.steps, model.verdict, until=until)


def _begun(state: KeyState) -> frozenset[int]:
    return state.key.begun if state.key is not None else frozenset()


def _put(state: KeyState, key: Held, expected: int) -> KeyState | None:
    if state.sequence != expected:
        return None
    return state._replace(key=key, sequence=state.top + 1, top=state.top + 1)


def _submission(state: KeyState, index: int, one: Submission) -> KeyState:
    changed = list(state.submissions)
    changed[index] = one
    return state._replace(submissions=tuple(changed))


def _hand(state: KeyState, index: int, hand: Hand) -> KeyState:
    changed = list(state.hands)
    changed[index] = hand
    return state._replace(hands=tuple(changed))

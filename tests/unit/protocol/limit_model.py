"""The protocol of a queue's own limit as a transition system: one permit, which workers have, not tasks.

Worker 0 may stop taking tasks, die, or be cut off from the broker; worker 1 is there all the time. A worker
pulls a task only with a permit, and keeps it for its next task. Which worker has it stands in one record.
"""

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple


class LimitRule(StrEnum):
    """One rule of a queue's limit."""

    PERMIT_FIRST = "a worker pulls a task only with a permit"
    COMPARE_AND_SET = "permits are written by compare-and-set"
    GIVE_AFTER_END = "a permit is given back after the attempt has ended"
    LEAVER_GIVES = "a worker that takes no more tasks gives back what it does not use"
    LOOK_AGAIN = "who waits for a permit looks now and then"
    SILENT_LOSES = "who has not confirmed its permits for a lease loses them"
    STOP_FIRST = "who cannot confirm its permits stops its attempts before others may have them"
    CONFIRMED = "a permit that was not confirmed in time does not count when the broker is back"


LIMIT: Final = frozenset(LimitRule)

LIMIT_WHY: Final = {
    LimitRule.PERMIT_FIRST: "Each worker runs a task.",
    LimitRule.COMPARE_AND_SET: "Two workers that read the same record take the same permit.",
    LimitRule.GIVE_AFTER_END: "Another worker runs a task before this one has ended.",
    LimitRule.LEAVER_GIVES: "A worker that drains keeps a permit that nothing uses.",
    LimitRule.LOOK_AGAIN: "The word that a permit is free may be lost.",
    LimitRule.SILENT_LOSES: "A worker dies with a permit.",
    LimitRule.STOP_FIRST: "A worker that is cut off runs on while another one has its permit.",
    LimitRule.CONFIRMED: "A worker that comes back pulls with a permit that another one has.",
}


class LimitFlaw(StrEnum):
    """A bad state."""

    TWO_RUN = "two tasks run at once"
    STUCK = "an accepted task can never end"


class Hand(NamedTuple):
    """A worker."""

    seen: frozenset[int] | None = None
    """The record as it read it, if it is about to write."""
    mine: bool = False
    """Whether it takes itself for one with a permit."""
    runs: bool = False
    told: bool = True
    """Whether it heard that a permit may be free."""
    leaves: bool = False
    dead: bool = False
    cut: int = 0
    """1: it does not reach the broker; 2: and has stopped its attempts for that."""


class LimitState(NamedTuple):
    """Everything there is."""

    backlog: int = 2
    ended: int = 0
    lost: int = 0
    """Tasks whose worker does not renew their lease: they come again."""
    holders: frozenset[int] = frozenset()
    """Workers with a permit, as it is stored."""
    hands: tuple[Hand, Hand] = (Hand(), Hand())
    troubles: frozenset[str] = frozenset()
    """What may still happen to worker 0, and to words between workers."""
    flaw: str = ""


Steps = Iterator[LimitState]


def limit_next(state: LimitState, rules: frozenset[LimitRule]) -> Steps:
    """Yield the states that may follow."""
    if state.lost:
        yield state._replace(lost=state.lost - 1, backlog=state.backlog + 1)
    for number, hand in enumerate(state.hands):
        if hand.dead:
            continue
        if hand.cut:
            yield from _cut_off(state, number, hand, rules)
            continue
        yield from _permits(state, number, hand, rules)
        yield from _tasks(state, number, hand, rules)
    yield from _trouble(state)


def _permits(state: LimitState, number: int, hand: Hand, rules: frozenset[LimitRule]) -> Steps:
    if hand.seen is not None:
        if LimitRule.COMPARE_AND_SET in rules and state.holders != hand.seen:
            yield _with(state, number, hand._replace(seen=None, told=True))
        else:
            taken = hand._replace(seen=None, mine=True)
            yield _with(state._replace(holders=hand.seen | {number}), number, taken)
    elif not hand.mine and not hand.leaves and (hand.told or LimitRule.LOOK_AGAIN in rules):
        seen = state.holders
        yield _with(state, number, hand._replace(told=False, seen=None if seen - {number} else seen))
        yield from _freed(state, number, hand, rules)
    done = not hand.runs or LimitRule.GIVE_AFTER_END not in rules
    if hand.mine and hand.leaves and done and LimitRule.LEAVER_GIVES in rules:
        given = _with(state._replace(holders=state.holders - {number}), number, hand._replace(mine=False))
        other = given.hands[1 - number]
        yield _with(given, 1 - number, other._replace(told=True))
        if "word lost" in state.troubles:
            yield given._replace(troubles=state.troubles - {"word lost"})


def _freed(state: LimitState, number: int, hand: Hand, rules: frozenset[LimitRule]) -> Steps:
    """Yield what follows if a worker that waits finds one with a permit silent for a lease."""
    other = state.hands[1 - number]
    silent = other.dead or other.cut == 2 or (other.cut == 1 and LimitRule.STOP_FIRST not in rules)
    if LimitRule.SILENT_LOSES in rules and silent and 1 - number in state.holders:
        freed = state._replace(holders=state.holders - {1 - number})
        yield _with(freed, number, hand._replace(told=True))


def _tasks(state: LimitState, number: int, hand: Hand, rules: frozenset[LimitRule]) -> Steps:
    may = hand.mine or LimitRule.PERMIT_FIRST not in rules
    if may and not hand.runs and not hand.leaves and state.backlog:
        pulled = _with(state._replace(backlog=state.backlog - 1), number, hand._replace(runs=True))
        two = all(each.runs for each in pulled.hands)
        yield pulled._replace(flaw=LimitFlaw.TWO_RUN if two else "")
    if hand.runs:
        yield _with(state._replace(ended=state.ended + 1), number, hand._replace(runs=False))


def _cut_off(state: LimitState, number: int, hand: Hand, rules: frozenset[LimitRule]) -> Steps:
    back = hand._replace(cut=0, told=True)
    if hand.cut == 2:
        yield _with(state, number, back)
        return
    # In time: nothing of its has expired.
    if LimitRule.STOP_FIRST in rules:
        yield _with(state, number, back)
    forgets = LimitRule.CONFIRMED in rules
    stopped = hand._replace(cut=2, runs=False, seen=None, mine=hand.mine and not forgets)
    yield _with(state._replace(lost=state.lost + hand.runs), number, stopped)


def _trouble(state: LimitState) -> Steps:
    hand = state.hands[0]
    if hand.dead:
        return
    for trouble in sorted(state.troubles - {"word lost"}):
        left = state._replace(troubles=state.troubles - {trouble})
        if trouble == "dies":
            dead = Hand(dead=True, told=False)
            yield _with(left._replace(lost=left.lost + (hand.runs and hand.cut < 2)), 0, dead)
        elif trouble == "leaves":
            yield _with(left, 0, hand._replace(leaves=True))
        elif not hand.cut:
            yield _with(left, 0, hand._replace(cut=1, seen=None))


def _with(state: LimitState, number: int, hand: Hand) -> LimitState:
    hands = (hand, state.hands[1]) if number == 0 else (state.hands[0], hand)
    return state._replace(hands=hands)


def limit_explored(
    troubles: frozenset[str], rules: frozenset[LimitRule] = LIMIT
) -> tuple[int, frozenset[LimitFlaw]]:
    """Return how many states there are, and the kinds of bad ones."""
    begin = LimitState(troubles=troubles)
    before: dict[LimitState, list[LimitState]] = {begin: []}
    waiting, good, flaws = deque([begin]), deque[LimitState](), set[LimitFlaw]()
    while waiting:
        state = waiting.popleft()
        if state.flaw:
            flaws.add(LimitFlaw(state.flaw))
        if state.flaw or state.ended == 2:
            good.append(state)
            continue
        for after in limit_next(state, rules):
            if after not in before:
                before[after] = []
                waiting.append(after)
            before[after].append(state)
    ends = set(good)
    while good:
        for state in before[good.popleft()]:
            if state not in ends:
                ends.add(state)
                good.append(state)
    if ends != before.keys():
        flaws.add(LimitFlaw.STUCK)
    return len(before), frozenset(flaws)

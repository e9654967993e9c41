"""The protocol of topics as a transition system: one event, two queues that subscribe, and what may fail.

A task's own protocol is in `model`; here a copy is stored, runs once and ends, and its record stays. The
subscription of the second queue is made while the event is published; its queue may be full for good.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

from tests.unit.protocol.ways import Ways, search


class TopicRule(StrEnum):
    """One rule of topics."""

    COPY_FIRST = "the copy is stored before the event is acknowledged"
    DERIVED_ID = "the id of a copy follows from the event and the subscription"
    FLAGGED = "a copy claims its record before it runs"
    LOOK_AFTER = "a worker reads the subscriptions after the event was delivered to it"
    CONSUMER_FIRST = "the consumer takes the topic before the subscription is there"
    OWN_CONSUMER = "each queue has a consumer of its own"
    MISS_KEPT = "an event that no filter can be applied to becomes a dead letter"


TOPIC_PROTOCOL: Final = frozenset(TopicRule)

TOPIC_WHY: Final = {
    TopicRule.COPY_FIRST: "A worker may die between the two, and the event is not delivered again.",
    TopicRule.DERIVED_ID: "An event is published, and delivered, more than once.",
    TopicRule.FLAGGED: "A second copy may be stored after the first one has ended.",
    TopicRule.LOOK_AFTER: "What a worker read earlier does not have the subscription of a moment ago.",
    TopicRule.CONSUMER_FIRST: "An event published in between would be delivered to nothing.",
    TopicRule.OWN_CONSUMER: "A queue that is full would keep the event from the others.",
    TopicRule.MISS_KEPT: "An event would be gone for its queue, and nothing would show it.",
}


class TopicFlaw(StrEnum):
    """A bad state."""

    DOUBLED = "an event ran twice for one subscription"
    LOST = "an event that was accepted has no copy in a queue that subscribed before, nor a dead letter"
    HELD_UP = "a queue does not get its copy, since another one is full"


QUEUES: Final = (0, 1)


class Side(NamedTuple):
    """One queue: its subscription, its worker's look at it, its copies, and what ran."""

    declared: str = "yes"
    """`no`, `consumer` (the consumer takes the topic) or `yes`."""
    known: bool = False
    """What its worker read last: whether there is a subscription."""
    owed: bool = False
    """Whether the event was accepted after the subscription was there."""
    copies: tuple[int, ...] = ()
    """Ids of the copies that wait."""
    ended: frozenset[int] = frozenset()
    """Ids whose record says that they ended."""
    runs: int = 0
    letter: bool = False


class Hand(NamedTuple):
    """A message of the event in the hands of a consumer: `waits`, `got`, `looked`, `stored` or `gone`."""

    at: str = "waits"
    acked: bool = False


class State(NamedTuple):
    """All there is."""

    sides: tuple[Side, Side]
    messages: tuple[tuple[Hand, ...], ...] = ()
    """For each message of the event the hand of each consumer; one hand where all share a consumer."""
    publisher: str = "ready"
    repeats: int = 1
    deaths: int = 1
    next_id: int = 1


@dataclass(frozen=True)
class TopicScenario:
    """What may happen."""

    name: str
    late: bool = False
    """Whether the second queue subscribes only now."""
    full: bool = False
    """Whether the second queue is full for good."""
    broken: bool = False
    """Whether the filter of the second queue fails on the event."""
    deaths: int = 1
    repeats: int = 1


def explore_topics(
    scenario: TopicScenario, rules: frozenset[TopicRule] = TOPIC_PROTOCOL, until: str = ""
) -> Ways:
    """Return how many states can be reached, and the shortest way to each kind of bad one."""
    second = Side("no") if scenario.late else Side()
    begin = State((Side(), second), repeats=scenario.repeats, deaths=scenario.deaths)
    return search(
        begin,
        lambda state: () if _doubled(state) else _steps(state, scenario, rules),
        lambda state: _verdict(state, scenario),
        until=until,
    )


def _doubled(state: State) -> bool:
    return any(side.runs > 1 for side in state.sides)


def _verdict(state: State, scenario: TopicScenario) -> str:
    if _doubled(state):
        return TopicFlaw.DOUBLED
    for number, side in enumerate(state.sides):
        if side.owed and not side.runs and not side.letter and not (number == 1 and scenario.full):
            full = scenario.full and any(not hand.acked for hands in state.messages for hand in hands)
            return TopicFlaw.HELD_UP if full else TopicFlaw.LOST
    return ""


def _steps(state: State, scenario: TopicScenario, rules: frozenset[TopicRule]) -> Iterator[tuple[str, State]]:
    yield from _declaring(state, rules)
    yield from _publishing(state, rules)
    for number, hands in enumerate(state.messages):
        for which in range(len(hands)):
            yield from _delivering(state, (number, which), scenario, rules)
    for number, side in enumerate(state.sides):
        yield from _running(state, number, side, rules)


def _declaring(state: State, rules: frozenset[TopicRule]) -> Iterator[tuple[str, State]]:
    side = state.sides[1]
    order = ("no", "consumer", "yes") if TopicRule.CONSUMER_FIRST in rules else ("no", "subscribed", "yes")
    if side.declared != "yes":
        after = order[order.index(side.declared) + 1]
        yield f"keeper: {after}", _with(state, 1, side._replace(declared=after))


def _publishing(state: State, rules: frozenset[TopicRule]) -> Iterator[tuple[str, State]]:
    if state.publisher == "ready":
        yield "publish", _published(state, rules)._replace(publisher="sent")
    if state.publisher == "sent" and state.repeats:
        # The answer was lost, and the server has forgotten the id of the message.
        yield "publish again", _published(state, rules)._replace(repeats=state.repeats - 1)


def _published(state: State, rules: frozenset[TopicRule]) -> State:
    for number, side in enumerate(state.sides):
        owed = side.owed or side.declared in ("yes", "subscribed")
        state = _with(state, number, side._replace(owed=owed))
    hands = tuple(
        Hand() if side.declared in ("yes", "consumer") else Hand("gone", acked=True) for side in state.sides
    )
    if TopicRule.OWN_CONSUMER not in rules:
        hands = (Hand(),)
    return state._replace(messages=(*state.messages, hands))


def _delivering(
    state: State, place: tuple[int, int], scenario: TopicScenario, rules: frozenset[TopicRule]
) -> Iterator[tuple[str, State]]:
    number, which = place
    hand = state.messages[number][which]
    own = (which,) if TopicRule.OWN_CONSUMER in rules else QUEUES
    if hand.at in ("got", "looked", "stored") and state.deaths:
        back = "gone" if hand.acked else "waits"
        yield "worker dies", _hand(state, place, Hand(back, hand.acked))._replace(deaths=state.deaths - 1)
    if hand.at == "waits":
        if TopicRule.LOOK_AFTER not in rules:
            yield "look", _looked(state, own)
        yield "deliver", _hand(state, place, Hand("got"))
    elif hand.at == "got":
        looked = _looked(state, own) if TopicRule.LOOK_AFTER in rules else state
        early = TopicRule.COPY_FIRST not in rules
        yield "look at subscriptions", _hand(looked, place, Hand("looked", acked=early))
    elif hand.at == "looked":
        for after in _copied(state, own, scenario, rules):
            yield "store the copies", _hand(after, place, Hand("stored", hand.acked))
    elif hand.at == "stored":
        yield "acknowledge", _hand(state, place, Hand("gone", acked=True))


def _looked(state: State, own: tuple[int, ...]) -> State:
    for each in own:
        side = state.sides[each]
        state = _with(state, each, side._replace(known=side.declared in ("yes", "subscribed")))
    return state


def _copied(
    state: State, own: tuple[int, ...], scenario: TopicScenario, rules: frozenset[TopicRule]
) -> Iterator[State]:
    for each in own:
        side = state.sides[each]
        if each == 1 and scenario.full and side.known:
            return  # none of them is acknowledged before this one has room
        if not side.known:
            continue
        if each == 1 and scenario.broken:
            state = _with(state, each, side._replace(letter=TopicRule.MISS_KEPT in rules))
            continue
        new = 0 if TopicRule.DERIVED_ID in rules else state.next_id
        copies = side.copies if new in side.copies else (*side.copies, new)
        state = _with(state, each, side._replace(copies=copies))._replace(next_id=state.next_id + 1)
    yield state


def _running(
    state: State, number: int, side: Side, rules: frozenset[TopicRule]
) -> Iterator[tuple[str, State]]:
    for copy in side.copies:
        left = tuple(each for each in side.copies if each != copy)
        known = copy in side.ended and TopicRule.FLAGGED in rules
        runs = side.runs if known else side.runs + 1
        after = side._replace(copies=left, ended=side.ended | {copy}, runs=runs)
        yield f"queue {number} {'drops' if known else 'runs'} {copy}", _with(state, number, after)


def _with(state: State, number: int, side: Side) -> State:
    sides = (side, state.sides[1]) if number == 0 else (state.sides[0], side)
    return state._replace(sides=sides)


def _hand(state: State, place: tuple[int, int], hand: Hand) -> State:
    number, which = place
    hands = list(state.messages[number])
    hands[which] = hand
    messages = list(state.messages)
    messages[number] = tuple(hands)
    return state._replace(messages=tuple(messages))

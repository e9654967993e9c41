"""The protocol of `galley.then` as a transition system: a handler ends, and a workflow takes its place.

A worker may die between any two writes, and a message is delivered again until it is acknowledged. A handler
that runs again may return another workflow. The word of a workflow's end to the task may be lost.
"""

from collections import deque
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple


class ThenRule(StrEnum):
    """One rule of continuations."""

    RECORD_FIRST = "a workflow begins after the record of the task names it"
    RECORD_DECIDES = "a message from before the record names a workflow does not run the handler"
    ACKNOWLEDGE_LAST = "a message is acknowledged after the next one is scheduled"
    LOOK = "a task that waits is delivered again now and then"


THEN_PROTOCOL: Final = frozenset(ThenRule)

THEN_WHY: Final = {
    ThenRule.RECORD_FIRST: "The handler runs again after a death, and a second workflow begins.",
    ThenRule.RECORD_DECIDES: "The first message may be delivered again once the workflow has begun.",
    ThenRule.ACKNOWLEDGE_LAST: "A worker that dies after the acknowledgement leaves no message.",
    ThenRule.LOOK: "Who ends the workflow may be a client that may not wake the task, or may die before.",
}


class ThenFlaw(StrEnum):
    """A bad state."""

    TWO = "two workflows began for one attempt"
    WAITS = "nothing happens any more, and the task has not ended"


class ThenState(NamedTuple):
    """Everything there is."""

    first: bool = True
    """Whether the message the handler ran for is there."""
    waiting: int = -1
    """The workflow that a scheduled message waits for; -1 if there is none."""
    due: bool = False
    record: int = -1
    """The workflow that the record names; -1 if none, -2 if the task has ended."""
    begun: frozenset[int] = frozenset()
    ended: frozenset[int] = frozenset()
    runs: int = 0
    hand: tuple[str, str, int] = ("", "", -1)
    """What a worker has: the message, what comes next, and the workflow."""
    deaths: int = 2


_FREE: Final = ("", "", -1)


def then_next(now: ThenState, rules: frozenset[ThenRule]) -> Iterator[ThenState]:
    """Yield the states that may follow."""
    message, at, flow = now.hand
    if not message:
        if now.first:
            yield now._replace(hand=("first", "read", -1))
        if now.waiting >= 0 and (now.due or ThenRule.LOOK in rules):
            yield now._replace(hand=("look", "read", now.waiting))
    else:
        if now.deaths:
            yield now._replace(hand=_FREE, deaths=now.deaths - 1)
        yield from _worked(now, message, at, flow, rules)
    for each in now.begun - now.ended:
        yield now._replace(ended=now.ended | {each})
        if now.waiting == each:
            yield now._replace(ended=now.ended | {each}, due=True)


def _worked(  # noqa: C901, PLR0912 - one case for each step
    now: ThenState, message: str, at: str, flow: int, rules: frozenset[ThenRule]
) -> Iterator[ThenState]:
    def to(step: str, chosen: int = flow) -> tuple[str, str, int]:
        return message, step, chosen

    order = ("schedule", "acknowledge") if ThenRule.ACKNOWLEDGE_LAST in rules else ("acknowledge", "schedule")
    after = {order[0]: order[1], order[1]: ""}
    if at == "read" and message == "first":
        if now.record == -2:
            yield now._replace(hand=to("drop"))
        elif now.record >= 0 and ThenRule.RECORD_DECIDES in rules:
            yield now._replace(hand=to(order[0], now.record))
        else:
            early = ThenRule.RECORD_FIRST not in rules
            begun = now.begun | {now.runs} if early else now.begun
            yield now._replace(runs=now.runs + 1, begun=begun, hand=to("record", now.runs))
    elif at == "read":
        if now.record != flow:
            yield now._replace(hand=to("drop"))
        elif flow in now.ended:
            yield now._replace(record=-2, hand=to("drop"))
        else:
            yield now._replace(begun=now.begun | {flow}, hand=to(order[0]))
    elif at == "record":
        yield now._replace(record=flow, hand=to(order[0]))
    elif at == "schedule":
        hand = to(after[at]) if after[at] else _FREE
        yield now._replace(waiting=flow, due=message == "first", hand=hand)
    elif at == "acknowledge":
        hand = to(after[at]) if after[at] else _FREE
        if message == "first":
            yield now._replace(first=False, hand=hand)
        elif ThenRule.ACKNOWLEDGE_LAST in rules:
            yield now._replace(hand=hand)  # the message it was handed was replaced by what it scheduled
        else:
            yield now._replace(waiting=-1, hand=hand)
    else:
        first = now.first and message != "first"
        waiting = -1 if message == "look" and now.waiting == flow else now.waiting
        yield now._replace(hand=_FREE, first=first, waiting=waiting)


def then_explored(rules: frozenset[ThenRule]) -> tuple[int, set[ThenFlaw]]:
    """Return how many states there are, and which of them are bad."""
    begin = ThenState()
    seen, waiting, flaws = {begin}, deque([begin]), set[ThenFlaw]()
    while waiting:
        now = waiting.popleft()
        if len(now.begun) > 1:
            flaws.add(ThenFlaw.TWO)
            continue
        if now.runs > 3:
            continue
        following = list(then_next(now, rules))
        if not following and now.record != -2:
            flaws.add(ThenFlaw.WAITS)
        for each in following:
            if each not in seen:
                seen.add(each)
                waiting.append(each)
    return len(seen), flaws

"""Breadth-first search through the states of a small model, with the shortest way to each flaw."""

from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import NamedTuple, TypeVar

S = TypeVar("S", bound=Hashable)


class Ways(NamedTuple):
    """What a search saw."""

    states: int
    flaws: dict[str, list[str]]
    """The labels of the steps to the first state, so the nearest, with each flaw."""


def search(
    begin: S,
    steps: Callable[[S], Iterable[tuple[str, S]]],
    verdict: Callable[[S], str],
    optional: tuple[str, ...] = (),
    until: str = "",
) -> Ways:
    """Go through all states that can be reached.

    Args:
        begin: the first state.
        steps: returns what can happen next, with a label each.
        verdict: returns the flaw of a state in which nothing more happens; empty if it is a good end.
        optional: words of labels of steps that need not happen, such as deaths.
        until: stop at the first state with this flaw.
    """
    came: dict[S, tuple[S | None, str]] = {begin: (None, "")}
    flaws: dict[str, list[str]] = {}
    waiting = deque([begin])
    while waiting:
        state = waiting.popleft()
        following = list(steps(state))
        over = all(any(word in label for word in optional) for label, _ in following)
        if over and (flaw := verdict(state)):
            flaws.setdefault(flaw, _way(came, state))
            if flaw == until:
                break
        for label, after in following:
            if after not in came:
                came[after] = state, label
                waiting.append(after)
    return Ways(len(came), flaws)


def _way(came: dict[S, tuple[S | None, str]], state: S) -> list[str]:
    labels: list[str] = []
    before, label = came[state]
    while before is not None:
        labels.append(label)
        before, label = came[before]
    return labels[::-1]

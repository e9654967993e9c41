"""Circles that can be walked forever though no worker is passed over forever (weak fairness)."""

from collections.abc import Iterator
from typing import NamedTuple

Node = tuple[int, bool]
"""A state, and whether the two workers have changed places since the search met it."""


class Edge(NamedTuple):
    """A step, and whose turn it was."""

    actor: str
    to: Node


def fair_circles(edges: dict[Node, list[Edge]]) -> Iterator[set[Node]]:
    """Yield the strongly connected parts in which every actor gets a turn, or somewhere has nothing to do.

    To walk through all of such a part again and again is fair if any walk in it is: it gives the most turns,
    and leaves the fewest actors waiting all the time.
    """
    for part in _components(edges):
        inside = [edge for node in part for edge in edges[node] if edge.to in part]
        if not inside:
            continue
        waiting = set.intersection(*({edge.actor for edge in edges[node]} for node in part))
        if waiting <= {edge.actor for edge in inside}:
            yield part


def _components(edges: dict[Node, list[Edge]]) -> Iterator[set[Node]]:
    """Yield the strongly connected components (Tarjan's algorithm, without recursion)."""
    number: dict[Node, int] = {}
    low: dict[Node, int] = {}
    stack: list[Node] = []
    open_: set[Node] = set()
    for root, leaving in edges.items():
        path = [] if root in number else [(root, iter(leaving))]
        while path:
            node, rest = path[-1]
            if node not in number:
                number[node] = low[node] = len(number)
                stack.append(node)
                open_.add(node)
            for edge in rest:
                if edge.to in edges and edge.to not in number:
                    path.append((edge.to, iter(edges[edge.to])))
                    break
                if edge.to in open_:
                    low[node] = min(low[node], number[edge.to])
            else:
                path.pop()
                if path:
                    low[path[-1][0]] = min(low[path[-1][0]], low[node])
                if low[node] == number[node]:
                    part = set()
                    while node not in part:
                        part.add(stack.pop())
                    open_ -= part
                    yield part

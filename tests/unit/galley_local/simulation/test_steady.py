"""Workers stand still under a load that does not change, and follow one that does, long tasks or not."""

import random
from itertools import pairwise

import pytest

from galley_local.simulation.scalers import Galley
from galley_local.simulation.trace import Arrival, Trace
from galley_local.simulation.world import World
from galley_operator.autoscaler.signals import ScalingPolicy

Counts = tuple[tuple[float, int], ...]


def played(*parts: tuple[float, float], seconds: float) -> Counts:
    """Return the numbers of workers for tasks of so many seconds.

    Args:
        parts: tasks that run on average, and seconds for which they do.
        seconds: time of a task, on average.
    """
    chance, arrivals, begin = random.Random(f"{parts} {seconds}"), [], 0.0
    for load, lasts in parts:
        at, rate = begin, load / seconds
        while (at := at + chance.expovariate(rate)) < begin + lasts:
            arrivals.append(Arrival(at, chance.expovariate(1 / seconds)))
        begin += lasts
    trace = Trace("load", "", tuple(arrivals), begin)
    return World(trace, Galley(ScalingPolicy(0, trace.max_workers, trace.slots, 30))).run().counts


def between(counts: Counts, begin: float, end: float) -> list[int]:
    """Return the numbers there were from one second to another."""
    before = [number for at, number in counts if at <= begin]
    return [before[-1], *(number for at, number in counts if begin < at < end)]


def turns(numbers: list[int]) -> int:
    up = [b > a for a, b in pairwise(numbers) if a != b]
    return sum(a != b for a, b in pairwise(up))


@pytest.mark.parametrize(("seconds", "load", "most"), [(1.0, 8.0, 0), (10.0, 12.0, 1), (60.0, 30.0, 0)])
def test_a_steady_load_has_a_steady_number(seconds: float, load: float, most: int) -> None:
    counts = played((load, 3600), seconds=seconds)
    assert turns(between(counts, 900, 3600)) <= most, counts
    assert max(between(counts, 900, 3600)) * 4 < load + 4 * load**0.5, "without having all there may be"


def test_a_steady_load_of_long_tasks_that_changes_is_followed() -> None:
    counts = played((12, 3000), (40, 1200), (2, 2400), seconds=60)
    assert turns(between(counts, 1200, 3000)) == 0, counts
    assert max(between(counts, 3000, 3300)) >= 10, "up within minutes"
    assert between(counts, 5700, 5701)[0] <= 2, "and down"

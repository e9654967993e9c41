"""Traces: when tasks come, how long each takes, and what workers they may have."""

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from galley.lanes import Lane
from galley.unreadable import UNREADABLE
from galley_local.errors import TraceInvalid

_MOST_TASKS: Final = 1_000_000
_LONGEST: Final = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class Arrival:
    """One task."""

    at: float
    """Seconds from the beginning of the trace."""
    seconds: float
    """Time it takes of a slot."""
    urgent: bool = False
    """Whether it starts before all that are not."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A load, and the workers it may have."""

    name: str
    about: str
    arrivals: tuple[Arrival, ...]
    """In the order they come."""
    duration: float
    """Seconds it lasts."""
    slots: int = 4
    """Slots of a worker."""
    max_workers: int = 20
    start_seconds: float = 5.0
    """Time a worker takes to start."""
    steady: bool = field(default=False)
    """Whether the load does not change, so that the number of workers should not either."""


class _Line(msgspec.Struct):
    at: float
    seconds: float
    lane: Lane = Lane.NORMAL


def read_trace(path: Path) -> Trace:
    """Return the trace of a file: a JSON object a line, with `at`, `seconds` and perhaps `lane`.

    Raises:
        TraceInvalid: if it cannot be read, or a line is no task.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except FileNotFoundError as error:
        known = ", ".join(NAMES)
        raise TraceInvalid(str(path), 0, f"no such file, and no built-in trace: those are {known}") from error
    except OSError as error:
        raise TraceInvalid(str(path), 0, error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise TraceInvalid(str(path), 0, "it is no text in UTF-8") from error
    decode = msgspec.json.Decoder(_Line).decode
    arrivals = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            task = decode(line)
        except UNREADABLE as error:
            raise TraceInvalid(str(path), number, str(error)) from error
        if not (0 <= task.at <= _LONGEST and 0 <= task.seconds <= _LONGEST):
            raise TraceInvalid(str(path), number, "at and seconds are from 0 to 2592000, 30 days")
        arrivals.append(Arrival(task.at, task.seconds, task.lane in (Lane.CRITICAL, Lane.HIGH)))
    if not 0 < len(arrivals) <= _MOST_TASKS:
        raise TraceInvalid(str(path), 0, f"it has {len(arrivals)} tasks; 1 to {_MOST_TASKS} can be simulated")
    arrivals.sort(key=lambda each: each.at)
    return Trace(path.stem, "a recorded load", tuple(arrivals), max(60.0, arrivals[-1].at))


def write_line(at: float, seconds: float, lane: str) -> str:
    """Return a task as a line of a trace."""
    return json.dumps({"at": round(at, 3), "seconds": round(seconds, 4), "lane": lane})


def built_in(name: str, seed: int = 0) -> Trace:
    """Return a trace that comes with Galley. The same seed gives the same tasks."""
    return _MAKERS[NAMES.index(name)](_drawing(f"{seed} {name}"))


def _drawing(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - a load, no secret


def _coming(
    chance: random.Random, rate: Callable[[float], float], most: float, begin: float, end: float
) -> Iterator[float]:
    """Yield times of arrivals at a rate that changes, by thinning a faster one."""
    at = begin
    while (at := at + chance.expovariate(most)) < end:
        if chance.random() * most < rate(at):
            yield at


def _tasks(chance: random.Random, rate: float, mean: float, begin: float, end: float) -> list[Arrival]:
    return [
        Arrival(at, chance.expovariate(1 / mean)) for at in _coming(chance, lambda _: rate, rate, begin, end)
    ]


def _ordered(*parts: list[Arrival]) -> tuple[Arrival, ...]:
    return tuple(sorted((each for part in parts for each in part), key=lambda each: each.at))


def _steady(chance: random.Random) -> Trace:
    tasks = _tasks(chance, 8.0, 1.0, 0, 3600)
    return Trace("steady", "8 tasks of 1 s a second for an hour", _ordered(tasks), 3600, steady=True)


def _burst(chance: random.Random) -> Trace:
    quiet = _tasks(chance, 0.5, 0.5, 0, 3600)
    bursts = [_tasks(chance, 50.0, 0.5, begin, begin + 60) for begin in (600, 1500, 2700)]
    about = "0.5 tasks of 0.5 s a second, and 100 times as many in three minutes of an hour"
    return Trace("burst", about, _ordered(quiet, *bursts), 3600)


def _diurnal(chance: random.Random) -> Trace:
    def rate(at: float) -> float:
        return 6.1 - 5.9 * math.cos(at * 2 * math.pi / 7200)

    tasks = [Arrival(at, chance.expovariate(1.0)) for at in _coming(chance, rate, 12.0, 0, 7200)]
    return Trace("diurnal", "0.2 to 12 tasks of 1 s a second and back in two hours", tuple(tasks), 7200)


def _spike(chance: random.Random) -> Trace:
    spikes = [[Arrival(at, chance.expovariate(1.0)) for _ in range(2000)] for at in (60.0, 1200.0)]
    return Trace("spike", "2,000 tasks of 1 s at once, twice, and nothing else", _ordered(*spikes), 2400)


def _two_priorities(chance: random.Random) -> Trace:
    normal = _tasks(chance, 5.0, 2.0, 0, 3600)
    urgent = [
        Arrival(begin + chance.random(), chance.expovariate(2.0), urgent=True)
        for begin in range(300, 3600, 300)
        for _ in range(150)
    ]
    about = "5 tasks of 2 s a second, and 150 urgent ones of 0.5 s every five minutes"
    return Trace("two_priorities", about, _ordered(normal, urgent), 3600)


def _long_tasks(chance: random.Random) -> Trace:
    first = _tasks(chance, 0.05, 180.0, 0, 2400)
    then = _tasks(chance, 0.01, 180.0, 2400, 6000)
    return Trace("long_tasks", "tasks of 3 minutes, 9 and then 2 at a time", _ordered(first, then), 6000)


def _slow_start(chance: random.Random) -> Trace:
    tasks = [
        _tasks(chance, rate, 2.0, 900 * part, 900 * part + 900) for part, rate in enumerate((1, 8, 2, 6))
    ]
    about = "1, 8, 2 and 6 tasks of 2 s a second, and workers that take a minute to start"
    return Trace("slow_start", about, _ordered(*tasks), 3600, start_seconds=60.0)


def _bad_estimates(chance: random.Random) -> Trace:
    quick = [_tasks(chance, 10.0, 0.05, begin, begin + 1200) for begin in (0, 2400)]
    slow = _tasks(chance, 1.0, 20.0, 1200, 2400)
    about = "10 tasks of 0.05 s a second, then for 20 minutes one of 20 s, then as before"
    return Trace("bad_estimates", about, _ordered(*quick, slow), 3600)


def _sawtooth(chance: random.Random) -> Trace:
    times = _coming(chance, lambda at: 12.0 * (at % 300) / 300, 12.0, 0, 3600)
    tasks = [Arrival(at, chance.expovariate(1.0)) for at in times]
    return Trace(
        "sawtooth", "0 to 12 tasks of 1 s a second in five minutes, then 0 again", tuple(tasks), 3600
    )


def _minutes(chance: random.Random) -> Trace:
    tasks = [
        Arrival(60.0 * minute + chance.random() / 2, chance.expovariate(1.0))
        for minute in range(60)
        for _ in range(40)
    ]
    return Trace("minutes", "40 tasks of 1 s at each full minute, and nothing else", _ordered(tasks), 3600)


def _heavy_tail(chance: random.Random) -> Trace:
    times = _coming(chance, lambda _: 4.0, 4.0, 0, 3600)
    tasks = [Arrival(at, min(900.0, 0.6 * chance.paretovariate(1.4))) for at in times]
    return Trace("heavy_tail", "4 tasks a second of 0.6 s to 15 minutes, by Pareto's law", tuple(tasks), 3600)


def _low_flood(chance: random.Random) -> Trace:
    urgent = [
        Arrival(at, chance.expovariate(1.0), urgent=True)
        for at in _coming(chance, lambda _: 3.0, 3.0, 0, 3600)
    ]
    floods = [
        Arrival(begin + 5 * chance.random(), chance.expovariate(1.0))
        for begin in (600, 2000)
        for _ in range(4000)
    ]
    about = "3 urgent tasks of 1 s a second, and twice 4,000 others at once"
    return Trace("low_flood", about, _ordered(urgent, floods), 3600)


def _slow_pauses(chance: random.Random) -> Trace:
    loads = [_tasks(chance, 8.0, 1.0, begin, begin + 240) for begin in range(100, 3600, 480)]
    about = "8 tasks of 1 s a second for 4 minutes, 4 minutes of nothing, and a minute to start"
    return Trace("slow_pauses", about, _ordered(*loads), 3600, start_seconds=60.0)


def _single_tasks(chance: random.Random) -> Trace:
    about = "a task of 3 s every 45 s on average"
    return Trace("single_tasks", about, _ordered(_tasks(chance, 1 / 45, 3.0, 0, 7200)), 7200)


def _backlog(chance: random.Random) -> Trace:
    there = [Arrival(0.0, chance.expovariate(1.0)) for _ in range(5000)]
    about = "5,000 tasks of 1 s from the beginning, and 2 a second"
    return Trace("backlog", about, _ordered(there, _tasks(chance, 2.0, 1.0, 0, 2400)), 2400)


def _one_slot(chance: random.Random) -> Trace:
    times = _coming(chance, lambda at: 0.4 + 0.35 * math.sin(at / 200), 0.8, 0, 5400)
    tasks = [Arrival(at, chance.expovariate(0.1)) for at in times]
    about = "tasks of 10 s, 0.5 to 7.5 at a time, and workers with a single slot"
    return Trace("one_slot", about, tuple(tasks), 5400, slots=1)


_MAKERS: Final = (
    _steady, _burst, _diurnal, _spike, _two_priorities, _long_tasks, _slow_start, _bad_estimates,
    _sawtooth, _minutes, _heavy_tail, _low_flood, _slow_pauses, _single_tasks, _backlog, _one_slot,
)  # fmt: skip

NAMES: Final = tuple(make.__name__[1:] for make in _MAKERS)
"""The traces that come with Galley."""

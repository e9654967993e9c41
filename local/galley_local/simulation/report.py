"""What a simulation found: figures of each scaler, and a picture."""

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from galley_local.simulation.scalers import Fixed, Galley, Keda, clairvoyant, planned
from galley_local.simulation.trace import Trace
from galley_local.simulation.world import Outcome, World
from galley_operator.autoscaler.signals import ScalingPolicy

SETTLED_SECONDS: Final = 600.0
"""Time a steady load has run for before changes of direction count: tasks and starts are known by then."""


@dataclass(frozen=True, slots=True)
class Result:
    """What one scaler made of one trace."""

    trace: Trace
    scaler: str
    outcome: Outcome

    def wait(self, share: float) -> float:
        """Return the seconds that this share of the tasks waited at most."""
        return percentile(self.outcome.waits, share)

    @property
    def turns(self) -> int:
        """How often the number of workers went the other way, in the settled part of the trace."""
        begin = SETTLED_SECONDS if self.trace.steady else 0.0
        numbers = [n for at, n in self.outcome.counts if begin <= at <= self.trace.duration]
        moves = [b > a for a, b in pairwise(numbers) if a != b]
        return sum(a != b for a, b in pairwise(moves))

    @property
    def most(self) -> int:
        """The most workers there were."""
        return max(number for _, number in self.outcome.counts)

    def document(self) -> dict[str, Any]:
        """Return the figures as plain data."""
        return {
            "trace": self.trace.name,
            "scaler": self.scaler,
            "waitSeconds": {f"p{share * 100:g}": round(self.wait(share), 3) for share in (0.5, 0.95, 0.99)},
            "urgentWaitSecondsP95": round(percentile(self.outcome.urgent_waits, 0.95), 3),
            "workerSeconds": round(self.outcome.worker_seconds),
            "mostWorkers": self.most,
            "killed": self.outcome.killed,
            "turns": self.turns,
        }


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that this share of all does not exceed; 0 if there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def simulate(trace: Trace, policy: ScalingPolicy, seed: int = 0) -> list[Result]:
    """Return what Galley's policy and the others make of a trace."""
    scalers: Mapping[str, Callable[[], Outcome]] = {
        "galley": lambda: World(trace, Galley(policy), seed).run(),
        "keda+hpa": lambda: World(trace, Keda(), seed).run(),
        "fixed": lambda: World(trace, Fixed(), seed).run(),
        "planned": lambda: planned(trace, seed),
        "clairvoyant": lambda: clairvoyant(trace),
    }
    return [Result(trace, name, run()) for name, run in scalers.items()]


_WIDTH, _HEIGHT, _LEFT, _TOP, _GAP = 800, 130, 72, 50, 34
_COLOURS: Final = {"galley": "#1f6feb", "keda+hpa": "#d1242f", "fixed": "#8c959f", "clairvoyant": "#1a7f37"}
_DRAWN: Final = ("clairvoyant", "keda+hpa", "galley")
_FONT: Final = 'font-family="sans-serif" font-size="12"'
_POINTS: Final = 400


def picture(results: Sequence[Result]) -> str:
    """Return the workers and the waiting tasks of each scaler over time, as SVG."""
    trace = results[0].trace
    drawn = [result for name in _DRAWN for result in results if result.scaler == name]
    height = _TOP + 2 * (_HEIGHT + _GAP) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 16} {height}" {_FONT}>',
        f'<rect width="{_LEFT + _WIDTH + 16}" height="{height}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18" font-weight="bold">{trace.name}: {trace.about}</text>',
    ]
    workers = [(r.scaler, _sampled(r.outcome.counts, trace.duration)) for r in drawn]
    waiting = [
        (r.scaler, _sampled(r.outcome.backlog, trace.duration)) for r in drawn if r.scaler != "clairvoyant"
    ]
    parts += _panel(_TOP, "workers", workers, trace.duration)
    parts += _panel(_TOP + _HEIGHT + _GAP, "waiting", waiting, trace.duration)
    for index, (name, _) in enumerate(reversed(workers)):
        x = _LEFT + 100 * index
        parts.append(f'<rect x="{x}" y="29" width="12" height="4" fill="{_COLOURS[name]}"/>')
        parts.append(f'<text x="{x + 16}" y="36">{name}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _sampled(steps: Sequence[tuple[float, int]], duration: float) -> list[int]:
    """Return the highest number in each of `_POINTS` equal parts."""
    times = [at for at, _ in steps]
    found = []
    for index in range(_POINTS):
        begin, end = duration * index / _POINTS, duration * (index + 1) / _POINTS
        first, last = bisect.bisect_right(times, begin) - 1, bisect.bisect_right(times, end)
        found.append(max((number for _, number in steps[max(0, first) : last]), default=0))
    return found


def _panel(top: int, title: str, lines: Sequence[tuple[str, list[int]]], duration: float) -> list[str]:
    most = max(1, *(number for _, numbers in lines for number in numbers))
    bottom = top + _HEIGHT
    parts = [
        f'<line x1="{_LEFT}" y1="{bottom}" x2="{_LEFT + _WIDTH}" y2="{bottom}" stroke="#656d76"/>',
        f'<line x1="{_LEFT}" y1="{top}" x2="{_LEFT + _WIDTH}" y2="{top}" stroke="#d0d7de"/>',
        f'<text x="{_LEFT - 6}" y="{top + 4}" text-anchor="end">{most}</text>',
        f'<text x="{_LEFT - 6}" y="{bottom + 4}" text-anchor="end">0</text>',
        f'<text x="{_LEFT - 6}" y="{(top + bottom) // 2}" text-anchor="end">{title}</text>',
        f'<text x="{_LEFT}" y="{bottom + 16}">0</text>',
        f'<text x="{_LEFT + _WIDTH}" y="{bottom + 16}" text-anchor="end">{duration:.0f} s</text>',
    ]
    for name, numbers in lines:
        points: list[str] = []
        before = None
        for index, number in enumerate(numbers):
            if number != before or index == _POINTS - 1:
                x = _LEFT + _WIDTH * index / _POINTS
                y = bottom - _HEIGHT * number / most
                points += [f"{x:.0f},{bottom - _HEIGHT * before / most:.0f}"] if before is not None else []
                points.append(f"{x:.0f},{y:.0f}")
                before = number
        style = f'fill="none" stroke="{_COLOURS[name]}" stroke-width="1.5"'
        parts.append(f'<polyline points="{" ".join(points)}" {style}/>')
    return parts

"""Runs of two sides, and what they come to: the median of the ratios of neighbours, and their spread."""

import os
from dataclasses import dataclass, field
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Run:
    """One run of one side."""

    value: float
    """What is compared, in the comparison's unit."""
    cpu_us: dict[str, float] = field(default_factory=dict)
    """CPU time a task, in microseconds, by process."""
    more: dict[str, float] = field(default_factory=dict)
    load: float = field(default_factory=lambda: os.getloadavg()[0])
    """Load average of the machine's last minute, when the run ended."""


@dataclass(frozen=True)
class Spread:
    """Median and extremes."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        """Return that of some values."""
        return cls(median(values), min(values), max(values))


@dataclass
class Comparison:
    """The runs of Galley and of the raw loop, taken in turns."""

    title: str
    unit: str
    galley: list[Run] = field(default_factory=list)
    raw: list[Run] = field(default_factory=list)

    @property
    def ratio(self) -> Spread:
        """Galley to raw, each run with its neighbour, so that a busy moment of the machine hits both."""
        pairs = zip(self.galley, self.raw, strict=True)
        return Spread.of([ours.value / theirs.value for ours, theirs in pairs])

    def spread(self, runs: list[Run]) -> Spread:
        """Return the spread of the values of one side."""
        return Spread.of([run.value for run in runs])

    def cpu_us(self, runs: list[Run]) -> dict[str, float]:
        """Return the median CPU time a task, by process."""
        return {role: median(run.cpu_us[role] for run in runs) for role in runs[0].cpu_us}

    def summary(self) -> dict[str, Any]:
        """Return what the runs come to, for JSON."""
        return {
            side: {**vars(self.spread(runs)), "cpu_us": self.cpu_us(runs)}
            for side, runs in (("galley", self.galley), ("raw", self.raw))
        } | {"ratio": vars(self.ratio)}

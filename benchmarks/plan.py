"""How much is measured."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Plan:
    """Sizes of one benchmark."""

    runs: int = 5
    """Of each side, in turns: one side, the other, and again."""
    tasks: int = 20_000
    """Submitted at once, and drained at once."""
    warm_tasks: int = 2_000
    """Done by each process before anything counts."""
    concurrency: int = 16
    """Slots of Galley's one worker."""
    calm_rate: float = 20.0
    calm_tasks: int = 200
    half_load_seconds: float = 4.0


FULL: Final = Plan()

QUICK: Final = Plan(runs=2, tasks=300, warm_tasks=50, calm_tasks=20, half_load_seconds=0.5)
"""Shows that it runs; the figures mean nothing."""

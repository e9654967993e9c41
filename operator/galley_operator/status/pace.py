"""How many writes may be under way at once: fewer when the server says it has no room, then more again."""

from collections.abc import Callable
from typing import Final

MOST: Final = 16
"""Writes at once; 4 saturate an API server on small machines, 16 one on large ones."""


class Pace:
    """Additive increase, multiplicative decrease, and a pause for as long as the server asked for."""

    def __init__(self, clock: Callable[[], float], most: int = MOST) -> None:
        """Args: clock: seconds that only grow; most: writes at once."""
        self._clock, self._most = clock, most
        self._window = float(most)
        self._paused_until = 0.0

    @property
    def window(self) -> int:
        """How many may be under way now."""
        return int(self._window)

    @property
    def pause(self) -> float:
        """Seconds for which nothing is to be begun."""
        return max(0.0, self._paused_until - self._clock())

    def succeeded(self) -> None:
        """Take in that one was done: after as many as fit into the window, it is one wider."""
        self._window = min(float(self._most), self._window + 1.0 / self._window)

    def refused(self, retry_after: float) -> None:
        """Take in that the server had no room, and when to come back. Refusals of one moment count once."""
        if self._clock() >= self._paused_until:
            self._window = max(1.0, self._window / 2)
        self._paused_until = max(self._paused_until, self._clock() + retry_after)

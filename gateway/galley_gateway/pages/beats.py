"""What the workers of a queue say of themselves while a page is open."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from galley.broker.control import Heartbeat

_GONE_SECONDS: Final = 5.0
_RATE_SECONDS: Final = 10.0
_MOST: Final = 1_000_000
"""Attempts between two heartbeats: a worker can say any number, and not all can be divided."""


class Beats:
    """The last heartbeat of each worker, and how many attempts end."""

    def __init__(self, *, listening: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        """Args: listening: whether heartbeats are heard at all."""
        self.listening = listening
        self._clock = clock
        self._last: dict[str, tuple[Heartbeat, float]] = {}
        self._ended: deque[tuple[float, int]] = deque()

    def hear(self, beat: Heartbeat) -> None:
        """Take a heartbeat."""
        now = self._clock()
        # A page shows one of both, and none while the one who looks at it is slow: what is over goes here.
        self._forget(now)
        before = self._last.pop(beat.worker, None)
        if before is not None:
            self._ended.append((now, min(max(0, beat.done - before[0].done), _MOST)))
        self._last[beat.worker] = beat, now

    @property
    def workers(self) -> list[Heartbeat]:
        """The workers that were heard of a moment ago, by name."""
        self._forget(self._clock())
        return [beat for _, (beat, _) in sorted(self._last.items())]

    @property
    def rate(self) -> str:
        """Attempts that ended a second, lately; `?` if that is not known."""
        if not self.listening:
            return "?"
        self._forget(self._clock())
        return f"{sum(number for _, number in self._ended) / _RATE_SECONDS:.1f}"

    def _forget(self, now: float) -> None:
        """Forget workers that are gone, and attempts that ended a while ago: both are in the order heard."""
        while self._last and next(iter(self._last.values()))[1] < now - _GONE_SECONDS:
            del self._last[next(iter(self._last))]
        while self._ended and self._ended[0][0] < now - _RATE_SECONDS:
            self._ended.popleft()

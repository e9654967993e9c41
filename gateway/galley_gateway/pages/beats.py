"""What the workers of a queue say of themselves while a page is open."""

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from galley.broker.control import Heartbeat

_GONE_SECONDS: Final = 5.0
_RATE_SECONDS: Final = 10.0


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
        before = self._last.get(beat.worker)
        if before is not None:
            self._ended.append((now, max(0, beat.done - before[0].done)))
        self._last[beat.worker] = beat, now

    @property
    def workers(self) -> list[Heartbeat]:
        """The workers that were heard of a moment ago, by name."""
        since = self._clock() - _GONE_SECONDS
        self._last = {name: one for name, one in self._last.items() if one[1] >= since}
        return [beat for _, (beat, _) in sorted(self._last.items())]

    @property
    def rate(self) -> str:
        """Attempts that ended a second, lately; `?` if that is not known."""
        if not self.listening:
            return "?"
        since = self._clock() - _RATE_SECONDS
        while self._ended and self._ended[0][0] < since:
            self._ended.popleft()
        return f"{sum(number for _, number in self._ended) / _RATE_SECONDS:.1f}"

"""What a decision has to know of the ones before it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Self


@dataclass(frozen=True, slots=True)
class Memory:
    """What one sweep leaves to the next. Empty after a start, which errs towards keeping workers."""

    needs: tuple[tuple[datetime, int], ...] = ()
    """Times and numbers of workers needed then, latest last: only those no later need has reached, so
    it is never longer than there are different numbers."""
    asked: Mapping[str, datetime] = field(default_factory=lambda: MappingProxyType({}))
    """Workers asked to drain, and when last."""

    def needing(self, workers: int, now: datetime, window_seconds: float) -> Self:
        """Return the memory with one more need, and without those older than the window."""
        horizon = now - timedelta(seconds=window_seconds)
        # A clock that was set back must not keep a need for as long as it was wrong.
        earlier = ((min(at, now), need) for at, need in self.needs)
        kept = tuple((at, need) for at, need in earlier if need > workers and at > horizon)
        return replace(self, needs=(*kept, (now, workers)))

    @property
    def most_needed(self) -> int:
        """Return the most workers that were needed within the window."""
        return self.needs[0][1] if self.needs else 0

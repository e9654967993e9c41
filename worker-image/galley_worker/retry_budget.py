"""The retry budget: how many retries one worker schedules, so that a broken dependency is no storm. Pure."""

from datetime import datetime, timedelta
from typing import Final

from msgspec.structs import replace

from galley_worker.verdict import RetryAt

_SAVED: Final = 10.0
"""Seconds of the floor that a worker may have saved for a burst."""


class RetryBudget:
    """The share of retries of one worker.

    Each attempt that ends earns `share` of a retry, and each second `floor` of them. A retry that has not
    been earned yet is not refused: it is due once the floor has earned it.
    """

    def __init__(self, share: float, floor: float, now: datetime) -> None:
        """Args: share: retries for each attempt; floor: retries a second that are always allowed."""
        self.delayed = 0
        """Retries that were put off."""
        self._share, self._floor, self._most = share, floor, floor * _SAVED
        self._saved, self._at = self._most, now

    def ended(self, now: datetime) -> None:
        """Take in that an attempt has ended, however it did."""
        self._earn(now)
        self._saved = min(self._most, self._saved + self._share)

    def paced(self, retry: RetryAt, now: datetime, deadline: datetime | None) -> RetryAt:
        """Return a retry with the time at which the budget has room for it; not after the task's deadline."""
        self._earn(now)
        self._saved -= 1
        if self._saved >= 0:
            return retry
        room_at = now + timedelta(seconds=-self._saved / self._floor)
        if room_at <= retry.due_at or (deadline is not None and room_at >= deadline):
            return retry
        self.delayed += 1
        return replace(retry, due_at=room_at)

    def _earn(self, now: datetime) -> None:
        passed = max(0.0, (now - self._at).total_seconds())
        self._saved = min(self._most, self._saved + passed * self._floor)
        self._at = now

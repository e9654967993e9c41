"""Says when our clock and the broker's differ by so much that deadlines are misjudged."""

import logging
from datetime import datetime
from typing import Final

log = logging.getLogger(__name__)

TOLERATED_SECONDS: Final = 5.0
"""Smaller differences are not reported: deadlines are less exact, and NTP is exact to milliseconds."""

_HINT: Final = (
    "deadlines, delays and times in statuses follow the clock of each machine: have NTP set this one"
)


class ClockWatch:
    """Compares our clock with the broker's, as often as an answer tells the time there."""

    def __init__(self, server: str) -> None:
        """Args: server: address of the broker, for messages."""
        self._server = server
        self._told = 0.0

    def compare(self, told: str, asked_at: float, heard_at: float) -> None:
        """Take in the broker's time, and log a difference when it begins, changes, or ends.

        Args:
            told: when the broker answered, by its clock (RFC 3339).
            asked_at: when we asked, by our clock, in seconds since 1970.
            heard_at: when the answer was here, by our clock.
        """
        ahead = _ahead(datetime.fromisoformat(told).timestamp(), asked_at, heard_at)
        if abs(ahead) <= TOLERATED_SECONDS:
            ahead = 0.0
        if abs(ahead - self._told) <= TOLERATED_SECONDS:
            return
        self._told = ahead
        if ahead:
            extra = {"server": self._server, "seconds_ahead": round(ahead, 1), "hint": _HINT}
            log.warning("clock differs from the broker's", extra=extra)
        else:
            log.info("clock agrees with the broker's again", extra={"server": self._server})


def _ahead(theirs: float, asked_at: float, heard_at: float) -> float:
    """Return how far ahead we are at least; negative if behind, 0 if the answer may have taken that long."""
    if theirs < asked_at:
        return asked_at - theirs
    return min(0.0, heard_at - theirs)

"""Lanes: the priority levels inside a queue."""

from enum import StrEnum
from typing import Final


class Lane(StrEnum):
    """A priority level; tasks of a higher lane start first."""

    CRITICAL = "critical"
    HIGH = "high"
    NORMAL = "normal"
    LOW = "low"


HIGHEST_FIRST: Final = (Lane.CRITICAL, Lane.HIGH, Lane.NORMAL, Lane.LOW)

DEFAULT_LANES: Final = (Lane.HIGH, Lane.NORMAL, Lane.LOW)

GUARANTEED_SHARE: Final = {Lane.CRITICAL: 0.0, Lane.HIGH: 0.0, Lane.NORMAL: 0.10, Lane.LOW: 0.05}
"""Part of a worker's starts a lane gets while it has work, however much waits above it.

A waiting lane starts within `ceil(1 / share)` starts of one worker. The two that are 0 need no
guarantee: nothing below them can take more than 15 % of the starts.
"""

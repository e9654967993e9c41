"""Garbage collection of processes that serve: rarely, since what they do leaves few cycles."""

import gc
from typing import Final

_AFTER: Final = 20_000
"""Allocations minus deallocations after which Python collects the youngest generation."""


def collect_rarely() -> None:
    """Exclude imported objects from garbage collection, and collect rarely.

    A full collection stops a process for 15 to 30 ms, which dominated the tail latency of workers.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_AFTER)

"""Texts that are stored as objects."""

import random

from galley.reference import INLINE_LIMIT


def large_text(seed: str) -> str:
    """Return a text that is too large to travel with its task; the same for the same seed."""
    return random.Random(seed).randbytes(INLINE_LIMIT * 5 // 8).hex()

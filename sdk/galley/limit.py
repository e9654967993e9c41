"""How many tasks a listing may be limited to."""

from typing import Final

from galley.bounds import Range
from galley.errors import SubmissionInvalid

TASKS_LISTED: Final = Range(1, 10_000)
"""Limits that a listing of tasks takes."""


def check_limit(limit: object) -> int:
    """Return a limit of a listing.

    Raises:
        SubmissionInvalid: if it is none.
    """
    if not isinstance(limit, int) or not TASKS_LISTED.holds(limit):
        raise SubmissionInvalid("limit", f"{limit!r}"[:80], f"use a whole number, {TASKS_LISTED}, or None")
    return limit

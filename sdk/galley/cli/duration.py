"""Durations in arguments."""

import re
from datetime import timedelta
from typing import Final

from galley.cli.errors import Misuse

FOREVER: Final = float("inf")
_LONGEST: Final = 10 * 365 * 86_400
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)([smhd]?)", re.ASCII)


def seconds_argument(argument: str) -> float:
    """Return a number of seconds, which may be 0.

    Raises:
        Misuse: if it is none, or more than ten years.
    """
    try:
        value = float(argument)
    except ValueError:
        raise Misuse(
            f"{argument[:40]!r} is not a number of seconds", "use a number, such as 30 or 0.5"
        ) from None
    if not 0 <= value <= _LONGEST:
        raise Misuse(f"invalid duration: {argument[:40]} s", "use 0 or more, and less than ten years")
    return value


def age_argument(argument: str) -> timedelta:
    """Return an age: a number with or without a unit, such as 90, 30s, 15m, 2h or 7d.

    Raises:
        Misuse: if it is none.
    """
    found = _DURATION.fullmatch(argument)
    if found is None or float(found[1]) * _UNITS[found[2]] > _LONGEST:
        raise Misuse(f"{argument[:40]!r} is not an age", "use a number with a unit: 30s, 15m, 2h or 7d")
    return timedelta(seconds=float(found[1]) * _UNITS[found[2]])

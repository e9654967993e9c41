"""Ending: how one attempt ended, before anybody judges what follows from it."""

from dataclasses import dataclass
from typing import TypeAlias

from msgspec import Raw

from galley.record import Failure


@dataclass(frozen=True, slots=True)
class Returned:
    """The handler returned, and its result can be stored."""

    result: Raw
    """JSON."""


@dataclass(frozen=True, slots=True)
class Raised:
    """The handler raised, or was never called because its input does not fit."""

    failure: Failure
    retryable: bool
    """Whether another attempt could end differently."""


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The attempt took longer than it may."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Somebody cancelled the task."""


@dataclass(frozen=True, slots=True)
class CutOff:
    """We took the worker away; this burns no attempt."""

    why: str


@dataclass(frozen=True, slots=True)
class Crashed:
    """The process that ran the attempt died without a word."""

    detail: str
    """Such as `exit code 3` or `signal 9 (SIGKILL)`."""


Ending: TypeAlias = Returned | Raised | TimedOut | Cancelled | CutOff | Crashed
"""How an attempt ended."""

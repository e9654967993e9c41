"""Ending: how one attempt ended. What follows from it is the verdict."""

from typing import TypeAlias

from msgspec import Raw, Struct

from galley.record import Failure


class Returned(Struct, frozen=True):
    """The handler returned, and its result can be encoded."""

    result: Raw
    """JSON."""


class Raised(Struct, frozen=True):
    """The handler raised, or was not called because its input does not match its parameters."""

    failure: Failure
    retryable: bool
    """Whether another attempt could succeed."""
    pause: float | None = None
    """Seconds until the next attempt, if the handler said so."""


class Snoozed(Struct, frozen=True):
    """The handler asked to be run again later; costs no attempt."""

    pause: float
    """Seconds."""
    failure: Failure
    """What it waits for."""


class TimedOut(Struct, frozen=True):
    """The attempt took longer than its timeout."""

    seconds: float


class Cancelled(Struct, frozen=True):
    """The task was cancelled."""


class CutOff(Struct, frozen=True):
    """The worker is shutting down or lost its lease; costs no attempt."""

    why: str


class NotBegun(Struct, frozen=True):
    """The handler never began, and does not begin here soon: another worker may run it at no cost."""

    why: str


class Crashed(Struct, frozen=True):
    """The process that ran the attempt ended unexpectedly."""

    detail: str
    """Such as `exit code 3` or `signal 9 (SIGKILL)`."""


Ending: TypeAlias = Returned | Raised | Snoozed | TimedOut | Cancelled | CutOff | NotBegun | Crashed
"""How an attempt ended."""

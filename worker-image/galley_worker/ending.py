"""Ending: how one attempt ended, before anybody judges what follows from it."""

from typing import TypeAlias

from msgspec import Raw, Struct

from galley.record import Failure


class Returned(Struct, frozen=True):
    """The handler returned, and its result can be stored."""

    result: Raw
    """JSON."""


class Raised(Struct, frozen=True):
    """The handler raised, or was never called because its input does not fit."""

    failure: Failure
    retryable: bool
    """Whether another attempt could end differently."""


class TimedOut(Struct, frozen=True):
    """The attempt took longer than it may."""

    seconds: float


class Cancelled(Struct, frozen=True):
    """Somebody cancelled the task."""


class CutOff(Struct, frozen=True):
    """We took the worker away; this burns no attempt."""

    why: str


class NotBegun(Struct, frozen=True):
    """The handler never began, and does not begin here soon: another worker may run it at no cost."""

    why: str


class Crashed(Struct, frozen=True):
    """The process that ran the attempt died without a word."""

    detail: str
    """Such as `exit code 3` or `signal 9 (SIGKILL)`."""


Ending: TypeAlias = Returned | Raised | TimedOut | Cancelled | CutOff | NotBegun | Crashed
"""How an attempt ended."""

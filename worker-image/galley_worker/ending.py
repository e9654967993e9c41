"""Ending: how one attempt ended. What follows from it is the verdict."""

from pathlib import Path
from typing import TypeAlias

from msgspec import Raw, Struct

from galley.record import Failure
from galley.reference import Reference


class Returned(Struct, frozen=True):
    """The handler returned, and its result can be encoded."""

    result: Raw
    """JSON."""
    large: Reference | None = None
    """Where the result is stored, if it is too large for a record; `result` is null then."""


class Spool(Struct, frozen=True, array_like=True):
    """A file of the worker's that is to be stored as an object."""

    path: str
    digest: str
    size: int
    name: str = ""
    """What the file is called; empty for a result that is too large."""
    mark: str = ""
    """What stands in its place in the result."""
    reference: Reference | None = None
    """Where it is stored already, as a file of the task's input is; there is no `path` then."""


class ReturnedLarge(Struct, frozen=True):
    """The handler returned what is to be stored before its record: files, or a result too large."""

    result: Raw
    """JSON, with the places of files still to be filled in; null if the result is too large itself."""
    files: tuple[Spool, ...]
    large: Spool | None = None

    def discard(self) -> None:
        """Remove the files, which are stored or not wanted any more."""
        for each in (*self.files, *((self.large,) if self.large else ())):
            if each.path:
                Path(each.path).unlink(missing_ok=True)


class Continued(Struct, frozen=True):
    """The handler returned `galley.then(...)`: a workflow takes its place."""

    plan: bytes
    """The workflow, as `galley.workflow.continuation` writes it."""


class Raised(Struct, frozen=True):
    """The handler raised, or was not called because its input does not match its parameters."""

    failure: Failure
    retryable: bool
    """Whether another attempt could succeed."""
    pause: float | None = None
    """Seconds until the next attempt, if the handler said so."""
    kinds: tuple[str, ...] = ()
    """Names by which rules of retries may know the failure, beside its reason."""
    batch: int = 0
    """How many inputs the handler had, if it failed with all of them at once."""


class Snoozed(Struct, frozen=True):
    """The handler asked to be run again later; costs no attempt."""

    pause: float
    """Seconds."""
    failure: Failure
    """What it waits for."""


class TimedOut(Struct, frozen=True):
    """The attempt took longer than its timeout."""

    seconds: float
    batch: int = 0
    """How many inputs the handler had, if that holds for all of them."""


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
    batch: int = 0
    """How many inputs the handler had."""


Ending: TypeAlias = (
    Returned | Continued | Raised | Snoozed | TimedOut | Cancelled | CutOff | NotBegun | Crashed
)
"""How an attempt ended."""

Finish: TypeAlias = Ending | ReturnedLarge
"""How a handler ended: what it returned may have to be stored before that is an ending."""

"""What a task has been through before the present attempt."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct
from msgspec.structs import replace

from galley.bounds import COUNT

KEPT_ATTEMPTS: Final = 10
"""Past attempts carried along with their messages; older ones remain as counts."""

MESSAGE_LIMIT: Final = 1000
"""Characters kept of one attempt's error message."""


TRACEBACK_LIMIT: Final = 2000
"""Characters kept of one attempt's traceback: its end, where the exception stands. All that are kept
travel with each retry."""


class EndedBy(StrEnum):
    """What cut a past attempt short; each is counted apart."""

    ERROR = "error"
    """The handler raised, returned what cannot be stored, or ran out of time."""
    CRASH = "crash"
    """The process that ran it died without a word."""
    PREEMPTION = "preemption"
    """We took the worker away; costs the task nothing."""


Moment = Annotated[datetime, Meta(tz=True)]
"""A time that says its offset from UTC, so that it means the same everywhere."""

Count = Annotated[int, Meta(ge=COUNT.least, le=COUNT.most)]
"""How often something happened."""

WORKER_LOST: Final = "WorkerLost"
HANDLER_NOT_FOUND: Final = "HandlerNotFound"
"""Reason of an attempt whose worker vanished while it ran."""


class PastAttempt(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One execution that did not settle the task."""

    number: Count
    ended_by: EndedBy
    reason: str
    message: str
    worker: str
    ended_at: Moment
    started_at: Moment | None = None
    traceback: str = ""
    """The last lines of it, as it was printed; empty where the handler raised nothing."""
    batch: Count = 0
    """How many inputs the handler had, if it ended with all of them at once; 0 if it was this one alone."""


class History(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Errors, crashes and preemptions so far, with the last few attempts in words."""

    errors: Count = 0
    crashes: Count = 0
    preemptions: Count = 0
    attempts: Annotated[tuple[PastAttempt, ...], Meta(max_length=KEPT_ATTEMPTS)] = ()

    @property
    def apart(self) -> bool:
        """Whether the next attempt shares no batch: a neighbour may be why the last one failed.

        If the input itself is the cause, it fails alone.
        """
        failed = [past for past in self.attempts if past.ended_by is not EndedBy.PREEMPTION]
        return bool(failed) and (failed[-1].batch > 1 or failed[-1].ended_by is EndedBy.CRASH)

    def with_attempt(self, past: PastAttempt) -> "History":
        """Return the history with one more attempt at its end."""
        counted = {
            EndedBy.ERROR: {"errors": self.errors + 1},
            EndedBy.CRASH: {"crashes": self.crashes + 1},
            EndedBy.PREEMPTION: {"preemptions": self.preemptions + 1},
        }[past.ended_by]
        short = replace(past, message=past.message[:MESSAGE_LIMIT], traceback=_end_of(past.traceback))
        return replace(self, attempts=(*self.attempts, short)[-KEPT_ATTEMPTS:], **counted)


def _end_of(traceback: str) -> str:
    """Return the last whole lines of a traceback that fit, after a line that says where some are missing."""
    if len(traceback) <= TRACEBACK_LIMIT:
        return traceback
    kept = traceback[4 - TRACEBACK_LIMIT :]
    first, line, rest = kept.partition("\n")
    return f"...\n{rest if line else first}"


NO_HISTORY: Final = History()

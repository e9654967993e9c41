"""The status of a task, as clients see it."""

from datetime import datetime
from enum import StrEnum
from typing import Final

from msgspec import Raw, Struct
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.encryption.token import key_in
from galley.history import NO_HISTORY, History
from galley.note import Progress
from galley.record import Failure, Outcome, Record, State

NOT_KNOWN: Final = Raw()


class Phase(StrEnum):
    """Phase of a task."""

    PENDING = "Pending"
    """Declared, and not submitted yet: its condition says what it waits for."""
    SCHEDULED = "Scheduled"
    """Submitted for later; not due yet."""
    QUEUED = "Queued"
    """Waiting for a free slot."""
    RUNNING = "Running"
    RETRYING = "Retrying"
    """An attempt failed; the next one is due at `due_at`."""
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    """Not tried again; stands among the dead letters."""
    CANCELLED = "Cancelled"

    @property
    def ended(self) -> bool:
        """Whether the task has ended."""
        return self in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


_ENDED = {
    Outcome.SUCCEEDED: Phase.SUCCEEDED,
    Outcome.FAILED: Phase.FAILED,
    Outcome.CANCELLED: Phase.CANCELLED,
}


class TaskStatus(Struct, frozen=True):
    """The state of a task at the time it was read."""

    address: TaskAddress
    phase: Phase
    handler: str = ""
    attempt: int = 0
    """Number of the present or last attempt; 0 before the first."""
    worker: str = ""
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    due_at: datetime | None = None
    """Time of the first attempt of a scheduled task, or of the next one of a retrying task."""
    deadline: datetime | None = None
    failure: Failure | None = None
    history: History = NO_HISTORY
    input: Raw = NOT_KNOWN
    """What the handler is given; `NOT_KNOWN` of a task that has ended, whose input is not kept."""
    labels: dict[str, str] = {}
    progress: Progress | None = None
    """How far the handler says it is, of a running task that was asked about; else None."""
    key: str = ""
    """Under which it takes turns with others; empty if it has none, or it is not known any more."""
    waits: str = ""
    """Why no free slot takes it, if that is so."""
    stored_bytes: int = 0
    """Bytes of its result, if that is too large for the record; 0 if it is not."""
    encrypted_with: str = ""
    """Id of the key needed to read input, result, messages and tracebacks; empty if they are not encrypted,
    or were decrypted."""


def of_record(address: TaskAddress, record: Record) -> TaskStatus:
    """Return the status a record tells; a `run` record that was handed back means the task waits again."""
    if record.outcome is not None:
        phase = _ENDED[record.outcome]
    elif record.state is State.RETRY:
        phase = Phase.RETRYING
    else:
        phase = Phase.QUEUED if record.handed_back else Phase.RUNNING
    return TaskStatus(
        replace(address, lane=record.lane),
        phase,
        handler=record.handler,
        attempt=record.attempt,
        worker=record.worker,
        submitted_at=record.submitted_at,
        started_at=record.started_at,
        ended_at=record.ended_at,
        due_at=record.due_at,
        failure=record.failure,
        history=record.history,
        labels=record.labels or {},
        stored_bytes=record.large.size if record.large is not None else 0,
        encrypted_with=key_in(record.sealed) if record.sealed else "",
    )

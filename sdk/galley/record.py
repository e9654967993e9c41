"""The record: the small truth about one task, which survives its messages.

    (none) --claim--> run --fail--> retry --claim--> run ... --settle--> done
       |                                                                   ^
       +--------------- settled on the fast path, or cancelled ------------+

Only ever written by compare-and-set on the sequence of the one before it.
"""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from galley.bounds import WORD_PATTERN, strict
from galley.envelope import WireLabels, check_moments
from galley.errors import EnvelopeInvalid
from galley.history import NO_HISTORY, Count, History, Moment
from galley.lanes import Lane
from galley.reference import Reference

VERSION: Final = 1
"""Version of the record written here; readers refuse others."""

SEALED_VERSION: Final = 2
"""Version of a record whose payload is encrypted; a program that knows version 1 alone refuses it."""

REFERRING_VERSION: Final = 3
"""Version of a record whose result is stored as an object."""

NULL: Final = Raw(b"null")


Word = Annotated[str, Meta(pattern=strict(WORD_PATTERN))]
"""A text that becomes one word of a subject, or is empty."""


class State(StrEnum):
    """Where in its chain a record stands."""

    RUN = "run"
    RETRY = "retry"
    DONE = "done"


class Outcome(StrEnum):
    """How a task ended for good."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Claim(Struct, frozen=True, array_like=True):
    """The one message that may run the attempt: its stream and the sequence there."""

    stream: str
    sequence: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    holder: Annotated[str, Meta(pattern=strict(r"^[^\x00-\x20\x7f]*$"))] = ""
    """The process that claimed it; another process that finds this claim takes it over."""


class Failure(Struct, frozen=True):
    """Why a task, or an attempt of it, did not succeed."""

    reason: str
    """A constant in CamelCase."""
    message: str
    traceback: str = ""


class Record(Struct, frozen=True, rename="camel", omit_defaults=True):
    """One state of one task."""

    state: State
    attempt: Count
    worker: str = ""
    handler: str = ""
    lane: Lane = Lane.NORMAL
    submitted_at: Moment | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    due_at: Moment | None = None
    """When state is `retry`: the time of the next attempt."""
    claim: Claim | None = None
    """When state is `run`: who may run it."""
    handed_back: bool = False
    """When state is `run`: its worker gave it back, so taking it over is not a crash."""
    history: History = NO_HISTORY
    outcome: Outcome | None = None
    result: Raw = NULL
    failure: Failure | None = None
    uid: str = ""
    """Of the Task object whose outcome this is; empty if there is none, or its worker did not know."""
    digest: str = ""
    """Of the work (see `galley.envelope.digest_of`); empty if the id was not chosen by a person."""
    remembered: bool = False
    """Whether the Task object was deleted because its time was over: the same work does not run again."""
    labels: WireLabels | None = None
    """Those of the task."""
    large: Reference | None = None
    """Where the result is stored, if it is too large for the record; `result` is null then."""
    awaits: Word = ""
    """When state is `retry`: the workflow whose outcome becomes that of the task."""
    v: int = VERSION
    sealed: str = ""
    """Where the queue's payloads are encrypted: result, digest, and the words of failure and history (see
    `galley.encryption`), which are then empty."""

    @property
    def done(self) -> bool:
        """Whether the task has ended."""
        return self.state is State.DONE


class Stored(Struct, frozen=True):
    """A record and the sequence it has in the broker, which is the fence for the next one."""

    record: Record
    sequence: int


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Record).decode


def _versions(record: Record) -> tuple[int, ...]:
    """Return the versions a record may have; of an encrypted one it does not show where its result is."""
    if record.sealed:
        return SEALED_VERSION, REFERRING_VERSION
    return (VERSION if record.large is None else REFERRING_VERSION,)


def encode(record: Record) -> bytes:
    """Return the body that is stored."""
    return _encode(record)


def decode(body: bytes) -> Record:
    """Return the record in a body.

    Raises:
        EnvelopeInvalid: if it is no record of a version known here.
    """
    try:
        record = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeInvalid(f"a record that cannot be read: {error}") from None
    if record.v not in _versions(record):
        raise EnvelopeInvalid(f"a record of version {record.v}, known here is {VERSION}")
    check_moments(record.history, record.submitted_at, record.started_at, record.ended_at, record.due_at)
    return record

"""The key of a unique task: on the wire, and who has it. Pure.

A key is a record of its own. It names a task; whether that still has the key follows from the state of the
task, so that no one has to be alive to release it. See docs/adr and the model in tests/unit/protocol.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from math import ceil
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from galley.bounds import UNIQUE_SECONDS, WORD_PATTERN, strict
from galley.errors import EnvelopeInvalid
from galley.history import Moment

VERSION: Final = 1

BEGUN_KEPT: Final = 32
"""Tasks of a key that are remembered to have begun, the latest ones."""

REPLACED_KEPT: Final = timedelta(days=1)
"""How long a key is kept after a replaced task could start, so that the worker of that one finds out."""


_Id = Annotated[str, Meta(max_length=64, pattern=strict(WORD_PATTERN))]


_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9000, 1, 1, tzinfo=UTC)
"""Times are added to."""


class Until(StrEnum):
    """How long a task has its key."""

    STARTED = "started"
    FINISHED = "finished"
    PERIOD = "period"


class UniqueKey(Struct, frozen=True, rename="camel", omit_defaults=True):
    """What a task carries of its key."""

    digest: Annotated[str, Meta(pattern=strict("^[0-9a-f]{32}$"))]
    """Stands for the key in subjects."""
    until: Until = Until.FINISHED
    seconds: Annotated[float, Meta(ge=0, le=UNIQUE_SECONDS.most)] = 0.0
    """Of a period."""
    epoch: _Id = ""
    """The epoch of the key's record in which it was claimed for the task."""


class KeyState(StrEnum):
    """What is known of the task a key names."""

    CLAIMED = "claimed"
    """Its producer is about to store it."""
    CONFIRMED = "confirmed"
    """It is stored, and its producer was told so."""
    BEGUN = "begun"
    """A worker has begun its first attempt, or is about to."""
    ENDED = "ended"
    """It has ended."""


class KeyRecord(Struct, frozen=True, rename="camel", omit_defaults=True):
    """Which task has a key."""

    task: _Id
    state: KeyState
    until: Until = Until.FINISHED
    previous: _Id = ""
    """The task that an unconfirmed claim replaces, and which has the key until it is confirmed."""
    begun: Annotated[tuple[_Id, ...], Meta(max_length=BEGUN_KEPT)] = ()
    """The last tasks of this key that began, or whose period ended before that: none of them was replaced."""
    epoch: _Id = ""
    """The first task since there was no record of this key; those of earlier ones were not replaced."""
    starts_at: Moment | None = None
    """Earliest start of the task, if it is delayed."""
    ends_at: Moment | None = None
    """End of its period."""
    keep_until: Moment | None = None
    """Not to expire before, since tasks that were replaced may still be in the streams."""
    v: int = VERSION

    def kept_seconds(self, now: datetime) -> int | None:
        """Return after how many seconds the record may expire; None is never."""
        over = self.state is KeyState.ENDED or (self.state is KeyState.BEGUN and self.until is Until.STARTED)
        if not over and self.until is not Until.PERIOD:
            return None
        moments = [at for at in (self.ends_at, self.keep_until) if at is not None]
        return max(1, ceil((max(moments, default=now) - now).total_seconds()))


encode: Final = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(KeyRecord).decode


def decode(body: bytes) -> KeyRecord:
    """Return the record in a body.

    Raises:
        EnvelopeInvalid: if it is none of a version known here.
    """
    try:
        record = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeInvalid(f"a unique key that cannot be read: {error}") from None
    if record.v != VERSION:
        raise EnvelopeInvalid(f"a unique key of version {record.v}, known here is {VERSION}")
    for moment in (record.starts_at, record.ends_at, record.keep_until):
        if moment is not None and not _EARLIEST <= moment < _LATEST:
            raise EnvelopeInvalid(f"a unique key with the time {moment.isoformat()}")
    return record


class There(StrEnum):
    """What there is of a task in the broker."""

    NOTHING = "nothing"
    LIVE = "live"
    """It waits, or runs."""
    ENDED = "ended"


def held(key: KeyRecord, task: There, now: datetime) -> bool:
    """Return whether the task that a key names has it, but for what an unconfirmed claim replaces.

    Args:
        key: the record.
        task: what there is of the task.
        now: the present time.
    """
    if key.until is Until.PERIOD and key.ends_at is not None and key.state is not KeyState.CLAIMED:
        return now < key.ends_at
    if key.state is KeyState.ENDED or (key.state is KeyState.BEGUN and key.until is Until.STARTED):
        return False
    return task is There.LIVE


def claim(  # noqa: PLR0917 - the fields of the record
    task: str, wanted: UniqueKey, over: KeyRecord | None, replaces: str, now: datetime,
    starts_at: datetime | None,
) -> KeyRecord:  # fmt: skip
    """Return the claim of a key for a task.

    Args:
        task: its id.
        wanted: its key.
        over: the record the claim replaces, if there is one.
        replaces: the task whose place it takes; empty if there is none.
        now: the present time.
        starts_at: its earliest start, if it is delayed.
    """
    keep_until = over.keep_until if over is not None else None
    begun = over.begun if over is not None else ()
    if over is not None and over.state is KeyState.CONFIRMED and over.until is Until.PERIOD and not replaces:
        begun = _listed(begun, over.task)  # its period is over, and it has still to run
    if replaces and over is not None:
        start = max(over.starts_at or now, now)
        keep_until = max(keep_until or now, start + REPLACED_KEPT)
    return KeyRecord(
        task, KeyState.CLAIMED, wanted.until, replaces, begun, task if over is None else over.epoch,
        starts_at, now + timedelta(seconds=wanted.seconds) if wanted.until is Until.PERIOD else None,
        keep_until,
    )  # fmt: skip


def _listed(begun: tuple[str, ...], task: str) -> tuple[str, ...]:
    return (*(one for one in begun if one != task), task)[-BEGUN_KEPT:]


def confirmed(claim: KeyRecord) -> KeyRecord:
    """Return a claim whose task is stored: what it replaced has lost its place."""
    return replace(claim, state=KeyState.CONFIRMED, previous="")


def begins(key: KeyRecord | None, task: str, wanted: UniqueKey) -> KeyRecord:
    """Return the record of a key whose task begins."""
    key = key or KeyRecord(task, KeyState.CONFIRMED, wanted.until, epoch=wanted.epoch)
    return replace(
        key, task=task, state=KeyState.BEGUN, until=wanted.until, previous="", begun=_listed(key.begun, task)
    )


class Right(StrEnum):
    """Whether a task may begin."""

    YES = "yes"
    AFTER_WRITE = "once the key says that it begins"
    REPLACED = "another task took its place"


def may_begin(key: KeyRecord | None, task: str, wanted: UniqueKey, *, delivered_before: bool) -> Right:
    """Return whether a task may begin.

    Args:
        key: the record of its key; None if there is none: it was released, or expired.
        task: the task's id.
        wanted: its key.
        delivered_before: whether a worker may have begun it before.
    """
    if key is None:
        return Right.AFTER_WRITE if wanted.until is Until.FINISHED else Right.YES
    if task in key.begun or key.epoch != wanted.epoch:
        return Right.YES
    if task in (key.task, key.previous if key.state is KeyState.CLAIMED else key.task):
        return Right.AFTER_WRITE
    if delivered_before and len(key.begun) == BEGUN_KEPT:
        return Right.YES  # it may have begun so long ago that it is not listed any more
    return Right.REPLACED

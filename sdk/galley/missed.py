"""What a queue missed of the events of a topic, as the topic's owner keeps it. Pure: times are arguments."""

from datetime import datetime
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from galley.errors import EnvelopeInvalid
from galley.history import Moment
from galley.unreadable import UNREADABLE

_VERSION: Final = 1

_Count = Annotated[int, Meta(ge=0)]


class Missed(Struct, frozen=True, rename="camel", omit_defaults=True):
    """How many events of a topic a queue missed."""

    failed: _Count = 0
    """Events whose filter or input mapping failed, or that the queue does not take. Each is a dead letter."""
    expired: _Count = 0
    """Events whose retention ended before they were looked at: the queue was full, or had no workers."""
    last_at: Moment | None = None
    """When the last of them was counted."""
    through: _Count = 0
    """Up to which sequence removed events are counted."""
    by_workers: tuple[_Count, _Count] = (0, 0)
    """What workers had counted as failed and expired then: their counts begin again after a restore."""
    v: Annotated[int, Meta(ge=1)] = _VERSION

    @property
    def total(self) -> int:
        """All of them."""
        return self.failed + self.expired

    def told(self, failed: int, expired: int, now: datetime) -> "Missed":
        """Return this with what workers have counted by now.

        Args:
            failed: dead letters, since their counts began.
            expired: events that were delivered, and could not be copied in time, since their counts began.
            now: the time.
        """
        if (failed, expired) == self.by_workers:
            return self
        before = self.by_workers
        more = [new - old if new >= old else new for new, old in zip((failed, expired), before, strict=True)]
        return replace(
            self, failed=self.failed + more[0], expired=self.expired + more[1],
            last_at=now if any(more) else self.last_at, by_workers=(failed, expired),
        )  # fmt: skip

    def removed(self, count: int, through: int, now: datetime) -> "Missed":
        """Return this with events that are about to be removed, up to a sequence, and were not looked at."""
        if not count:
            return self
        return replace(self, expired=self.expired + count, through=through, last_at=now)


_decode: Final = msgspec.json.Decoder(Missed).decode


def decode_missed(body: bytes) -> Missed:
    """Return what a queue missed.

    Raises:
        EnvelopeInvalid: if the body does not say so, or is of a later version.
    """
    try:
        missed = _decode(body)
    except UNREADABLE as error:
        raise EnvelopeInvalid(f"not what a queue missed: {error}") from None
    if missed.v != _VERSION:
        raise EnvelopeInvalid(f"the version of what a queue missed is {missed.v}, known here is {_VERSION}")
    return missed

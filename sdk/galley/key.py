"""Keys: tasks of one key take turns with those of other keys, and a queue may limit how many run at once.

A key is a text, such as the name of a customer. Subjects have its digest; the task itself has the text, which
is not encrypted. Which tasks of a key run stands in one small record (`Permits`), with what its rate allows.
"""

from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct

from galley.bounds import WORD_PATTERN, strict
from galley.errors import EnvelopeInvalid, SubmissionInvalid
from galley.unreadable import UNREADABLE

KEY_LIMIT: Final = 256
"""Bytes a key may have."""

KEY_CHARACTERS: Final = KEY_LIMIT // 4
"""Characters the key of a Task may have: as many as certainly fit, since a schema counts characters."""


Time = Annotated[float, Meta(ge=0, le=datetime(9999, 12, 31, tzinfo=UTC).timestamp())]
"""Seconds since 1970, of a time that can be shown."""


class Permits(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Which tasks of a key may run; written by compare-and-set only."""

    held: tuple[Annotated[str, Meta(pattern=strict(WORD_PATTERN))], ...] = ()
    """Ids of the tasks, in the order they were given their permits."""
    full_at: Time = 0.0
    """When all of its starts are there again that its rate allows at once, in seconds since 1970."""
    credits: dict[str, Annotated[int, Meta(ge=-(2**53), le=2**53)]] = {}
    """What lanes have earned while tasks of higher ones started: see `galley_worker.credits`."""


NO_PERMITS: Final = Permits()


class Rate(NamedTuple):
    """How many tasks of a key may start: a bucket of `burst` starts that fills evenly.

    It is kept as the time at which the bucket is full, by the generic cell rate algorithm (ITU-T I.371), so
    that nothing has to count while no task starts.
    """

    tasks: int
    """Starts that come back in `seconds`."""
    seconds: float
    burst: int
    """Starts that may follow each other at once."""

    @property
    def _each(self) -> float:
        return self.seconds / self.tasks

    def ready(self, full_at: float, now: float) -> int:
        """Return how many may start now, given when the bucket is full."""
        missing = max(0.0, full_at - now) / self._each
        return max(0, int(self.burst - missing + _ROUNDING))

    def next_at(self, full_at: float) -> float:
        """Return when there is a start again."""
        return full_at - (self.burst - 1) * self._each

    def taken(self, full_at: float, now: float, starts: int) -> float:
        """Return when the bucket is full once some have started now."""
        return max(full_at, now) + starts * self._each


_ROUNDING: Final = 1e-3
"""Of a start: what times near 2e9 lose as floats."""

_decode = msgspec.json.Decoder(Permits).decode


def encode(permits: Permits) -> bytes:
    """Return the bytes that are stored."""
    return msgspec.json.encode(permits)


def decode(body: bytes) -> Permits:
    """Return what was stored.

    Raises:
        EnvelopeInvalid: if it cannot be read.
    """
    try:
        return _decode(body)
    except UNREADABLE as error:
        raise EnvelopeInvalid(f"permits of a key: {error}") from None


def digest_of_key(key: str) -> str:
    """Return the word that stands for a key in subjects."""
    return sha256(key.encode()).hexdigest()[:32]


def key_of_value(value: object, what: str, hint: str) -> str:
    """Return the key that a value makes: a text, or a whole number as text.

    Args:
        value: as JSON has it.
        what: where it stands, for messages.
        hint: what to do about one that makes none.

    Raises:
        SubmissionInvalid: if it makes none.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        said = "null" if value is None else repr(value)[:80]
        raise SubmissionInvalid("key", f"{what} is {said}, not a text or a whole number", hint)
    return check_key(str(value))


def check_key(key: str) -> str:
    """Return `key` if a task can have it.

    Raises:
        SubmissionInvalid: if not.
    """
    if not key or not isinstance(key, str):
        raise SubmissionInvalid("key", repr(key)[:80], "use a text that is not empty")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise SubmissionInvalid(
            "key", f"{key[:40]!r} is not valid Unicode", "use a text that can be encoded in UTF-8"
        ) from None
    if size > KEY_LIMIT:
        raise SubmissionInvalid(
            "key", f"{size} bytes, the limit is {KEY_LIMIT}", "use a digest of it as the key"
        )
    return key

"""Unique tasks: what a caller asks for, and the key it comes to."""

from datetime import timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Final, Literal, TypeAlias

import msgspec
from msgspec import Raw, Struct

from galley.bounds import UNIQUE_SECONDS
from galley.errors import SubmissionInvalid
from galley.unique_key import UniqueKey, Until

KEY_LIMIT: Final = 1024
"""Bytes a key may have in UTF-8."""


class OnConflict(StrEnum):
    """What happens if another task has the key of a submission."""

    REJECT = "reject"
    """It is refused with `UniqueConflict`, which names that task."""
    EXISTING = "existing"
    """Its handle leads to that task, and `handle.existed` is true."""
    REPLACE = "replace"
    """It takes the place of that task, if that has not begun; else it is refused."""


class Unique(Struct, frozen=True, kw_only=True):
    """Rules of a unique key: at most one task of a queue has it at a time."""

    key: str | None = None
    """The key; None makes one of the handler and its input. A key belongs to the queue: two handlers that
    use the same one exclude each other."""
    by: tuple[str, ...] = ()
    """Instead of a key: the arguments that count, by name; the handler counts, too."""
    until: Literal["started", "finished"] | float | timedelta = "finished"
    """How long the task has its key: until its first attempt begins, until it has ended, or for so many
    seconds after it was submitted, whatever becomes of it."""
    on_conflict: Literal["reject", "existing", "replace"] | OnConflict = OnConflict.REJECT

    def __post_init__(self) -> None:
        """Refuse what no task can have.

        Raises:
            SubmissionInvalid: naming the field, and what it may be.
        """
        if self.key is not None:
            _check_key(self.key)
            if self.by:
                raise SubmissionInvalid("unique", "it has a key and `by`", "give one of them")
        if isinstance(self.by, str):
            raise SubmissionInvalid("unique.by", repr(self.by)[:80], 'use a tuple of names: by=("user",)')
        if self.on_conflict not in tuple(OnConflict):
            raise SubmissionInvalid(
                "unique.on_conflict", repr(self.on_conflict)[:80], f"use one of {', '.join(OnConflict)}"
            )
        seconds = self.seconds
        if seconds is None and self.until not in ("started", "finished"):
            raise SubmissionInvalid(
                "unique.until", repr(self.until)[:80], "use started, finished or a number of seconds"
            )
        if seconds is not None and not UNIQUE_SECONDS.holds(seconds):
            raise SubmissionInvalid("unique.until", f"{seconds!r} s", f"use {UNIQUE_SECONDS} seconds")

    @property
    def seconds(self) -> float | None:
        """The period; None if it lasts until the task has begun or ended."""
        if isinstance(self.until, timedelta):
            return self.until.total_seconds()
        return None if isinstance(self.until, str | bool) else self.until


Asked: TypeAlias = Unique | str | bool
"""What callers may write: rules, a key with the usual rules, or whether the task is unique at all."""


class Wanted(Struct, frozen=True):
    """What a submission asks for."""

    key: UniqueKey
    on_conflict: OnConflict
    shown: str
    """The key as the caller knows it."""


def asked(unique: Asked | None) -> Unique | Literal[False] | None:
    """Return the rules that are meant; None says nothing, False takes away weaker ones.

    Raises:
        SubmissionInvalid: if no task can have them.
    """
    if unique is True:
        return Unique()
    if isinstance(unique, str):
        return Unique(key=unique)
    if unique is not None and unique is not False and not isinstance(unique, Unique):
        raise SubmissionInvalid(
            "unique", f"{unique!r}"[:80], "use True, a key (a text), or galley.Unique(...)"
        )
    return unique


def wanted(unique: Unique, handler: str, value: Raw) -> Wanted:
    """Return the key of one task.

    Args:
        unique: the rules.
        handler: what runs.
        value: its input.

    Raises:
        SubmissionInvalid: if an argument in `by` is missing.
    """
    if unique.key is not None:
        parts: tuple[object, ...] = ("key", unique.key)
        shown = unique.key
    elif unique.by:
        named = msgspec.json.decode(value)
        absent = [name for name in unique.by if not isinstance(named, dict) or name not in named]
        if absent:
            raise SubmissionInvalid(
                "unique.by", f"the call has no argument {absent[0]!r}",
                "name arguments of the handler, and pass them in each call",
            )  # fmt: skip
        parts = ("by", handler, {name: named[name] for name in unique.by})
        shown = f"{handler}({', '.join(unique.by)})"
    else:
        parts = ("work", handler, msgspec.json.decode(value))
        shown = f"{handler} with this input"
    digest = sha256(msgspec.json.encode(parts, order="deterministic")).hexdigest()[:32]
    seconds = unique.seconds
    until = Until.PERIOD if seconds is not None else Until(str(unique.until))
    return Wanted(UniqueKey(digest, until, seconds or 0.0), OnConflict(unique.on_conflict), shown)


def _check_key(key: str) -> None:
    if not key or not isinstance(key, str):
        raise SubmissionInvalid("unique.key", repr(key)[:80], "use a text that is not empty")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise SubmissionInvalid(
            "unique.key", f"{key[:40]!r} is not valid Unicode", "use a text that can be encoded in UTF-8"
        ) from None
    if size > KEY_LIMIT:
        raise SubmissionInvalid(
            "unique.key", f"{size} bytes, the limit is {KEY_LIMIT}", "use a digest of it as the key"
        )

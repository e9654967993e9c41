"""Keys: tasks of one key take turns with those of other keys, and a queue may limit how many run at once.

A key is a text, such as the name of a customer. Subjects have its digest; the task itself has the text, which
is not encrypted. Which tasks of a key run stands in one small record (`Permits`).
"""

from hashlib import sha256
from typing import Final

import msgspec
from msgspec import Struct

from galley.errors import EnvelopeInvalid, SubmissionInvalid

KEY_LIMIT: Final = 256
"""Bytes a key may have."""

KEY_CHARACTERS: Final = KEY_LIMIT // 4
"""Characters the key of a Task may have: as many as certainly fit, since a schema counts characters."""


class Permits(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """Which tasks of a key may run; written by compare-and-set only."""

    held: tuple[str, ...] = ()
    """Ids of the tasks, in the order they were given their permits."""
    look_at: float = 0.0
    """Until when it is certain that the key is looked at again, in seconds since 1970."""


NO_PERMITS: Final = Permits()

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
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise EnvelopeInvalid(f"permits of a key: {error}") from None


def digest_of_key(key: str) -> str:
    """Return the word that stands for a key in subjects."""
    return sha256(key.encode()).hexdigest()[:32]


def check_key(key: str) -> str:
    """Return `key` if a task can have it.

    Raises:
        SubmissionInvalid: if not.
    """
    if not key:
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

"""The wire format of a dead letter."""

from typing import Final

import msgspec
from msgspec import Raw, Struct

from galley.envelope import check_moments
from galley.errors import EnvelopeInvalid
from galley.history import NO_HISTORY, History, Moment
from galley.record import Failure
from galley.unreadable import UNREADABLE

VERSION: Final = 1
"""Version written here where nothing is encrypted."""

SEALED_VERSION: Final = 2

NO_TASK: Final = Raw(b"null")


class DeadLetter(Struct, frozen=True, rename="camel", omit_defaults=True):
    """A task that ended for good without success, ready to be redriven."""

    failure: Failure
    died_at: Moment
    worker: str
    attempt: int
    lane: str
    history: History = NO_HISTORY
    envelope: Raw = NO_TASK
    """The task as it was submitted; `NO_TASK` if it is not kept, or `body` has it."""
    body: bytes | None = None
    """Instead of `envelope`: the raw bytes of what was no envelope we can read (base64 in JSON)."""
    header: str | None = None
    """Beside `body`: the Galley header it came with."""
    v: int = VERSION
    sealed: str = ""
    """In place of messages, tracebacks and `body`, where the queue's payloads are encrypted."""


_decode = msgspec.json.Decoder(DeadLetter).decode
encode = msgspec.json.Encoder().encode


def decode(body: bytes) -> DeadLetter:
    """Return the dead letter in a body.

    Raises:
        EnvelopeInvalid: if it is none.
    """
    try:
        letter = _decode(body)
    except UNREADABLE as error:
        raise EnvelopeInvalid(f"a dead letter that cannot be read: {error}") from None
    if letter.v != (SEALED_VERSION if letter.sealed else VERSION):
        raise EnvelopeInvalid(f"a dead letter of version {letter.v}, known here is {VERSION}")
    check_moments(letter.history, letter.died_at)
    return letter

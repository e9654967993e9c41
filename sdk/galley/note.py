"""The wire format of notes: what a handler says while it runs. Notes decide nothing.

A note is a message in the queue's stream of notes, on a subject of its own: the progress of a task, its
checkpoint, or a part of its output.
"""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from galley.errors import EnvelopeInvalid
from galley.history import Moment

CHECKPOINT_LIMIT: Final = 512 * 1024
"""Bytes of JSON a checkpoint may have, as an input or a result."""

TEXT_LIMIT: Final = 200
"""Characters of the text beside a progress; what is longer is shortened."""

END_LIMIT: Final = 800
"""Characters of a sentence on how a worker ended: it becomes part of the message of an attempt."""

PROGRESS: Final = "progress"
CHECKPOINT: Final = "checkpoint"
OUTPUT: Final = "log"


class Progress(Struct, frozen=True, omit_defaults=True):
    """How far a task is, as its handler says."""

    at: Moment
    attempt: int
    fraction: Annotated[float, Meta(ge=0, le=1)] | None = None
    """From 0 to 1; None if the handler gave only a text."""
    text: Annotated[str, Meta(max_length=4 * TEXT_LIMIT)] = ""

    def __str__(self) -> str:
        percent = "" if self.fraction is None else f"{self.fraction:.0%}"
        return " ".join(part for part in (percent, self.text) if part)


class WorkerEnd(Struct, frozen=True, omit_defaults=True):
    """How a worker ended, as the cluster says."""

    at: Moment
    said: Annotated[str, Meta(max_length=END_LIMIT)]


class LogLine(Struct, frozen=True, omit_defaults=True):
    """A line that a handler wrote."""

    at: Moment
    """When its worker read it."""
    stream: str
    """`stdout`, `stderr`, `log` for a line of Python's `logging`, or `galley` for a notice of the worker."""
    text: str
    level: int = 20
    """As Python's `logging` counts: 20 is INFO, 30 WARNING."""
    logger: str = ""
    fields: dict[str, Any] = {}
    """What the handler gave `logging` as `extra`, with the first line of a record."""
    attempt: int = 0
    worker: str = ""
    """These two are left out on the wire, where the whole part has them."""


class Output(Struct, frozen=True, omit_defaults=True):
    """A part of what one attempt wrote."""

    attempt: int
    worker: str
    lines: tuple[LogLine, ...]


class _Sealed(Struct, frozen=True, omit_defaults=True):
    sealed: str = ""


encode = msgspec.json.Encoder().encode
_decode_progress = msgspec.json.Decoder(Progress).decode
decode_end = msgspec.json.Decoder(WorkerEnd).decode
_decode_output = msgspec.json.Decoder(Output).decode
_decode_sealed = msgspec.json.Decoder(_Sealed).decode


def decode_progress(body: bytes) -> Progress:
    """Return a progress.

    Raises:
        EnvelopeInvalid: if it is none.
    """
    try:
        return _decode_progress(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeInvalid(f"a progress that cannot be read: {error}") from None


def decode_output(body: bytes) -> Output:
    """Return a part of an output.

    Raises:
        EnvelopeInvalid: if it is none.
    """
    try:
        return _decode_output(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeInvalid(f"output that cannot be read: {error}") from None


def seal_in(body: bytes) -> str:
    """Return the encrypted payload of a note; empty if it is not encrypted."""
    if not body.startswith(b'{"sealed":'):
        return ""
    try:
        return _decode_sealed(body).sealed
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""


def sealed_body(token: str) -> bytes:
    """Return the body of an encrypted note."""
    return encode(_Sealed(token))

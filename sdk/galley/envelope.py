"""The wire format of a task, which no other module spells.

The body is JSON: people read it with any NATS client, and other languages write it. Its address
(namespace, queue, lane, kind, id) is the subject it travels on and stands nowhere else.
"""

from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Final

import msgspec
from msgspec import Meta, Raw, Struct

from galley.bounds import (
    COUNT,
    HANDLER_LENGTH,
    KEY_LENGTH,
    LABEL_VALUE_LENGTH,
    LABELS,
    NAME_PATTERN,
    SEQUENCE,
    TIMEOUT_SECONDS,
    strict,
)
from galley.errors import EnvelopeInvalid, InputInvalid
from galley.history import NO_HISTORY, History, Moment
from galley.json_value import NotFinite, encode_value
from galley.key import KEY_LIMIT
from galley.reference import Reference
from galley.retry import RetryPolicy
from galley.unique_key import UniqueKey
from galley.unreadable import UNREADABLE

VERSION: Final = 1
"""Version of body and header written here; readers refuse others."""

SEALED_VERSION: Final = 2
"""Version of a body whose payload is encrypted; a program that knows version 1 alone refuses it."""

REFERRING_VERSION: Final = 3
"""Version of a body that refers to objects: a program that does not know them must not run it without."""

INPUT_LIMIT: Final = 512 * 1024
"""Bytes of JSON an input may have that travels with its task: half of what one NATS message carries by
default, so that history and error fit beside it in a dead letter. Programs store what is larger than
`INLINE_LIMIT` as an object; the input of a manifest always travels with its task."""

NO_INPUT: Final = Raw(b"{}")

WireLabels = Annotated[
    dict[Annotated[str, Meta(max_length=KEY_LENGTH)], Annotated[str, Meta(max_length=LABEL_VALUE_LENGTH)]],
    Meta(max_length=LABELS),
]
"""Labels of a task, in its message and its record."""

_HEADER_PREFIX: Final = f"v={VERSION};a="


TRACE: Final = "^(00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(,[0-9a-f]{16})?)?$"


class Envelope(Struct, frozen=True, rename="camel", omit_defaults=True, gc=False):
    """One task as it travels: what to run, with what, and under which rules."""

    handler: Annotated[str, Meta(min_length=1, max_length=HANDLER_LENGTH)]
    submitted_at: Moment
    v: int = VERSION
    input: Raw = NO_INPUT
    not_before: Moment | None = None
    """Earliest time of the first attempt."""
    deadline: Moment | None = None
    """Time after which the task is not started any more, and a running attempt is killed."""
    timeout_seconds: Annotated[float, Meta(gt=0, le=TIMEOUT_SECONDS.most)] | None = None
    """Time one attempt may take; None means the queue's."""
    retry: RetryPolicy | None = None
    """None means the queue's policy."""
    history: History = NO_HISTORY
    ancestors: Annotated[tuple[Annotated[str, Meta(max_length=127)], ...], Meta(max_length=32)] = ()
    """Queues (`NAMESPACE/QUEUE`) of the handlers it descends from: the one that submitted it is the last. If
    it descends from an event that a handler published, `hops:N` is among them (`galley.topic`)."""
    labels: WireLabels | None = None
    """To find the task by; not encrypted, and no part of the digest."""
    schedule: str = ""
    """Name of the schedule whose tick it is for; empty if there is none."""
    event: Annotated[str, Meta(max_length=320)] = ""
    """The event it is a copy of, as `TOPIC/ID`; empty if there is none."""
    uid: str = ""
    """Of the Task object this was submitted for; empty if there is none."""
    digest: str = ""
    """Stands for the work (see `digest_of`), where the id was chosen by a person and may be used again."""
    unique: UniqueKey | None = None
    """Its unique key; None if other tasks do not concern it."""
    large: Reference | None = None
    """Where the input is stored, if it is too large to travel; `input` is empty then."""
    files: tuple[Reference, ...] = ()
    """The files in the input."""
    flow: Annotated[str, Meta(pattern=strict(f"^({NAME_PATTERN.strip('^$')})?$"))] = ""
    """Of a step of a workflow that another queue keeps: the name of that queue."""
    redriven: Annotated[str, Meta(max_length=63)] = ""
    """The wish of the Task object that it was run again for, so that none is heeded twice."""
    key: Annotated[str, Meta(max_length=KEY_LIMIT)] = ""
    """Under which it waits for its turn; empty if it has none. Not encrypted."""
    trace: Annotated[str, Meta(pattern=strict(TRACE))] = ""
    """The W3C `traceparent` of what submitted it, and after a comma the span of its last attempt; empty if it
    belongs to no trace."""
    sealed: str = ""
    """Where the queue's payloads are encrypted: input, references, digest and the words of the history (see
    `galley.encryption`), which are then empty. All before it in the body is authenticated; after it comes the
    uid, if there is one."""


class Flags(Struct, frozen=True):
    """The compact header beside the body: all a worker needs before it decides how to begin."""

    attempt: int = 1
    """Number of the attempt this message stands for, counted from 1."""
    fence: int = 0
    """Sequence of the record this message may replace; 0 means there must be none."""
    republished: bool = False
    """The same task may have been published before, so the record must be asked first."""
    awaits: str = ""
    """The workflow whose outcome becomes that of the task: its handler has ended."""
    permit: bool = False
    """It was given a permit of its key, which is given back when it ends."""

    def encode(self) -> str:
        """Return the header's text, such as `v=1;a=2;f=1041;r`."""
        words = f"{';r' if self.republished else ''}{';p' if self.permit else ''}"
        awaits = f";w={self.awaits}" if self.awaits else ""
        return f"{_HEADER_PREFIX}{self.attempt};f={self.fence}{words}{awaits}"

    @classmethod
    def decode(cls, text: str | None) -> "Flags":
        """Return the flags in a header.

        Raises:
            EnvelopeInvalid: if the header is missing, malformed, or of another version.
        """
        if text == _FIRST_TEXT:
            return FIRST
        if not text:
            raise EnvelopeInvalid("it has no Galley header")
        words = text.split(";")
        named = dict(word.split("=", 1) for word in words if "=" in word)
        if named.get("v") != str(VERSION):
            raise EnvelopeInvalid(f"its version is {named.get('v')!r}, known here is {VERSION}")
        try:
            flags = cls(
                int(named.get("a", "1")), int(named.get("f", "0")), "r" in words, named.get("w", ""),
                "p" in words,
            )  # fmt: skip
        except ValueError:
            raise EnvelopeInvalid(f"its Galley header is {text[:80]!r}") from None
        if not COUNT.holds(flags.attempt) or flags.attempt < 1 or not SEQUENCE.holds(flags.fence):
            raise EnvelopeInvalid(f"its Galley header is {text[:80]!r}")
        return flags


FIRST: Final = Flags()
_FIRST_TEXT: Final = FIRST.encode()

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Envelope).decode

_EARLIEST: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)
_EXACT: Final = 2**63
_LARGEST: Final = 10**308


def in_range(moment: datetime) -> bool:
    """Return whether a time can be compared with others, and written in UTC."""
    return _EARLIEST <= moment < _LATEST


def check_moments(history: History, *moments: datetime | None) -> None:
    """Check that times can be compared, and written in UTC.

    Raises:
        EnvelopeInvalid: if one is before 1970 or after 9998.
    """
    if history.attempts:
        moments += tuple(at for past in history.attempts for at in (past.started_at, past.ended_at))
    for moment in moments:
        if moment is not None and not _EARLIEST <= moment < _LATEST:
            raise EnvelopeInvalid(f"the time {moment.isoformat()} is not between the years 1970 and 9998")


def digest_of(handler: str, value: Raw, *rules: object) -> str:
    """Return a short text that is equal for equal work, whichever tool wrote its JSON.

    Args:
        handler: what runs.
        value: its input.
        rules: under which it runs; without any the digest stands for handler and input alone.
    """
    try:
        work = _short_hash(handler, _canonical(msgspec.json.decode(value)))
    except UNREADABLE:
        # Too deep to be compared as a value, or not written by Galley: compared as it is written.
        work = _short_hash(handler, bytes(value).hex())
    return f"{work}.{_short_hash(*rules)}" if rules else work


def conflicts(one: str, other: str) -> bool:
    """Return whether two digests stand for different work. An unknown digest conflicts with none."""
    return bool(one and other) and any(
        mine != theirs for mine, theirs in zip(one.split("."), other.split("."), strict=False)
    )


def _short_hash(*parts: object) -> str:
    text = msgspec.json.encode(parts, order="deterministic")
    return sha256(text).hexdigest()[:16]


def _canonical(value: object) -> object:
    """Return a JSON value in which equal numbers are equal: an API server writes 1.0 as 1."""
    if isinstance(value, list):
        return [_canonical(each) for each in value]
    if isinstance(value, dict):
        return {name: _canonical(each) for name, each in value.items()}
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if abs(value) < _EXACT:
        return int(value) if value == int(value) else repr(value)
    # Beyond that an API server has numbers as floats, and so has them less exactly.
    return repr(float(value)) if abs(value) < _LARGEST else str(value)


def encode(envelope: Envelope) -> bytes:
    """Return the body that travels."""
    return _encode(envelope)


def decode(body: bytes) -> Envelope:
    """Return the envelope in a body.

    Raises:
        EnvelopeInvalid: if it is not JSON, lacks a field, or has another version.
    """
    try:
        envelope = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EnvelopeInvalid(str(error)) from None
    plain = envelope.v == VERSION and not (envelope.sealed or envelope.large or envelope.files)
    if not plain and envelope.v not in _versions(envelope):
        raise EnvelopeInvalid(f"its version is {envelope.v}, known here is {VERSION}")
    check_moments(envelope.history, envelope.submitted_at, envelope.not_before, envelope.deadline)
    return envelope


def shown_input(envelope: Envelope) -> Raw:
    """Return the input for those who look at a task; if it does not travel with it, what there is instead."""
    if envelope.large is None:
        return envelope.input
    large = envelope.large
    return Raw(_encode({"galley.stored": {"digest": large.digest, "size": large.size}}))


def _versions(envelope: Envelope) -> tuple[int, ...]:
    """Return the versions a body may have; an encrypted one does not show whether it refers to objects."""
    if envelope.sealed:
        return SEALED_VERSION, REFERRING_VERSION
    return (REFERRING_VERSION if envelope.large or envelope.files else VERSION,)


def encode_input(handler: str, value: object, limit: int = INPUT_LIMIT) -> Raw:
    """Return `value` as the JSON a task carries.

    Args:
        handler: what it is for.
        value: the input.
        limit: bytes it may have.

    Raises:
        InputInvalid: if it cannot be encoded as JSON (NaN and infinity cannot), or has more bytes.
    """
    try:
        raw = encode_value(value)
    except NotFinite as error:
        raise InputInvalid(handler, str(error), "pass null or a text in its place") from None
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise InputInvalid(handler, str(error), "pass numbers, text, lists and objects only") from None
    if len(raw) > limit:
        raise InputInvalid(
            handler, f"{len(raw)} bytes of JSON, the limit is {limit}",
            "submit the task from Python, with the data as a galley.File, which is streamed",
        )  # fmt: skip
    return Raw(raw)

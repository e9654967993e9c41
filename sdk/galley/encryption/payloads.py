"""Tasks, records and dead letters as the broker has them: in the clear, or with their payload encrypted.

What people wrote or a handler returned is encrypted: input, result, messages, tracebacks. What the broker,
the operator and the autoscaler work with is not: names, ids, times, counts, reasons, workers, rules.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw, Struct
from msgspec.structs import replace

from galley import envelope as task_wire
from galley import record as record_wire
from galley.address import TaskAddress
from galley.dead_letter import NO_TASK, DeadLetter
from galley.dead_letter import SEALED_VERSION as LETTER_SEALED_VERSION
from galley.dead_letter import VERSION as LETTER_VERSION
from galley.dead_letter import encode as encode_letter
from galley.encryption.data_keys import DataKeys
from galley.encryption.errors import (
    DecryptionKeyMissing,
    EncryptionError,
    KeyServiceUnavailable,
    PayloadAltered,
    PlaintextRefused,
)
from galley.encryption.token import key_in, parse
from galley.encryption.words import Words, with_words, wordless, wordless_failure, words_of
from galley.envelope import NO_INPUT, SEALED_VERSION, Envelope
from galley.note import seal_in, sealed_body
from galley.record import NULL, Failure, Outcome, Record
from galley.reference import Reference

Find: TypeAlias = Callable[[str, str], DataKeys | None]
"""Returns the keys of a queue, given its namespace and name; None if it has none."""

_SEALED: Final = b',"sealed":"'


class _TaskPayload(Struct, frozen=True, omit_defaults=True):
    """What of a task is encrypted."""

    input: Raw = NO_INPUT
    words: Words = ()
    digest: str = ""
    large: Reference | None = None
    files: tuple[Reference, ...] = ()


class _EndPayload(Struct, frozen=True, omit_defaults=True):
    """What of a record or dead letter is encrypted, with what it must agree with outside of it."""

    handler: str
    attempt: int
    outcome: Outcome | None = None
    result: Raw = NULL
    failure: Failure | None = None
    words: Words = ()
    digest: str = ""
    body: bytes | None = None
    envelope: Raw = NO_TASK
    large: Reference | None = None


_encode = msgspec.json.Encoder().encode
_task_payload = msgspec.json.Decoder(_TaskPayload).decode
_end_payload = msgspec.json.Decoder(_EndPayload).decode


class Payloads:
    """Encrypts and decrypts for one process; without keys everything stays as it is."""

    def __init__(self, find: Find | None = None) -> None:
        """Args: find: returns the keys of a queue; None if no queue has any."""
        self._find = find

    def keys_of(self, address: TaskAddress) -> DataKeys | None:
        """Return the keys of a task's queue, if it has any."""
        return None if self._find is None else self._find(address.namespace, address.queue)

    async def prepare(self, address: TaskAddress) -> None:
        """See to it that payloads of a task can be encrypted, if its queue has keys.

        Raises:
            KeyServiceUnavailable: if there is no data key, and none to be had.
        """
        keys = self.keys_of(address)
        if keys is not None:
            await keys.prepare()

    def plain_bytes(self, address: TaskAddress, envelope: Envelope) -> bytes | None:
        """Return the body of a task if it is not to be encrypted: then nothing has to be waited for."""
        return task_wire.encode(envelope) if self.keys_of(address) is None or envelope.sealed else None

    async def task_bytes(self, address: TaskAddress, envelope: Envelope) -> bytes:
        """Return the body of a task.

        Raises:
            KeyServiceUnavailable: if there is no data key, and none to be had.
        """
        if (plain := self.plain_bytes(address, envelope)) is not None:
            return plain
        keys = self.keys_of(address)
        assert keys is not None
        await keys.prepare()
        text = _encode(
            _TaskPayload(
                envelope.input, words_of(envelope.history), envelope.digest, envelope.large, envelope.files
            )
        )
        version = SEALED_VERSION if envelope.v == task_wire.VERSION else envelope.v
        clear = replace(
            envelope, v=version, input=NO_INPUT, history=wordless(envelope.history), digest="", uid="",
            large=None, files=(),
        )  # fmt: skip
        head = task_wire.encode(clear)[:-1]
        token = keys.seal(text, _bound("task", address, head))
        return b"".join((head, _SEALED, _tail(token, envelope.uid)))

    async def read_task(self, address: TaskAddress, body: bytes, *, plaintext: bool = True) -> Envelope:
        """Return a task; it keeps its `sealed` if there are no keys of its queue.

        Args:
            address: the task.
            body: as it came.
            plaintext: whether it may come without encryption though its queue has keys.

        Raises:
            EnvelopeInvalid: if it cannot be read.
            PlaintextRefused: if it is not encrypted, and has to be.
            DecryptionKeyMissing, PayloadAltered, KeyServiceUnavailable: if it cannot be decrypted.
        """
        envelope = task_wire.decode(body)
        keys = self.keys_of(address)
        if keys is None:
            return envelope
        subject = _subject(address)
        if not envelope.sealed:
            if not plaintext:
                raise PlaintextRefused(subject)
            return envelope
        head, _, rest = body.rpartition(_SEALED)
        if rest != _tail(envelope.sealed, envelope.uid):
            raise PayloadAltered(subject, "its encrypted payload is not where it has to be")
        text = await keys.open(envelope.sealed, _bound("task", address, head), subject)
        try:
            payload = _task_payload(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadAltered(subject, f"its decrypted payload cannot be read: {error}") from None
        history = with_words(envelope.history, payload.words, subject)
        refers = payload.large is not None or bool(payload.files)
        if refers != (envelope.v == task_wire.REFERRING_VERSION):
            raise PayloadAltered(subject, "its version does not fit what is encrypted")
        return replace(
            envelope, v=task_wire.REFERRING_VERSION if refers else task_wire.VERSION, input=payload.input,
            history=history, digest=payload.digest, large=payload.large, files=payload.files, sealed="",
        )  # fmt: skip

    def missing(self, address: TaskAddress, token: str) -> DecryptionKeyMissing:
        """Return the error for a payload of a queue of which we have no keys."""
        return DecryptionKeyMissing(_subject(address), key_in(token), "")

    async def look_at_task(self, address: TaskAddress, body: bytes, *, for_certain: bool = False) -> Envelope:
        """Return a task, which keeps its `sealed` if it cannot be decrypted.

        Args:
            address: the task.
            body: as it came.
            for_certain: raise, and do not go on without its payload, if trying again may help.

        Raises:
            EnvelopeInvalid: if it cannot be read.
            KeyServiceUnavailable: if the key service does not answer, and `for_certain`.
        """
        try:
            return await self.read_task(address, body)
        except EncryptionError as error:
            if for_certain and isinstance(error, KeyServiceUnavailable):
                raise
            return task_wire.decode(body)

    def plain_record_bytes(self, address: TaskAddress, record: Record) -> bytes | None:
        """Return the body of a record if its queue has no keys: then nothing has to be waited for."""
        return record_wire.encode(record) if self.keys_of(address) is None and not record.sealed else None

    async def record_bytes(self, address: TaskAddress, record: Record) -> bytes:
        """Return the body of a record. One whose payload is still encrypted keeps it.

        Raises:
            KeyServiceUnavailable: if there is no data key, and none to be had.
        """
        if record.sealed:
            # What was learned of it meanwhile stays out.
            return record_wire.encode(replace(record, digest=""))
        keys = self.keys_of(address)
        if keys is None or not _tells(record):
            return record_wire.encode(record)
        await keys.prepare()
        payload = _EndPayload(
            record.handler, record.attempt, record.outcome, record.result, record.failure,
            words_of(record.history), record.digest, large=record.large,
        )  # fmt: skip
        token = keys.seal(_encode(payload), _bound("record", address))
        return record_wire.encode(
            replace(
                record,
                v=SEALED_VERSION if record.large is None else record.v,
                result=NULL,
                large=None,
                failure=wordless_failure(record.failure),
                history=wordless(record.history),
                digest="",
                sealed=token,
            )
        )

    async def read_record(self, address: TaskAddress, record: Record) -> Record:
        """Return a record with its payload; it keeps its `sealed` if there are no keys of its queue.

        Raises:
            DecryptionKeyMissing, PayloadAltered, KeyServiceUnavailable: if it cannot be decrypted.
        """
        if not record.sealed or (keys := self.keys_of(address)) is None:
            return record
        subject = f"the outcome of {_subject(address)}"
        payload = await self._end(keys, record.sealed, _bound("record", address), subject)
        # Who cancels a task need not have its keys, and leaves its payload as it was.
        cancelled = record.outcome is Outcome.CANCELLED and payload.outcome is None
        told = payload.failure.reason if payload.failure else ""
        if (payload.handler, payload.attempt, told) != (
            record.handler, record.attempt, record.failure.reason if record.failure else "",
        ) or (payload.outcome is not record.outcome and not cancelled):  # fmt: skip
            raise PayloadAltered(subject, "what is encrypted belongs to another outcome")
        version = record_wire.VERSION if payload.large is None else record_wire.REFERRING_VERSION
        return replace(
            record, v=version, result=payload.result, large=payload.large, failure=payload.failure,
            history=with_words(record.history, payload.words, subject), digest=payload.digest, sealed="",
        )  # fmt: skip

    async def look_at_record(
        self, address: TaskAddress, record: Record, *, for_certain: bool = False
    ) -> Record:
        """Return a record, which keeps its `sealed` if it cannot be decrypted; as `look_at_task`.

        Raises:
            KeyServiceUnavailable: if the key service does not answer, and `for_certain`.
        """
        try:
            return await self.read_record(address, record)
        except EncryptionError as error:
            if for_certain and isinstance(error, KeyServiceUnavailable):
                raise
            return record

    async def letter_bytes(self, address: TaskAddress, letter: DeadLetter) -> bytes:
        """Return the body of a dead letter. The task in it stays as it came, if it came encrypted.

        Raises:
            KeyServiceUnavailable: if there is no data key, and none to be had.
        """
        keys = self.keys_of(address)
        if keys is None:
            return encode_letter(letter)
        await keys.prepare()
        failure, task = letter.failure, letter.envelope
        plain = task if task != NO_TASK and not task_wire.decode(bytes(task)).sealed else NO_TASK
        payload = _EndPayload(
            "",
            letter.attempt,
            failure=failure,
            words=words_of(letter.history),
            body=letter.body,
            envelope=plain,
        )
        token = keys.seal(_encode(payload), _bound("letter", address))
        return encode_letter(
            replace(
                letter,
                failure=Failure(failure.reason, ""),
                history=wordless(letter.history),
                body=None,
                envelope=task if plain == NO_TASK else NO_TASK,
                v=LETTER_SEALED_VERSION,
                sealed=token,
            )
        )

    async def read_letter(self, address: TaskAddress, letter: DeadLetter) -> DeadLetter:
        """Return a dead letter with its payload; it keeps its `sealed` if there are no keys of its queue.

        Raises:
            PlaintextRefused: if it is not encrypted, and has to be.
            DecryptionKeyMissing, PayloadAltered, KeyServiceUnavailable: if it cannot be decrypted.
        """
        keys = self.keys_of(address)
        if keys is None:
            return letter
        subject = f"the dead letter of {_subject(address)}"
        if not letter.sealed:
            raise PlaintextRefused(subject)
        payload = await self._end(keys, letter.sealed, _bound("letter", address), subject)
        if payload.failure is None or payload.failure.reason != letter.failure.reason:
            raise PayloadAltered(subject, "what is encrypted belongs to another dead letter")
        return replace(
            letter, v=LETTER_VERSION, failure=payload.failure, body=payload.body,
            envelope=letter.envelope if payload.envelope == NO_TASK else payload.envelope,
            history=with_words(letter.history, payload.words, subject), sealed="",
        )  # fmt: skip

    async def outcome(self, address: TaskAddress, record: Record) -> Record:
        """Return the last record of a task with its payload, which is from a holder of the keys.

        Args:
            address: the task.
            record: as it is stored.

        Raises:
            DecryptionKeyMissing: if we have no keys of its queue, or not this one.
            PayloadAltered, KeyServiceUnavailable: if it cannot be decrypted.
            PlaintextRefused: if it is not encrypted, and we have keys of its queue.
        """
        subject = f"the outcome of {_subject(address)}"
        if self.keys_of(address) is None and record.sealed:
            raise DecryptionKeyMissing(subject, parse(record.sealed, subject).key_id, "")
        if self.keys_of(address) is not None and not record.sealed and _tells(record):
            raise PlaintextRefused(subject)
        return await self.read_record(address, record)

    async def note_bytes(self, address: TaskAddress, what: str, body: bytes) -> bytes:
        """Return the body of a note: progress, a checkpoint, or output.

        Raises:
            KeyServiceUnavailable: if there is no data key, and none to be had.
        """
        keys = self.keys_of(address)
        if keys is None:
            return body
        await keys.prepare()
        return sealed_body(keys.seal(body, _bound(f"note {what}", address)))

    async def read_note(self, address: TaskAddress, what: str, body: bytes) -> bytes:
        """Return a note as it was before `note_bytes`.

        Raises:
            PlaintextRefused: if it is not encrypted, and has to be.
            DecryptionKeyMissing, PayloadAltered, KeyServiceUnavailable: if it cannot be decrypted.
        """
        subject, token, keys = f"{what} of {_subject(address)}", seal_in(body), self.keys_of(address)
        if keys is None:
            if token:
                raise DecryptionKeyMissing(subject, parse(token, subject).key_id, "")
            return body
        if not token:
            raise PlaintextRefused(subject)
        return await keys.open(token, _bound(f"note {what}", address), subject)

    async def _end(self, keys: DataKeys, token: str, bound: bytes, subject: str) -> _EndPayload:
        text = await keys.open(token, bound, subject)
        try:
            return _end_payload(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise PayloadAltered(subject, f"its decrypted payload cannot be read: {error}") from None


def _tail(token: str, uid: str) -> bytes:
    """Return how the body of a task ends. A restored backup has no uids, so they are not authenticated."""
    return b"".join((token.encode(), b'"', b',"uid":' + _encode(uid) if uid else b"", b"}"))


def _subject(address: TaskAddress) -> str:
    return f"task {address.queue}/{address.id}"


def _bound(kind: str, address: TaskAddress, clear: bytes = b"") -> bytes:
    """Return what a payload is bound to, so that it cannot be used in another place."""
    place = f"{kind} {address.namespace}/{address.queue}/{address.kind}/{address.id}\n"
    return place.encode() + clear


def _tells(record: Record) -> bool:
    """Whether a record has something that is to be encrypted, or that has to be authentic."""
    return bool(
        record.failure is not None
        or record.digest
        or record.history.attempts
        or (record.outcome is not None and record.outcome is not Outcome.CANCELLED)
    )

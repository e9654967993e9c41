"""Opener: a delivery becomes a task, decoded and decrypted, or what cannot be read is put aside."""

from typing import Final, NamedTuple

from galley.broker.pull import Delivery
from galley.encryption import DecryptionKeyMissing, EncryptionError, KeyServiceUnavailable
from galley.encryption.payloads import Payloads
from galley.envelope import Envelope, Flags
from galley.envelope import decode as decode_envelope
from galley.errors import EnvelopeInvalid
from galley.record import Failure
from galley_worker import journal
from galley_worker.settle import Settler

KEY_TIMES: Final = 8
"""Times a task is looked at whose key is missing, in the time a task waits for an unknown handler: a new key
reaches one process before another."""


class Opened(NamedTuple):
    """The task of a delivery."""

    flags: Flags
    envelope: Envelope
    refused: EncryptionError | None
    """Why it must not run, if so."""


class Opener:
    """Opens what is delivered."""

    def __init__(
        self,
        payloads: Payloads,
        settler: Settler,
        *,
        plaintext: bool,
        key_service_seconds: float,
        missing_key_seconds: float,
    ) -> None:
        """Make one.

        Args:
            payloads: decrypts.
            settler: puts aside what cannot be read.
            plaintext: whether a task that is not encrypted may run.
            key_service_seconds: pause before a task is looked at again while the key service does not answer.
            missing_key_seconds: how long a task may wait for a worker that has its key.
        """
        self._payloads, self._settler, self._plaintext = payloads, settler, plaintext
        self._key_service_seconds, self._missing_key_seconds = key_service_seconds, missing_key_seconds

    async def open(self, delivery: Delivery) -> Opened | None:
        """Return the task of a delivery; None if it is done with for now."""
        try:
            opened = await self._read(delivery)
        except EnvelopeInvalid as error:
            journal.dropped(delivery, str(error))
            await self._settler.bury_unreadable(delivery, Failure(error.reason, str(error)))
            return None
        except KeyServiceUnavailable as error:
            journal.not_decrypted(delivery, str(error))
            self._settler.look_again(delivery, self._key_service_seconds)
            return None
        if isinstance(opened.refused, DecryptionKeyMissing) and self._may_come(delivery):
            journal.not_decrypted(delivery, str(opened.refused))
            self._settler.look_again(delivery, self._missing_key_seconds / KEY_TIMES)
            return None
        return opened

    async def _read(self, delivery: Delivery) -> Opened:
        """Return the task of a delivery.

        Raises:
            EnvelopeInvalid: if it is no task.
            KeyServiceUnavailable: if the key service does not answer.
        """
        payloads, address = self._payloads, delivery.address
        # Before anything is written about it, so that no write waits for the key service.
        await payloads.prepare(address)
        if delivery.problem:
            raise EnvelopeInvalid(delivery.problem)
        flags = Flags.decode(delivery.header)
        try:
            envelope = await payloads.read_task(address, delivery.body, plaintext=self._plaintext)
        except KeyServiceUnavailable:
            raise
        except EncryptionError as error:
            return Opened(flags, decode_envelope(delivery.body), error)
        refused = payloads.missing(address, envelope.sealed) if envelope.sealed else None
        return Opened(flags, envelope, refused)

    def _may_come(self, delivery: Delivery) -> bool:
        """Whether a missing key may still reach this worker."""
        return self._missing_key_seconds > 0 and delivery.delivered <= KEY_TIMES

"""What is known of a task by its id, wherever it is, and whether other work may have that id."""

from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker.connection import Broker
from galley.broker.held import message_of
from galley.broker.records import Records
from galley.envelope import Envelope, conflicts, digest_of
from galley.errors import TaskConflict


class Known(NamedTuple):
    """What a task is, as far as its message or its record tells."""

    address: TaskAddress
    handler: str
    digest: str
    """Empty if its record does not have it, or it cannot be decrypted here."""
    submitted_at: datetime | None
    labels: dict[str, str] | None = None


async def known_task(broker: Broker, address: TaskAddress, *, for_certain: bool = True) -> Known | None:
    """Return what is known of a task that waits, is scheduled, runs or has ended. Its lane need not be right.

    Raises:
        QueueNotFound: if there is no such queue, nor records of its namespace.
        BrokerUnreachable: if the broker does not answer.
        EnvelopeInvalid: if its record cannot be read.
        KeyServiceUnavailable: if the key service does not answer, and which work it is has to be known
            `for_certain`.
    """
    # In this order: a task leaves its stream after its record is stored.
    message = await message_of(broker, address, for_certain=for_certain)
    if message is not None and message.envelope is not None:
        envelope = message.envelope
        digest = envelope.digest
        if not digest and not envelope.sealed:
            digest = digest_of(envelope.handler, envelope.input)
        return Known(message.address, envelope.handler, digest, envelope.submitted_at, envelope.labels)
    stored = await Records(broker).look_up(address)
    if stored is None:
        return None if message is None else Known(message.address, "", "", None)
    record = await broker.payloads.look_at_record(address, stored.record, for_certain=for_certain)
    return Known(
        replace(address, lane=record.lane), record.handler, record.digest, record.submitted_at, record.labels
    )


def check_same_work(address: TaskAddress, handler: str, digest: str, envelope: Envelope) -> None:
    """Check that a task known by handler and digest, either of which may be empty, is that of an envelope.

    Raises:
        TaskConflict: if it is other work.
    """
    if handler and handler != envelope.handler:
        raise TaskConflict(address.queue, address.id, f"handler ({handler!r})")
    if conflicts(digest, envelope.digest):
        same_work = digest.split(".", maxsplit=1)[0] == envelope.digest.split(".")[0]
        raise TaskConflict(address.queue, address.id, "spec" if same_work else "input")

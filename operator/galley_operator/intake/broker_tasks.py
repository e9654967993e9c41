"""All that the operator says to the broker about one task, and what it reads there."""

from typing import Final, Protocol

from msgspec import Struct
from msgspec.structs import replace

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.cancel import Cancelled, cancel
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerRefused
from galley.broker.held import message_of
from galley.broker.pipeline import NO_RESPONDERS
from galley.broker.publish import Publisher
from galley.broker.records import Records
from galley.broker.unique_keys import UniquePublisher
from galley.declared import with_put_files
from galley.envelope import Envelope
from galley.errors import QueueNotFound
from galley.record import Record, State, Stored
from galley.unique import Wanted

_PATIENCE_SECONDS: Final = 2.0
"""How long a publish is tried before the task waits its turn again."""


class Trace(Struct, frozen=True):
    """What the broker knows of a task's address."""

    stored: Stored | None = None
    """Its record."""
    held: bool = False
    """Whether a message of it waits, or is held by a worker."""
    envelope: Envelope | None = None
    """That message, if it can be read."""

    @property
    def empty(self) -> bool:
        """Whether nothing is known."""
        return self.stored is None and not self.held

    @property
    def unfinished(self) -> bool:
        """Whether there is work that has not ended."""
        return self.held or (self.stored is not None and not self.stored.record.done)

    @property
    def uid(self) -> str:
        """Of the Task object it was for; empty if that is not said."""
        return (self.stored and self.stored.record.uid) or (self.envelope and self.envelope.uid) or ""

    @property
    def digest(self) -> str:
        """Of the work; empty if that is not said."""
        return (self.stored and self.stored.record.digest) or (self.envelope and self.envelope.digest) or ""


class BrokerTasks(Protocol):
    """Tasks in the broker. Each method raises `BrokerError` if it is not known what came of it."""

    async def record(self, address: TaskAddress) -> Stored | None:
        """Return the record of a task."""
        ...

    async def trace(self, address: TaskAddress) -> Trace:
        """Return all that is known of a task: its message is read first, then its record.

        A message goes after the record is written, so one that was just missed has left a record.
        """
        ...

    async def publish(self, address: TaskAddress, envelope: Envelope, unique: Wanted | None = None) -> bool:
        """Put a task into the broker; returns False if there was one of that address.

        Raises:
            QueueNotFound, LaneNotEnabled, QueueFull, InputInvalid: refused; nothing was stored.
            ObjectError: a file in its input is not there, or it is not known; nothing was stored.
            UniqueConflict: another task has its unique key; nothing was stored.
        """
        ...

    async def cancel(self, address: TaskAddress, trace: Trace, keep_seconds: int) -> Cancelled | None:
        """Cancel a task; None if its queue has no streams, so that there is nothing to cancel.

        Args:
            address: the task.
            trace: what was known of it, for its last record.
            keep_seconds: how long that record is kept.
        """
        ...

    async def forget(self, address: TaskAddress) -> None:
        """Remove the record and dead letter of a task that has ended."""
        ...

    async def mark(self, address: TaskAddress, stored: Stored, record: Record, keep_seconds: int) -> bool:
        """Replace a last record unless another was written meanwhile; returns whether that was done."""
        ...


class NatsTasks:
    """`BrokerTasks` on NATS. Every publish is flagged as one that may have been made before.

    So a repetition after a crash does no harm: the broker takes no second message while there is one, and the
    worker that is given one after the end finds the record.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._records = Records(broker)
        self._publisher = Publisher(broker, patience_seconds=_PATIENCE_SECONDS)
        self._unique = UniquePublisher(broker, self._publisher)

    async def record(self, address: TaskAddress) -> Stored | None:
        """Return the record of a task."""
        try:
            stored = await self._records.look_up(address)
        except QueueNotFound:
            return None
        if stored is None or not stored.record.sealed:
            return stored
        # The payload stays encrypted: all that matters of it here is which work it was.
        opened = await self._broker.payloads.look_at_record(address, stored.record)
        return Stored(replace(stored.record, digest=opened.digest), stored.sequence)

    async def trace(self, address: TaskAddress) -> Trace:
        """Return all that is known of a task."""
        message = await message_of(self._broker, address)
        stored = await self.record(address)
        return Trace(stored, message is not None, message.envelope if message is not None else None)

    async def publish(self, address: TaskAddress, envelope: Envelope, unique: Wanted | None = None) -> bool:
        """Put a task into the broker; returns False if there was one of that address."""
        envelope = await with_put_files(self._broker, address, envelope)
        if unique is not None:
            receipt = await self._unique.publish(address, envelope, unique, own_id=True)
            return not receipt.duplicate
        receipt = await self._publisher.publish(address, envelope, chosen_id=True)
        return not receipt.duplicate

    async def cancel(self, address: TaskAddress, trace: Trace, keep_seconds: int) -> Cancelled | None:
        """Cancel a task; None if its queue has no streams."""
        about = Record(State.RUN, 0, lane=address.lane, uid=trace.uid, digest=trace.digest)
        if (envelope := trace.envelope) is not None:
            about = replace(
                about, handler=envelope.handler, submitted_at=envelope.submitted_at, labels=envelope.labels
            )
        try:
            return await cancel(self._broker, address, about, keep_seconds)
        except BrokerRefused as refusal:
            await self._raise_unless_gone(address, refusal)
            return None

    async def forget(self, address: TaskAddress) -> None:
        """Remove the record and dead letter of a task that has ended."""
        try:
            await self._records.forget(address)
        except BrokerRefused as refusal:
            await self._raise_unless_gone(address, refusal)

    async def mark(self, address: TaskAddress, stored: Stored, record: Record, keep_seconds: int) -> bool:
        """Replace a last record unless another was written meanwhile."""
        ack = await self._records.write(address, record, stored.sequence, keep_seconds)
        return ack.stored

    async def _raise_unless_gone(self, address: TaskAddress, refusal: BrokerRefused) -> None:
        """Raise a refusal unless the queue has no streams; those without a leader do not answer either."""
        if refusal.missing or refusal.code == NO_RESPONDERS:
            work = topology.work_stream(address.namespace, address.queue)
            if await stream_info(self._broker, work) is None:
                return
        raise refusal

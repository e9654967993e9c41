"""Records of unique keys: reading, and writing by compare-and-set; and submitting a task under its key."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeVar

from msgspec.structs import replace

from galley import unique_key as wire
from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused, BrokerUnreachable, NotAllowed
from galley.broker.held import message_of
from galley.broker.last_message import last_message
from galley.broker.lean_client import header_block
from galley.broker.pipeline import DENIED, NO_RESPONDERS, WRONG_SEQUENCE, Ack
from galley.broker.publish import Publisher, Receipt
from galley.broker.records import Records
from galley.broker.refusals import given_up
from galley.envelope import Envelope
from galley.errors import UniqueConflict
from galley.failpoint import failpoint
from galley.record import Outcome, Record
from galley.task_id import new_task_id
from galley.unique import OnConflict, Wanted
from galley.unique_key import KeyRecord, KeyState, There, claim, confirmed, held

T = TypeVar("T")

_PAUSE_SECONDS: Final = 0.25
_LOOKS: Final = 4
_LOOK_SECONDS: Final = (0.05, 0.5)
"""Between two looks for a task that a key names and that is not there: of a claim, whose producer is about to
store it; and of a task that was stored, since a copy of a stream may be behind."""

REPLACED: Final = "Replaced"
"""Reason of a task whose place another one took."""


class StoredKey(NamedTuple):
    """The record of a key, and its sequence."""

    record: KeyRecord
    sequence: int


class Keys:
    """The records of unique keys."""

    def __init__(self, broker: Broker, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._broker = broker
        self.now = now

    async def read(self, namespace: str, queue: str, digest: str) -> StoredKey | None:
        """Return the record of a key, or None if it has none.

        Raises:
            BrokerUnreachable: if no answer came.
            BrokerRefused: if the queue has no records stream, or it has no leader just now.
            EnvelopeInvalid: if it cannot be read.
        """
        subject = topology.key_subject(namespace, queue, digest)
        stream = topology.records_stream(namespace, queue)
        fallback = topology.shared_records_stream(namespace)
        found = await last_message(self._broker, stream, subject, fallback)
        return None if found is None else StoredKey(wire.decode(found.body), found.sequence)

    async def write(self, namespace: str, queue: str, digest: str, record: KeyRecord, fence: int) -> Ack:
        """Store a record in place of the one with sequence `fence` (0: if there is none)."""
        headers = {topology.EXPECTED_SEQUENCE: str(fence)}
        keep_seconds = record.kept_seconds(self.now())
        if keep_seconds is not None:
            headers[topology.TTL] = str(keep_seconds)
        subject = topology.key_subject(namespace, queue, digest)
        return await (await self._broker.pipeline.send(subject, wire.encode(record), header_block(headers)))


class UniquePublisher:
    """Submits tasks under unique keys.

    The key is claimed, the task is stored, and the claim is confirmed; only then the task is accepted. A
    producer that dies in between leaves a claim that counts for nothing once its task is not there.
    """

    def __init__(self, broker: Broker, publisher: Publisher) -> None:
        self._broker, self._publisher = broker, publisher
        self._keys = Keys(broker)

    async def publish(
        self, address: TaskAddress, envelope: Envelope, wanted: Wanted, *, own_id: bool = False
    ) -> Receipt:
        """Store a task, unless another one has its key and is not to be replaced.

        Args:
            address: where it goes; the receipt has another id if that of the existing task is returned.
            envelope: what it is.
            wanted: its key.
            own_id: whether it can have no other id than this one.

        Raises:
            UniqueConflict: another task has the key; nothing was stored.
            As `Publisher.publish` besides. After `BrokerUnreachable` and `BrokerSilent` the task may have
                been stored; submitting again is safe.
        """
        self._broker.check_usable()
        while True:
            found = await self._read(address, wanted)
            claimed = await self._claim(address, envelope, wanted, found)
            if isinstance(claimed, Receipt):
                return claimed
            if claimed is None:
                continue
            key = replace(wanted.key, epoch=claimed.record.epoch)
            receipt = await self._publisher.publish(address, replace(envelope, unique=key), chosen_id=own_id)
            if await self._confirm(address, wanted, claimed):
                return receipt
            # Another one took the key before the task was stored: its worker finds that, and does not run it.
            if own_id:
                return receipt
            address = replace(address, id=new_task_id())

    async def _claim(
        self, address: TaskAddress, envelope: Envelope, wanted: Wanted, found: StoredKey | None
    ) -> StoredKey | Receipt | None:
        """Return the claim; or what stands for the submission if the key is taken; None to look again.

        Raises:
            UniqueConflict: if it is taken, and that is not to be so.
        """
        over = found.record if found is not None else None
        if over is not None and over.task == address.id and over.state is not KeyState.CLAIMED:
            return found  # a repetition, for a task that is known
        owner = await self._owner(address, over) if over is not None else ""
        if owner and owner != address.id and over is not None:
            if wanted.on_conflict is OnConflict.EXISTING:
                return Receipt(replace(address, id=owner), duplicate=True)
            begun = over.state is KeyState.BEGUN
            if begun or wanted.on_conflict is OnConflict.REJECT:
                state = "has begun" if begun else "waits"
                raise UniqueConflict(address.queue, wanted.shown, owner, state)
        replaces = owner if owner != address.id else over.previous if over is not None else ""
        if over is not None and over.state is KeyState.CLAIMED and over.task == owner and over.previous:
            replaces = over.previous  # what that claim replaces has its place until it is confirmed
        record = claim(address.id, wanted.key, over, replaces, self._keys.now(), envelope.not_before)
        failpoint("key.before_claim")
        sequence = await self._put(address, wanted, record, found.sequence if found is not None else 0)
        return None if sequence is None else StoredKey(record, sequence)

    async def _owner(self, address: TaskAddress, key: KeyRecord) -> str:
        """Return the id of the task that has a key; empty if it is free."""
        there = There.NOTHING
        if held(key, There.LIVE, self._keys.now()):  # else it does not matter
            there = await self._look(replace(address, id=key.task), claimed=key.state is KeyState.CLAIMED)
        if held(key, there, self._keys.now()):
            return key.task
        if key.state is KeyState.CLAIMED and key.previous:
            previous = await self._there(replace(address, id=key.previous))
            return key.previous if previous is There.LIVE else ""
        return ""

    async def _look(self, address: TaskAddress, *, claimed: bool) -> There:
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_LOOK_SECONDS[0 if claimed else 1])
            there = await self._there(address)
            if there is not There.NOTHING:
                return there
        return There.NOTHING

    async def _there(self, address: TaskAddress) -> There:
        async def look() -> There:
            # In this order: a task leaves its stream after its record is stored.
            message = await message_of(self._broker, address)
            stored = await Records(self._broker).look_up(address)
            if stored is not None:
                return There.ENDED if stored.record.done else There.LIVE
            return There.NOTHING if message is None else There.LIVE

        return await self._insist(look, address)

    async def _confirm(self, address: TaskAddress, wanted: Wanted, claimed: StoredKey) -> bool:
        """Return whether the task has its key, or had it and has begun."""
        if claimed.record.state is not KeyState.CLAIMED:
            return True
        failpoint("key.before_confirm")
        if await self._put(address, wanted, confirmed(claimed.record), claimed.sequence) is not None:
            return True
        found = await self._read(address, wanted)
        if found is not None and address.id in (found.record.task, *found.record.begun):
            return True
        # It has begun and its key was released meanwhile, or it was replaced, which its record tells then.
        stored = await self._insist(lambda: Records(self._broker).look_up(address), address)
        if stored is None or not stored.record.done:
            return found is None
        return not replaced(stored.record)

    async def _read(self, address: TaskAddress, wanted: Wanted) -> StoredKey | None:
        digest = wanted.key.digest
        return await self._insist(lambda: self._keys.read(address.namespace, address.queue, digest), address)

    async def _insist(self, ask: Callable[[], Awaitable[T]], address: TaskAddress) -> T:
        """Return an answer, asking again while the broker has none.

        Raises:
            QueueNotFound: if there is no such queue.
            BrokerUnreachable, BrokerRefused: if there was none for as long as a submission is tried.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._publisher.patience
        while True:
            try:
                return await ask()
            except (BrokerUnreachable, BrokerRefused) as error:
                if isinstance(error, BrokerRefused) and error.code == NO_RESPONDERS:
                    await self._publisher.refusals.check_lane(address)
                if loop.time() >= give_up:
                    raise
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _put(self, address: TaskAddress, wanted: Wanted, record: KeyRecord, fence: int) -> int | None:
        """Write a record; return its sequence, or None if another one was written first.

        Raises:
            QueueNotFound: if there is no such queue.
            NotAllowed: if our credentials are not good for that.
            BrokerSilent, BrokerUnreachable: if no answer came.
            BrokerRefused: if it is refused for another reason.
        """
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._publisher.patience
        digest = wanted.key.digest
        while True:
            ack = await self._keys.write(address.namespace, address.queue, digest, record, fence)
            if ack.stored:
                return ack.sequence
            if ack.code == WRONG_SEQUENCE:
                # It may be what was written by a try whose answer was lost.
                found = await self._read(address, wanted)
                return found.sequence if found is not None and found.record == record else None
            if ack.code == DENIED:
                raise NotAllowed(topology.key_subject(address.namespace, address.queue, digest))
            if ack.code == NO_RESPONDERS:
                await self._publisher.refusals.check_lane(address)
            elif not ack.unanswered:
                raise BrokerRefused(f"claim the unique key of {address}", ack.code, ack.problem)
            if loop.time() >= give_up:
                problem = f"unique key of {address}: {ack.problem}"
                raise given_up(self._broker, problem, self._publisher.patience)
            await asyncio.sleep(_PAUSE_SECONDS)


def replaced(record: Record) -> bool:
    """Return whether a task ended since another one took its place."""
    return (
        record.outcome is Outcome.CANCELLED
        and record.failure is not None
        and record.failure.reason == REPLACED
    )

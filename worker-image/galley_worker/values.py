"""Values that flow through a workflow: results of steps, lists of them, and the inputs made of these."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker.connection import Broker
from galley.broker.flow_values import Place
from galley.broker.flows import Flows
from galley.broker.records import Records
from galley.encryption import PlaintextRefused
from galley.envelope import NO_INPUT, REFERRING_VERSION, Envelope
from galley.envelope import decode as decode_envelope
from galley.error_group import first_of
from galley.errors import EnvelopeInvalid
from galley.file import FIELD, files_in
from galley.lanes import Lane
from galley.objects.content import Bytes
from galley.objects.errors import ObjectMissing
from galley.objects.store import INPUT, RESULT
from galley.objects.transfer import fetched
from galley.record import NULL, Outcome, Record, State
from galley.record import REFERRING_VERSION as RECORD_REFERRING_VERSION
from galley.reference import INLINE_LIMIT, LARGEST, Reference
from galley.unreadable import UNREADABLE
from galley.workflow.plan import Node, Path
from galley.workflow.state import Root, Slot

T = TypeVar("T")

SMALL_RESULT: Final = 1024
"""Bytes of a result up to which a join keeps it; of a larger one it keeps where it is."""

_AT_ONCE: Final = 128
_FILE: Final = FIELD.encode()


class Unfit(Exception):
    """A value is not there, or does not fit where it is to go."""


class Room:
    """What there may be of a value, counted before it is read: one result may be asked for many times."""

    def __init__(self) -> None:
        self._left = LARGEST

    def take(self, size: int) -> None:
        """Count bytes of a value.

        Raises:
            Unfit: it would be too large.
        """
        self._left -= size
        if self._left < 0:
            raise Unfit(f"it would have more than {LARGEST} bytes of JSON, the limit")


class Values:
    """Makes inputs and results of the values of a workflow's nodes."""

    def __init__(self, broker: Broker, flows: Flows, *, plaintext: bool = True) -> None:
        """Args: plaintext: whether results count that are not encrypted, though their queue has keys."""
        self._broker, self._flows, self._plaintext = broker, flows, plaintext
        self._records = Records(broker)

    async def record(self, address: TaskAddress) -> Record | None:
        """Return the record of a step; None if it has none.

        Raises:
            BrokerUnreachable, BrokerRefused, EncryptionError: it cannot be had.
        """
        stored = await self._records.read(address)
        if stored is None:
            return None
        payloads, record = self._broker.payloads, stored.record
        if record.result != NULL and not record.sealed and not self._plaintext and payloads.keys_of(address):
            raise PlaintextRefused(str(address))
        record = await payloads.read_record(address, record)
        if record.sealed:
            raise payloads.missing(address, record.sealed)
        return record

    async def task(
        self, place: Place, root: Root, address: TaskAddress, node: Node, source: Slot
    ) -> Envelope:
        """Return the task of a step, with its input.

        Raises:
            Unfit: the input cannot be made.
            ObjectError, EncryptionError, BrokerError: what it is made of cannot be had.
        """
        try:
            envelope = decode_envelope(bytes(node.task))
        except EnvelopeInvalid as error:
            raise Unfit(str(error)) from None
        if not node.holes:
            return envelope
        data = filled(envelope.input, await self._given(place, root, node, source))
        large, files = await self._stored(address, data, INPUT)
        if large is None and not files:
            return replace(envelope, input=Raw(data))
        return replace(
            envelope, v=REFERRING_VERSION, input=NO_INPUT if large else Raw(data), large=large, files=files
        )

    async def result(
        self, place: Place, root: Root, address: TaskAddress, known: Slot | None = None
    ) -> Record:
        """Return the record of a workflow that succeeded, with its result.

        Args:
            place: the workflow.
            root: what it is.
            address: of its record.
            known: what its last step handed on, if that is known.

        Raises:
            Unfit: the result is not there.
            ObjectError, EncryptionError, BrokerError: what it is made of cannot be had.
        """
        node = await self._flows.node(place, root, root.out)
        if node.join:
            data = await self.value(place, root, Slot(join=root.out), Room())
        else:
            own = node.given or place.address(root.out).id
            data = await self.value(place, root, known or Slot(task=own, queue=node.queue), Room())
        large, _ = await self._stored(address, data, RESULT)
        if large is None:
            return Record(State.DONE, 1, result=Raw(data))
        return Record(State.DONE, 1, large=large, v=RECORD_REFERRING_VERSION)

    async def value(self, place: Place, root: Root, slot: Slot, room: Room) -> bytes:
        """Return a value as JSON; `room` is what there may be of it.

        Raises:
            As `result`.
        """
        if slot.failed is not None:
            step, reason, message = slot.failed.step, slot.failed.reason, slot.failed.message
            return msgspec.json.encode({"error": {"step": step, "reason": reason, "message": message}})
        if slot.join >= 0:
            return await self._joined(place, root, slot.join, room)
        if slot.value:
            room.take(len(slot.value[0]))
            return bytes(slot.value[0])
        address = TaskAddress(place.namespace, slot.queue or place.queue, Lane.NORMAL, Kind.DIRECT, slot.task)
        record = await self.record(address)
        if record is None or record.outcome is not Outcome.SUCCEEDED:
            raise Unfit(f"the result of task {address} is not stored any more")
        if record.large is not None:
            room.take(record.large.size)
            return await fetched(self._broker.objects, address, record.large)
        room.take(len(record.result))
        return bytes(record.result or NULL)

    async def _joined(self, place: Place, root: Root, number: int, room: Room) -> bytes:
        node = await self._flows.node(place, root, number)
        slots = await self._flows.join(place, number)
        if None in slots:
            raise Unfit("what came before it is not complete")
        parts = await each(self.value(place, root, slot, room) for slot in slots if slot is not None)
        if node.flat:
            parts = [part[1:-1] for part in parts]
            if not node.keys:
                return b"[%s]" % b",".join(parts)
            parts = [bytes(part) for part in msgspec.json.decode(b"[%s]" % b",".join(parts), type=list[Raw])]
        if not node.keys:
            return b"[%s]" % b",".join(parts)
        return msgspec.json.encode({key: Raw(part) for key, part in zip(node.keys, parts, strict=True)})

    async def _given(self, place: Place, root: Root, node: Node, source: Slot) -> dict[str, bytes]:
        """Return the arguments that results give: each result is read once, and one at a time."""
        wanted: dict[bytes, tuple[Slot, list[tuple[str, Path]]]] = {}
        for name, path in node.holes:
            slot, rest = await self._chosen(place, root, source, path)
            wanted.setdefault(msgspec.json.encode(slot), (slot, []))[1].append((name, rest))
        given, room = {}, Room()
        for slot, parts in wanted.values():
            data = await self.value(place, root, slot, Room())
            value = msgspec.json.decode(data) if any(path for _, path in parts) else None
            for name, path in parts:
                given[name] = picked(value, path) if path else data
                room.take(len(given[name]))
        return {name: given[name] for name, _ in node.holes}

    async def _chosen(self, place: Place, root: Root, source: Slot, path: Path) -> tuple[Slot, Path]:
        """Return the source that a path leads to, and what of it is left: of a join only that one is read."""
        while source.join >= 0 and path and isinstance(path[0], int):
            node = await self._flows.node(place, root, source.join)
            slots = await self._flows.join(place, source.join)
            if node.flat or node.keys or not 0 <= path[0] < len(slots) or slots[path[0]] is None:
                break
            chosen = slots[path[0]]
            assert chosen is not None
            source, path = chosen, path[1:]
        return source, path

    async def _stored(
        self, address: TaskAddress, data: bytes, role: str
    ) -> tuple[Reference | None, tuple[Reference, ...]]:
        """Store JSON that is too large to travel, and have its files kept; return the references."""
        Room().take(len(data))
        objects = self._broker.objects
        files: list[Reference] = []
        if _FILE in data:
            for file in files_in(data):
                if file.reference is None or not await objects.refer(address, file.reference, role):
                    raise ObjectMissing(f"file {file.name!r}", f"of queue {address.queue!r}")
                files.append(file.reference)
        large = await objects.put(address, Bytes(data), role) if len(data) > INLINE_LIMIT else None
        return large, tuple(files)


def filled(template: Raw, given: dict[str, bytes]) -> bytes:
    """Return an input with the arguments that results give.

    Raises:
        Unfit: it has no arguments.
    """
    try:
        named = msgspec.json.decode(template, type=dict[str, Raw])
    except UNREADABLE as error:
        raise Unfit(f"its input takes no arguments: {error}") from None
    return msgspec.json.encode({**named, **{name: Raw(data) for name, data in given.items()}})


def picked(value: Any, path: Path) -> bytes:
    """Return a part of a value, as JSON.

    Raises:
        Unfit: there is no such part.
    """
    for at, key in enumerate(path):
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            way = "".join(f"[{one!r}]" for one in path[: at + 1])
            raise Unfit(f"the result it is passed has no part {way}") from None
    return msgspec.json.encode(value)


async def each(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do several things at once, not too many; return what they return, in this order."""
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(thing: Awaitable[T]) -> T:
        async with room:
            return await thing

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(thing)) for thing in work]
    except BaseExceptionGroup as errors:
        raise first_of(errors) from None
    return [task.result() for task in tasks]

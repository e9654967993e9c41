"""What the broker has of workflows: plans, which are written once, and values that many change."""

import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from typing import Final

from msgspec import Raw

from galley import record as record_wire
from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.flow_values import Codec, FlowGone, FlowValues, Place
from galley.broker.listing import messages_of
from galley.encryption import PlaintextRefused
from galley.envelope import Envelope
from galley.errors import EnvelopeInvalid
from galley.record import NULL, Outcome, Record, State
from galley.workflow.plan import START, WIDTH, Node, read_chunk
from galley.workflow.state import Root, Slots, are_marks, decode_root, decode_slots, encode

log = logging.getLogger(__name__)

_CHUNKS: Final = 256
"""Messages of plans a process remembers; each has up to 700 KB, mostly far less."""
_JOIN: Final = "join"


class Flows:
    """Reads and writes workflows for one process."""

    def __init__(self, broker: Broker, *, plaintext: bool = True) -> None:
        """Args: plaintext: whether what is not encrypted counts, though the queue has keys."""
        self._broker = broker
        self._plaintext = plaintext
        self._values = FlowValues(broker)
        self._chunks: OrderedDict[str, tuple[Node, ...]] = OrderedDict()

    async def root(self, place: Place) -> Root | None:
        """Return a workflow as it is now; None if it is not there.

        Raises:
            BrokerUnreachable, BrokerRefused: no answer came.
            EnvelopeInvalid: it cannot be read.
        """
        found = await self._values.read(place.stream, place.root)
        if found is None:
            self._values.forget(place.root)
            return None
        root = _root_in(found[0], place.flow)
        self._values.remember(place.root, root, found[1])
        return root

    def known_root(self, place: Place) -> Root | None:
        """Return a workflow as this process saw it last; what it is does not change, only how far it is."""
        found: Root | None = self._values.known(place.root)
        return found

    async def node(self, place: Place, root: Root, number: int) -> Node:
        """Return a node of a plan.

        Raises:
            FlowGone: it is not there any more.
            EnvelopeInvalid: the plan cannot be read, or has no such node.
            BrokerUnreachable, BrokerRefused, EncryptionError: it cannot be had.
        """
        if not 0 <= number < root.nodes:
            raise EnvelopeInvalid(f"a plan without node {number}")
        index = next(at for at in range(len(root.chunks) - 1, -1, -1) if root.chunks[at] <= number)
        subject = place.part(f"plan.{index}")
        chunk = self._chunks.get(subject)
        if chunk is None:
            found = await self._values.read(place.stream, subject)
            if found is None:
                raise FlowGone
            address = place.plan(index)
            envelope = await self._broker.payloads.read_task(address, found[0], plaintext=self._plaintext)
            if envelope.sealed:
                raise self._broker.payloads.missing(address, envelope.sealed)
            chunk = self._chunks[subject] = read_chunk(envelope.input)
            while len(self._chunks) > _CHUNKS:
                self._chunks.popitem(last=False)
        self._chunks.move_to_end(subject)
        at = number - root.chunks[index]
        if at >= len(chunk):
            raise EnvelopeInvalid(f"a plan without node {number}")
        return chunk[at]

    async def write_chunk(self, place: Place, index: int, body: bytes, root: Root, keep_seconds: int) -> None:
        """Store a message of a plan; one that is there already stays.

        Raises:
            FlowsFull: there is no room.
            BrokerUnreachable, BrokerRefused: it could not be stored.
        """
        task = Envelope(START, root.created_at, input=Raw(body))
        data = await self._broker.payloads.task_bytes(place.plan(index), task)
        await self._values.create(place, place.part(f"plan.{index}"), data, keep_seconds)

    async def create(self, place: Place, root: Root, keep_seconds: int) -> bool:
        """Store the root of a workflow; returns False if there is one already.

        Raises:
            FlowsFull, BrokerUnreachable, BrokerRefused: it could not be stored.
        """
        return await self._values.create(place, place.root, encode(root), keep_seconds)

    async def change_root(self, place: Place, keep_seconds: int, change: Callable[[Root], Root]) -> Root:
        """Change the root of a workflow, and return it.

        Args:
            place: the workflow.
            keep_seconds: how long it is kept from now on.
            change: returns the new root; it may be called several times, and must come to the same if
                its change was made before.

        Raises:
            FlowGone: it is not there.
            FlowsFull: there is no room.
        """

        async def decode(body: bytes | None) -> Root:
            if body is None:
                raise FlowGone
            return _root_in(body, place.flow)

        async def write(root: Root) -> bytes:
            return encode(root)

        return await self._values.change(place, place.root, keep_seconds, Codec(write, decode), change)

    async def change_marks(
        self, place: Place, root: Root, part: int, keep_seconds: int, change: Callable[[str], str]
    ) -> str:
        """Change the marks of up to `WIDTH` steps, and return them; as `change_root`.

        Raises:
            FlowGone: they were removed at the end of the workflow.
            FlowsFull: there is no room.
        """
        count = min(WIDTH, root.tasks - part * WIDTH)

        async def decode(body: bytes | None) -> str:
            if body is None:
                await self._not_cleared(place)
            return "." * count if body is None else _marks_in(body, count, place)

        async def write(marks: str) -> bytes:
            return marks.encode()

        codec = Codec(write, decode)
        return await self._values.change(place, place.part(f"marks.{part}"), keep_seconds, codec, change)

    async def change_join(
        self, place: Place, number: int, width: int, keep_seconds: int, change: Callable[[Slots], Slots]
    ) -> Slots:
        """Change what arrived at a join, and return it; as `change_root`.

        Raises:
            FlowGone: it was removed at the end of the workflow.
            FlowsFull: there is no room.
        """
        payloads, address = self._broker.payloads, place.address(number)

        async def decode(body: bytes | None) -> Slots:
            if body is None:
                await self._not_cleared(place)
            return (None,) * width if body is None else await self._slots(address, body, width)

        async def write(slots: Slots) -> bytes:
            # With a digest it counts as a record that tells something, and is encrypted.
            record = Record(State.RUN, 0, digest=_JOIN, result=Raw(encode(slots)))
            return await payloads.record_bytes(address, record)

        codec = Codec(write, decode)
        return await self._values.change(place, place.part(f"join.{number}"), keep_seconds, codec, change)

    async def join(self, place: Place, number: int) -> Slots:
        """Return what arrived at a join.

        Raises:
            FlowGone: it is not there.
            BrokerUnreachable, BrokerRefused, EncryptionError: it cannot be had.
        """
        subject = place.part(f"join.{number}")
        known: Slots | None = self._values.known(subject)
        if known is not None and None not in known:
            return known
        found = await self._values.read(place.stream, subject)
        if found is None:
            raise FlowGone
        return await self._slots(place.address(number), found[0])

    async def marks(self, place: Place, root: Root) -> str:
        """Return the marks of all steps.

        Raises:
            BrokerUnreachable: no answer came.
        """
        if root.small:
            return root.marks
        found = ["." * min(WIDTH, root.tasks - part * WIDTH) for part in range(root.parts)]
        pattern = place.part("marks.*")
        async for message in messages_of(self._broker, place.stream, pattern):
            part = message.subject.rpartition(".")[2]
            if part.isascii() and part.isdecimal() and len(part) < 9 and int(part) < len(found):
                found[int(part)] = _marks_in(message.body, len(found[int(part)]), place)
        return "".join(found)

    async def all_of(self, namespace: str, queue: str) -> AsyncIterator[Root]:
        """Yield the workflows of a queue; those that cannot be read are left out.

        Raises:
            NotAllowed: our credentials are of another queue.
            BrokerUnreachable: no answer came.
        """
        stream, pattern = topology.flow_stream(namespace, queue), topology.flow_subject(namespace, queue, "*")
        async for message in messages_of(self._broker, stream, pattern):
            try:
                yield _root_in(message.body, message.subject.split(".")[4])
            except EnvelopeInvalid as error:
                log.warning("workflow not readable", extra={"subject": message.subject, "error": str(error)})

    async def forget_parts(self, place: Place) -> None:
        """Remove all of a workflow but its root.

        Raises:
            BrokerUnreachable, BrokerRefused: it may be done or not; what is left expires.
        """
        await self._broker.api(
            f"clear workflow {place.flow}", f"STREAM.PURGE.{place.stream}", {"filter": place.part(">")}
        )
        self._values.forget_below(place.part(""))

    async def _not_cleared(self, place: Place) -> None:
        """Look at a workflow before a part of it is written that is not there.

        It may have been removed: who was frozen meanwhile would write a new join, which fires again.

        Raises:
            FlowGone: the workflow has succeeded, or is not there.
        """
        found = await self._values.insist_on_read(place.stream, place.root)
        if found is None or _root_in(found[0], place.flow).ended is Outcome.SUCCEEDED:
            raise FlowGone

    async def _slots(self, address: TaskAddress, body: bytes, width: int | None = None) -> Slots:
        stored, payloads = record_wire.decode(body), self._broker.payloads
        if not stored.sealed and not self._plaintext and payloads.keys_of(address) is not None:
            raise PlaintextRefused(str(address))
        record = await payloads.read_record(address, stored)
        if record.sealed:
            raise payloads.missing(address, record.sealed)
        return decode_slots(record.result or NULL, width)


def _root_in(body: bytes, flow: str) -> Root:
    root = decode_root(body)
    if root.id != flow:
        # Those who look go on by its id, and would come to another workflow.
        raise EnvelopeInvalid(f"a workflow {root.id} that is stored as {flow}")
    return root


def _marks_in(body: bytes, count: int, place: Place) -> str:
    """Return marks; those that cannot be read count as none, so that the next ones replace them."""
    text = body.decode("ascii", "replace")
    if are_marks(text, count):
        return text
    log.warning("marks of a workflow not readable", extra={"workflow": place.flow, "queue": place.queue})
    return "." * count

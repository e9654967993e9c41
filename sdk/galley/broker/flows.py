"""What the broker has of workflows: plans, which are written once, and states, by compare-and-set.

Many workers write the same state at a time. Those of one process take turns: while one write is under way,
the next changes gather, and go into one message. So a join of 10,000 costs far fewer writes than that.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from msgspec import Raw

from galley import record as record_wire
from galley.address import Kind, TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.errors import BrokerRefused, BrokerUnreachable
from galley.broker.lean_client import header_block
from galley.broker.listing import messages_of
from galley.broker.pipeline import FULL, NO_RESPONDERS, WRONG_SEQUENCE
from galley.encryption import PlaintextRefused
from galley.envelope import Envelope
from galley.errors import EnvelopeInvalid
from galley.lanes import Lane
from galley.record import NULL, Record, State
from galley.workflow.plan import START, WIDTH, Node, read_chunk
from galley.workflow.state import PREFIX, Root, Slots, decode_root, decode_slots, encode, step_id

log = logging.getLogger(__name__)

T = TypeVar("T")

_PAUSE_SECONDS: Final = 0.25
_KNOWN: Final = 2048
"""States a process remembers, to write without a read."""
_CHUNKS: Final = 256
"""Messages of plans a process remembers; each has up to 700 KB, mostly far less."""
_TRIES: Final = 10
_JOIN: Final = "join"


class FlowGone(Exception):
    """A workflow is not there: it has expired, or its end was written and its parts removed."""


class FlowsFull(Exception):
    """The stream of workflows has no room for a state."""


class Place(NamedTuple):
    """The queue that has a workflow, and its id."""

    namespace: str
    queue: str
    flow: str

    @property
    def stream(self) -> str:
        """The stream it is in."""
        return topology.flow_stream(self.namespace, self.queue)

    @property
    def root(self) -> str:
        """Where its root is."""
        return topology.flow_subject(*self)

    def part(self, part: str) -> str:
        """Return where a part of it is."""
        return topology.flow_part_subject(*self, part)

    def address(self, number: int, queue: str = "", lane: Lane = Lane.NORMAL) -> TaskAddress:
        """Return the task of a step, or what a join is encrypted for."""
        return TaskAddress(self.namespace, queue or self.queue, lane, Kind.DIRECT, step_id(self.flow, number))

    def plan(self, index: int) -> TaskAddress:
        """Return what a message of the plan is encrypted for; no task has that id."""
        return self.address(0)._replace(id=f"{PREFIX}{self.flow}_plan{index}")


class _Codec(NamedTuple, Generic[T]):
    """How a state is stored."""

    encode: Callable[[T], Awaitable[bytes]]
    decode: Callable[[bytes | None], Awaitable[T]]
    """None: there is no such message yet."""


class _Turn(Generic[T]):
    """The changes of one state that wait for the write under way."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Callable[[T], T], asyncio.Future[T | None]]] = []
        self.busy = False


class Flows:
    """Reads and writes workflows for one process."""

    def __init__(self, broker: Broker, *, plaintext: bool = True) -> None:
        """Args: plaintext: whether what is not encrypted counts, though the queue has keys."""
        self._broker = broker
        self._plaintext = plaintext
        self._known: OrderedDict[str, tuple[Any, int]] = OrderedDict()
        self._chunks: OrderedDict[str, tuple[Node, ...]] = OrderedDict()
        self._turns: dict[str, _Turn[Any]] = {}

    async def root(self, place: Place) -> Root | None:
        """Return a workflow as it is now; None if it is not there.

        Raises:
            BrokerUnreachable, BrokerRefused: no answer came.
            EnvelopeInvalid: it cannot be read.
        """
        found = await self._read(place.stream, place.root)
        if found is None:
            self._known.pop(place.root, None)
            return None
        root = decode_root(found[0])
        self._remember(place.root, root, found[1])
        return root

    def known_root(self, place: Place) -> Root | None:
        """Return a workflow as this process saw it last; what it is does not change, only how far it is."""
        known = self._known.get(place.root)
        return None if known is None else known[0]

    async def node(self, place: Place, root: Root, number: int) -> Node:
        """Return a node of a plan.

        Raises:
            FlowGone: it is not there any more.
            BrokerUnreachable, BrokerRefused, EncryptionError: it cannot be had.
        """
        index = next(at for at in range(len(root.chunks) - 1, -1, -1) if root.chunks[at] <= number)
        subject = place.part(f"plan.{index}")
        chunk = self._chunks.get(subject)
        if chunk is None:
            found = await self._read(place.stream, subject)
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
        return chunk[number - root.chunks[index]]

    async def write_chunk(self, place: Place, index: int, body: bytes, root: Root, keep_seconds: int) -> None:
        """Store a message of a plan; one that is there already stays.

        Raises:
            FlowsFull: there is no room.
            BrokerUnreachable, BrokerRefused: it could not be stored.
        """
        task = Envelope(START, root.created_at, input=Raw(body))
        data = await self._broker.payloads.task_bytes(place.plan(index), task)
        await self._put(place, place.part(f"plan.{index}"), data, 0, keep_seconds)

    async def create(self, place: Place, root: Root, keep_seconds: int) -> bool:
        """Store the root of a workflow; returns False if there is one already.

        Raises:
            FlowsFull, BrokerUnreachable, BrokerRefused: it could not be stored.
        """
        return await self._put(place, place.root, encode(root), 0, keep_seconds)

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
            return decode_root(body)

        async def write(root: Root) -> bytes:
            return encode(root)

        return await self._change(place, place.root, keep_seconds, _Codec(write, decode), change)

    async def change_marks(
        self, place: Place, root: Root, part: int, keep_seconds: int, change: Callable[[str], str]
    ) -> str:
        """Change the marks of up to `WIDTH` steps, and return them; as `change_root`.

        Raises:
            FlowsFull: there is no room.
        """
        count = min(WIDTH, root.tasks - part * WIDTH)

        async def decode(body: bytes | None) -> str:
            return "." * count if body is None else body.decode()

        async def write(marks: str) -> bytes:
            return marks.encode()

        codec = _Codec(write, decode)
        return await self._change(place, place.part(f"marks.{part}"), keep_seconds, codec, change)

    async def change_join(
        self, place: Place, number: int, width: int, keep_seconds: int, change: Callable[[Slots], Slots]
    ) -> Slots:
        """Change what arrived at a join, and return it; as `change_root`.

        Raises:
            FlowsFull: there is no room.
        """
        payloads, address = self._broker.payloads, place.address(number)

        async def decode(body: bytes | None) -> Slots:
            return (None,) * width if body is None else await self._slots(address, body)

        async def write(slots: Slots) -> bytes:
            # With a digest it counts as a record that tells something, and is encrypted.
            record = Record(State.RUN, 0, digest=_JOIN, result=Raw(encode(slots)))
            return await payloads.record_bytes(address, record)

        codec = _Codec(write, decode)
        return await self._change(place, place.part(f"join.{number}"), keep_seconds, codec, change)

    async def join(self, place: Place, number: int) -> Slots:
        """Return what arrived at a join.

        Raises:
            FlowGone: it is not there.
            BrokerUnreachable, BrokerRefused, EncryptionError: it cannot be had.
        """
        subject = place.part(f"join.{number}")
        known = self._known.get(subject)
        if known is not None and None not in known[0]:
            return known[0]  # type: ignore[no-any-return]
        found = await self._read(place.stream, subject)
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
            found[int(message.subject.rpartition(".")[2])] = message.body.decode()
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
                yield decode_root(message.body)
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
        for subject in [each for each in self._known if each.startswith(place.part(""))]:
            del self._known[subject]

    async def _slots(self, address: TaskAddress, body: bytes) -> Slots:
        stored, payloads = record_wire.decode(body), self._broker.payloads
        if not stored.sealed and not self._plaintext and payloads.keys_of(address) is not None:
            raise PlaintextRefused(str(address))
        record = await payloads.read_record(address, stored)
        if record.sealed:
            raise payloads.missing(address, record.sealed)
        return decode_slots(record.result or NULL)

    async def _change(
        self, place: Place, subject: str, keep_seconds: int, codec: _Codec[T], change: Callable[[T], T]
    ) -> T:
        while True:
            turn = self._turns.setdefault(subject, _Turn())
            if turn.busy:
                mine: asyncio.Future[T | None] = asyncio.get_running_loop().create_future()
                turn.waiting.append((change, mine))
                written: T | None = await mine
                if written is not None:
                    return written
                continue
            turn.busy = True
            try:
                # Those that are ready in this moment go into this write, too.
                await asyncio.sleep(0)
                some, turn.waiting = turn.waiting, []
                try:
                    changes = [change, *(each for each, _ in some)]
                    result: T = await self._write(place, subject, keep_seconds, codec, changes)
                except BaseException:
                    _tell(some, None)
                    raise
                _tell(some, result)
                return result
            finally:
                turn.busy = False
                _tell(turn.waiting, None)  # the first of them writes next
                turn.waiting = []
                if self._turns.get(subject) is turn:
                    del self._turns[subject]

    async def _write(
        self, place: Place, subject: str, keep_seconds: int, codec: _Codec[T], changes: list[Callable[[T], T]]
    ) -> T:
        known = self._known.get(subject)
        tries, at_least = 0, 0
        while True:
            if known is None:
                found = await self._insist_on_read(place.stream, subject, at_least)
                known = (
                    (await codec.decode(None), 0)
                    if found is None
                    else (await codec.decode(found[0]), found[1])
                )
            value, fence = known
            new = value
            for change in changes:
                new = change(new)
            if new == value and fence:
                self._remember(subject, value, fence)
                return new
            headers = header_block({topology.EXPECTED_SEQUENCE: str(fence), topology.TTL: str(keep_seconds)})
            ack = await (await self._broker.pipeline.send(subject, await codec.encode(new), headers))
            if ack.stored:
                self._remember(subject, new, ack.sequence)
                return new
            self._known.pop(subject, None)
            known = None
            if ack.code == WRONG_SEQUENCE:
                at_least = ack.last_sequence
                continue
            if ack.code == FULL:
                raise FlowsFull(ack.problem)
            if tries % 40 == 0:
                log.warning("workflow not written yet", extra={"subject": subject, "error": ack.problem})
            tries += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _insist_on_read(self, stream: str, subject: str, at_least: int) -> tuple[bytes, int] | None:
        tries = 0
        while True:
            try:
                found = await self._read(stream, subject)
                if not at_least or (found is not None and found[1] >= at_least):
                    return found
                problem = "only an older copy is to be had"
            except (BrokerUnreachable, BrokerRefused) as error:
                problem = str(error)
            if tries % 40 == 0 and tries:
                log.warning("workflow not read yet", extra={"subject": subject, "error": problem})
            tries += 1
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _read(self, stream: str, subject: str) -> tuple[bytes, int] | None:
        """Return a message and its sequence, or None if there is none."""
        answer = await self._broker.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")
        if answer is None:
            raise BrokerRefused(f"read from {stream}", NO_RESPONDERS, "no server answers for it")
        headers = answer.headers or {}
        if headers.get("Status") == "404":
            return None
        if "Status" in headers:
            raise BrokerRefused(f"read from {stream}", int(headers["Status"]), headers["Description"])
        return answer.data, int(headers["Nats-Sequence"])

    async def _put(self, place: Place, subject: str, body: bytes, fence: int, keep_seconds: int) -> bool:
        headers = header_block({topology.EXPECTED_SEQUENCE: str(fence), topology.TTL: str(keep_seconds)})
        for _ in range(_TRIES):
            ack = await (await self._broker.pipeline.send(subject, body, headers))
            if ack.stored:
                return True
            if ack.code == WRONG_SEQUENCE:
                return False
            if ack.code == FULL:
                raise FlowsFull(ack.problem)
            if not ack.unanswered and ack.code != NO_RESPONDERS:
                raise BrokerRefused(f"store workflow {place.flow}", ack.code, ack.problem)
            await asyncio.sleep(_PAUSE_SECONDS)
        raise BrokerUnreachable(self._broker.server, f"workflow {place.flow} was not stored")

    def _remember(self, subject: str, value: Any, sequence: int) -> None:
        self._known[subject] = value, sequence
        self._known.move_to_end(subject)
        while len(self._known) > _KNOWN:
            self._known.popitem(last=False)


def _tell(waiting: list[tuple[Any, asyncio.Future[Any]]], value: Any) -> None:
    for _, future in waiting:
        if not future.done():
            future.set_result(value)

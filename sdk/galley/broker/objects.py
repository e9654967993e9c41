"""Objects in a queue's own stream: parts that are written once, and who refers to them.

    part.NAME.NUMBER              the bytes
    whole.NAME                    all parts are stored, here or in the store it names
    use.NAME.ROLE.KIND.ID         a task refers to it, or it was stored for tasks to come: `hold_id`
    leaving.NAME                  no task refers to it, and it is deleted soon

The name is the digest of the content, so equal content is stored once. A producer first writes that its task
refers to an object, and then looks whether the object is there and not leaving. What deletes an object
writes that it is leaving, waits longer than a producer takes between these two, and looks again for tasks
that refer to it. So what a producer found is not deleted under its hands, whichever process dies.
"""

import asyncio
import contextlib
import re
import secrets
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from typing import Final, NamedTuple, Protocol

import msgspec

from galley.address import TaskAddress
from galley.broker import topology
from galley.broker.connection import Broker
from galley.broker.ensure import stream_info
from galley.broker.errors import BrokerFull, BrokerRefused, BrokerUnreachable, NotAllowed
from galley.broker.last_message import last_message
from galley.broker.lean_client import header_block
from galley.broker.pipeline import DENIED, FULL, NO_RESPONDERS, NO_ROOM, WRONG_SEQUENCE, Ack
from galley.failpoint import failpoint
from galley.objects.errors import ObjectDamaged, ObjectMissing, ObjectsFull, ObjectStoreUnavailable
from galley.unreadable import UNREADABLE

PART: Final = 512 * 1024
"""Bytes of a part: half of what one message carries by default."""

_AT_ONCE: Final = 8
"""Parts under way at one time: 4 MiB, whatever the size of the object."""

_PAUSE_SECONDS: Final = 0.25
_OVERHEAD: Final = 256
"""Bytes a message takes beside its content, at most."""
_LOOKS: Final = 4
_ONCE: Final = header_block({topology.EXPECTED_SEQUENCE: "0"})


class Place(NamedTuple):
    """The queue whose objects are meant."""

    namespace: str
    queue: str

    @classmethod
    def of(cls, address: TaskAddress) -> "Place":
        """Return the queue of a task."""
        return cls(address.namespace, address.queue)


class Whole(msgspec.Struct, frozen=True, omit_defaults=True):
    """What stands about an object that is complete."""

    size: int
    """Bytes that are stored, encryption included."""
    store: str = ""
    """Where the bytes are, if not in the stream."""
    stored_at: float = 0.0
    """Seconds since 1970."""


_decode_whole: Final = msgspec.json.Decoder(Whole).decode


def whole_in(body: bytes) -> Whole | None:
    """Return what a body says about an object; None if it cannot be read: clients of the queue write it."""
    try:
        return _decode_whole(body)
    except UNREADABLE:
        return None


_HOLD: Final = re.compile(r"hold-([0-9]{10,12})-[0-9a-f]{8}")


def hold_id(until: float) -> str:
    """Return the id under which an object is kept that no task refers to yet; `until`: seconds since 1970."""
    return f"hold-{int(until)}-{secrets.token_hex(4)}"


def held_until(task_id: str) -> float:
    """Return until when an object is kept for tasks to come, in seconds since 1970; 0 if that is a task."""
    found = _HOLD.fullmatch(task_id)
    return float(found[1]) if found else 0.0


class _Message(Protocol):
    """A message of a stream of objects."""

    @property
    def subject(self) -> str:
        """Its subject."""

    @property
    def body(self) -> bytes:
        """Its content."""


def buckets_of(messages: Iterable[_Message]) -> set[str]:
    """Return the addresses of the buckets that some messages of a stream say have the bytes of objects."""
    found = set()
    for message in messages:
        if message.subject.split(".")[4:5] == ["whole"]:
            whole = whole_in(message.body)
            found.add("" if whole is None else whole.store)
    return found - {""}


class StreamObjects:
    """Objects of queues, over one connection."""

    def __init__(
        self, broker: Broker, patience_seconds: float = 30.0, clock: Callable[[], float] = time.time
    ) -> None:
        """Args: patience_seconds: how long to go on trying without an answer; clock: seconds since 1970."""
        self._broker = broker
        self._patience = patience_seconds
        self._clock = clock

    def __str__(self) -> str:
        return f"of NATS at {self._broker.server}"

    async def check_room(self, place: Place, size: int) -> None:
        """Check that an object fits, before its first part is sent.

        Raises:
            ObjectsFull: if it does not.
            ObjectStoreUnavailable: if the queue has no stream for objects, or it does not answer.
        """
        info = await self._info(place)
        used, limit = info["state"]["bytes"], info["config"]["max_bytes"]
        parts = size // PART + 1
        if used + size + parts * _OVERHEAD > limit:
            raise ObjectsFull(place.queue, size, used, limit)

    async def _info(self, place: Place) -> dict[str, dict[str, int]]:
        name = topology.object_stream(*place)
        try:
            info = await stream_info(self._broker, name)
        except (BrokerUnreachable, BrokerRefused) as error:
            raise self._unavailable("say how much room there is", str(error)) from error
        if info is None:
            raise self._no_stream(place)
        return info

    async def put(self, place: Place, name: str, pieces: AsyncGenerator[bytes, None]) -> None:
        """Store the parts of an object, each of `PART` bytes but the last. Doing it again is safe.

        Raises:
            ObjectsFull: the stream has no room; what is stored of it is deleted after a while.
            ObjectStoreUnavailable: no answer for as long as the patience lasts.
            NotAllowed: our credentials are of another queue.
        """
        under_way: set[asyncio.Task[None]] = set()
        number = 0
        failpoint("object.before_parts")
        try:
            async for piece in pieces:
                subject = topology.part_subject(*place, name, number)
                under_way.add(asyncio.create_task(self._write_once(place, subject, piece)))
                number += 1
                if len(under_way) >= _AT_ONCE:
                    ended, under_way = await asyncio.wait(under_way, return_when="FIRST_COMPLETED")
                    for one in ended:
                        one.result()
            for one in under_way:
                await one
        finally:
            for one in under_way:
                one.cancel()
            if under_way:
                await asyncio.wait(under_way)

    async def finish(self, place: Place, name: str, size: int, store: str = "") -> None:
        """Write that all of an object is stored.

        Raises:
            ObjectsFull, ObjectStoreUnavailable, NotAllowed: as `put`.
        """
        failpoint("object.before_whole")
        whole = msgspec.json.encode(Whole(size, store, round(self._clock(), 3)))
        await self._write_once(place, topology.whole_subject(*place, name), whole)

    async def use(self, address: TaskAddress, name: str, role: str) -> None:
        """Write that a task refers to an object.

        Args:
            address: the task.
            name: of the object.
            role: `input` or `result`.

        Raises:
            ObjectsFull, ObjectStoreUnavailable, NotAllowed: as `put`.
        """
        body = str(round(self._clock())).encode()
        failpoint("object.before_use")
        await self._write_once(Place.of(address), topology.use_subject(address, name, role), body)

    async def there(self, place: Place, name: str) -> Whole | None:
        """Return what stands about an object, or None if it is not complete, or about to be deleted.

        Raises:
            ObjectStoreUnavailable: if there is no answer.
        """
        if await self._last(place, topology.leaving_subject(*place, name)) is not None:
            return None
        found = await self._last(place, topology.whole_subject(*place, name))
        return None if found is None else whole_in(found)

    async def leaving(self, place: Place, name: str) -> bool:
        """Return whether an object is about to be deleted.

        Raises:
            ObjectStoreUnavailable: if there is no answer.
        """
        return await self._last(place, topology.leaving_subject(*place, name)) is not None

    async def get(self, place: Place, name: str, size: int, what: str) -> AsyncGenerator[bytes, None]:
        """Yield the parts of an object, in their order.

        Args:
            place: the queue.
            name: of the object.
            size: bytes that are stored.
            what: what it is, for errors.

        Raises:
            ObjectMissing: if a part is not there.
            ObjectStoreUnavailable: if there is no answer.
        """
        count = -(-size // PART)
        ahead: list[asyncio.Task[bytes]] = []
        next_one = 0
        try:
            for _ in range(count):
                while next_one < count and len(ahead) < _AT_ONCE:
                    ahead.append(asyncio.create_task(self._part(place, name, next_one, what)))
                    next_one += 1
                yield await ahead[0]
                del ahead[0]
        finally:
            for one in ahead:
                one.cancel()
            if ahead:
                await asyncio.wait(ahead)

    async def _part(self, place: Place, name: str, number: int, what: str) -> bytes:
        for left in reversed(range(_LOOKS)):
            found = await self._last(place, topology.part_subject(*place, name, number))
            if found is not None:
                if len(found) > PART:
                    raise ObjectDamaged(what, str(self), f"part {number} has {len(found)} bytes")
                return found
            # Any replica answers, and one that lags may not have it yet.
            if left:
                await asyncio.sleep(_PAUSE_SECONDS)
        raise ObjectMissing(what, str(self))

    async def _last(self, place: Place, subject: str) -> bytes | None:
        """Return the message of a subject, or None if there is none; asks again while nothing answers."""
        stream = topology.object_stream(*place)
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        while True:
            try:
                found = await last_message(self._broker, stream, subject)
                return None if found is None else bytes(found.body)
            except BrokerUnreachable as error:
                problem = str(error)
            except BrokerRefused as error:
                problem = error.description
                if error.code == NO_RESPONDERS:
                    await self._check_stream(place)
            if loop.time() >= give_up:
                raise self._unavailable("return an object", problem)
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _write_once(self, place: Place, subject: str, body: bytes) -> None:
        """Write what may be there already: then it is the same, since names stand for contents."""
        loop = asyncio.get_running_loop()
        give_up = loop.time() + self._patience
        while not (ack := await (await self._broker.pipeline.send(subject, body, _ONCE))).stored:
            if ack.code == WRONG_SEQUENCE or "per subject" in ack.problem:
                return
            if ack.code == NO_RESPONDERS:
                await self._check_stream(place)
            elif not ack.unanswered:
                raise await self._refused(place, len(body), ack, subject)
            if loop.time() >= give_up:
                raise self._unavailable("store an object", ack.problem)
            self._broker.check_usable()
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _check_stream(self, place: Place) -> None:
        """Raise the error of a queue without a stream for objects if it is known that it has none."""
        with contextlib.suppress(BrokerUnreachable, BrokerRefused):
            if await stream_info(self._broker, topology.object_stream(*place)) is None:
                raise self._no_stream(place)

    async def _refused(self, place: Place, size: int, ack: Ack, subject: str) -> Exception:
        if ack.code == DENIED:
            return NotAllowed(subject)
        if ack.code == FULL:
            with contextlib.suppress(ObjectStoreUnavailable):
                info = await self._info(place)
                return ObjectsFull(place.queue, size, info["state"]["bytes"], info["config"]["max_bytes"])
            return ObjectsFull(place.queue, size)
        if ack.code in NO_ROOM:
            return BrokerFull(f"store an object of queue {place.queue}", ack.code, ack.problem)
        return BrokerRefused(f"store an object of queue {place.queue}", ack.code, ack.problem)

    def _no_stream(self, place: Place) -> ObjectStoreUnavailable:
        return ObjectStoreUnavailable(
            str(self), "store or return objects", f"queue {place.queue!r} has no stream for them",
            "the queue does not exist, or was made by an earlier release: restart `galley dev`, or "
            "upgrade the operator",
        )  # fmt: skip

    def _unavailable(self, action: str, problem: str) -> ObjectStoreUnavailable:
        return ObjectStoreUnavailable(str(self), action, problem)

"""The object store of a connection: what is too large for a task goes in, and comes out checked."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, Self
from weakref import WeakValueDictionary

from galley.address import TaskAddress
from galley.broker.objects import PART, Place, StreamObjects
from galley.objects.content import Content
from galley.objects.errors import ObjectDamaged, ObjectStoreInvalid, ObjectStoreUnknown
from galley.objects.sealing import CLEAR_PART, TAG, Seal
from galley.reference import Reference

if TYPE_CHECKING:
    from galley.broker.connection import Broker
    from galley.objects.bucket import BucketObjects

VARIABLE: Final = "GALLEY_OBJECTS"
"""Environment variable with the address of the bucket that new objects go to."""

SECONDS_VARIABLE: Final = "GALLEY_OBJECT_SECONDS"
"""Environment variable with the seconds for which a bucket that refuses is asked again."""

INPUT: Final = "input"
RESULT: Final = "result"


class Objects:
    """Stores and returns objects. Encrypted where the payloads of the queue are."""

    def __init__(self, broker: "Broker", bucket: "BucketObjects | None" = None) -> None:
        """Args: bucket: where new objects go; None for the streams of the queues."""
        self._broker = broker
        self._stream = StreamObjects(broker)
        self._bucket = bucket
        self._turns: WeakValueDictionary[tuple[Place, str], asyncio.Lock] = WeakValueDictionary()
        self._stored: dict[tuple[Place, str], Reference] = {}
        """What this process has encrypted and stored, so that a file that many tasks have is stored once."""

    @classmethod
    def at(cls, broker: "Broker", environ: Mapping[str, str]) -> Self:
        """Return the object store that an environment names.

        Raises:
            ObjectStoreInvalid: if it cannot be used.
        """
        place = environ.get(VARIABLE, "")
        if not place:
            return cls(broker)
        try:
            from galley.objects.bucket import BucketObjects  # noqa: PLC0415 - its library is large
        except ImportError as error:
            raise ObjectStoreInvalid(place, f"the library for buckets is not installed: {error}") from None
        seconds = environ.get(SECONDS_VARIABLE, "")
        try:
            patience = min(max(float(seconds), 0.1), 3600.0) if seconds else DEFAULT_SECONDS
        except ValueError:
            problem = f"{SECONDS_VARIABLE} is {seconds[:40]!r}, and not a number of seconds"
            raise ObjectStoreInvalid(place, problem) from None
        return cls(broker, BucketObjects(place, environ, retry_seconds=patience))

    async def put(self, address: TaskAddress, content: Content, role: str, name: str = "") -> Reference:
        """Store an object that a task refers to, unless it is stored already, and return the reference.

        Args:
            address: the task.
            content: what to store.
            role: `INPUT` or `RESULT`.
            name: what the file is called.

        Raises:
            ObjectsFull: there is no room.
            ObjectStoreUnavailable: the store does not answer.
            FileUnreadable, FileChanged: the file cannot be read, or changed meanwhile.
            NotAllowed: our credentials are of another queue.
        """
        digest, size = await content.digest()
        place = Place.of(address)
        # Of many tasks with the same content, the first stores it.
        async with self._turns.setdefault((place, digest), asyncio.Lock()):
            return await self._put(address, content, role, Reference(digest, size, name=name))

    async def _put(self, address: TaskAddress, content: Content, role: str, clear: Reference) -> Reference:
        place, digest, size, name = Place.of(address), clear.digest, clear.size, clear.name
        if self._broker.payloads.keys_of(address) is not None:
            return await self._put_sealed(address, content, role, clear)
        reference = Reference(digest, size, store=self._store, name=name)
        # First that the task refers to it: what is there afterwards is not deleted any more.
        await self._stream.use(address, digest, role)
        found = await self._stream.there(place, digest)
        if found is not None and found.store == self._store:
            return reference
        if found is not None or await self._stream.leaving(place, digest):
            # It is about to be deleted, or is elsewhere: this one gets a name of its own.
            reference = Reference(digest, size, id=_own_name(), store=self._store, name=name)
            await self._stream.use(address, reference.object, role)
        await self._write(place, reference, content.parts(PART), size)
        return reference

    async def refer(self, address: TaskAddress, reference: Reference, role: str) -> bool:
        """Write that a task refers to an object that is stored; return whether it can rely on that.

        Raises:
            ObjectsFull, ObjectStoreUnavailable, NotAllowed: as `put`.
        """
        await self._stream.use(address, reference.object, role)
        return await self._stream.there(Place.of(address), reference.object) is not None

    async def get(self, place: Place, reference: Reference) -> AsyncGenerator[bytes, None]:
        """Yield the content of an object in parts; at its end it is known to be the right one.

        Raises:
            ObjectMissing: it is not there.
            ObjectDamaged: it is not what was stored; what was yielded must not be used.
            ObjectStoreUnavailable: the store does not answer.
            ObjectStoreUnknown: it is in a store this process does not use.
        """
        what = f"object {reference.object[:16]} of {reference.size} bytes"
        what = f"file {reference.name!r} ({what})" if reference.name else what
        source = self._source(reference, what)
        seal = self._seal(reference, what, str(source))
        stored = _sealed_size(reference.size) if seal else reference.size
        parts = -(-stored // PART)
        found, size, number = hashlib.sha256(), 0, 0
        async with aclosing(source.get(place, reference.object, stored, what)) as pieces:
            async for piece in pieces:
                data: bytes | None = piece
                if seal is not None:
                    data = seal.open(number, piece, last=number == parts - 1)
                if data is None:
                    raise ObjectDamaged(what, str(source), f"part {number} was not encrypted for it")
                number += 1
                size += len(data)
                found.update(data)
                yield data
        if size != reference.size:
            raise ObjectDamaged(what, str(source), f"it has {size} bytes")
        if found.hexdigest() != reference.digest:
            raise ObjectDamaged(what, str(source), f"its digest is {found.hexdigest()[:16]}...")

    async def remove(self, place: Place, store: str, name: str) -> bool:
        """Delete an object from the bucket it is in; return False if that is not the one known here.

        Raises:
            ObjectStoreUnavailable: if it does not answer.
        """
        if self._bucket is None or self._bucket.address != store:
            return False
        await self._bucket.remove(place, name)
        return True

    @property
    def _store(self) -> str:
        return self._bucket.address if self._bucket else ""

    async def _write(
        self, place: Place, reference: Reference, pieces: AsyncGenerator[bytes, None], size: int
    ) -> None:
        async with aclosing(pieces):
            if self._bucket is not None:
                await self._bucket.put(place, reference.object, pieces)
            else:
                await self._stream.check_room(place, size)
                await self._stream.put(place, reference.object, pieces)
        await self._stream.finish(place, reference.object, size, self._store)

    async def _put_sealed(
        self, address: TaskAddress, content: Content, role: str, clear: Reference
    ) -> Reference:
        place = Place.of(address)
        before = self._stored.get((place, clear.digest))
        if before is not None and await self.refer(address, before, role):
            return Reference(before.digest, before.size, before.id, before.key, before.store, clear.name)
        seal = Seal.new()
        reference = Reference(clear.digest, clear.size, _own_name(), seal.text, self._store, clear.name)
        await self._stream.use(address, reference.object, role)
        size = _sealed_size(clear.size)
        await self._write(place, reference, _sealed(content, seal, clear.size), size)
        self._stored[place, clear.digest] = reference
        if len(self._stored) > _KEPT:
            del self._stored[next(iter(self._stored))]
        return reference

    def _source(self, reference: Reference, what: str) -> "StreamObjects | BucketObjects":
        if not reference.store:
            return self._stream
        if self._bucket is None or self._bucket.address != reference.store:
            raise ObjectStoreUnknown(what, reference.store, self._store)
        return self._bucket

    @staticmethod
    def _seal(reference: Reference, what: str, store: str) -> Seal | None:
        if not reference.key:
            return None
        try:
            return Seal.of(reference.key)
        except ValueError as error:
            raise ObjectDamaged(what, store, f"its reference has no usable key: {error}") from None


_KEPT: Final = 256
DEFAULT_SECONDS: Final = 20.0
"""How long a bucket that refuses is asked again, if nothing else is said."""


def _own_name() -> str:
    return f"own-{secrets.token_hex(16)}"


def _sealed_size(size: int) -> int:
    return size + TAG * max(1, -(-size // CLEAR_PART))


async def _sealed(content: Content, seal: Seal, size: int) -> AsyncGenerator[bytes, None]:
    count = max(1, -(-size // CLEAR_PART))
    number = 0
    async for piece in content.parts(CLEAR_PART):
        yield seal.seal(number, piece, last=number == count - 1)
        number += 1
    if not number:
        yield seal.seal(0, b"", last=True)

"""What goes out with a task and comes back with its record: references, and the objects they mean."""

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from contextlib import aclosing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Raw
from msgspec.structs import replace

from galley.address import Kind, TaskAddress
from galley.broker.objects import Place, hold_id
from galley.envelope import NO_INPUT, REFERRING_VERSION, Envelope, digest_of
from galley.file import FIELD, File, files_of, with_references
from galley.lanes import Lane
from galley.objects.content import Bytes, FileContent
from galley.objects.errors import FileElsewhere, FileUnreadable, ObjectDamaged, ObjectMissing
from galley.objects.store import INPUT
from galley.reference import INLINE_LIMIT, LARGEST, Reference

if TYPE_CHECKING:
    from galley.objects.store import Objects


async def with_objects(
    objects: "Objects", address: TaskAddress, envelope: Envelope, files: Sequence[File]
) -> Envelope:
    """Store what is too large of a task, and return the task with references in its place.

    Args:
        objects: where to.
        address: the task.
        envelope: with its whole input.
        files: those in the input.

    Raises:
        ObjectsFull, ObjectStoreUnavailable: it could not be stored.
        ObjectMissing: a file of a result is not among the objects of this queue.
        FileUnreadable, FileChanged: a file cannot be read, or changed meanwhile.
        NotAllowed: the credentials are of another queue.
    """
    references = [(file.mark, await _stored(objects, address, file)) for file in files]
    data = bytes(envelope.input)
    if files:
        data = with_references(data, dict(references))
        if envelope.digest:
            envelope = replace(envelope, digest=digest_of(envelope.handler, Raw(_stable(data))))
    large = None
    if len(data) > INLINE_LIMIT:
        large = await objects.put(address, Bytes(data), INPUT)
    if large is None and not files:
        return envelope
    return replace(
        envelope, v=REFERRING_VERSION, input=NO_INPUT if large else Raw(data), large=large,
        files=tuple(reference for _, reference in references),
    )  # fmt: skip


async def _stored(objects: "Objects", address: TaskAddress, file: File) -> Reference:
    if file.reference is None:
        return await objects.put(address, FileContent(file.path()), INPUT, file.name)
    if not await objects.refer(address, file.reference, INPUT):
        raise ObjectMissing(
            f"file {file.name!r}", f"of queue {address.queue!r}",
        )  # fmt: skip
    return file.reference


def _stable(data: bytes) -> bytes:
    """Return JSON that is the same for the same files, wherever they are stored."""

    def walk(value: Any) -> Any:
        if isinstance(value, list):
            return [walk(each) for each in value]
        if not isinstance(value, dict):
            return value
        inner = value.get(FIELD) if len(value) == 1 else None
        if isinstance(inner, dict):
            return {FIELD: [inner.get("digest"), inner.get("name")]}
        return {name: walk(each) for name, each in value.items()}

    return msgspec.json.encode(walk(msgspec.json.decode(data)))


async def put_file(objects: "Objects", place: Place, file: File, keep_seconds: float) -> File:
    """Store a file before any task refers to it, and return it as it is stored.

    Args:
        objects: where to.
        place: the queue whose tasks may have it.
        file: the file.
        keep_seconds: how long it is kept at least, though no task refers to it.

    Raises:
        ObjectsFull, ObjectStoreUnavailable: it could not be stored.
        FileUnreadable, FileChanged: it cannot be read, or changed meanwhile.
        NotAllowed: the credentials are of another queue.
    """
    holder = hold_id(time.time() + keep_seconds)
    address = TaskAddress(*place, Lane.NORMAL, Kind.DIRECT, holder)
    with files_of(*place):
        return File.stored(await _stored(objects, address, file), file.path() if file.here else None)


async def fetched(objects: "Objects", address: TaskAddress, reference: Reference) -> bytes:
    """Return an object that was a result too large for its record.

    Raises:
        ObjectMissing, ObjectDamaged, ObjectStoreUnavailable, ObjectStoreUnknown: it cannot be had.
    """
    if reference.size > LARGEST:
        raise ObjectDamaged("the result", str(address.queue), f"it has {reference.size} bytes of JSON")
    async with aclosing(objects.get(Place.of(address), reference)) as pieces:
        return b"".join([piece async for piece in pieces])


async def download(objects: "Objects", file: File, to: Path) -> Path:
    """Write the content of a file to a path, all of it or nothing, and return the path.

    Raises:
        FileElsewhere: it is not known where the file is stored.
        FileUnreadable: the path cannot be written.
        ObjectMissing, ObjectDamaged, ObjectStoreUnavailable, ObjectStoreUnknown: it cannot be had.
    """
    if file.here:
        return await asyncio.to_thread(file.save, to)
    if file.reference is None or file.home is None:
        raise FileElsewhere(file.name)
    target = to / file.name if await asyncio.to_thread(to.is_dir) else to
    part = target.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("wb") as out:
            async with aclosing(objects.get(Place(*file.home), file.reference)) as pieces:
                async for piece in pieces:
                    await asyncio.to_thread(out.write, piece)
        await asyncio.to_thread(os.replace, part, target)
    except OSError as error:
        raise FileUnreadable(str(target), error.strerror or type(error).__name__) from None
    finally:
        with suppress(OSError):  # where nothing can be written, there is nothing to remove
            part.unlink()
    return target

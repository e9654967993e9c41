"""Checking an archive: that it is whole, and that all in it can be read again."""

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime

from galley.backup.archive import (
    MANIFEST,
    Manifest,
    Part,
    manifest_in,
    messages_in,
    objects_in,
    parts_of,
)
from galley.backup.catalogue import check_name
from galley.backup.destination import Destination
from galley.backup.errors import ArchiveDamaged
from galley.backup.rewrite import Rewrite
from galley.backup.sealing import Key


async def parts_at(destination: Destination, name: str, keys: Sequence[Key]) -> AsyncIterator[Part]:
    """Yield the parts of an archive.

    Raises:
        ArchiveDamaged, ArchiveKeyWrong, ArchiveTooNew, ArchiveNotFound, DestinationFailed: if it cannot
            be read.
    """
    async for part in parts_of(destination.read(name), keys, name):
        yield part


async def verified_parts(
    destination: Destination, name: str, keys: Sequence[Key], manifest: Manifest
) -> AsyncIterator[Part]:
    """Yield the parts of an archive that was verified before, each after it was compared with its manifest.

    Who can write where archives are kept can put another one in its place meanwhile, made with the same key.

    Raises:
        ArchiveDamaged: if it is another one.
        ArchiveKeyWrong, ArchiveTooNew, ArchiveNotFound, DestinationFailed: if it cannot be read.
    """
    expected = iter(manifest.parts)
    async for part in parts_at(destination, name, keys):
        last = part.heading.name == MANIFEST
        if next(expected, None) != (None if last else part.heading):
            raise ArchiveDamaged(name, "it is another one than was verified; was it replaced meanwhile?")
        if not last:
            yield part


async def verify_archive(destination: Destination, name: str, keys: Sequence[Key]) -> Manifest:
    """Read a whole archive and check it: each digest, each message, and that each would be restored.

    Args:
        destination: where it is.
        name: of the archive.
        keys: one of which fits.

    Returns:
        Its manifest.

    Raises:
        ArchiveNotFound, ArchiveDamaged, ArchiveKeyWrong, ArchiveTooNew, DestinationFailed: if it cannot be
            restored, and why.
    """
    seen, manifest = [], None
    per_stream: Counter[str] = Counter()
    per_kind: Counter[str] = Counter()
    async for part in parts_at(destination, name, keys):
        if part.heading.name == MANIFEST:
            manifest = manifest_in(part, name)
            continue
        seen.append(part.heading)
        if part.heading.stream:
            _try_messages(part, name)
            per_stream[part.heading.stream] += part.heading.count
        else:
            objects_in(part, name)
            per_kind[part.heading.name.partition("/")[0]] += part.heading.count
    assert manifest is not None  # parts_of ends with it
    check_name(name, manifest)
    if seen != manifest.parts:
        raise ArchiveDamaged(name, "its parts are not those of its manifest")
    rewrite = Rewrite(datetime.now(UTC))
    for entry in manifest.streams:
        rewrite.config(entry)
        if per_stream[entry.name] != entry.messages:
            raise ArchiveDamaged(
                name, f"it has {per_stream[entry.name]} of {entry.messages} messages of {entry.name}"
            )
    if {kind: count for kind, count in manifest.objects.items() if count} != dict(per_kind):
        raise ArchiveDamaged(name, "its objects are not those of its manifest")
    return manifest


def _try_messages(part: Part, name: str) -> None:
    last = 0
    for message in messages_in(part, name):
        if message.sequence <= last:
            raise ArchiveDamaged(name, f"part {part.heading.name} is not in order")
        last = message.sequence
        datetime.fromisoformat(f"{message.stored_at[:19]}+00:00")

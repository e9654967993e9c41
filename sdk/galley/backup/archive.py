"""What is in an archive: parts of at most a few MiB, one behind the other, and at the end a manifest of them.

part   length of its heading (4 bytes), heading (JSON: name, size, count, SHA-256), compressed content
"""

import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, Final, TypeVar

import msgspec
from msgspec import Struct

from galley.backup.errors import ArchiveDamaged, ArchiveTooNew
from galley.backup.sealing import Key, sealed, unsealed
from galley.broker.snapshot import StoredMessage
from galley.broker.stream_kind import StreamKind
from galley.unreadable import UNREADABLE

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"

_LENGTH_BYTES: Final = 4
_LONGEST_HEADING: Final = 64 * 1024
_LARGEST_PART: Final = 64 * 1024**2
"""Far more than is written: a message has 1 MiB, an object of Kubernetes 1.5 MiB. Uncompressed, too."""
_LARGEST_MANIFEST: Final = 1024**3


class Heading(Struct, frozen=True, omit_defaults=True):
    """What a part is."""

    name: str
    size: int
    """Bytes of its content as it is stored, compressed."""
    count: int
    """Messages or objects in it."""
    sha256: str
    """Of the content, uncompressed."""
    stream: str = ""
    """Whose messages they are; empty for other parts."""
    round: int = 1
    """Streams are read twice: what the second round brings came while the first one was under way."""


class StreamEntry(Struct, frozen=True, rename="camel"):
    """A stream in the manifest."""

    name: str
    kind: StreamKind
    namespace: str
    queue: str
    """Empty for the streams of a namespace."""
    config: dict[str, Any]
    consumers: list[dict[str, Any]]
    messages: int
    size: int
    """Bytes of subjects, headers and bodies."""
    first_sequence: int
    last_sequence: int
    gone: bool = False
    """Whether it was deleted while it was read."""


class Need(Struct, frozen=True, order=True):
    """An object a TaskQueue names, whose content is not in the archive."""

    kind: str
    namespace: str
    name: str


class Manifest(Struct, frozen=True, rename="camel"):
    """All there is in an archive."""

    id: str
    galley: str
    """Version that wrote it."""
    server: str
    """Version of nats-server."""
    taken_at: datetime
    """When reading began: what was done by then is in the archive."""
    finished_at: datetime
    streams: list[StreamEntry]
    objects: dict[str, int]
    """How many of each kind; empty if no cluster was asked."""
    needs: list[Need]
    parts: list[Heading]
    format: int = FORMAT


class Part(Struct, frozen=True):
    """One part, in memory."""

    heading: Heading
    content: bytes
    """Uncompressed."""


_Item = TypeVar("_Item")
_encode_messages: Final = msgspec.msgpack.Encoder().encode
_decode_messages: Final = msgspec.msgpack.Decoder(list[StoredMessage]).decode
_decode_objects: Final = msgspec.json.Decoder(list[dict[str, Any]]).decode
_decode_heading: Final = msgspec.json.Decoder(Heading).decode
_decode_manifest: Final = msgspec.json.Decoder(Manifest).decode


class _Version(Struct):
    format: int


def message_part(
    name: str, stream: str, number: int, messages: Sequence[StoredMessage]
) -> tuple[Part, bytes]:
    """Return a part with messages, and its bytes."""
    return _part(name, len(messages), _encode_messages(messages), stream, number)


def object_part(name: str, objects: Sequence[dict[str, Any]]) -> tuple[Part, bytes]:
    """Return a part with objects of Kubernetes, and its bytes."""
    return _part(name, len(objects), msgspec.json.encode(objects))


def manifest_part(manifest: Manifest) -> tuple[Part, bytes]:
    """Return the last part, and its bytes."""
    return _part(MANIFEST, 1, msgspec.json.encode(manifest))


def _part(name: str, count: int, content: bytes, stream: str = "", number: int = 1) -> tuple[Part, bytes]:
    packed = zlib.compress(content, 1)
    heading = Heading(name, len(packed), count, sha256(content).hexdigest(), stream, number)
    head = msgspec.json.encode(heading)
    return Part(heading, content), len(head).to_bytes(_LENGTH_BYTES, "big") + head + packed


def messages_in(part: Part, archive: str) -> list[StoredMessage]:
    """Return the messages of a part.

    Raises:
        ArchiveDamaged: if they are not what they should be.
    """
    return _checked(part, archive, _decode_messages)


def objects_in(part: Part, archive: str) -> list[dict[str, Any]]:
    """Return the objects of a part.

    Raises:
        ArchiveDamaged: if they are not what they should be.
    """
    return _checked(part, archive, _decode_objects)


def manifest_in(part: Part, archive: str) -> Manifest:
    """Return the manifest.

    Raises:
        ArchiveTooNew: if it is of a newer version.
        ArchiveDamaged: if it cannot be read.
    """
    try:
        found = msgspec.json.decode(part.content, type=_Version).format
        if found == FORMAT:
            return _decode_manifest(part.content)
    except UNREADABLE as error:
        raise ArchiveDamaged(archive, f"its manifest cannot be read: {error}") from None
    raise ArchiveTooNew(archive, f"{found} (manifest)", str(FORMAT))


def _checked(part: Part, archive: str, decode: Callable[[bytes], list[_Item]]) -> list[_Item]:
    try:
        items = decode(part.content)
    except UNREADABLE as error:
        raise ArchiveDamaged(archive, f"part {part.heading.name} cannot be read: {error}") from None
    if len(items) != part.heading.count:
        problem = f"part {part.heading.name} has {len(items)} entries instead of {part.heading.count}"
        raise ArchiveDamaged(archive, problem)
    return items


def stored(parts: AsyncIterator[bytes], key: Key) -> AsyncIterator[bytes]:
    """Yield the bytes of an archive with these parts."""
    return sealed(parts, key)


async def parts_of(data: AsyncIterator[bytes], keys: Sequence[Key], archive: str) -> AsyncIterator[Part]:
    """Yield the parts of an archive, each after its digest was checked, up to and with the manifest.

    Raises:
        ArchiveDamaged, ArchiveKeyWrong, ArchiveTooNew: if it cannot be read.
    """
    plain = _Bytes(unsealed(data, keys, archive), archive)
    while True:
        length = int.from_bytes(await plain.exactly(_LENGTH_BYTES), "big")
        if not 0 < length <= _LONGEST_HEADING:
            raise ArchiveDamaged(archive, f"a heading of {length} bytes")
        try:
            heading = _decode_heading(await plain.exactly(length))
        except UNREADABLE as error:
            raise ArchiveDamaged(archive, f"a heading cannot be read: {error}") from None
        most = _LARGEST_MANIFEST if heading.name == MANIFEST else _LARGEST_PART
        if not 0 <= heading.size <= most:
            raise ArchiveDamaged(archive, f"part {heading.name} has {heading.size} bytes")
        unpacking = zlib.decompressobj()
        try:
            content = unpacking.decompress(await plain.exactly(heading.size), most)
        except zlib.error as error:
            raise ArchiveDamaged(archive, f"part {heading.name}: {error}") from None
        if not unpacking.eof:
            raise ArchiveDamaged(archive, f"part {heading.name} has more than {most} bytes, or is cut off")
        if sha256(content).hexdigest() != heading.sha256:
            raise ArchiveDamaged(archive, f"the digest of part {heading.name} is not that of its content")
        yield Part(heading, content)
        if heading.name == MANIFEST:
            await plain.end()
            return


class _Bytes:
    """Takes so many bytes at a time from pieces of any size."""

    def __init__(self, pieces: AsyncIterator[bytes], archive: str) -> None:
        self._pieces, self._archive = pieces, archive
        self._waiting = bytearray()

    async def exactly(self, count: int) -> bytes:
        while len(self._waiting) < count:
            piece = await anext(self._pieces, None)
            if piece is None:
                raise ArchiveDamaged(self._archive, "it ends before its manifest")
            self._waiting += piece
        taken = bytes(self._waiting[:count])
        del self._waiting[:count]
        return taken

    async def end(self) -> None:
        while not self._waiting:
            piece = await anext(self._pieces, None)
            if piece is None:
                return
            self._waiting += piece
        raise ArchiveDamaged(self._archive, "there is more after its manifest")

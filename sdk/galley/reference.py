"""References: what a task carries in the place of data that is too large to travel with it."""

import re
from typing import Annotated, Final

from msgspec import Meta, Struct

from galley.bounds import strict

INLINE_LIMIT: Final = 256 * 1024
"""Bytes of JSON up to which an input or a result travels with its task; more is stored as an object."""

LARGEST: Final = 64 * 1024**2
"""Bytes of JSON an input or a result may have at all: producer and handler hold it in memory. Files may be
larger, since they are streamed."""

_NAME_BYTES: Final = 240
"""Less than the 255 that a file system allows: programs add to it."""

_LETTERS: Final = r"^[0-9a-z][0-9a-z-]{0,99}$"
_DIGEST: Final = r"^[0-9a-f]{64}$"


class Reference(Struct, frozen=True, omit_defaults=True, gc=False):
    """Where some bytes are stored, and how they are known to be the right ones."""

    digest: Annotated[str, Meta(pattern=strict(_DIGEST))]
    """SHA-256 of the bytes, in hexadecimal digits."""
    size: Annotated[int, Meta(ge=0, le=2**53)]
    """How many there are."""
    id: Annotated[str, Meta(pattern=strict(_LETTERS))] = ""
    """What the object is called where it is stored; empty if that is its digest."""
    key: Annotated[str, Meta(max_length=64)] = ""
    """Key that encrypts it, in base64; empty if it is not encrypted. With a key it only travels encrypted."""
    store: Annotated[str, Meta(max_length=1024)] = ""
    """Address of the object store, such as `s3://bucket/prefix`; empty for the queue's own stream."""
    name: Annotated[str, Meta(max_length=255)] = ""
    """Name of the file."""

    @property
    def object(self) -> str:
        """What it is called where it is stored."""
        return self.id or self.digest


def file_name(text: str) -> str:
    """Return a name that is the name of a file in any folder, and nothing else: any producer wrote it."""
    last = text.replace("\\", "/").rpartition("/")[2].replace("\0", "")[:200]
    # A file system counts bytes, and JSON has no halves of a character.
    last = last.encode(errors="replace")[:_NAME_BYTES].decode(errors="ignore")
    return "file" if last in ("", ".", "..") else last


def is_object_name(text: str) -> bool:
    """Return whether an object may be called so: it becomes one word of a subject."""
    return re.fullmatch(_LETTERS.strip("^$"), text) is not None

"""Content: the bytes of a future object, read a part at a time, and the same at each reading."""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from galley.objects.errors import FileChanged, FileUnreadable

_BLOCK: Final = 1024**2


class Content(Protocol):
    """What is to be stored."""

    async def digest(self) -> tuple[str, int]:
        """Return SHA-256 and size."""

    def parts(self, size: int) -> AsyncGenerator[bytes, None]:
        """Yield the content in parts of a size, the last one shorter."""


class Bytes:
    """Content in memory."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    async def digest(self) -> tuple[str, int]:
        """Return SHA-256 and size."""
        return hashlib.sha256(self._data).hexdigest(), len(self._data)

    async def parts(self, size: int) -> AsyncGenerator[bytes, None]:
        """Yield the content in parts of a size, the last one shorter."""
        for start in range(0, len(self._data), size):
            yield self._data[start : start + size]


class FileContent:
    """Content of a file, which must not change between its first reading and its last.

    Raises `FileUnreadable` and `FileChanged` from both methods.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None
        self._digest = ""

    async def digest(self) -> tuple[str, int]:
        """Return SHA-256 and size."""
        self._digest, size = await asyncio.to_thread(self._read_all)
        return self._digest, size

    async def parts(self, size: int) -> AsyncGenerator[bytes, None]:
        """Yield the content in parts of a size, the last one shorter."""
        found = hashlib.sha256()
        try:
            file = await asyncio.to_thread(self._path.open, "rb")
        except OSError as error:
            raise self._unreadable(error) from None
        with file:
            while piece := await asyncio.to_thread(_filled, file, size, str(self._path)):
                found.update(piece)
                yield piece
            self._check(file)
        if self._digest and found.hexdigest() != self._digest:
            raise FileChanged(str(self._path))

    def _read_all(self) -> tuple[str, int]:
        found, size = hashlib.sha256(), 0
        try:
            with self._path.open("rb") as file:
                self._seen = state_of(file)
                while block := file.read(_BLOCK):
                    found.update(block)
                    size += len(block)
                self._check(file)
        except OSError as error:
            raise self._unreadable(error) from None
        return found.hexdigest(), size

    def _check(self, file: BinaryIO) -> None:
        if self._seen is not None and state_of(file) != self._seen:
            raise FileChanged(str(self._path))

    def _unreadable(self, error: OSError) -> FileUnreadable:
        return FileUnreadable(str(self._path), error.strerror or type(error).__name__)


def _filled(file: BinaryIO, size: int, path: str) -> bytes:
    try:
        return file.read(size)  # a buffered file reads all of it
    except OSError as error:
        raise FileUnreadable(path, error.strerror or type(error).__name__) from None


def state_of(file: BinaryIO) -> tuple[int, ...]:
    """Return what changes when the content of an open file does, or another file takes its place.

    Raises:
        OSError: if it cannot be told.
    """
    found = os.fstat(file.fileno())
    return found.st_ino, found.st_size, found.st_mtime_ns

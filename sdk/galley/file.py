"""File: a file as an argument or a result of a handler.

As JSON it is a reference. A file that is not stored yet has a mark in its place, which the client or the
worker replaces by the reference once it is stored.
"""

import hashlib
import os
import re
import secrets
import shutil
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from io import BufferedReader
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Raw

from galley.errors import InputInvalid
from galley.objects.errors import FileElsewhere, FileUnreadable
from galley.reference import Reference, file_name

FIELD: Final = "galley.file"
"""The only field of the JSON object that stands for a file."""

PUT: Final = "store the file with `galley files put QUEUE FILE`, and copy what that prints into the input"
"""What to do about an input written by hand whose file is not stored."""

_LOCAL: Final = re.compile(rb'\{"galley\.file":\{"local":"([0-9a-f]{16})"\}\}')
_marked: "weakref.WeakValueDictionary[str, File]" = weakref.WeakValueDictionary()
_here: Final[ContextVar[Mapping[str, str] | None]] = ContextVar("galley files", default=None)
"""Where the content of files is on this machine, by their digests, while an input is decoded."""

_home: Final[ContextVar[tuple[str, str] | None]] = ContextVar("galley files of", default=None)

encoded = 0
"""Files that were encoded in this process: if it has not grown, there is none in the JSON made meanwhile."""


class File:
    """A file, as an argument or a result of a handler.

    Made of a path, it is stored when its task is submitted, or when the handler returns it; its content is
    streamed and never held in memory. In a handler, the files of its input are on this machine, read-only.
    `client.download(file, to)` gets one from a result.
    """

    def __init__(self, path: str | os.PathLike[str], *, name: str = "") -> None:
        """Describe a file.

        Args:
            path: where it is; it must stay there, unchanged, until it is stored.
            name: what it is called for the handler; the last part of the path by default.

        Raises:
            FileUnreadable: if there is no such file, or it is a folder.
        """
        self._path: Path | None = Path(path).absolute()
        self.reference: Reference | None = None
        """Where it is stored; None until it is."""
        self.home: tuple[str, str] | None = None
        """Namespace and queue whose objects it is among; None if it is not stored, or that is not known."""
        self.name = file_name(name or self._path.name)
        self.mark = ""
        """What stands in its place in JSON until it is stored."""
        try:
            found = self._path.stat()
        except OSError as error:
            raise FileUnreadable(str(path), error.strerror or type(error).__name__) from None
        except ValueError:
            raise FileUnreadable(repr(str(path)), "its path has a zero byte") from None
        if not self._path.is_file():
            raise FileUnreadable(str(path), "it is not a file")
        self._size = found.st_size

    @classmethod
    def stored(cls, reference: Reference, path: Path | None = None) -> "File":
        """Return a file that is stored; `path` is where its content is on this machine, if it is."""
        file = cls.__new__(cls)
        file._path, file.reference, file.name, file.mark = path, reference, reference.name, ""  # noqa: SLF001
        file.home = _home.get()
        file._size = reference.size  # noqa: SLF001 - of this very class
        return file

    @property
    def size(self) -> int:
        """Bytes of its content."""
        return self._size

    @property
    def here(self) -> bool:
        """Whether its content is on this machine."""
        return self._path is not None

    @property
    def digest(self) -> str:
        """SHA-256 of its content, in hexadecimal digits; empty until it is stored."""
        return self.reference.digest if self.reference else ""

    def path(self) -> Path:
        """Return where its content is on this machine.

        Raises:
            FileElsewhere: if it is not here.
        """
        if self._path is None:
            raise FileElsewhere(self.name)
        return self._path

    def open(self) -> BufferedReader:
        """Open it for reading, as bytes.

        Raises:
            FileElsewhere: if its content is not on this machine.
            FileUnreadable: if it cannot be read.
        """
        path = self.path()
        try:
            return path.open("rb")
        except OSError as error:
            raise FileUnreadable(str(path), error.strerror or type(error).__name__) from None

    def read(self) -> bytes:
        """Return its whole content; `open` streams it instead.

        Raises:
            FileElsewhere, FileUnreadable: as `open`.
        """
        with self.open() as file:
            return file.read()

    def save(self, to: str | os.PathLike[str]) -> Path:
        """Copy its content to a path, atomically, and return the path.

        Args:
            to: the path; in a folder it gets the name of the file.

        Raises:
            FileElsewhere: if its content is not on this machine; `client.download` gets it.
            FileUnreadable: if it cannot be read, or the path not written.
        """
        target = Path(to) / self.name if Path(to).is_dir() else Path(to)
        part = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with self.open() as source, part.open("wb") as copy:
                shutil.copyfileobj(source, copy, 1024**2)
            part.replace(target)
        except OSError as error:
            raise FileUnreadable(str(target), error.strerror or type(error).__name__) from None
        finally:
            with suppress(OSError):  # where nothing can be written, there is nothing to remove
                part.unlink()
        return target

    def hashed(self) -> Reference:
        """Return what its reference will say of its content.

        Raises:
            FileElsewhere, FileUnreadable: as `open`.
        """
        if self.reference is not None:
            return self.reference
        with self.open() as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return Reference(digest, self.size, name=self.name)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, File):
            return NotImplemented
        if self.reference and other.reference:
            return (self.digest, self.name) == (other.digest, other.name)
        return (self._path, self.name) == (other._path, other.name)

    def __hash__(self) -> int:
        return hash(self.name)

    def __repr__(self) -> str:
        return f"<file {self.name!r}, {self.size} bytes>"

    def as_json(self) -> Raw:
        """Return what stands for it in JSON: the reference, or a mark if it is not stored yet."""
        global encoded  # noqa: PLW0603 - one per process
        encoded += 1
        if self.reference is not None:
            return Raw(_written(self.reference))
        if not self.mark:
            self.mark = secrets.token_hex(8)
            _marked[self.mark] = self
        return Raw(b'{"%s":{"local":"%s"}}' % (FIELD.encode(), self.mark.encode()))


def _written(reference: Reference) -> bytes:
    return msgspec.json.encode({FIELD: reference})


def from_json(value: Any) -> File:
    """Return the file that some JSON stands for.

    Raises:
        ValueError: if it stands for none.
    """
    inner = value.get(FIELD) if isinstance(value, dict) and len(value) == 1 else None
    if isinstance(inner, dict) and isinstance(mark := inner.get("local"), str):
        found = _marked.get(mark)
        if found is None:
            raise ValueError("a file of another process, which was not stored")
        return found
    reference = msgspec.convert(inner, Reference) if inner is not None else None
    if reference is None:
        raise ValueError("Expected a file, as galley.File(path) makes it or `galley files put` prints it")
    reference = msgspec.structs.replace(reference, name=file_name(reference.name))
    place = (_here.get() or {}).get(f"{reference.digest}/{reference.name}")
    return File.stored(reference, Path(place) if place else None)


@contextmanager
def files_here(places: Mapping[str, str]) -> Iterator[None]:
    """Have files that are decoded know where their content is: paths by digest and name."""
    token = _here.set(places)
    try:
        yield
    finally:
        _here.reset(token)


@contextmanager
def files_of(namespace: str, queue: str) -> Iterator[None]:
    """Have files that are decoded know among whose objects they are."""
    token = _home.set((namespace, queue))
    try:
        yield
    finally:
        _home.reset(token)


def files_in(data: bytes | Raw) -> tuple[File, ...]:
    """Return the files in some JSON, each mark once."""
    found: dict[Any, File] = {}

    def walk(value: Any) -> None:
        if isinstance(value, list):
            for each in value:
                walk(each)
        elif isinstance(value, dict):
            if FIELD in value and len(value) == 1:
                file = from_json(value)
                found[file.mark or (file.digest, file.name)] = file
            else:
                for each in value.values():
                    walk(each)

    walk(msgspec.json.decode(data))
    return tuple(found.values())


def files_of_input(handler: str, data: Raw) -> tuple[File, ...]:
    """Return the files in an input that was written by hand.

    Raises:
        InputInvalid: what stands for a file is none.
    """
    if FIELD.encode() not in bytes(data):
        return ()
    try:
        return files_in(data)
    except ValueError as error:
        raise InputInvalid(handler, f"{FIELD}: {error}", PUT) from None


def with_files(value: Any) -> Any:
    """Return a decoded JSON value with files in the place of what stands for them."""
    if isinstance(value, list):
        return [with_files(each) for each in value]
    if not isinstance(value, dict):
        return value
    if FIELD in value and len(value) == 1:
        try:
            return from_json(value)
        except ValueError:
            return value
    return {name: with_files(each) for name, each in value.items()}


def with_references(data: bytes | Raw, references: Mapping[str, Reference]) -> bytes:
    """Return JSON with references in the places of files that were not stored, by their marks."""
    return _LOCAL.sub(lambda found: _written(references[found[1].decode()]), bytes(data))

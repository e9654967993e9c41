"""Node cache: a folder that processes of one machine share, so that each object is fetched once.

    content/QUEUE.DIGEST   complete objects; the time of change is that of no real file, so a change shows
    locks/XX          one process fetches an object, the others wait
    partial/          what is being fetched
    use/PROCESS/N/    links that attempts in progress read, so that making room takes nothing away from them
    spool/PROCESS/    what handlers return, until it is stored

Each queue has objects of its own, so a task that names the digest of another queue's object does not get it
here either. The kernel releases the lock of a process that is killed, and the next one begins from the start.
"""

import asyncio
import errno
import fcntl
import hashlib
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from galley.objects.content import state_of
from galley.objects.errors import CacheUnusable, FileChanged
from galley.reference import Reference, file_name

log = logging.getLogger(__name__)

DEFAULT_BYTES: Final = 1024**3

_CHANGED_AT: Final = 86_400 * 10**9
"""Time of change of complete objects, in nanoseconds since 1970."""
_LOCKS: Final = 256
_LOOK_SECONDS: Final = 0.05


def default_folder() -> Path:
    """Return where the cache is if nothing else is said: it belongs to the user."""
    return Path(tempfile.gettempdir()) / f"galley-cache-{os.getuid()}"


Fetch: TypeAlias = Callable[[], AsyncGenerator[bytes, None]]
"""Yields the content of an object, and raises at its end if it is not the right one."""


class NodeCache:
    """The cache, for one process. Use it as `with NodeCache(...)`."""

    def __init__(self, folder: Path, limit: int = DEFAULT_BYTES, queue: str = "") -> None:
        """Describe the cache.

        Args:
            folder: where it is; made if it is not there. Only processes that trust each other may share it.
            limit: bytes above which the objects that were not used for the longest time go.
            queue: namespace and name of the queue whose objects these are; others in the folder are not used.
        """
        self.folder, self.limit, self._queue = folder, limit, queue
        self.hits = self.fetches = self.fetched_bytes = 0
        self._own = f"{os.getpid()}-{secrets.token_hex(4)}"
        self._count = 0
        self._life: int | None = None

    @property
    def spool(self) -> Path:
        """Folder for what handlers of this worker return."""
        return self.folder / "spool" / self._own

    def __enter__(self) -> "NodeCache":
        """Make the folders, and remove what processes that are gone have left.

        Raises:
            CacheUnusable: if they cannot be made.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.folder.stat().st_uid != os.getuid():
                raise CacheUnusable(
                    str(self.folder), "it belongs to another user, who could change its files"
                )
            for name in ("content", "locks", "partial", "alive"):
                (self.folder / name).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._life = _locked(self.folder / "alive" / self._own)
            for name in ("use", "spool"):
                (self.folder / name / self._own).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._remove_left()
        except OSError as error:
            raise CacheUnusable(str(self.folder), error.strerror or type(error).__name__) from None
        return self

    def __exit__(self, *_: object) -> None:
        self._remove(self._own)
        if self._life is not None:
            os.close(self._life)

    @asynccontextmanager
    async def holding(self, wanted: Sequence[tuple[Reference, Fetch]]) -> AsyncIterator[dict[str, str]]:
        """Have objects here, and yield their paths by `digest/name`; they stay until the block ends.

        Raises:
            CacheUnusable: if there is no room on the disk.
            As the fetches raise.
        """
        self._count += 1
        folder = self.folder / "use" / self._own / str(self._count)
        places: dict[str, str] = {}
        try:
            for number, (reference, fetch) in enumerate(wanted):
                name = reference.name and file_name(reference.name)
                link = folder / str(number) / (name or "input.json")
                await self._link(reference, fetch, link)
                places[f"{reference.digest}/{name}"] = str(link)
            yield places
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            raise CacheUnusable(str(self.folder), error.strerror or "no room") from None
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _link(self, reference: Reference, fetch: Fetch, link: Path) -> None:
        link.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = self._content(reference.digest)
        if await asyncio.to_thread(_linked, content, link, reference.size):
            self.hits += 1
            return
        async with self._alone(reference.digest):
            if await asyncio.to_thread(_linked, content, link, reference.size):
                self.hits += 1
                return
            await self._fetch(reference, fetch, content, link)
        await asyncio.to_thread(self.make_room)

    async def _fetch(self, reference: Reference, fetch: Fetch, content: Path, link: Path) -> None:
        partial = self.folder / "partial" / f"{reference.digest}.{self._own}"
        try:
            with partial.open("wb") as file:
                async with aclosing(fetch()) as pieces:
                    async for piece in pieces:
                        await asyncio.to_thread(file.write, piece)
            # In use before it can be seen: another process may need its room at once.
            await asyncio.to_thread(os.link, partial, link)
            await asyncio.to_thread(_complete, partial, content)
        finally:
            partial.unlink(missing_ok=True)
        log.info("object fetched", extra={"digest": reference.digest, "bytes": reference.size})
        self.fetches += 1
        self.fetched_bytes += reference.size

    def adopt(self, spooled: Path, digest: str) -> None:
        """Keep a file of the spool, which is stored now, as an object."""
        with suppress(OSError):  # the next reader fetches it
            _complete(spooled, self._content(digest))
            self.make_room()
        spooled.unlink(missing_ok=True)

    def _content(self, digest: str) -> Path:
        return self.folder / "content" / (f"{self._queue}.{digest}" if self._queue else digest)

    def make_room(self) -> None:
        """Remove the objects that were not used for the longest time, until the rest is within the limit."""
        found = []
        for entry in self._entries():
            with suppress(FileNotFoundError):
                state = entry.stat()
                found.append((state.st_atime_ns, state.st_size, entry))
        over = sum(size for _, size, _ in found) - self.limit
        for _, size, entry in sorted(found, key=lambda each: each[0]):
            if over <= 0:
                return
            with suppress(FileNotFoundError):
                entry.unlink()
            over -= size

    @property
    def size(self) -> int:
        """Bytes of the objects in it."""
        total = 0
        for entry in self._entries():
            with suppress(FileNotFoundError):
                total += entry.stat().st_size
        return total

    def _entries(self) -> Iterator[Path]:
        yield from (self.folder / "content").iterdir()

    @asynccontextmanager
    async def _alone(self, digest: str) -> AsyncIterator[None]:
        """Be the only one of all processes that fetches an object."""
        path = self.folder / "locks" / f"{int(digest[:8], 16) % _LOCKS:02x}"
        lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            while not _taken(lock):  # noqa: ASYNC110 - the event would be in another process
                # Asked for again and again rather than waited for, so that the wait can be cancelled.
                await asyncio.sleep(_LOOK_SECONDS)
            yield
        finally:
            os.close(lock)

    def _remove_left(self) -> None:
        for alive in (self.folder / "alive").iterdir():
            if alive.name == self._own:
                continue
            with _opened(alive) as number:
                if number is not None and _taken(number):
                    self._remove(alive.name)

    def _remove(self, process: str) -> None:
        for folder in ("use", "spool"):
            shutil.rmtree(self.folder / folder / process, ignore_errors=True)
        for partial in (self.folder / "partial").glob(f"*.{process}"):
            partial.unlink(missing_ok=True)
        (self.folder / "alive" / process).unlink(missing_ok=True)


_NO_ROOM: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


def _linked(content: Path, link: Path, size: int) -> bool:
    """Link to an object if it is complete and unchanged; one that was changed is removed."""
    try:
        state = content.stat()
        if state.st_size == size and state.st_mtime_ns == _CHANGED_AT:
            os.utime(content, ns=(_now(), _CHANGED_AT))
            os.link(content, link)
            return True
        content.unlink()
    except FileNotFoundError:
        pass
    return False


def _complete(path: Path, content: Path) -> None:
    path.chmod(0o444)
    os.utime(path, ns=(_now(), _CHANGED_AT))
    path.replace(content)


def _now() -> int:
    return time.time_ns()


def _locked(path: Path) -> int:
    """Make a file and lock it; returns its descriptor.

    Before it is locked, a process that begins at the same time may take it for one that was left, and
    remove it.
    """
    while True:
        number = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(number, fcntl.LOCK_EX)
        if os.fstat(number).st_nlink:
            return number
        os.close(number)


def _taken(number: int) -> bool:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _opened(path: Path) -> Iterator[int | None]:
    try:
        number = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        yield None
        return
    try:
        yield number
    finally:
        os.close(number)


def spooled(folder: Path, source: BinaryIO) -> tuple[Path, str, int]:
    """Copy an open file into a spool; returns where, the digest and the size.

    Raises:
        FileChanged: if it changed meanwhile.
        OSError: if it cannot be read, or the copy not written.
    """
    target = folder / secrets.token_hex(8)
    found, size = hashlib.sha256(), 0
    before = state_of(source)
    try:
        with target.open("wb") as copy:
            while block := source.read(1024**2):
                found.update(block)
                copy.write(block)
                size += len(block)
        changed = state_of(source) != before
    except OSError:
        target.unlink(missing_ok=True)
        raise
    if changed:
        target.unlink()
        raise FileChanged(str(source.name))
    return target, found.hexdigest(), size


def spooled_bytes(folder: Path, data: bytes) -> tuple[Path, str, int]:
    """Write bytes into a spool; returns where, the digest and the size.

    Raises:
        OSError: if they cannot be written.
    """
    target = folder / secrets.token_hex(8)
    try:
        target.write_bytes(data)
    except OSError:
        target.unlink(missing_ok=True)
        raise
    return target, hashlib.sha256(data).hexdigest(), len(data)

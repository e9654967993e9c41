"""Where archives are kept: a folder, or a bucket of an object store with the S3 protocol."""

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, NamedTuple, Protocol, TypeVar

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from galley.backup.errors import ArchiveNotFound, DestinationFailed, DestinationInvalid

_PIECE: Final = 1024**2
_UPLOAD_PART: Final = 8 * 1024**2
_UPLOADS_AT_ONCE: Final = 2
_UNFINISHED: Final = ".part"
_STALE_SECONDS: Final = 24 * 3600
RETRY_SECONDS: Final = 60.0
"""How long an object store that refuses is asked again."""

_STATUS: Final = "Server returned non-2xx status code: "
"""What the library's errors have before the status of an answer."""

T = TypeVar("T")


class Stored(NamedTuple):
    """A file at a destination."""

    name: str
    size: int
    changed_at: datetime


class Destination(Protocol):
    """A place for files. All methods raise `DestinationFailed` if the place does not do what is asked."""

    def __str__(self) -> str:
        """Return its name, for people."""

    async def write(self, name: str, data: AsyncIterator[bytes]) -> None:
        """Store a file, all of it or nothing."""

    def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield a file.

        Raises:
            ArchiveNotFound: if there is none of that name.
        """

    async def files(self) -> list[Stored]:
        """Return all files, by name."""

    async def remove(self, name: str) -> None:
        """Delete a file, if it is there."""


def destination_at(
    place: str, environ: Mapping[str, str] = os.environ, *, retry_seconds: float = RETRY_SECONDS
) -> Destination:
    """Return a destination.

    Args:
        place: path of a folder, or `s3://BUCKET/PREFIX`.
        environ: for S3, `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`, and for other
            services than Amazon's `AWS_ENDPOINT_URL`; further variables as its own tools have them.
        retry_seconds: how long an object store that refuses or does not answer is asked again.

    Raises:
        DestinationInvalid: if it is none.
    """
    if place.startswith("s3://"):
        return Bucket(place, environ, retry_seconds)
    if "://" in place:
        raise DestinationInvalid(place, "it is neither a folder nor s3://")
    return Folder(Path(place))


class Folder:
    """A folder, such as a mounted volume. Files appear in it complete."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        if not path.is_dir():
            raise DestinationInvalid(str(path), "there is no such folder")
        self._path, self._clock = path, clock

    def __str__(self) -> str:
        return str(self._path)

    async def write(self, name: str, data: AsyncIterator[bytes]) -> None:
        """Store a file, all of it or nothing."""
        await self._do("write", self._remove_stale)
        # Others may write there: a link or a pipe that has the name of this file must not take its place.
        unfinished = self._path / f"{name}.{secrets.token_hex(8)}{_UNFINISHED}"
        file = await self._do("write", lambda: unfinished.open("xb"))
        try:
            async for piece in data:
                await self._do("write", partial(file.write, piece))
            await self._do("write", partial(_flushed, file))
            await self._do("write", lambda: unfinished.replace(self._path / name))
            await self._do("write", self._sync)
        finally:
            with _ignored():
                file.close()
            with _ignored():
                unfinished.unlink(missing_ok=True)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield a file."""
        try:
            file = (self._path / name).open("rb")
        except FileNotFoundError:
            raise ArchiveNotFound(name, str(self)) from None
        except OSError as error:
            raise self._failure("read", error, name) from error
        with file:
            try:
                while piece := await asyncio.to_thread(file.read, _PIECE):
                    yield piece
            except OSError as error:
                raise self._failure("read", error, name) from error

    async def files(self) -> list[Stored]:
        """Return all files, by name."""

        def listed() -> list[Stored]:
            found = [each for each in self._path.iterdir() if each.is_file() and each.suffix != _UNFINISHED]
            stats = [(each.name, each.stat()) for each in sorted(found)]
            return [
                Stored(name, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC)) for name, stat in stats
            ]

        return await self._do("list archives", listed)

    async def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        await self._do("delete", lambda: (self._path / name).unlink(missing_ok=True))

    def _remove_stale(self) -> None:
        """Remove what a process that was killed has left."""
        for each in self._path.glob(f"*{_UNFINISHED}"):
            if each.lstat().st_mtime < self._clock() - _STALE_SECONDS:
                with _ignored():  # others may have made a folder of that name
                    each.unlink(missing_ok=True)

    def _sync(self) -> None:
        folder = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    async def _do(self, action: str, what: Callable[[], T]) -> T:
        try:
            return await asyncio.to_thread(what)
        except OSError as error:
            raise self._failure(action, error) from error

    def _failure(self, action: str, error: OSError, file: str = "") -> DestinationFailed:
        hint = (
            "free some space, or enlarge the volume"
            if error.errno in _FULL
            else "check the volume and its rights"
        )
        return DestinationFailed(str(self), action, error.strerror or type(error).__name__, hint, file)


def _flushed(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


_FULL: Final = frozenset((28, 122))
"""No space left on device; quota exceeded."""


class _ignored:  # noqa: N801 - reads as a statement
    """Ignores errors of closing a file that is given up."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return isinstance(error, OSError)


class Bucket:
    """A prefix in a bucket. Files are uploaded in parts, of which two are in memory at a time."""

    def __init__(self, place: str, environ: Mapping[str, str], retry_seconds: float) -> None:
        bucket, _, prefix = place.removeprefix("s3://").partition("/")
        if not bucket:
            raise DestinationInvalid(place, "it names no bucket")
        self._place, self._prefix = place, prefix.strip("/")
        config = {name.lower(): text for name, text in environ.items() if name.startswith("AWS_")}
        endpoint = config.get("aws_endpoint_url") or config.get("aws_endpoint") or ""
        options: dict[str, Any] = {"allow_http": True} if endpoint.startswith("http://") else {}
        try:
            self._store = S3Store(
                bucket,
                config=_known(config),  # type: ignore[arg-type]
                client_options=options,  # type: ignore[arg-type]
                retry_config={
                    "max_retries": 100,
                    "retry_timeout": timedelta(seconds=retry_seconds),
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=200),
                        "max_backoff": timedelta(seconds=5),
                        "base": 2,
                    },
                },
            )
        except BaseError as error:
            raise DestinationInvalid(place, _told(error)) from None

    def __str__(self) -> str:
        return self._place

    async def write(self, name: str, data: AsyncIterator[bytes]) -> None:
        """Store a file, all of it or nothing."""
        upload = obstore.put_async(
            self._store, self._key(name), data, chunk_size=_UPLOAD_PART, max_concurrency=_UPLOADS_AT_ONCE
        )
        await self._do("write", upload)

    async def read(self, name: str) -> AsyncIterator[bytes]:
        """Yield a file."""
        found = await self._do("read", obstore.get_async(self._store, self._key(name)), name)
        pieces = aiter(found.stream(min_chunk_size=_PIECE))
        while True:
            piece = await self._do("read", anext(pieces, None))
            if piece is None:
                return
            yield bytes(piece)

    async def files(self) -> list[Stored]:
        """Return all files, by name."""
        found: list[Stored] = []
        prefix = f"{self._prefix}/" if self._prefix else None
        pages = aiter(obstore.list(self._store, prefix=prefix))
        while (page := await self._do("list archives", anext(pages, None))) is not None:
            for each in page:
                name = each["path"].removeprefix(prefix or "")
                if "/" not in name:
                    found.append(Stored(name, each["size"], each["last_modified"]))
        return sorted(found)

    async def remove(self, name: str) -> None:
        """Delete a file, if it is there."""
        try:
            await self._do("delete", obstore.delete_async(self._store, self._key(name)), name)
        except ArchiveNotFound:
            return

    def _key(self, name: str) -> str:
        return f"{self._prefix}/{name}" if self._prefix else name

    async def _do(self, action: str, what: Any, name: str = "") -> Any:
        try:
            return await what
        except FileNotFoundError as error:
            if name:
                raise ArchiveNotFound(name, self._place) from error
            raise self._failure(action, error, "create the bucket, or correct its name") from error
        except (PermissionDeniedError, UnauthenticatedError) as error:
            hint = "check the AWS_... variables, and what the bucket allows them"
            raise self._failure(action, error, hint, name) from error
        except (BaseError, OSError) as error:
            hint = "check that the bucket exists, and try again when the object store answers"
            # Such as an object that another one has encrypted with a key of its own.
            refused = name if f"{_STATUS}4" in str(error) else ""
            raise self._failure(action, error, hint, refused) from error

    def _failure(self, action: str, error: BaseException, hint: str, file: str = "") -> DestinationFailed:
        return DestinationFailed(self._place, action, _told(error), hint, file)


def _known(config: Mapping[str, str]) -> dict[str, str]:
    """Return the settings the library knows; AWS_PROFILE and the like are for other tools."""
    names = {
        "aws_access_key_id", "aws_secret_access_key", "aws_session_token", "aws_region", "aws_default_region",
        "aws_endpoint", "aws_endpoint_url", "aws_virtual_hosted_style_request", "aws_web_identity_token_file",
        "aws_role_arn", "aws_role_session_name", "aws_container_credentials_relative_uri",
    }  # fmt: skip
    return {name: text for name, text in config.items() if name in names and text}


def _told(error: BaseException) -> str:
    """Return what the object store said, without the library's account of how it came to hear it."""
    first = (str(error).strip() or type(error).__name__).splitlines()[0]
    said = first.rpartition(_STATUS)[2].partition(": <")[0].strip()
    return said if len(said) <= 300 else f"{said[:300]}..."

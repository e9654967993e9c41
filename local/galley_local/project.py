"""The folder `.galley` of a project, in which `galley dev` keeps its data."""

import base64
import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from galley import dev_file
from galley.cli.output import rfc_3339
from galley.dev_file import DevFile
from galley.resources import TaskQueue
from galley_local.errors import DevRunsAlready, DiskFull, FolderUnusable

ROOM_NEEDED: Final = 64 * 1024**2
"""Bytes that must be free at the start; with less, tasks would soon be refused."""


class Project:
    """A project folder, used by one `galley dev` at a time. Use it as a context manager."""

    def __init__(self, folder: Path, *, room: int = ROOM_NEEDED) -> None:
        """Args: folder: of the project; room: bytes that must be free on its disk."""
        self._room = room
        self.folder = folder
        self.own = folder / dev_file.FOLDER
        self.nats = self.own / "nats"
        self.logs = self.own / "logs"
        self.manifests = self.own / "queues"
        self.served = self.own / "served"

    def __enter__(self) -> Self:
        """Lock the folder.

        Raises:
            DevRunsAlready: if another process uses it.
            DiskFull: if there is too little free space.
        """
        try:
            self.own.mkdir(exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            # So that the folder is not committed by accident.
            (self.own / ".gitignore").write_text("*\n")
            self._lock = (self.own / "lock").open("a+")
        except OSError as error:
            if error.errno in _NO_ROOM:
                raise DiskFull(str(self.own), 0, self._room) from error
            in_the_way = os.path.lexists(self.own) and not self.own.is_dir()
            hint = f"move {self.own} away: it is not a folder" if in_the_way else None
            raise FolderUnusable(str(self.own), error.strerror or str(error), hint) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.seek(0)
            holder = self._lock.read() or "unknown"
            self._lock.close()
            raise DevRunsAlready(str(self.folder), holder) from None
        if (free := self._free()) < self._room:
            self._lock.close()
            raise DiskFull(str(self.own), free, self._room)
        self._lock.truncate(0)
        self._lock.write(str(os.getpid()))
        self._lock.flush()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        dev_file.path_in(self.folder).unlink(missing_ok=True)
        self._lock.close()

    @property
    def cramped(self) -> bool:
        """Whether the disk has too little free space to continue."""
        return self._free() < self._room

    def _free(self) -> int:
        return shutil.disk_usage(self.own).free

    def forget(self) -> None:
        """Delete all tasks, records and logs of earlier runs."""
        for folder in (self.nats, self.logs, self.manifests):
            shutil.rmtree(folder, ignore_errors=True)
        self.logs.mkdir(exist_ok=True)

    def declare(self, queues: Iterable[TaskQueue]) -> None:
        """Keep the manifests of the queues that are served, which `galley apply` compares with."""
        shutil.rmtree(self.served, ignore_errors=True)
        for queue in queues:
            file = dev_file.queue_file(self.folder, queue.metadata.namespace, queue.metadata.name)
            file.parent.mkdir(exist_ok=True)
            file.write_text(queue.model_dump_json(by_alias=True) + "\n")

    def signing_key(self, secret: str) -> Path:
        """Return the folder with the key of this project that stands for a Secret; it is made once.

        Raises:
            FolderUnusable: if it cannot be written.
        """
        folder = self.own / "signing" / secret
        key = folder / "key"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not key.exists():
                key.touch(0o600)
                key.write_text(f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}\n")
        except OSError as error:
            raise FolderUnusable(str(folder), error.strerror or str(error)) from error
        return folder

    def announce(self, server: str, namespace: str, http: str = "") -> None:
        """Write the file by which commands in other terminals find this server.

        Args:
            server: address of NATS.
            namespace: the default namespace of those commands.
            http: address of the HTTP API; empty if none is served.
        """
        started = rfc_3339(datetime.now(UTC))
        with contextlib.suppress(OSError):  # a full disk: commands can still use --server
            dev_file.write(self.folder, DevFile(server, namespace, os.getpid(), started, http))


_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT)

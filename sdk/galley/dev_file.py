"""`.galley/dev.json`: where the `galley dev` of a folder can be reached."""

import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from galley.unreadable import UNREADABLE

FOLDER: Final = ".galley"
_NAME: Final = "dev.json"


class DevFile(Struct, frozen=True, omit_defaults=True):
    """What a running `galley dev` tells other commands."""

    server: str
    namespace: str
    pid: int
    started: str
    """RFC 3339."""
    http: str = ""
    """Address of the HTTP API and the dashboard; empty if none is served."""

    @property
    def alive(self) -> bool:
        """Whether the process that wrote it still runs."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # another user's process, but it runs
        return True


def here() -> Path:
    """Return the working folder, or what it was if it has been removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path(os.environ.get("PWD", "/nonexistent"))


def path_in(project: Path) -> Path:
    """Return where a project folder keeps the file."""
    return project / FOLDER / _NAME


def queue_file(project: Path, namespace: str, queue: str) -> Path:
    """Return where a running `galley dev` keeps the manifest of a queue it serves."""
    return project / FOLDER / "served" / f"{namespace}.{queue}.json"


def write(project: Path, content: DevFile) -> None:
    """Write the file whole: a reader never sees half of it."""
    path = path_in(project)
    fresh = path.with_suffix(".new")
    fresh.write_bytes(msgspec.json.encode(content) + b"\n")
    fresh.replace(path)


def nearest(folder: Path) -> tuple[Path, DevFile] | None:
    """Return the file of the folder, or else of the nearest one above that has one that can be read."""
    for project in (folder, *folder.parents):
        path = path_in(project)
        try:
            return path, msgspec.json.decode(path.read_bytes(), type=DevFile)
        except (OSError, *UNREADABLE):
            continue
    return None

"""Where finished images are kept: one archive for each content, the last few of each name."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from testcluster.progress import Say

_KEPT: Final = 4
"""Archives of one image: that of the release before, the present one, and those of branches."""


def folder() -> Path:
    """Return the folder of all that is kept, `~/.cache/galley/images` or `$GALLEY_CACHE/images`."""
    chosen = os.environ.get("GALLEY_CACHE")
    path = (Path(chosen) if chosen else Path.home() / ".cache" / "galley") / "images"
    path.mkdir(parents=True, exist_ok=True)
    return path


def archive(name: str, content: str) -> Path:
    """Return the place of an archive, whether or not it is there."""
    return folder() / f"{name}-{content}.tar"


def found(name: str, content: str) -> Path | None:
    """Return an archive if it is there, and note that it is still in use."""
    path = archive(name, content)
    try:
        os.utime(path)
    except FileNotFoundError:
        return None
    return path


def drop_old(name: str) -> None:
    """Delete archives of an image that were not used for the longest time."""
    length = len(archive(name, "").stem) + 12
    ours = [path for path in folder().glob(f"{name}-*.tar") if len(path.stem) == length]
    for path in sorted(ours, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
        path.unlink(missing_ok=True)


@contextmanager
def lock(say: Say) -> Iterator[None]:
    """Keep other builders out; wait for one that is at it."""
    with (folder() / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another process builds images; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield

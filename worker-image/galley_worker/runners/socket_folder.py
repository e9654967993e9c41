"""Where multiprocessing puts the socket of its fork server: in a folder that goes with the worker.

The path of a Unix socket has at most 107 bytes, which a long TMPDIR exceeds. And a worker that is killed
cannot remove its folder, so the next one does. There is no public way to name a folder for the socket alone.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import process
from pathlib import Path
from typing import Any, Final

_PREFIX: Final = "galley-socket-"
_LONGEST: Final = 107 - len(f"/{_PREFIX}12345678/listener-12345678")
_SHORT: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - made by mkdtemp, for us alone
_LOCK: Final = "lock"


@contextmanager
def socket_folder() -> Iterator[None]:
    """Have multiprocessing use a folder with a short path, and remove those that killed workers left.

    Raises:
        OSError: if there is no folder for temporary files.
    """
    parent = Path(tempfile.gettempdir())
    if len(os.fsencode(parent)) > _LONGEST:
        parent = next((Path(each) for each in _SHORT if os.access(each, os.W_OK | os.X_OK)), parent)
    remove_left(parent)
    # Not a TemporaryDirectory: a fork of this process that ends in order would remove it.
    folder = tempfile.mkdtemp(prefix=_PREFIX, dir=parent)
    current: Any = process.current_process()
    try:
        with (Path(folder) / _LOCK).open("w") as lock:
            # As long as it is locked its worker runs, in whichever container that shares the parent.
            fcntl.flock(lock, fcntl.LOCK_EX)
            current._config["tempdir"] = folder  # noqa: SLF001
            yield
    finally:
        current._config.pop("tempdir", None)  # noqa: SLF001
        shutil.rmtree(folder, ignore_errors=True)


def remove_left(parent: Path) -> None:
    """Remove the folders of workers that were killed; one that is in use, or of another user, stays."""
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            with (folder / _LOCK).open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # locked, just made, of another user, or removed by another worker

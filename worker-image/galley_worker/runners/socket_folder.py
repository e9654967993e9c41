"""Where multiprocessing puts the socket of its fork server: in a folder whose path a socket may have.

The path of a Unix socket has at most 107 bytes, which a long TMPDIR exceeds. There is no public way to name
another folder for the socket alone.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import process
from typing import Any, Final

_LONGEST: Final = 107 - len("/pymp-12345678/listener-12345678")
_SHORT: Final = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - made by mkdtemp, for us alone


@contextmanager
def short_socket_folder() -> Iterator[None]:
    """Have multiprocessing use a folder with a short path, if the one for temporary files is too long."""
    if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST:
        yield
        return
    parent = next((each for each in _SHORT if os.access(each, os.W_OK | os.X_OK)), None)
    with tempfile.TemporaryDirectory(prefix="galley-", dir=parent, ignore_cleanup_errors=True) as folder:
        current: Any = process.current_process()
        current._config["tempdir"] = folder  # noqa: SLF001
        try:
            yield
        finally:
            current._config.pop("tempdir", None)  # noqa: SLF001

"""Ports for servers that have to be told theirs before they start.

A port that is free when a test looks for one may be taken when its server starts: the kernel gives ports of
its range to any process that asks. Ours are below that range, and each belongs to one process until it ends.
"""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from typing import Final

_PORTS: Final = range(20000, 30000)
"""Below the range of the kernel (32768 and up) and of Kubernetes' NodePorts."""

_held: list[int] = []
"""Locked files; the end of this process unlocks them."""


def free_port() -> int:
    """Return a port that nothing listens on, and that no other test gets while this process runs."""
    folder = Path(tempfile.gettempdir()) / f"galley-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for port in random.sample(_PORTS, len(_PORTS)):
        file = os.open(folder / str(port), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        if _lock(file) and _nothing_listens_on(port):
            _held.append(file)
            return port
        os.close(file)
    raise AssertionError(f"all of {len(_PORTS)} ports are taken")


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _nothing_listens_on(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True

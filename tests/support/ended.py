"""A pytest plugin that ends the processes which tests have started and left, however the test run ends.

A run that is killed cannot end them itself, and they are in sessions of their own. So each process of pytest
starts a watcher that reads from a pipe: it reads the end when the process that holds the other side is gone.
Then it kills all that have the mark of the run in their environment, which each process inherits.
"""

import os
import secrets
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

MARK: Final = "PYTEST_RUN_OF_GALLEY"
"""No name of a variable of Galley: those are taken from what it starts by some tests."""

_held: list[int] = []
"""The other side of the pipe, which only the end of this process closes."""


def pytest_configure() -> None:
    """Start the watcher."""
    watch()


def watch() -> None:
    """Mark what this process starts from now on, and have it killed once this process is gone."""
    reader, writer = os.pipe()
    mark = secrets.token_hex(8)
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    # It has a session of its own, since Ctrl-C and a closed terminal end those of ours.
    os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", __file__, mark],
        environment,
        file_actions=[
            (os.POSIX_SPAWN_DUP2, reader, 0),
            (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    os.close(reader)
    _held.append(writer)
    os.environ[MARK] = mark


def _kill_all(mark: bytes) -> None:
    """Kill them until there are none: one may have started another meanwhile."""
    while left := [process for process in Path("/proc").iterdir() if _has(process, mark)]:
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(int(process.name), signal.SIGKILL)


def _has(process: Path, mark: bytes) -> bool:
    try:
        return process.name.isdecimal() and mark in (process / "environ").read_bytes().split(b"\0")
    except OSError:  # it has ended, or is none of ours
        return False


if __name__ == "__main__":
    sys.stdin.read()
    _kill_all(f"{MARK}={sys.argv[1]}".encode())

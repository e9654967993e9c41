"""The fork server of multiprocessing: how it is killed, and how nothing of it stays.

Multiprocessing starts one fork server and one resource tracker per process, and keeps both until that
process ends. A worker that stops has to leave nothing behind, and a module that hangs while the server
imports it has to be stopped from outside; there is no public way to either, so what is private to
multiprocessing is touched here and nowhere else.
"""

import contextlib
import os
import signal
from multiprocessing import forkserver, resource_tracker
from typing import Any, Final

# Neither object is typed with what is needed here.
_SERVER: Final[Any] = forkserver._forkserver  # noqa: SLF001
_TRACKER: Final[Any] = resource_tracker._resource_tracker  # noqa: SLF001


def kill() -> None:
    """Kill the server, and with it its children. Whoever waits for a child gets an EOFError."""
    _kill(_SERVER._forkserver_pid)  # noqa: SLF001


def tracker_runs() -> bool:
    """Whether the resource tracker was started, by whomever."""
    return _TRACKER._fd is not None  # noqa: SLF001


def end(*, tracker: bool) -> None:
    """Kill and collect the server, and the resource tracker too if it is ours."""
    kill()
    # Neither waits long, since both are killed; it closes our ends and collects the exit codes.
    with contextlib.suppress(ChildProcessError):
        _SERVER._stop()  # noqa: SLF001
    if tracker:
        # Killed rather than asked: asked, it would remove what others may have registered since.
        _kill(_TRACKER._pid)  # noqa: SLF001
        with contextlib.suppress(ChildProcessError):
            _TRACKER._stop()  # noqa: SLF001


def _kill(pid: int | None) -> None:
    if pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

"""Waits for conditions that can only be polled."""

import http.client
import os
import select
import signal
import time
from collections.abc import Callable
from typing import Final

_LOOK_AGAIN_SECONDS: Final = 0.05


def until(condition: Callable[[], bool], within: float) -> bool:
    """Return whether the condition came true in time; a connection that fails counts as not yet."""
    end = time.monotonic() + within
    while True:
        try:
            if condition():
                return True
        except (OSError, http.client.HTTPException):
            pass
        if time.monotonic() >= end:
            return False
        select.select([], [], [], _LOOK_AGAIN_SECONDS)


def pause(seconds: float) -> None:
    """Wait, because a server asked for that."""
    select.select([], [], [], seconds)


def until_gone(pid: int, within: float) -> bool:
    """Return whether a process, not necessarily our child, ended in time."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([watched], [], [], within)[0])
    finally:
        os.close(watched)


def end(pid: int, within: float) -> None:
    """Ask a process to end, and kill it if it does not in time."""
    for number, seconds in ((signal.SIGTERM, within), (signal.SIGKILL, within)):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            return
        if until_gone(pid, seconds):
            return

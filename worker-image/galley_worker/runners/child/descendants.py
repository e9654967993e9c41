"""Processes that handlers start: none of them outlives its task.

A program that a handler starts is noted with the order it was started for. Whatever leaves its parent
(double fork, `setsid`, a daemon) becomes a child of this process, which adopts orphans. So everything that
is left of a task is found among the children of this process, and their descendants.
"""

import _posixsubprocess
import contextlib
import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Final

from galley_worker.runners.child.kernel import children_of, running_name, tree_of
from galley_worker.runners.child.streams import STREAMS

_ROUNDS: Final = 50
"""A process may start others while it is being killed; a round that finds none is the last."""
_PAUSE_SECONDS: Final = 0.002
_TOLD: Final = 5
"""Names of processes mentioned in the log."""


class Descendants:
    """The processes below this one."""

    def __init__(self) -> None:
        self.noted = False
        """Whether one was started since the last look, as far as noticed: C code starts some unnoticed."""
        self._by_order: dict[int, set[int]] = {}
        self._kept = children_of(os.getpid())
        self._watch()

    def _watch(self) -> None:
        for module, names in (
            (_posixsubprocess, ("fork_exec",)),
            (subprocess, ("_fork_exec",)),
            (os, ("fork", "forkpty", "posix_spawn", "posix_spawnp", "system")),
        ):
            for name in names:
                if hasattr(module, name):
                    setattr(module, name, self._noting(getattr(module, name)))

    def _noting(self, start: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(start)
        def noting(*args: Any, **kwargs: Any) -> Any:
            self.noted = True
            order = STREAMS.owner()
            started = start(*args, **kwargs)
            number = started[0] if type(started) is tuple else started
            if order and number:
                self._by_order.setdefault(order, set()).add(number)
            return started

        return noting

    def any(self) -> bool:
        """Return whether this process has children it did not have before its first task."""
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return False
        return not self._kept or bool(children_of(os.getpid()) - self._kept)

    def end_of(self, order: int) -> list[str]:
        """Kill what an order started and left; returns the names of what was still running.

        Code that waits for a process it started, as asyncio does, still gets its exit code.
        """
        started = self._by_order.pop(order, None)
        if not started:
            return []
        return _kill(process for root in started & children_of(os.getpid()) for process in tree_of(root))

    def end_all(self, *, collect: bool) -> list[str]:
        """Kill all that is left of tasks, orphans too; returns the names of what was still running.

        Args:
            collect: whether to take the exit codes of processes that someone may still wait for.
        """
        own = {process for started in self._by_order.values() for process in started}
        self._by_order.clear()
        self.noted = False
        names: list[str] = []
        helper = _helper()
        for _ in range(_ROUNDS):
            left = children_of(os.getpid()) - self._kept
            for process in left:
                names += _kill(tree_of(process))
                if process != helper and (collect or process not in own):
                    with contextlib.suppress(ChildProcessError):
                        os.waitpid(process, os.WNOHANG)
            # What one of them started just before it was killed is only now a child of ours.
            if not any(running_name(each) for each in left) and children_of(os.getpid()) - self._kept <= left:
                break
            time.sleep(_PAUSE_SECONDS)  # noqa: TID251 - nothing tells when the last of them has gone
        return names


def _helper() -> int | None:
    """Return the process from which `multiprocessing` forks others here, which it has to find ended itself.

    It starts another one only then: with the exit code taken, no task could use `multiprocessing` any more.
    """
    server = getattr(sys.modules.get("multiprocessing.forkserver"), "_forkserver", None)
    return getattr(server, "_forkserver_pid", None)


def _kill(processes: Iterable[int]) -> list[str]:
    names = []
    for process in list(processes):
        if name := running_name(process):
            names.append(f"{name} (pid {process})")
            with contextlib.suppress(ProcessLookupError, PermissionError):  # of another user, as with sudo
                os.kill(process, signal.SIGKILL)
    return names


def in_words(names: list[str]) -> str:
    """Return the line of the log about processes that were ended."""
    once = list(dict.fromkeys(names))
    what = "a process" if len(once) == 1 else f"{len(once)} processes"
    more = ", ..." if len(once) > _TOLD else ""
    return f"ended {what} that the task left running: {', '.join(once[:_TOLD])}{more}\n"

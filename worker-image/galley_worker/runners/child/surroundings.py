"""What a process has and all its tasks share: working folder, environment, signals, settings of modules.

A task may change them for itself. To look for changes after each task would cost more than a quick task
does, so the functions that change them are wrapped to note that they were called, and only then everything
is compared with what it was before the first task and put back. Some of it the kernel does not let a process
put back, such as its priority without a right to raise it: then the process is to be replaced.
"""

import contextlib
import functools
import gc
import locale
import logging
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, Final

_WATCHED: Final[tuple[tuple[ModuleType, tuple[str, ...]], ...]] = (
    (os, ("chdir", "fchdir", "umask", "putenv", "unsetenv", "dup2", "close", "closerange", "fdopen")),
    (os, ("nice", "setpriority", "sched_setaffinity", "chroot", "setgroups", "initgroups")),
    (os, ("setuid", "seteuid", "setreuid", "setresuid", "setgid", "setegid", "setregid", "setresgid")),
    (signal, ("signal", "alarm", "setitimer", "pthread_sigmask")),
    (logging, ("disable",)),
    (socket, ("setdefaulttimeout",)),
    (sys, ("setrecursionlimit", "settrace", "setprofile", "setswitchinterval", "set_int_max_str_digits")),
    (threading, ("settrace", "setprofile")),
    (resource, ("setrlimit",)),
    (time, ("tzset",)),
    (gc, ("disable", "enable")),
    (locale, ("setlocale",)),
    (warnings, ("simplefilter", "filterwarnings", "resetwarnings")),
)


def _collect(on: bool) -> None:
    if on:
        gc.enable()
    else:
        gc.disable()


def _filter_warnings(filters: list[Any]) -> None:
    warnings.resetwarnings()  # Python notices that, and not a change of the list alone
    warnings.filters[:] = filters  # type: ignore[index]


_LIMITS: Final = tuple(
    getattr(resource, name) for name in sorted(dir(resource)) if name.startswith("RLIMIT_")
)


def _set_limits(limits: list[tuple[int, int]]) -> None:
    for limit, both in zip(_LIMITS, limits, strict=True):
        if resource.getrlimit(limit) != both:
            resource.setrlimit(limit, both)


def _root() -> tuple[int, int]:
    root = os.stat("/")  # noqa: PTH116 - for each change of a handler
    return root.st_dev, root.st_ino


def _stay(_root: tuple[int, int]) -> None:
    """Do nothing: there is no way out of a folder that became the root of all."""


_SETTINGS: Final[tuple[tuple[Callable[[], Any], Callable[[Any], Any]], ...]] = (
    (lambda: logging.root.manager.disable, logging.disable),
    (socket.getdefaulttimeout, socket.setdefaulttimeout),
    (sys.getrecursionlimit, sys.setrecursionlimit),
    (sys.gettrace, sys.settrace),
    (sys.getprofile, sys.setprofile),
    (sys.getswitchinterval, sys.setswitchinterval),
    (sys.get_int_max_str_digits, sys.set_int_max_str_digits),
    (threading.gettrace, threading.settrace),
    (threading.getprofile, threading.setprofile),
    # The user first, since only the one it was may have the right to change the rest.
    (os.getresuid, lambda ids: os.setresuid(*ids)),
    (os.getresgid, lambda ids: os.setresgid(*ids)),
    (os.getgroups, os.setgroups),
    (lambda: [resource.getrlimit(limit) for limit in _LIMITS], _set_limits),
    (lambda: os.getpriority(os.PRIO_PROCESS, 0), lambda nice: os.setpriority(os.PRIO_PROCESS, 0, nice)),
    (lambda: os.sched_getaffinity(0), lambda processors: os.sched_setaffinity(0, processors)),
    (_root, _stay),
    (gc.isenabled, _collect),
    (lambda: locale.setlocale(locale.LC_ALL), lambda name: locale.setlocale(locale.LC_ALL, name)),
    (lambda: list(warnings.filters), _filter_warnings),
)
"""How settings of modules are read and written."""
_TIMERS: Final = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
_STANDARD: Final = 2
"""The highest number of a standard stream: closing others is no change of the surroundings."""


class Surroundings:
    """Notices changes and takes them back."""

    def __init__(self) -> None:
        self.touched = False
        """Whether something was changed since the last `restore`, as far as was noticed."""
        self._folder = os.getcwd()  # noqa: PTH109 - a text is needed
        self._umask = os.umask(0)
        os.umask(self._umask)
        self._signals = {number: signal.getsignal(number) for number in signal.valid_signals()}
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self._settings = [read() for read, _ in _SETTINGS]
        self._environ = os.environ
        self._variables = dict(os.environ)
        self._watch()

    def _watch(self) -> None:
        for module, names in _WATCHED:
            for name in names:
                setattr(module, name, self._noting(getattr(module, name)))
        surroundings = self

        class Noting(type(os.environ)):  # type: ignore[misc]
            """The environment, which notes that it was changed."""

            def __setitem__(self, key: Any, value: Any) -> None:
                surroundings.touched = True
                super().__setitem__(key, value)

            def __delitem__(self, key: Any) -> None:
                surroundings.touched = True
                super().__delitem__(key)

        for environment in (os.environ, os.environb):
            environment.__class__ = Noting

    def _noting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        streams_only = function.__name__ in {"close", "closerange", "dup2", "fdopen"}

        @functools.wraps(function)
        def noting(*args: Any, **kwargs: Any) -> Any:
            if not streams_only or any(type(one) is int and one <= _STANDARD for one in args):
                self.touched = True
            return function(*args, **kwargs)

        return noting

    def restore(self) -> bool:
        """Put back what was changed; return False if the kernel does not allow it for a setting."""
        for timer in _TIMERS:
            signal.setitimer(timer, 0)
        for number, handler in self._signals.items():
            # One that was not set from Python reads as None and cannot be set from here.
            if handler is not None and signal.getsignal(number) != handler:
                with contextlib.suppress(OSError, ValueError):
                    signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        os.umask(self._umask)
        whole = True
        for (read, write), value in zip(_SETTINGS, self._settings, strict=True):
            if read() != value:
                with contextlib.suppress(OSError, ValueError):
                    write(value)
                whole = whole and read() == value
        with contextlib.suppress(OSError):
            os.chdir(self._folder)
        os.environ = self._environ  # noqa: B003 - a handler may have replaced it
        if os.environ != self._variables:
            for name in set(os.environ) - set(self._variables):
                del os.environ[name]
            os.environ.update(self._variables)
            time.tzset()
        self.touched = False
        return whole

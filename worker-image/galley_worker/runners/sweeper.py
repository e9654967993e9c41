"""Sweeper: the process that ends what the worker's handlers started, however the worker itself ends.

The kernel's parent-death signal would do for a program itself, but not for what that program starts; and it
would have to be set between fork and exec, where Python must not run in a process with threads. So a process
waits for our end instead, which costs the handlers nothing.

What a program hands down even if it starts another one with an empty environment are its resource limits.
So the mark is there, too: in the CPU time a process with realtime scheduling may take without a pause.
That is unlimited as a rule, and 150,000 years of it are as good.
"""

import contextlib
import itertools
import os
import resource
import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from galley_worker.runners.child import sweep

MARK: Final = "GALLEY_PROCESS_OF"
"""Environment variable by which the sweeper knows the processes of its worker."""
_SWEEP_SECONDS: Final = 5.0
_HIGHEST_BIT: Final = 1 << 62
_NUMBERS: Final = (1 << sweep.NUMBER_BITS) - 1


class Sweeper:
    """Marks processes, and has those killed that are left when the worker ends."""

    _limit_is_taken = threading.Lock()

    def __init__(self) -> None:
        self.mark = MARK, f"{os.getpid()}-{secrets.token_hex(8)}"
        """Name and value of an environment variable; all that carry it are killed in the end."""
        _, hard = resource.getrlimit(resource.RLIMIT_RTTIME)
        free = hard == resource.RLIM_INFINITY
        self.number = _HIGHEST_BIT | secrets.randbits(40) << sweep.NUMBER_BITS if free else 0
        """What the limit of those processes holds; 0 if it is set already, so that it cannot be a mark."""
        self._programs = itertools.count(1)
        # The end of file comes only when no program is between fork and exec any more: until then it holds
        # a copy of our end, which closes on exec. So none can slip through unseen.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(sweep.__file__)), "=".join(self.mark), str(self.number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != MARK},
            start_new_session=True,  # a terminal's Ctrl-C is for us
        )

    def next_number(self) -> int:
        """Return a number for the limit of one program, by which it is told from others of this worker."""
        return self.number and self.number | next(self._programs) & _NUMBERS

    @contextlib.contextmanager
    def numbering(self, number: int) -> Iterator[None]:
        """Have what is started in the block hold a number in its limit; one block at a time."""
        if not number:
            yield
            return
        with self._limit_is_taken:
            before = resource.getrlimit(resource.RLIMIT_RTTIME)
            resource.setrlimit(resource.RLIMIT_RTTIME, (number, before[1]))
            try:
                yield
            finally:
                resource.setrlimit(resource.RLIMIT_RTTIME, before)

    def sweep(self) -> set[int]:
        """Kill all that is marked now; returns what was killed."""
        return sweep.sweep("=".join(self.mark).encode(), self.number)

    def close(self) -> None:
        """Have what is left killed; waits for it, so not for an event loop's thread."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SWEEP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

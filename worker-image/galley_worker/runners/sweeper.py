"""Sweeper: the process that ends what the worker's handlers started, however the worker itself ends.

The kernel's parent-death signal would do for a program itself, but not for what that program starts; and it
would have to be set between fork and exec, where Python must not run in a process with threads. So a process
waits for our end instead, which costs the handlers nothing.
"""

import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final

from galley_worker.runners.child import sweep

MARK: Final = "GALLEY_PROCESS_OF"
"""Environment variable by which the sweeper knows the processes of its worker."""
_SWEEP_SECONDS: Final = 5.0


class Sweeper:
    """Marks processes, and has those killed that are left when the worker ends."""

    def __init__(self) -> None:
        self.mark = MARK, f"{os.getpid()}-{secrets.token_hex(8)}"
        """Name and value of an environment variable; all that carry it are killed in the end."""
        # The end of file comes only when no program is between fork and exec any more: until then it holds
        # a copy of our end, which closes on exec. So none can slip through unseen.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(sweep.__file__)), "=".join(self.mark)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != MARK},
            start_new_session=True,  # a terminal's Ctrl-C is for us
        )

    def close(self) -> None:
        """Have what is left killed; waits for it, so not for an event loop's thread."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SWEEP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

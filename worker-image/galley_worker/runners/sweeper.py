"""Sweeper: the process that sees to it that no command outlives the worker.

The kernel's parent-death signal would do for the program itself, but not for what that program starts;
and somebody would have to ask for it between fork and exec, where Python must not run in a process with
threads. So a process waits for our end instead, which costs the commands nothing.
"""

import asyncio
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Final

from galley_worker.runners.child import sweep

MARK: Final = "GALLEY_COMMAND_OF"
"""Environment variable by which the sweeper knows the programs of its worker."""
_SWEEP_SECONDS: Final = 5.0


class Sweeper:
    """Marks programs, and has those killed that are left when the worker ends."""

    def __init__(self) -> None:
        self._owner = f"{os.getpid()}-{secrets.token_hex(8)}"
        # The end of file comes only when no program is between fork and exec any more: until then it holds
        # a copy of our end, which closes on exec. So none can slip through unseen.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(sweep.__file__)), f"{MARK}={self._owner}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for us
        )

    def environment(self) -> dict[str, str]:
        """Return our environment with the mark in it."""
        return {**os.environ, MARK: self._owner}

    async def close(self) -> None:
        """Have what is left killed."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            await asyncio.to_thread(self._process.wait, _SWEEP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

"""Starts programs that are killed when the process that started them ends, however it ends.

The kernel does that (PR_SET_PDEATHSIG) if it is requested between fork and exec. `preexec_fn` would run
Python in a copy of a process that may have threads, where a lock can be held forever; so a new
interpreter requests it (15 ms) and then becomes the program. The kernel watches the *thread* that started
it: use one that lives at least as long as the program.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

_ASK_AND_BECOME: Final = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
parent, program, *arguments = sys.argv[1:]
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(parent):  # otherwise it died before the request, and no signal would come
    os.execv(program, [program, *arguments])
"""
"""SIGKILL, since a program that is stopped or stuck does not handle other signals."""


def dying_with_us(program: str, *arguments: str) -> Sequence[str]:
    """Return the command that runs a program and kills it when this process ends."""
    return [sys.executable, "-I", "-S", "-c", _ASK_AND_BECOME, str(os.getpid()), program, *arguments]

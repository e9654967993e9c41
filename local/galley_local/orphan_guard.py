"""Starts programs that die with the process that started them, whatever kills it.

The kernel does that (PR_SET_PDEATHSIG), and somebody has to ask for it between fork and exec.
`preexec_fn` would run Python in a copy of a process that may have threads, where any lock can be held
for ever; so a fresh interpreter asks (15 ms) and then becomes the program. The kernel watches the
*thread* that started it: start it from one that lives as long as the program shall.
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
if os.getppid() == int(parent):  # otherwise it died before we asked, and nobody would tell us
    os.execv(program, [program, *arguments])
"""
"""SIGKILL, since a program that is stopped or stuck would not act on anything softer."""


def dying_with_us(program: str, *arguments: str) -> Sequence[str]:
    """Return the command that runs a program, given by its path, and takes it along when we die."""
    return [sys.executable, "-I", "-S", "-c", _ASK_AND_BECOME, str(os.getpid()), program, *arguments]

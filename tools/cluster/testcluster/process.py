"""Starts programs that end when the process that started them ends, however that happens."""

import shutil
from collections.abc import Sequence


def dying_with_us(program: str, *arguments: str) -> Sequence[str]:
    """Return the command that runs a program and kills it when the thread that started it ends."""
    return [shutil.which("setpriv") or "/usr/bin/setpriv", "--pdeathsig", "KILL", "--", program, *arguments]

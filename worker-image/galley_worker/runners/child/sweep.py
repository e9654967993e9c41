"""The process that remains when a supervisor ends, and kills what its handlers had started.

It runs by its path in an interpreter of its own and imports nothing of ours. Its standard input ends when
the supervisor ends, however that ends. Then it kills all that carry the supervisor's mark in its
environment, which a program hands down to all it starts in turn.

    python -I -S sweep.py MARK
"""

import os
import signal
import sys
import time
from pathlib import Path

ROUNDS = 50
"""Programs may start others while they are being killed; a round without any is the last."""
PAUSE_SECONDS = 0.01


def marked(mark: bytes) -> list[int]:
    """Return the processes that carry the mark."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            carries = mark in (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if carries:
            found.append(int(entry.name))
    return found


def sweep(mark: bytes) -> set[int]:
    """Kill all that carry the mark; returns them."""
    killed = set()
    for _ in range(ROUNDS):
        found = marked(mark)
        if not found:
            break
        killed.update(found)
        for process in found:
            try:
                os.kill(process, signal.SIGKILL)
            except OSError:
                continue
        time.sleep(PAUSE_SECONDS)  # noqa: TID251 - nothing tells when the last of them has gone
    return killed


if __name__ == "__main__":
    while os.read(0, 1):
        pass
    sweep(os.fsencode(sys.argv[1]))

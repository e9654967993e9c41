"""The process that remains when a supervisor ends, and kills what its handlers had started.

It runs by its path in an interpreter of its own and imports nothing of ours. Its standard input ends when
the supervisor ends, however that ends. Then it kills all that carry the supervisor's mark, which a program
hands down to all it starts in turn. The mark is in the environment, and as a number in a resource limit too,
for programs that are started with an environment of their own.

    python -I -S sweep.py MARK NUMBER
"""

import os
import signal
import sys
import time
from pathlib import Path

ROUNDS = 50
"""Programs may start others while they are being killed; a round without any is the last."""
PAUSE_SECONDS = 0.01


NUMBER_BITS = 20
"""The lowest bits of a number in a limit tell the programs of one worker apart."""
LIMIT = b"Max realtime timeout"
"""The resource limit that holds the number, as /proc names it: nothing but realtime scheduling heeds it."""


def number_of(process: Path) -> int:
    """Return the number in the limit of a process; 0 if there is none, or the process has ended."""
    try:
        if (process / "stat").read_bytes().rpartition(b")")[2].split()[0] in {b"Z", b"X"}:
            return 0
        lines = (process / "limits").read_bytes().splitlines()
    except OSError:
        return 0
    found = next((line[len(LIMIT) :].split()[0] for line in lines if line.startswith(LIMIT)), b"")
    return int(found) if found.isdigit() else 0


def carries(process: Path, mark: bytes, number: int) -> bool:
    """Return whether a process has the mark in its environment, or exactly this number in its limit."""
    try:
        if mark in (process / "environ").read_bytes().split(b"\0"):
            return True
    except OSError:
        return False
    return bool(number) and number_of(process) == number


def marked(mark: bytes, number: int) -> list[int]:
    """Return the processes that carry the mark of a worker, or any number of it."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        own = number_of(entry)
        same = number and own >> NUMBER_BITS == number >> NUMBER_BITS
        if carries(entry, mark, own if same else 0):
            found.append(int(entry.name))
    return found


def sweep(mark: bytes, number: int) -> set[int]:
    """Kill all that carry the mark of a worker; returns them."""
    killed = set()
    for _ in range(ROUNDS):
        found = marked(mark, number)
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
    sweep(os.fsencode(sys.argv[1]), int(sys.argv[2]))

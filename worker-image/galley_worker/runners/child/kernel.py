"""What a child asks of the Linux kernel."""

import ctypes
import os
import signal
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that made it ends, however that ends."""
    parent = os.getppid()
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none can leave the tree."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _prctl(option: int, value: int) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def children_of(process: int) -> set[int]:
    """Return the processes a process is the parent of; none if it has ended."""
    found: set[int] = set()
    try:
        threads = os.listdir(f"/proc/{process}/task")  # noqa: PTH208 - only the names are used
    except OSError:
        return found
    for thread in threads:
        try:
            children = Path(f"/proc/{process}/task/{thread}/children").read_bytes()
        except OSError:
            continue
        found.update(map(int, children.split()))
    return found


def tree_of(process: int) -> list[int]:
    """Return a process and all its descendants, parents first."""
    found, unseen = [process], [process]
    while unseen:
        children = children_of(unseen.pop())
        found += children
        unseen += children
    return found


def running_name(process: int) -> str:
    """Return the name of a process, or nothing if it has ended."""
    try:
        stat = Path(f"/proc/{process}/stat").read_text(errors="replace")
    except OSError:
        return ""
    name, _, rest = stat.partition("(")[2].rpartition(")")
    return "" if rest.split()[0] in {"Z", "X"} else name

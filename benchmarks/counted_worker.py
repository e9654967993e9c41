"""`python -m galley_worker` under valgrind, which does not know pidfds yet: pipes take their place."""

import os
import runpy
import signal
import threading
from pathlib import Path
from typing import Final

_LOOK_SECONDS: Final = 0.2

_process_of: dict[int, int] = {}


def pidfd_open(pid: int, flags: int = 0) -> int:
    """Return a descriptor that becomes readable when the process has ended."""
    del flags
    ends, kept = os.pipe()
    _process_of[ends] = pid
    threading.Thread(target=_watch, args=(pid, kept), daemon=True).start()
    return ends


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """Send a signal to the process of such a descriptor."""
    os.kill(_process_of[pidfd], number)


def _watch(pid: int, kept: int) -> None:
    while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
        # Nothing tells of the end of a process that is no child.
        threading.Event().wait(_LOOK_SECONDS)
    os.close(kept)


if __name__ == "__main__":
    os.pidfd_open = pidfd_open
    signal.pidfd_send_signal = pidfd_send_signal  # type: ignore[assignment]
    runpy.run_module("galley_worker", run_name="__main__", alter_sys=True)

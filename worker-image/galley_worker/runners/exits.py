"""How a process ended, in words; of one that was killed, whether the kernel did it for want of memory."""

import signal
from pathlib import Path
from typing import Final

_GROUPS: Final = Path("/sys/fs/cgroup")
_MEMBERSHIP: Final = Path("/proc/self/cgroup")
_KILLS: Final = "oom_kill"

_WANT_OF_MEMORY: Final = (
    ", for want of memory (OOMKilled); raise spec.worker.template.resources.limits.memory, "
    "or lower spec.worker.concurrency"
)


class KernelKills:
    """Processes of our control group, which in a pod is the container, that the kernel killed for memory."""

    def __init__(self, groups: Path = _GROUPS, membership: Path = _MEMBERSHIP) -> None:
        self._file = _counting_file(groups, membership)
        self._seen = self._count()

    def one_more(self) -> bool:
        """Return whether there was one that was not reported yet; it counts as reported now."""
        if self._count() <= self._seen:
            return False
        self._seen += 1
        return True

    def _count(self) -> int:
        if self._file is None:
            return 0
        try:
            lines = self._file.read_text("ascii").splitlines()
        except OSError:
            return 0
        counts = dict(line.split(maxsplit=1) for line in lines if " " in line)
        return int(counts.get(_KILLS, 0))


def _counting_file(groups: Path, membership: Path) -> Path | None:
    """Return the file in which the kernel counts them; in a container our group looks like the topmost."""
    try:
        lines = membership.read_text("utf-8").splitlines()
    except OSError:
        return None
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if not controllers:
            hierarchy, name = groups, "memory.events"
        elif "memory" in controllers.split(","):
            hierarchy, name = groups / controllers, "memory.oom_control"
        else:
            continue
        for group in (hierarchy / own.lstrip("/"), hierarchy):
            if (group / name).is_file():
                return group / name
    return None


_kernel_kills: Final = KernelKills()


def in_words(code: int, *, ours: bool = False) -> str:
    """Return an exit code in words, such as `exit code 3` or `signal 9 (SIGKILL)`.

    Args:
        code: negative is a signal.
        ours: whether we killed it.
    """
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
    starved = -code == signal.SIGKILL and not ours and _kernel_kills.one_more()
    return f"signal {-code} ({name})" + (_WANT_OF_MEMORY if starved else "")

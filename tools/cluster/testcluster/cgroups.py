"""The control groups of a cluster: one folder in each hierarchy of the machine."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from testcluster import wait
from testcluster.site import CGROUP_PREFIX

_KINDS: Final = ("cgroup", "cgroup2")
_PATIENCE_SECONDS: Final = 10.0


def make(name: str) -> None:
    """Make the group in each hierarchy."""
    tops = list(_hierarchies("cgroup"))
    for top in tops:
        (top / name).mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):  # without them no process may enter
            if (top / setting).exists():
                (top / name / setting).write_text((top / setting).read_text())
    if not tops:
        for top in _hierarchies("cgroup2"):
            (top / name).mkdir(exist_ok=True)
            for controller in (top / "cgroup.controllers").read_text().split():
                for group in (top, top / name):
                    _enable(group, controller)


def remove(name: str) -> list[Path]:
    """Remove the group from each hierarchy, and return what would not go."""
    wait.until(lambda: all(_removed(group) for group in groups(name)), _PATIENCE_SECONDS)
    return groups(name)


def groups(name: str) -> list[Path]:
    """Return where the group exists; runc makes one in a hierarchy of the second version too."""
    tops = [top for kind in _KINDS for top in _hierarchies(kind)]
    return [top / name for top in tops if (top / name).is_dir()]


def keys() -> set[str]:
    """Return the keys of all clusters that have groups on this machine."""
    tops = [top for kind in _KINDS for top in _hierarchies(kind)]
    return {group.name.removeprefix(CGROUP_PREFIX) for top in tops for group in top.glob(f"{CGROUP_PREFIX}*")}


def _hierarchies(kind: str) -> Iterator[Path]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        place, _, what = line.partition(" - ")
        if what.split()[0] == kind:
            yield Path(place.split()[4])


def _removed(group: Path) -> bool:
    """Remove a group's folders, the innermost first; False as long as the kernel says one is in use."""
    for folder, _, _ in os.walk(group, topdown=False):
        try:
            Path(folder).rmdir()
        except FileNotFoundError:
            continue
        except OSError:
            return False
    return True


def _enable(group: Path, controller: str) -> None:
    try:
        (group / "cgroup.subtree_control").write_text(f"+{controller}")
    except OSError:  # not given to us; what needs it will say so
        return

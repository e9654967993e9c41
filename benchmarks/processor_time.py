"""CPU time of processes, by what they are there for."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

_TICKS: Final = os.sysconf("SC_CLK_TCK")

Roles = Mapping[str, tuple[int, ...]]
"""Process ids by role."""


def processor_seconds(pid: int) -> float:
    """Return the CPU time of a process and all its threads so far; 0 if it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def by_role(roles: Roles) -> dict[str, float]:
    """Return the CPU time of each role so far."""
    return {role: sum(map(processor_seconds, pids)) for role, pids in roles.items()}


def load_in_words(load: float) -> str:
    """Return what to say of the load average that the machine had before it was measured on."""
    others = "; other programs used it, too, so compare rows with each other only"
    return f"load average before it {load:.1f}{others if load > (os.cpu_count() or 1) else ''}."


def worker_roles(pid: int) -> dict[str, tuple[int, ...]]:
    """Return the processes of a Galley worker: its supervisor, its fork server, and the children forked."""
    supervisor = psutil.Process(pid)
    below = supervisor.children()
    children = [child.pid for process in below for child in process.children(recursive=True)]
    return {
        "supervisor": (pid,),
        "children": tuple(children),
        "forkserver": tuple(process.pid for process in below),
    }

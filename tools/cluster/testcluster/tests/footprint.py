"""What a cluster has on this machine, so that tests can tell whether anything is left of it."""

import json
import os
from pathlib import Path
from typing import Any

from testcluster import cgroups, control, keeper, network
from testcluster.bare import BareCluster
from testcluster.errors import AlreadyRunning
from testcluster.site import CGROUP_PREFIX, Site

_SETTINGS = (
    "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys", "kernel/keys/root_maxbytes",
    "vm/overcommit_memory", "vm/panic_on_oom", "fs/file-max",
    "net/ipv4/ip_forward", "net/netfilter/nf_conntrack_max",
)  # fmt: skip


def of_machine() -> dict[str, Any]:
    """Return what must be the same before a cluster, beside it and after it: settings, mounts, firewall."""
    settings = {name: Path("/proc/sys", name) for name in _SETTINGS}
    return {
        "settings": {name: path.read_text() for name, path in settings.items() if path.exists()},
        "mounts": sorted(
            line.split(" ", 3)[3] for line in Path("/proc/self/mountinfo").read_text().splitlines()
        ),
        "host name": os.uname().nodename,
        "tables": sorted(Path("/proc/net/ip_tables_names").read_text().split())
        if Path("/proc/net/ip_tables_names").exists()
        else [],
    }


def of_cluster(cluster: BareCluster) -> dict[str, Any]:
    """Return everything on this machine that carries the cluster's name; all empty if it is gone."""
    return {
        "folder": [str(cluster.state)] if cluster.state.exists() else [],
        "keeper": [process for process, kept in keeper.keepers() if kept == cluster.state],
        "link": [cluster.key] if network.exists(cluster.key) else [],
        "control groups": [str(group) for group in cgroups.groups(CGROUP_PREFIX + cluster.key)],
        "socket": [cluster.key] if _claimed(control.address(cluster.key)) else [],
    }


def gone(cluster: BareCluster) -> bool:
    """Tell whether nothing carries the cluster's name any more."""
    return not any(of_cluster(cluster).values())


def namespaces(cluster: BareCluster) -> set[str]:
    """Return the process namespaces of a running cluster: the node's own, and those of its pods."""
    mine = Path("/proc/self/ns/pid").readlink()
    root = keeper.find(cluster.state)
    assert root is not None
    found = {str(Path(f"/proc/{process}/ns/pid").readlink()) for process in _descendants(root)}
    return found - {str(mine)}


def processes_in(spaces: set[str]) -> list[int]:
    """Return all processes that are in one of the process namespaces."""
    return [process for process in _processes() if _namespace(process) in spaces]


def routes(site: Site) -> list[str]:
    """Return the routes to a cluster."""
    return [route["dst"] for route in json.loads(network.ip("-json", "route")) if route["dst"] == site.range]


def descendants(cluster: BareCluster) -> set[int]:
    """Return the keeper of a running cluster and all processes below it."""
    root = keeper.find(cluster.state)
    assert root is not None
    return {root, *_descendants(root)}


def alive(processes: set[int]) -> set[int]:
    """Return those of the processes that still exist."""
    return processes & set(_processes())


def _descendants(root: int) -> set[int]:
    parents: dict[int, int] = {}
    for process in _processes():
        try:
            parents[process] = int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found = {root}
    while more := {process for process, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {root}


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _namespace(process: int) -> str:
    try:
        return str(Path(f"/proc/{process}/ns/pid").readlink())
    except OSError:
        return ""


def _claimed(name: str) -> bool:
    try:
        control.claim(name).close()
    except AlreadyRunning:
        return True
    return False

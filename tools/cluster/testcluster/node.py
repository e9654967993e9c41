"""Process 1 of a node: makes its namespaces a machine of their own, then supervises the programs.

`testcluster.node STATE CONTROL`, started by `keeper` through `unshare`. What it mounts, routes or
writes under /proc/sys/net ends with the namespaces; everything else of the machine it leaves as it is.
"""

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

from testcluster.site import NODE, Site
from testcluster.supervisor import Supervisor

UPLINK: Final = "uplink"
"""The node's end of the cable to the machine."""

OWN_FOLDERS: Final = ("/run", "/var/lib", "/var/log")
"""What a node has of its own; all other folders are the machine's."""

_KUBELET_WANTS: Final = {
    "vm/overcommit_memory": 1,
    "vm/panic_on_oom": 0,
    "kernel/panic": 10,
    "kernel/panic_on_oops": 1,
    "kernel/keys/root_maxkeys": 1_000_000,
    "kernel/keys/root_maxbytes": 25_000_000,
}
"""Settings of the whole machine that kubelet would change; it finds files that say so already."""


def main(state: Path, control: int) -> None:
    """Prepare, and serve until killed."""
    site = Site.load(state)
    socket.sethostname(NODE)
    _run("mount", "--make-rshared", "/")
    _mount_own_folders(site)
    _hide_settings()
    sys.stdout.write("here\n")  # now keeper knows our process, and can plug in the cable
    sys.stdout.flush()
    sys.stdin.readline()
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{site.node_ip}/30", "dev", UPLINK)
    _run("ip", "link", "set", UPLINK, "up")
    _run("ip", "route", "add", "default", "via", site.host_ip)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    Supervisor(site, socket.socket(fileno=control)).run()


def _mount_own_folders(site: Site) -> None:
    for target in ("/run", "/var/lib"):
        _run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", target)
    for name, target in (
        ("containerd", "/var/lib/containerd"),
        ("kubelet", "/var/lib/kubelet"),
        ("var-log", "/var/log"),
    ):
        source = site.state / name
        source.mkdir()
        Path(target).mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(source), target)


def _hide_settings() -> None:
    for name, value in _KUBELET_WANTS.items():
        shadow = Path("/run/sysctl") / name
        shadow.parent.mkdir(parents=True, exist_ok=True)
        shadow.write_text(f"{value}\n")
        _run("mount", "--bind", str(shadow), f"/proc/sys/{name}")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, env={**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"})


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

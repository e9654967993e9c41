"""The cable between the machine and a node: one link, one address, one route, named after the cluster."""

import ipaddress
import json
import os
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path

from testcluster import control
from testcluster.errors import AlreadyRunning, CannotRunHere
from testcluster.node import UPLINK
from testcluster.site import NETWORKS, Site, link_of, range_of


def claim(key: str) -> tuple[int, socket.socket]:
    """Return a network no cluster uses and no route of this machine leads to, and what holds it for us.

    Raises:
        CannotRunHere: if there is none.
    """
    used = list(_used())
    first = int(key, 16) % NETWORKS  # so that a cluster nearly always has the same addresses again
    for step in range(NETWORKS):
        network = (first + step) % NETWORKS
        if any(ipaddress.ip_network(range_of(network)).overlaps(each) for each in used):
            continue
        try:
            return network, control.claim(f"galley-network-{network}")
        except AlreadyRunning:
            continue
    raise CannotRunHere(
        f"none of {range_of(0)} to {range_of(NETWORKS - 1)} is free on this machine",
        "take clusters down that are not needed (testcluster status), or see `ip route`",
    )


def connect(site: Site, process: int) -> None:
    """Lay the cable into the network namespace of a process."""
    ip("link", "add", site.link, "type", "veth", "peer", "name", UPLINK, "netns", str(process))
    ip("address", "add", f"{site.host_ip}/30", "dev", site.link)
    ip("link", "set", site.link, "up")


def route(site: Site) -> None:
    """Lead all addresses of the cluster there; pods and Services can be reached from the machine then."""
    ip("route", "add", site.range, "via", site.node_ip)


def remove(key: str) -> None:
    """Take the cable away, and with it address and route."""
    if exists(key):
        ip("link", "delete", link_of(key), check=False)


def exists(key: str) -> bool:
    """Tell whether there is a cable."""
    return Path("/sys/class/net", link_of(key)).exists()


def ip(*arguments: str, check: bool = True) -> str:
    """Run `ip` and return what it printed."""
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}
    done = subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True, env=environment)
    return done.stdout


def _used() -> Iterable[ipaddress.IPv4Network]:
    for route_ in json.loads(ip("-json", "-4", "route", "show", "table", "all") or "[]"):
        if route_["dst"] != "default":
            yield ipaddress.IPv4Network(route_["dst"], strict=False)

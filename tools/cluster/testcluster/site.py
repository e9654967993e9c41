"""Where one cluster lives on this machine: its folder, and every name and address that follows from it.

Links, control groups, routes and socket addresses are shared by the whole machine. All of ours are
named after the state folder, so clusters live side by side, and what was left by one that was killed
can be found and removed without having been written down.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final, Self

NODE: Final = "node1"
CGROUP_PREFIX: Final = "galley-"
SITE_FILE: Final = "site.json"
_FIRST_NETWORK: Final = 160
NETWORKS: Final = 64
"""How many clusters can run at once: 10.160.0.0/16 and those after it, one each."""


def key_of(state: Path) -> str:
    """Return the word all names of the cluster in that folder contain."""
    return hashlib.sha256(str(state.resolve()).encode()).hexdigest()[:8]


@dataclass(frozen=True)
class Site:
    """The names and addresses of one cluster."""

    state: Path
    binaries: Path
    network: int | None
    """Which of the networks is ours; None for a control plane alone, on loopback."""

    api_port: int = 6443
    etcd_port: int = 2379
    etcd_peer_port: int = 2380
    audit: bool = False
    controller_flags: tuple[str, ...] = ()

    @classmethod
    def load(cls, state: Path) -> Self:
        """Return what `save` wrote into a state folder."""
        kept = json.loads((state / SITE_FILE).read_text())
        kept.update(
            state=Path(kept["state"]),
            binaries=Path(kept["binaries"]),
            controller_flags=tuple(kept["controller_flags"]),
        )
        return cls(**kept)

    def save(self) -> None:
        """Write it where the cluster's processes look for it."""
        (self.state / SITE_FILE).write_text(json.dumps(asdict(self), default=str, indent=1) + "\n")

    @property
    def key(self) -> str:
        """The word in all names."""
        return key_of(self.state)

    @property
    def link(self) -> str:
        """The machine's end of the cable to the node; 15 characters at most."""
        return link_of(self.key)

    @property
    def cgroup(self) -> str:
        """The control group under which all pods are."""
        return CGROUP_PREFIX + self.key

    @property
    def logs(self) -> Path:
        """The folder with a log of each program."""
        return self.state / "logs"

    @property
    def pki(self) -> Path:
        """The folder with certificates and kubeconfigs."""
        return self.state / "pki"

    @property
    def etc(self) -> Path:
        """The folder with the programs' settings."""
        return self.state / "etc"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's access."""
        return self.pki / "admin.kubeconfig"

    @property
    def range(self) -> str:
        """All addresses of the cluster; one route leads there."""
        return f"10.{self._second}.0.0/16"

    @property
    def host_ip(self) -> str:
        """The machine, as the node and its pods see it."""
        return f"10.{self._second}.0.1"

    @property
    def node_ip(self) -> str:
        """The node, as the machine sees it."""
        return "127.0.0.1" if self.network is None else f"10.{self._second}.0.2"

    @property
    def pod_range(self) -> str:
        """Where pods get addresses."""
        return f"10.{self._second}.1.0/24"

    @property
    def service_range(self) -> str:
        """Where Services get addresses."""
        return f"10.{self._second}.96.0/20"

    @property
    def api_service_ip(self) -> str:
        """The Service `kubernetes`, always the first address."""
        return f"10.{self._second}.96.1"

    @property
    def dns_ip(self) -> str:
        """The Service that answers for names."""
        return f"10.{self._second}.96.10"

    @property
    def api_url(self) -> str:
        """Where the API is served."""
        return f"https://{self.node_ip}:{self.api_port}"

    @property
    def _second(self) -> int:
        return _FIRST_NETWORK + (self.network or 0)


def link_of(key: str) -> str:
    """Return the name of the machine's end of the cable."""
    return f"gk{key}"


def range_of(network: int) -> str:
    """Return the addresses of a network."""
    return f"10.{_FIRST_NETWORK + network}.0.0/16"

"""The interface of all clusters, whatever provides them."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Part(StrEnum):
    """A program a cluster consists of, by the name of its binary."""

    ETCD = "etcd"
    API_SERVER = "kube-apiserver"
    CONTROLLERS = "kube-controller-manager"
    SCHEDULER = "kube-scheduler"
    PROXY = "kube-proxy"
    KUBELET = "kubelet"
    CONTAINERD = "containerd"


CONTROL_PLANE_ONLY = (Part.ETCD, Part.API_SERVER)
"""What serves the API; nothing schedules or runs pods, no controller acts, and that is fast."""


class Cluster(Protocol):
    """A cluster that can be created, disturbed and removed; every call returns when that is done."""

    @property
    def kubeconfig(self) -> Path:
        """The kubeconfig of its administrator."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Environment variables that kubectl, helm and clients need to reach it."""

    def up(self) -> None:
        """Create it and return when it is usable: pods become Ready, names resolve.

        Raises:
            CannotRunHere: if this machine lacks something; the hint says what.
            AlreadyRunning: if it is up.
            DidNotStart: if it did not become usable; nothing is left of it.
        """

    def down(self) -> None:
        """Remove it with everything made for it; does nothing if there is none.

        Raises:
            LeftBehind: if something could not be removed.
        """

    def tool(self, name: str) -> Path:
        """Return the path of `kubectl` or `helm` of a version that suits it."""

    def load_image(self, archive: Path) -> None:
        """Give its node the images in a docker or OCI archive; pods want `imagePullPolicy: Never`.

        Raises:
            NotPossible: if the provider has no way to.
        """

    def kill(self, part: Part) -> None:
        """End a part with SIGKILL; where something watches over it, it comes back by itself.

        Raises:
            NotPossible: if the provider has no way to; so for `freeze`, `thaw` and `start`.
            NotRunning: if it does not run.
        """

    def freeze(self, part: Part) -> None:
        """Stop a part with SIGSTOP: its sockets stay open and nothing answers."""

    def thaw(self, part: Part) -> None:
        """Continue a frozen part."""

    def start(self, part: Part) -> None:
        """Start a part that was killed; one that came back by itself is left alone.

        It runs then, and may take a while to serve: wait for what you need of it.
        """

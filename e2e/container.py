"""Ends what runs in a container as a machine without memory would: at once, with SIGKILL."""

from typing import Final

import pytest

from e2e.cluster.bare import BareCluster
from e2e.cluster.cluster import Cluster
from e2e.cluster.kubectl import Kubectl
from tests.support.cannot_run import cannot_run

_SOCKET: Final = "/run/containerd/containerd.sock"


def kill(cluster: Cluster, kubectl: Kubectl, namespace: str, pod: str) -> None:
    """Kill the first container of a pod; the kubelet starts it again, in the same pod."""
    if not isinstance(cluster, BareCluster):
        cannot_run("tests that kill a container", "only the bare cluster lets us reach its containers")
    found = kubectl.get("pod", pod, "-n", namespace)["status"].get("containerStatuses", ())
    if not found or "running" not in found[0]["state"]:
        pytest.fail(f"nothing runs in pod {pod} that could be killed: {found}")
    _, _, identity = str(found[0]["containerID"]).partition("://")
    words = ("--address", _SOCKET, "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", identity)
    cluster.run(str(cluster.tool("ctr")), *words)

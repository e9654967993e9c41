"""Disturbs what runs in a container without asking the kubelet: with SIGKILL, or by stopping its time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from e2e import waits
from testcluster.bare import BareCluster
from testcluster.cluster import Cluster
from tests.support.cannot_run import cannot_run
from tests.support.kubectl import Kubectl

_SOCKET: Final = "/run/containerd/containerd.sock"


def kill(cluster: Cluster, kubectl: Kubectl, namespace: str, pod: str) -> None:
    """Kill the first container of a pod; the kubelet starts it again, in the same pod."""
    node = _node(cluster)

    def struck() -> bool:
        # The API server tells of a container's end, and of the next one, a moment late.
        _ctr(node, "kill", "--signal", "SIGKILL", _running(kubectl, namespace, pod))
        return True

    waits.until(f"a container of {pod} to kill", struck, within=waits.POD_READY)


@contextmanager
def frozen(cluster: Cluster, kubectl: Kubectl, namespace: str, pod: str) -> Iterator[None]:
    """Stop all that runs in the first container of a pod, for as long as the block; it does not notice."""
    node = _node(cluster)
    identity = _running(kubectl, namespace, pod)
    _ctr(node, "pause", identity)
    try:
        yield
    finally:
        _ctr(node, "resume", identity)


def _node(cluster: Cluster) -> BareCluster:
    if not isinstance(cluster, BareCluster):
        cannot_run("tests that kill a container", "only the bare cluster lets us reach its containers")
    return cluster


def _running(kubectl: Kubectl, namespace: str, pod: str) -> str:
    """Return the identity of the first container of a pod, which must run."""
    found = kubectl.get("pod", pod, "-n", namespace)["status"].get("containerStatuses", ())
    identities = [each["containerID"] for each in found[:1] if "running" in each["state"]]
    assert identities, f"nothing runs in pod {pod}: {found}"
    return str(identities[0]).partition("://")[2]


def _ctr(node: BareCluster, *words: str) -> None:
    node.run(str(node.tool("ctr")), "--address", _SOCKET, "--namespace", "k8s.io", "tasks", *words)

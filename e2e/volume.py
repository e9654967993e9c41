"""A volume for NATS on a node of a cluster that has no storage of its own, so that data outlives its pod."""

import json
from collections.abc import Mapping
from typing import Any, Final

from testcluster.images.image import WORKER
from tests.support.kubectl import Kubectl

_CLASS: Final = "galley-e2e"
_PATH: Final = "/var/lib/galley-e2e"
_SIZE: Final = "1Ti"
_SECONDS: Final = 60

SETTINGS: Final[Mapping[str, str]] = {
    "nats.storage.emptyDir": "false",
    "nats.storage.storageClassName": _CLASS,
    "nats.storage.size": _SIZE,
}
"""Values with which NATS takes it."""


def make(kubectl: Kubectl, namespace: str, claim: str = "data-galley-nats-0") -> None:
    """Make a volume that only this claim gets, in a folder that NATS may write to."""
    kubectl("create", "namespace", namespace)
    kubectl.apply(_volume(namespace, claim, _PATH), namespace=namespace)
    _in_folder(kubectl, namespace, _PATH, _OPEN)


def add(kubectl: Kubectl, namespace: str, claim: str, *, by: str = "") -> None:
    """Make another volume, in a folder of its own, and its claim.

    Args:
        kubectl: of the cluster.
        namespace: of the claim.
        claim: its name.
        by: a namespace whose pods may be root; that of the claim by default.
    """
    path = f"{_PATH}-{claim}"
    kubectl.apply(_volume(namespace, claim, path), _claim(claim), namespace=namespace)
    _in_folder(kubectl, by or namespace, path, _OPEN)


def wipe(kubectl: Kubectl, namespace: str, stateful_set: str = "galley-nats") -> None:
    """Stop NATS, delete all in its volume, and start it again."""
    kubectl("scale", "statefulset", stateful_set, "-n", namespace, "--replicas=0")
    pod = f"pod/{stateful_set}-0"
    kubectl("wait", "-n", namespace, "--for=delete", pod, f"--timeout={_SECONDS}s", within=_SECONDS + 10)
    _in_folder(kubectl, namespace, _PATH, _EMPTY)
    kubectl("scale", "statefulset", stateful_set, "-n", namespace, "--replicas=1")


def _in_folder(kubectl: Kubectl, namespace: str, path: str, code: str) -> None:
    kubectl.apply(_pod_in(path, code), namespace=namespace)
    kubectl(
        *("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "pod/volume"),
        f"--timeout={_SECONDS}s",
        within=_SECONDS + 10,
    )
    kubectl("delete", "pod", "volume", "-n", namespace, "--wait", "--now")


def _claim(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": _CLASS,
            "resources": {"requests": {"storage": _SIZE}},
        },
    }


def _volume(namespace: str, claim: str, path: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-{claim}"},
        "spec": {
            "capacity": {"storage": _SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": _CLASS,
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
        },
    }


_OPEN: Final = "import os; os.chmod({path}, 0o777)"
"""The kubelet makes the folder for root alone."""

_EMPTY: Final = "import pathlib, shutil; [shutil.rmtree(each) for each in pathlib.Path({path}).iterdir()]"


def _pod_in(path: str, code: str) -> dict[str, Any]:
    """Return a pod that does something in a folder, as root."""
    container = {
        "name": "volume",
        "image": WORKER.reference,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", code.format(path=json.dumps(path))],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "data", "mountPath": path}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "volume"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [{"name": "data", "hostPath": {"path": path, "type": "DirectoryOrCreate"}}],
        },
    }

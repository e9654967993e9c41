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
    kubectl.apply(_volume(namespace, claim), _folder_maker(), namespace=namespace)
    kubectl(
        *("wait", "-n", namespace, "--for=jsonpath={.status.phase}=Succeeded", "pod/volume"),
        f"--timeout={_SECONDS}s",
        within=_SECONDS + 10,
    )
    kubectl("delete", "pod", "volume", "-n", namespace, "--wait=false")


def _volume(namespace: str, claim: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{namespace}-nats"},
        "spec": {
            "capacity": {"storage": _SIZE},
            "accessModes": ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": _CLASS,
            "claimRef": {"namespace": namespace, "name": claim},
            "hostPath": {"path": _PATH, "type": "DirectoryOrCreate"},
        },
    }


def _folder_maker() -> dict[str, Any]:
    """Return a pod that opens the folder to all: the kubelet makes it for root alone."""
    container = {
        "name": "volume",
        "image": WORKER.reference,
        "imagePullPolicy": "Never",
        "command": ["python", "-c", f"import os; os.chmod({json.dumps(_PATH)}, 0o777)"],
        "securityContext": {"runAsUser": 0},
        "volumeMounts": [{"name": "data", "mountPath": _PATH}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "volume"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [container],
            "volumes": [{"name": "data", "hostPath": {"path": _PATH, "type": "DirectoryOrCreate"}}],
        },
    }

"""Pods that tell over HTTP what they see: `cluster/kube/probe`, deployed and asked."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from testcluster import archive, build
from testcluster.cluster import Cluster
from tests.support.kubectl import Kubectl


def load(cluster: Cluster, folder: Path, image: str = archive.PROBE_IMAGE) -> None:
    """Give the cluster the image, under a name."""
    cluster.load_image(archive.probe(folder / "probe.tar", build.binaries(), image))


def deployment(name: str, replicas: int, image: str = archive.PROBE_IMAGE) -> dict[str, Any]:
    """Return a Deployment of probes."""
    container = {
        "name": "probe",
        "image": image,
        "imagePullPolicy": "Never",
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1},
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    pod = {"terminationGracePeriodSeconds": 2, "containers": [container]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": pod},
        },
    }


def service(name: str) -> dict[str, Any]:
    """Return the Service of a Deployment of that name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def ask(kubectl: Kubectl, namespace: str, service: str, path: str = "", /, **query: str) -> str:
    """Return what a pod behind a Service answers, by way of the API server."""
    words = "&".join(f"{key}={quote(value, safe='')}" for key, value in query.items())
    return kubectl.raw(f"/api/v1/namespaces/{namespace}/services/{service}:80/proxy/{path}?{words}")


def ready_pods(kubectl: Kubectl, namespace: str, name: str) -> Sequence[str]:
    """Return the names of the pods that are Ready and not about to go."""
    return [
        pod["metadata"]["name"]
        for pod in pods(kubectl, namespace, name)
        if "deletionTimestamp" not in pod["metadata"]
        and any(
            each["type"] == "Ready" and each["status"] == "True"
            for each in pod["status"].get("conditions", [])
        )
    ]


def pods(kubectl: Kubectl, namespace: str, name: str) -> Sequence[dict[str, Any]]:
    """Return all pods of a Deployment that are still there."""
    return list(kubectl.get("pods", "-n", namespace, "-l", f"app={name}")["items"])

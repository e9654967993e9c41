"""A NATS of a test's own in a cluster, reached from here as well."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from testcluster.cluster import Cluster
from testcluster.images.build import archives
from testcluster.images.image import NATS, NATS_REFERENCE
from tests.support.kubectl import Kubectl

_NAME: Final = "nats"
_READY: Final = "60s"


@dataclass(frozen=True)
class NatsPod:
    """Its two addresses."""

    inside: str
    """For pods."""
    outside: str
    """For us, by way of the API server."""


@contextmanager
def nats_pod(cluster: Cluster, kubectl: Kubectl, namespace: str) -> Iterator[NatsPod]:
    """Run a NATS for as long as the block; it ends with its namespace."""
    cluster.load_image(archives([NATS])[NATS])
    kubectl.apply(_pod(), _service(), namespace=namespace)
    kubectl("wait", "-n", namespace, "--for=condition=Ready", f"--timeout={_READY}", f"pod/{_NAME}")
    with _forwarded(cluster, namespace) as port:
        yield NatsPod(f"nats://{_NAME}.{namespace}:4222", f"nats://127.0.0.1:{port}")


@contextmanager
def _forwarded(cluster: Cluster, namespace: str) -> Iterator[int]:
    command = [str(cluster.tool("kubectl")), "port-forward", "-n", namespace, f"pod/{_NAME}", ":4222"]
    with subprocess.Popen(
        command, env={**os.environ, **cluster.environment}, stdout=subprocess.PIPE, text=True
    ) as forward:
        try:
            assert forward.stdout is not None
            said = forward.stdout.readline()
            found = re.search(r"127\.0\.0\.1:(\d+)", said)
            assert found, f"kubectl port-forward said {said!r}"
            yield int(found[1])
        finally:
            forward.kill()


def _pod() -> dict[str, Any]:
    container = {
        "name": _NAME,
        "image": NATS_REFERENCE,
        "imagePullPolicy": "Never",
        "args": ["--jetstream", "--store_dir", "/data", "--http_port", "8222"],
        "ports": [{"containerPort": 4222}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8222}, "periodSeconds": 1},
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": _NAME, "labels": {"app": _NAME}},
        "spec": {
            "containers": [container],
            "volumes": [{"name": "data", "emptyDir": {}}],
            "terminationGracePeriodSeconds": 1,
            "securityContext": {"runAsUser": 65532, "fsGroup": 65532},
        },
    }


def _service() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": _NAME},
        "spec": {"selector": {"app": _NAME}, "ports": [{"port": 4222}]},
    }

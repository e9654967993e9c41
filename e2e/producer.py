"""A program that gives tasks to a queue by way of NATS alone, in a pod with the credentials of a producer."""

import json
from typing import Any

from e2e import waits
from e2e.place import Object, Place
from testcluster.images.image import WORKER

_CREDENTIALS = "/etc/galley/credentials"


def submit_directly(place: Place, name: str, queue: str, handler: str, **arguments: Any) -> Any:
    """Submit a task, wait for its result, and return it.

    Raises:
        NotInTime: if there was none; with what the program said.
    """
    command = ["galley", "submit", queue, handler, json.dumps(arguments), "--wait"]
    place.apply(_pod(place, name, queue, command))

    def said() -> str:
        return place.kubectl("logs", "-n", place.namespace, name, "--tail=20")

    def ended() -> bool:
        phase = place.get("pod", name)["status"]["phase"]
        assert phase != "Failed", said()
        return bool(phase == "Succeeded")

    place.until(f"the result of {command}", ended, within=waits.TASKS_ENDED)
    return json.loads(said().splitlines()[-1])


def _pod(place: Place, name: str, queue: str, command: list[str]) -> Object:
    environment = {
        "GALLEY_SERVER": _server(place, queue),
        "GALLEY_NAMESPACE": place.namespace,
        "GALLEY_CREDENTIALS": f"{_CREDENTIALS}/nats.creds",
        "GALLEY_TLS_CA": f"{_CREDENTIALS}/ca.crt",
    }
    container = {
        "name": "producer",
        "image": WORKER.reference,
        "imagePullPolicy": "Never",
        "command": command,
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "volumeMounts": [{"name": "credentials", "mountPath": _CREDENTIALS, "readOnly": True}],
        "securityContext": {
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    secret = {"secretName": f"galley-{queue}-producer", "defaultMode": 0o440}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 1,
            "securityContext": {
                "runAsNonRoot": True,
                "fsGroup": 65532,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [container],
            "volumes": [{"name": "credentials", "secret": secret}],
        },
    }


def _server(place: Place, queue: str) -> str:
    """Return the address of NATS as the queue's workers have it."""
    [container] = place.get("deployment", f"galley-{queue}")["spec"]["template"]["spec"]["containers"]
    return str(next(each["value"] for each in container["env"] if each["name"] == "GALLEY_SERVER"))

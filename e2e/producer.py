"""A program that uses a queue by way of NATS alone, in a pod with the credentials of one of its roles."""

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
    return json.loads(run(place, name, queue, command).splitlines()[-1])


def run(place: Place, name: str, queue: str, command: list[str], role: str = "producer") -> str:
    """Run a command in a pod of that name until it has ended, and return what it printed.

    Raises:
        NotInTime: if it did not end; with what it said.
    """
    place.apply(_pod(place, name, queue, command, role))

    def said() -> str:
        return place.kubectl("logs", "-n", place.namespace, name, "--tail=100")

    def ended() -> bool:
        phase = place.get("pod", name)["status"]["phase"]
        assert phase != "Failed", said()
        return bool(phase == "Succeeded")

    place.until(f"the end of {command}", ended, within=waits.TASKS_ENDED)
    return said()


def _pod(place: Place, name: str, queue: str, command: list[str], role: str) -> Object:
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
    secret = {"secretName": f"galley-{queue}-{role}", "defaultMode": 0o440}
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

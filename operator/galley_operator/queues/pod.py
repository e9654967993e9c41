"""The pod of a queue's worker: restricted, whatever the queue says."""

from typing import Any, Final

from galley.broker.permissions import Role
from galley.resources import TaskQueue
from galley.resources.pod_template import PodTemplate
from galley_operator.credentials.queue_secrets import FILE_KEY, secret_name
from galley_operator.fleet.names import CODE_ANNOTATION, MANIFEST_ANNOTATION, child_name, selected_by
from galley_operator.fleet.pods import CONTAINER

HAND_BACK_SECONDS: Final = 30
"""What a worker gets beyond its grace: to hand back what still runs, and to say goodbye."""

HEALTH_PORT: Final = 8080
NOBODY: Final = 65532

_MANIFEST_FOLDER: Final = "/etc/galley/queue"
_CODE_FOLDER: Final = "/etc/galley/code"
_CREDENTIALS_FOLDER: Final = "/etc/galley/credentials"
_DEAF_SECONDS: Final = 1
"""How long a worker is left alone before it is told to end. A container's first process does not hear it
before it listens, which Python begins some 50 ms after its start: it would then be waited for in vain."""

_START_SECONDS: Final = 300
"""How long imports and a first connection may take before a worker is started anew."""


def pod_template(
    queue: TaskQueue,
    *,
    server: str,
    image: str,
    manifest_digest: str,
    code_digest: str,
    credentials: bool,
) -> dict[str, Any]:
    """Return the template of a queue's pods.

    Args:
        queue: as people wrote it.
        server: address of NATS.
        image: of workers whose queue names none.
        manifest_digest: of what the pods are told of the queue.
        code_digest: of the ConfigMap with the code; empty if there is none.
        credentials: whether workers have to say who they are to NATS.
    """
    worker, name = queue.spec.worker, queue.metadata.name
    template = worker.template
    annotations = {**template.annotations, MANIFEST_ANNOTATION: manifest_digest}
    if code_digest:
        annotations[CODE_ANNOTATION] = code_digest
    account = template.service_account_name
    spec: dict[str, Any] = {
        "serviceAccountName": account or child_name(name),
        "automountServiceAccountToken": account is not None,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": _DEAF_SECONDS + worker.grace_period_seconds + HAND_BACK_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "fsGroup": NOBODY,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(queue, server, worker.image or image, credentials)],
        "volumes": _volumes(queue, credentials),
    }
    return {
        "metadata": {"labels": {**template.labels, **selected_by(name)}, "annotations": annotations},
        "spec": spec | _placement(template),
    }


def _container(queue: TaskQueue, server: str, image: str, credentials: bool) -> dict[str, Any]:
    template = queue.spec.worker.template
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": image,
        "env": [
            *_own_environment(queue, server, credentials),
            *(_dumped(variable) for variable in template.env),
        ],
        "ports": [{"name": "health", "containerPort": HEALTH_PORT}],
        "lifecycle": {"preStop": {"sleep": {"seconds": _DEAF_SECONDS}}},
        "startupProbe": _probe("/livez", period=1, failures=_START_SECONDS),
        "livenessProbe": _probe("/livez", period=10, failures=3),
        # Soon, since a worker that drains and still looks ready is not the one a ReplicaSet takes first.
        "readinessProbe": _probe("/readyz", period=2, failures=1),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(queue, credentials),
    }
    if resources := _dumped(template.resources):
        container["resources"] = resources
    return container


def _own_environment(queue: TaskQueue, server: str, credentials: bool) -> list[dict[str, Any]]:
    told = {
        "GALLEY_SERVER": server,
        "GALLEY_QUEUE_MANIFEST": f"{_MANIFEST_FOLDER}/queue.json",
        "GALLEY_HEALTH_PORT": str(HEALTH_PORT),
        "GALLEY_TERMINATION_LOG": "/dev/termination-log",
    }
    if queue.spec.worker.code is not None:
        told["GALLEY_IMPORT_PATHS"] = _CODE_FOLDER
    if credentials:
        told["GALLEY_CREDENTIALS"] = f"{_CREDENTIALS_FOLDER}/{FILE_KEY}"
    name = {"name": "GALLEY_WORKER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return [name, *({"name": key, "value": value} for key, value in told.items())]


def _mounts(queue: TaskQueue, credentials: bool) -> list[dict[str, Any]]:
    mounts: list[dict[str, Any]] = [
        {"name": "queue", "mountPath": _MANIFEST_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - a folder of this container alone
    ]
    if queue.spec.worker.code is not None:
        mounts.append({"name": "code", "mountPath": _CODE_FOLDER, "readOnly": True})
    if credentials:
        mounts.append({"name": "credentials", "mountPath": _CREDENTIALS_FOLDER, "readOnly": True})
    return mounts


def _volumes(queue: TaskQueue, credentials: bool) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "queue", "configMap": {"name": child_name(queue.metadata.name)}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if (code := queue.spec.worker.code) is not None:
        volumes.append({"name": "code", "configMap": {"name": code.config_map_name}})
    if credentials:
        # The kubelet puts newer ones in their place while the worker runs, which reads them again in time.
        secret = {"secretName": secret_name(Role.WORKER, queue.metadata.name), "defaultMode": 0o440}
        volumes.append({"name": "credentials", "secret": secret})
    return volumes


def _placement(template: PodTemplate) -> dict[str, Any]:
    dumped = _dumped(template)
    places = ("imagePullSecrets", "nodeSelector", "tolerations", "priorityClassName")
    return {place: dumped[place] for place in places if dumped.get(place)}


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _dumped(part: Any) -> Any:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)

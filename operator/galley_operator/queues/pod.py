"""The pod of a queue's worker: always within the *restricted* profile, whatever the queue says."""

import hashlib
from collections.abc import Collection, Iterable
from typing import Any, Final

from galley.broker.permissions import Role
from galley.resources import TaskQueue
from galley.resources.environment import EnvironmentVariable
from galley.resources.pod_resources import PodResources
from galley.resources.pod_template import InitContainer, PodTemplate, SecurityContext
from galley.resources.volume import EmptyDirVolume, Volume
from galley.tls import VARIABLES
from galley_operator.credentials.client_tls import CA, CERTIFICATE, KEY, ClientTls
from galley_operator.credentials.queue_secrets import FILE_KEY, secret_name
from galley_operator.fleet.names import CODE_ANNOTATION, MANIFEST_ANNOTATION, child_name, selected_by
from galley_operator.fleet.pods import CONTAINER

HAND_BACK_SECONDS: Final = 30
"""Time beyond a worker's grace, to hand back what still runs."""

HEALTH_PORT: Final = 8080
UNPRIVILEGED: Final = 65532
"""User and group of workers whose queue names none."""

_MANIFEST_FOLDER: Final = "/etc/galley/queue"
_CODE_FOLDER: Final = "/etc/galley/code"
_CREDENTIALS_FOLDER: Final = "/etc/galley/credentials"
_KEYS_FOLDER: Final = "/etc/galley/keys"
_SIGNING_FOLDER: Final = "/etc/galley/signing"
_TEMPORARY: Final = "/tmp"  # noqa: S108 - a folder of the worker's container alone
_DEAF_SECONDS: Final = 1
"""Delay of SIGTERM. The first process of a container ignores signals it has no handler for, and Python
installs ours some 50 ms after its start; a signal before that would be lost."""

_EMPTY_SIZE: Final = "1Mi"
"""Size of a volume that stands for one of a Secret that is missing."""

_START_SECONDS: Final = 300
"""How long imports and a first connection may take before a worker is restarted."""


def pod_template(
    queue: TaskQueue,
    *,
    server: str,
    image: str,
    manifest_digest: str,
    code_digest: str,
    credentials: bool,
    tls: ClientTls | None = None,
) -> dict[str, Any]:
    """Return the template of a queue's pods.

    Args:
        queue: its spec.
        server: address of NATS.
        image: of workers whose queue names none.
        manifest_digest: of the queue's manifest for workers.
        code_digest: of the ConfigMap with the code; empty if there is none.
        credentials: whether NATS requires workers to authenticate.
        tls: what workers need to encrypt connections to NATS; None if they do not.
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
        "securityContext": _pod_security(template.security_context),
        "containers": [_container(queue, server, worker.image or image, credentials, tls)],
        "volumes": _volumes(queue, credentials),
    }
    if template.init_containers:
        spec["initContainers"] = [
            _init_container(each, worker.image or image, template) for each in template.init_containers
        ]
    return {
        "metadata": {"labels": {**template.labels, **selected_by(name)}, "annotations": annotations},
        "spec": spec | _placement(template, name),
    }


def with_resources(queue: TaskQueue, defaults: PodResources) -> TaskQueue:
    """Return a queue with the default request and limit of each resource that it does not mention.

    A default limit beside a queue's own request could be below it.
    """
    template = queue.spec.worker.template
    own = template.resources
    mentioned = {*own.requests, *own.limits}

    def part(given: dict[str, str], default: dict[str, str]) -> dict[str, str]:
        return {name: amount for name, amount in default.items() if name not in mentioned} | given

    resources = PodResources(
        requests=part(own.requests, defaults.requests), limits=part(own.limits, defaults.limits)
    )
    return _with_template(queue, template.model_copy(update={"resources": resources}))


def without_secrets(queue: TaskQueue, names: Collection[str]) -> TaskQueue:
    """Return a queue whose pods do not name these Secrets, each of which may be missing.

    As with one that is missing, variables are not set and volumes are empty.
    """
    if not names:
        return queue
    template = queue.spec.worker.template

    def kept(variables: Iterable[EnvironmentVariable]) -> tuple[EnvironmentVariable, ...]:
        return tuple(
            each
            for each in variables
            if not (each.value_from and (key := each.value_from.secret_key_ref) and key.name in names)
        )

    update = {
        "env": kept(template.env),
        "env_from": tuple(
            each for each in template.env_from if each.secret_ref is None or each.secret_ref.name not in names
        ),
        "volumes": tuple(
            each
            if each.secret is None or each.secret.secret_name not in names
            else Volume(name=each.name, empty_dir=EmptyDirVolume(size_limit=_EMPTY_SIZE))
            for each in template.volumes
        ),
        "init_containers": tuple(
            each.model_copy(update={"env": kept(each.env)}) for each in template.init_containers
        ),
    }
    return _with_template(queue, template.model_copy(update=update))


def _with_template(queue: TaskQueue, template: PodTemplate) -> TaskQueue:
    worker = queue.spec.worker.model_copy(update={"template": template})
    return queue.model_copy(update={"spec": queue.spec.model_copy(update={"worker": worker})})


def _pod_security(context: SecurityContext) -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": UNPRIVILEGED,
        "runAsGroup": UNPRIVILEGED,
        "fsGroup": UNPRIVILEGED,
        "seccompProfile": {"type": "RuntimeDefault"},
        **{key: value for key, value in _dumped(context).items() if key != "readOnlyRootFilesystem"},
    }


def _container_security(*, read_only: bool) -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": read_only,
        "capabilities": {"drop": ["ALL"]},
    }


def _init_container(container: InitContainer, image: str, template: PodTemplate) -> dict[str, Any]:
    return {
        "image": image,
        "imagePullPolicy": template.image_pull_policy,
        **_dumped(container),
        "resources": _dumped(template.resources),
        "securityContext": _container_security(read_only=template.security_context.read_only_root_filesystem),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }


def _container(
    queue: TaskQueue, server: str, image: str, credentials: bool, tls: ClientTls | None
) -> dict[str, Any]:
    template = queue.spec.worker.template
    container: dict[str, Any] = {
        "name": CONTAINER,
        "image": image,
        "env": [
            *_own_environment(queue, server, credentials, tls),
            *(_dumped(variable) for variable in template.env),
        ],
        "ports": [{"name": "health", "containerPort": HEALTH_PORT}],
        "lifecycle": {"preStop": {"sleep": {"seconds": _DEAF_SECONDS}}},
        "startupProbe": _probe("/livez", period=1, failures=_START_SECONDS),
        "livenessProbe": _probe("/livez", period=10, failures=3),
        # Soon, since a worker that drains and still looks ready is not the one a ReplicaSet takes first.
        "readinessProbe": _probe("/readyz", period=2, failures=1),
        "securityContext": _container_security(read_only=template.security_context.read_only_root_filesystem),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(queue, credentials),
    }
    if resources := _dumped(template.resources):
        container["resources"] = resources
    if template.env_from:
        container["envFrom"] = [_dumped(source) for source in template.env_from]
    if template.image_pull_policy is not None:
        container["imagePullPolicy"] = template.image_pull_policy.value
    return container


def _own_environment(
    queue: TaskQueue, server: str, credentials: bool, tls: ClientTls | None
) -> list[dict[str, Any]]:
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
    if tls is not None:
        files = {
            "ca": tls.ca and f"{_MANIFEST_FOLDER}/{CA}",
            "certificate": tls.certificate and f"{_CREDENTIALS_FOLDER}/{CERTIFICATE}",
            "key": tls.key and f"{_CREDENTIALS_FOLDER}/{KEY}",
            "server_name": tls.server_name,
        }
        told |= {VARIABLES[name]: value for name, value in files.items() if value}
    if queue.spec.encryption is not None:
        told["GALLEY_KEYS"] = f"{queue.metadata.name}={_KEYS_FOLDER}"
    if secrets := _signing_secrets(queue):
        told["GALLEY_SIGNING_KEYS"] = ":".join(f"{each}={_SIGNING_FOLDER}/{each}" for each in secrets)
    name = {"name": "GALLEY_WORKER", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
    return [name, *({"name": key, "value": value} for key, value in told.items())]


def _mounts(queue: TaskQueue, credentials: bool) -> list[dict[str, Any]]:
    own = [_dumped(mount) for mount in queue.spec.worker.template.volume_mounts]
    mounts: list[dict[str, Any]] = [{"name": "queue", "mountPath": _MANIFEST_FOLDER, "readOnly": True}, *own]
    if all(mount["mountPath"] != _TEMPORARY for mount in own):
        mounts.append({"name": "tmp", "mountPath": _TEMPORARY})
    if queue.spec.worker.code is not None:
        mounts.append({"name": "code", "mountPath": _CODE_FOLDER, "readOnly": True})
    if credentials:
        mounts.append({"name": "credentials", "mountPath": _CREDENTIALS_FOLDER, "readOnly": True})
    if queue.spec.encryption is not None:
        mounts.append({"name": "encryption-keys", "mountPath": _KEYS_FOLDER, "readOnly": True})
    mounts += (
        {"name": _volume_name(secret), "mountPath": f"{_SIGNING_FOLDER}/{secret}", "readOnly": True}
        for secret in _signing_secrets(queue)
    )
    return mounts


def _volumes(queue: TaskQueue, credentials: bool) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "queue", "configMap": {"name": child_name(queue.metadata.name)}},
        {"name": "tmp", "emptyDir": {}},
    ]
    if (code := queue.spec.worker.code) is not None:
        volumes.append({"name": "code", "configMap": {"name": code.config_map_name}})
    if credentials:
        # The kubelet updates the file while the worker runs, and the worker reads it again in time.
        secret = {"secretName": secret_name(Role.WORKER, queue.metadata.name), "defaultMode": 0o440}
        volumes.append({"name": "credentials", "secret": secret})
    if (encryption := queue.spec.encryption) is not None:
        # As a folder, which the kubelet updates when a key is added or removed.
        secret = {"secretName": encryption.secret_name, "defaultMode": 0o440}
        volumes.append({"name": "encryption-keys", "secret": secret})
    for name in _signing_secrets(queue):
        secret = {"secretName": name, "defaultMode": 0o440}
        volumes.append({"name": _volume_name(name), "secret": secret})
    return [*volumes, *(_volume(volume) for volume in queue.spec.worker.template.volumes)]


def _signing_secrets(queue: TaskQueue) -> list[str]:
    """Return the names of the Secrets whose keys sign requests."""
    return sorted({handler.secret_name for handler in queue.spec.handlers.http})


def _volume_name(secret: str) -> str:
    """Return the name of the volume of a Secret, whose own name may be too long for one, or have dots."""
    return f"signing-{hashlib.sha256(secret.encode()).hexdigest()[:16]}"


def _volume(volume: Volume) -> dict[str, Any]:
    dumped: dict[str, Any] = _dumped(volume)
    if volume.ephemeral is not None:
        # Kubernetes has no default for them.
        spec = volume.ephemeral.volume_claim_template.spec
        dumped["ephemeral"]["volumeClaimTemplate"]["spec"]["accessModes"] = [*spec.access_modes]
    return dumped


def _placement(template: PodTemplate, queue: str) -> dict[str, Any]:
    dumped = _dumped(template)
    places = ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName")
    placement = {place: dumped[place] for place in places if dumped.get(place)}
    if template.topology_spread_constraints:
        placement["topologySpreadConstraints"] = [
            {
                **spread.model_dump(mode="json", by_alias=True),
                "labelSelector": {"matchLabels": selected_by(queue)},
            }
            for spread in template.topology_spread_constraints
        ]
    return placement


def _probe(path: str, *, period: int, failures: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": path, "port": "health"},
        "periodSeconds": period,
        "timeoutSeconds": 5,
        "failureThreshold": failures,
    }


def _dumped(part: Any) -> Any:
    return part.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)

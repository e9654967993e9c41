"""The desired objects of a TaskQueue, computed from the queue alone."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Final

from galley.resources import API_VERSION, TaskQueue
from galley_operator.cluster.resource import CONFIGMAPS, DEPLOYMENTS, PDBS, SERVICEACCOUNTS, Resource
from galley_operator.credentials.client_tls import CA, ClientTls
from galley_operator.fleet.names import child_name, labels_of, selected_by
from galley_operator.queues.pod import HAND_BACK_SECONDS, pod_template

_ROLLOUT_SECONDS: Final = 600
"""How long a new template may take to come up before the rollout counts as failed."""


@dataclass(frozen=True, slots=True)
class Making:
    """What a queue's objects are made from."""

    queue: TaskQueue
    uid: str
    """Of the TaskQueue, which owns them."""
    server: str
    """Address of NATS as workers reach it."""
    image: str
    """Of workers whose queue names none."""
    code_digest: str = ""
    """Of the ConfigMap with the queue's code; empty if there is none."""
    credentials: bool = False
    """Whether workers have to say who they are to NATS."""
    tls: ClientTls | None = None
    """What workers need to encrypt connections to NATS; None if they do not."""


def children_of(making: Making) -> list[tuple[Resource, dict[str, Any]]]:
    """Return all objects of a queue with their kinds, in the order in which they are to be made."""
    manifest = manifest_for_workers(making.queue)
    own_account = making.queue.spec.worker.template.service_account_name is None
    children = [(CONFIGMAPS, config_map(making, manifest))]
    if own_account:
        children.append((SERVICEACCOUNTS, service_account(making)))
    children.append((PDBS, disruption_budget(making)))
    children.append((DEPLOYMENTS, deployment(making, digest(manifest))))
    return children


def config_map(making: Making, manifest: str) -> dict[str, Any]:
    """Return the ConfigMap workers read their queue from."""
    # Workers read the authorities here, since there is a Secret only if NATS requires credentials.
    authorities = {CA: making.tls.ca} if making.tls is not None and making.tls.ca else {}
    return {"metadata": metadata_of(making), "data": {"queue.json": manifest, **authorities}}


def service_account(making: Making) -> dict[str, Any]:
    """Return the account workers run as: one without rights, and without a token to have any with."""
    return {"metadata": metadata_of(making), "automountServiceAccountToken": False}


def disruption_budget(making: Making) -> dict[str, Any]:
    """Return how many workers a drain of nodes may take at a time; those not ready do not count."""
    return {
        "metadata": metadata_of(making),
        "spec": {
            "maxUnavailable": "25%",
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selected_by(making.queue.metadata.name)},
        },
    }


def deployment(making: Making, manifest_digest: str) -> dict[str, Any]:
    """Return the Deployment, without the number of its replicas: that is the autoscaler's."""
    queue = making.queue
    grace = queue.spec.worker.grace_period_seconds
    return {
        "metadata": metadata_of(making),
        "spec": {
            "selector": {"matchLabels": selected_by(queue.metadata.name)},
            "revisionHistoryLimit": 3,
            "progressDeadlineSeconds": _ROLLOUT_SECONDS + grace + HAND_BACK_SECONDS,
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 0},
            },
            "template": pod_template(
                queue,
                server=making.server,
                image=making.image,
                manifest_digest=manifest_digest,
                code_digest=making.code_digest,
                credentials=making.credentials,
                tls=making.tls,
            ),
        },
    }


def metadata_of(making: Making) -> dict[str, Any]:
    """Return the metadata of each of a queue's objects."""
    name = making.queue.metadata.name
    owner = {
        "apiVersion": API_VERSION,
        "kind": "TaskQueue",
        "name": name,
        "uid": making.uid,
        "controller": True,
    }
    return {
        "name": child_name(name),
        "namespace": making.queue.metadata.namespace,
        "labels": labels_of(name),
        "ownerReferences": [owner],
    }


_NOT_FOR_WORKERS = ("scaling",)
_LIMITS_FOR_WORKERS = ("concurrency", "rate", "perKey")
"""Limits that workers keep; the others the broker keeps."""
_IN_THE_POD = ("image", "code", "template")


def manifest_for_workers(queue: TaskQueue) -> str:
    """Return what workers have to know of a queue, as JSON.

    Scaling and the limits that the broker keeps are left out, so that a change of them replaces no worker.
    So is all that has its default, which an older worker may not know yet.
    """
    spec: dict[str, Any] = queue.spec.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for part in _NOT_FOR_WORKERS:
        spec.pop(part, None)
    limits = {name: each for name, each in spec.pop("limits", {}).items() if name in _LIMITS_FOR_WORKERS}
    spec |= {"limits": limits} if limits else {}
    worker = {key: value for key, value in spec.pop("worker", {}).items() if key not in _IN_THE_POD}
    metadata = {"name": queue.metadata.name, "namespace": queue.metadata.namespace}
    spec |= {"worker": worker} if worker else {}
    document = {"apiVersion": API_VERSION, "kind": queue.kind, "metadata": metadata, "spec": spec}
    return json.dumps(document, indent=2, sort_keys=True) + "\n"


def digest(text: str) -> str:
    """Return a short name for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]

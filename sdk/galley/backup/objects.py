"""The objects of Kubernetes in a backup, and what of them is kept. Pure, but for the protocol."""

from collections.abc import AsyncIterator, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final, Protocol

from galley.backup.archive import Need
from galley.schedule import RUN_NOW
from galley.task_status import Phase
from galley.workflow.state import WORKFLOW

_OF_THE_SERVER: Final = (
    "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "selfLink",
    "ownerReferences", "finalizers", "deletionTimestamp", "deletionGracePeriodSeconds",
)  # fmt: skip
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"

_ENDED: Final = frozenset(phase.value for phase in Phase if phase.ended)


class ObjectKind(StrEnum):
    """Kinds of objects in a backup, in the order in which they are restored."""

    QUEUES = "taskqueues"
    TOPICS = "topics"
    SCHEDULES = "taskschedules"
    TASKS = "tasks"
    WORKFLOWS = "workflows"


class Made(StrEnum):
    """What became of an object that was to be created."""

    CREATED = "created"
    SAME = "is there already"
    DIFFERS = "exists with another spec, which was kept"


_ENDING: Final = (ObjectKind.TASKS, ObjectKind.WORKFLOWS)
"""Kinds of objects that end."""


class Objects(Protocol):
    """The objects of a cluster. All methods raise if it does not answer or refuses."""

    def listed(self, kind: ObjectKind, namespaces: Sequence[str]) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the objects of these namespaces, none meaning all, some at a time."""

    async def create(self, kind: ObjectKind, body: dict[str, Any]) -> Made:
        """Create an object, or leave the one that is there."""

    async def look(self, kind: ObjectKind, body: dict[str, Any]) -> Made | None:
        """Return how an object that is there compares, or None if there is none."""


def kept(kind: ObjectKind, body: dict[str, Any]) -> dict[str, Any]:
    """Return what of an object is archived: metadata as people wrote it, its spec, the phase of what ends."""
    metadata = {key: value for key, value in body["metadata"].items() if key not in _OF_THE_SERVER}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {key: text for key, text in annotations.items() if key != _LAST_APPLIED}
    whole = {"metadata": metadata, "spec": body.get("spec", {})}
    if kind in _ENDING:
        status = body.get("status") or {}
        whole["status"] = {"phase": status.get("phase", "")}
        if workflow := status.get("workflow"):
            whole["status"]["workflow"] = workflow
    return whole


def restorable(kind: ObjectKind, body: dict[str, Any], namespace: str) -> dict[str, Any] | None:
    """Return what is created for an archived object, or None for a Task or Workflow that has ended.

    Its outcome is in its record. Created again without it, it would run again. So would the
    task of a TaskSchedule that was told to run now.
    """
    status = body.get("status", {})
    if kind in _ENDING and status.get("phase") in _ENDED:
        return None
    metadata = {**body["metadata"], "namespace": namespace}
    if annotations := metadata.get("annotations"):
        metadata["annotations"] = {key: text for key, text in annotations.items() if key != RUN_NOW}
    if kind is ObjectKind.WORKFLOWS and (workflow := status.get("workflow")):
        # It goes on: under the uid of the new object it would be another one.
        metadata["annotations"] = metadata.get("annotations", {}) | {WORKFLOW: workflow}
    return {"metadata": metadata, "spec": body["spec"]}


def needs_of(body: dict[str, Any]) -> Iterator[Need]:
    """Yield the objects a TaskQueue names: they have to be there before its workers start."""
    namespace = body["metadata"]["namespace"]
    for kind, name in _named(body.get("spec", {}), ""):
        yield Need(kind, namespace, name)


_REFERENCES: Final = {
    "secretKeyRef": "Secret", "secretRef": "Secret", "secret": "Secret", "imagePullSecrets": "Secret",
    "configMapKeyRef": "ConfigMap", "configMapRef": "ConfigMap", "configMap": "ConfigMap",
    "persistentVolumeClaim": "PersistentVolumeClaim",
}  # fmt: skip
_DIRECT: Final = {
    "secretName": "Secret", "claimName": "PersistentVolumeClaim", "serviceAccountName": "ServiceAccount",
    "configMapName": "ConfigMap",
}  # fmt: skip


def _named(value: object, under: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for each in value:
            yield from _named(each, under)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if isinstance(inner, str):
            if key in _DIRECT:
                yield _DIRECT[key], inner
            elif key == "name" and under in _REFERENCES:
                yield _REFERENCES[under], inner
        elif isinstance(inner, dict | list):
            yield from _named(inner, key)

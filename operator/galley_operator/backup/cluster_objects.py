"""The objects of a cluster, as a backup reads and a restore creates them."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from galley.backup.objects import Made, ObjectKind
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.errors import ObjectConflict, ObjectNotFound
from galley_operator.cluster.resource import (
    TASKQUEUES,
    TASKS,
    TASKSCHEDULES,
    TOPICS,
    WORKFLOWS,
    Resource,
)

_RESOURCES: Final[dict[ObjectKind, Resource]] = {
    ObjectKind.QUEUES: TASKQUEUES,
    ObjectKind.TOPICS: TOPICS,
    ObjectKind.SCHEDULES: TASKSCHEDULES,
    ObjectKind.TASKS: TASKS,
    ObjectKind.WORKFLOWS: WORKFLOWS,
}
_MANAGER: Final = "galley-restore"


class ClusterObjects:
    """The objects of one cluster. All methods raise `ClusterError` if it does not answer or refuses."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def listed(
        self, kind: ObjectKind, namespaces: Sequence[str]
    ) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the objects of these namespaces, none meaning all, some at a time."""
        for namespace in namespaces or (None,):
            async for page in self._cluster.pages(_RESOURCES[kind], namespace):
                yield page

    async def create(self, kind: ObjectKind, body: dict[str, Any]) -> Made:
        """Create an object, or leave the one that is there."""
        resource = _RESOURCES[kind]
        whole = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        try:
            await self._cluster.create(resource, whole, manager=_MANAGER)
        except ObjectConflict:
            return await self.look(kind, body) or Made.DIFFERS
        return Made.CREATED

    async def look(self, kind: ObjectKind, body: dict[str, Any]) -> Made | None:
        """Return how an object that is there compares, or None if there is none."""
        metadata = body["metadata"]
        try:
            present = await self._cluster.get(_RESOURCES[kind], metadata["namespace"], metadata["name"])
        except ObjectNotFound:
            return None
        return Made.SAME if present.get("spec") == body["spec"] else Made.DIFFERS

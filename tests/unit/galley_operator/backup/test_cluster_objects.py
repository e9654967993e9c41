"""What a restore finds in a cluster, and leaves as it is."""

from typing import Any

import pytest

from galley.backup.objects import Made, ObjectKind
from galley_operator.backup.cluster_objects import ClusterObjects
from galley_operator.cluster.errors import ObjectConflict
from galley_operator.cluster.resource import TASKS
from tests.support.memory_cluster import MemoryCluster, Written


def a_body(handler: str = "resize") -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "thumb"}, "spec": {"handler": handler}}


@pytest.mark.parametrize(
    ("present", "expected"),
    [(None, Made.CREATED), ("resize", Made.SAME), ("crop", Made.DIFFERS)],
)
async def test_an_object_that_is_there_stays(present: str | None, expected: Made) -> None:
    cluster = MemoryCluster()
    objects = ClusterObjects(cluster)
    if present is not None:
        cluster.put(TASKS, a_body(present))
    looked = await objects.look(ObjectKind.TASKS, a_body())
    assert looked == (None if present is None else expected)
    assert await objects.create(ObjectKind.TASKS, a_body()) is expected
    assert cluster.objects["tasks", "shop", "thumb"]["spec"] == {"handler": present or "resize"}


async def test_one_that_is_deleted_between_the_attempt_and_the_look_is_told_as_another() -> None:
    cluster = MemoryCluster()

    def conflict(request: Written) -> None:
        raise ObjectConflict(request.verb, request.name, 409, "it exists already")

    cluster.before = conflict
    assert await ClusterObjects(cluster).create(ObjectKind.TASKS, a_body()) is Made.DIFFERS

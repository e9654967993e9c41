"""What the operator relies on of an API server; a version that differs tells us here first."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from e2e.api.scene import a_task
from galley_operator.cluster.answer import Change
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.errors import ObjectConflict, ObjectNotFound
from galley_operator.cluster.resource import TASKS
from galley_operator.tasks.active_tasks import UNFINISHED
from galley_operator.tasks.task_object import TaskObject
from tests.support.api_server import ApiServer

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def cluster(galley_api: ApiServer) -> AsyncIterator[Cluster]:
    async with Cluster(load_config(galley_api.kubeconfig)) as cluster:
        yield cluster


async def make(cluster: Cluster, namespace: str, name: str, **spec: Any) -> dict[str, Any]:
    body = a_task(name, **spec)
    body["metadata"]["namespace"] = namespace
    return await cluster.create(TASKS, body)


async def set_phase(cluster: Cluster, made: dict[str, Any], phase: str) -> str:
    """Write a phase and return the version after it."""
    metadata = made["metadata"]
    present = await cluster.get(TASKS, metadata["namespace"], metadata["name"])
    answer = await cluster.replace_status(
        TASKS,
        metadata["namespace"],
        metadata["name"],
        present["metadata"]["resourceVersion"],
        {"phase": phase},
    )
    return str(msgspec.json.decode(answer)["metadata"]["resourceVersion"])


async def seen(cluster: Cluster, namespace: str, since: str, count: int) -> list[tuple[Change, str, str]]:
    """Return change, name and phase of the next events of unfinished Tasks."""
    events: list[tuple[Change, str, str]] = []
    async for event in cluster.watch_of(
        TaskObject, TASKS, namespace, fields=UNFINISHED, resource_version=since
    ):
        if event.object is not None:
            status = event.object.status
            events.append((event.change, event.object.metadata.name, status.phase if status else ""))
        if len(events) == count:
            break
    return events


async def test_a_task_without_a_phase_is_among_the_unfinished(cluster: Cluster, api_namespace: str) -> None:
    await make(cluster, api_namespace, "one")
    names = [
        task["metadata"]["name"]
        async for page in cluster.pages(TASKS, api_namespace, fields=UNFINISHED)
        for task in page
    ]
    assert names == ["one"]


async def test_that_a_task_ended_and_that_it_was_deleted_look_the_same_to_who_watches_the_unfinished(
    cluster: Cluster, api_namespace: str
) -> None:
    ended, deleted = (
        await make(cluster, api_namespace, "ended"),
        await make(cluster, api_namespace, "deleted"),
    )
    await set_phase(cluster, ended, "Queued")
    since = await set_phase(cluster, deleted, "Queued")
    await set_phase(cluster, ended, "Succeeded")
    await cluster.delete(TASKS, api_namespace, "deleted")
    assert await seen(cluster, api_namespace, since, 2) == [
        (Change.DELETED, "ended", "Queued"),
        (Change.DELETED, "deleted", "Queued"),
    ]


async def test_a_status_is_refused_if_the_object_changed_since(cluster: Cluster, api_namespace: str) -> None:
    made = await make(cluster, api_namespace, "one")
    await set_phase(cluster, made, "Queued")
    with pytest.raises(ObjectConflict):
        await cluster.replace_status(
            TASKS, api_namespace, "one", made["metadata"]["resourceVersion"], {"phase": "Running"}
        )


async def test_a_status_is_not_written_into_another_object_of_that_name(
    cluster: Cluster, api_namespace: str
) -> None:
    made = await make(cluster, api_namespace, "one")
    await cluster.delete(TASKS, api_namespace, "one", uid=made["metadata"]["uid"])
    with pytest.raises(ObjectNotFound):
        await cluster.replace_status(
            TASKS, api_namespace, "one", made["metadata"]["resourceVersion"], {"phase": "Running"}
        )
    await make(cluster, api_namespace, "one")
    with pytest.raises(ObjectConflict):
        await cluster.replace_status(
            TASKS, api_namespace, "one", made["metadata"]["resourceVersion"], {"phase": "Running"}
        )


async def test_a_uid_in_a_merge_patch_of_a_status_guards_nothing(
    cluster: Cluster, api_namespace: str
) -> None:
    await make(cluster, api_namespace, "one")
    body = {"metadata": {"uid": "another"}, "status": {"phase": "Queued"}}
    patched = await cluster.merge_patch(TASKS, api_namespace, "one", body, subresource="status")
    assert patched["status"]["phase"] == "Queued"


async def test_deleting_by_uid_spares_another_object_of_that_name(
    cluster: Cluster, api_namespace: str
) -> None:
    await make(cluster, api_namespace, "one")
    with pytest.raises(ObjectConflict):
        await cluster.delete(TASKS, api_namespace, "one", uid="another")


async def test_a_watch_can_begin_with_what_there_is_and_says_when_that_was_all(
    cluster: Cluster, api_namespace: str
) -> None:
    for name in ("one", "two"):
        await make(cluster, api_namespace, name)
    names = []
    async for event in cluster.watch_of(TaskObject, TASKS, api_namespace, listing=True):
        if event.listed:
            break
        assert event.object is not None
        names.append(event.object.metadata.name)
    assert sorted(names) == ["one", "two"]


async def test_pages_bring_every_object_once(cluster: Cluster, api_namespace: str) -> None:
    await asyncio.gather(*[make(cluster, api_namespace, f"t{number}") for number in range(23)])
    pages = [page async for page in cluster.pages(TASKS, api_namespace, limit=5)]
    assert [len(page) for page in pages] == [5, 5, 5, 5, 3]
    assert len({task["metadata"]["name"] for page in pages for task in page}) == 23

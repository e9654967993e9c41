"""Events for people: one each time something happens, and a count where it happens again and again."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.resource import EVENTS, TASKQUEUES
from galley_operator.events import BURST, REFILL_SECONDS, SERIES_SECONDS, Events, Occurrence
from galley_operator.tasks.known_queues import QueueObject, read_queue
from tests.support.api_server import ApiServer


@pytest.fixture
async def cluster(galley_api: ApiServer) -> AsyncIterator[Cluster]:
    async with Cluster(load_config(galley_api.kubeconfig)) as connected:
        yield connected


@pytest.fixture
async def queue(cluster: Cluster, api_namespace: str) -> QueueObject:
    body = {"apiVersion": TASKQUEUES.api_version, "kind": TASKQUEUES.kind, "spec": {}}
    metadata = {"namespace": api_namespace, "name": "images"}
    return read_queue(await cluster.create(TASKQUEUES, {**body, "metadata": metadata}))


async def written(cluster: Cluster, queue: QueueObject) -> list[dict[str, Any]]:
    found = [event async for page in cluster.pages(EVENTS, queue.namespace) for event in page]
    return sorted(found, key=lambda event: str(event["eventTime"]))


async def test_an_event_is_about_its_queue_and_says_why(
    cluster: Cluster, queue: QueueObject, galley_api: ApiServer
) -> None:
    await Events(cluster, "operator-1").write(Occurrence(queue, "Scaled", "from 0 to 3 workers"))
    [event] = await written(cluster, queue)
    assert event["regarding"]["uid"] == queue.uid
    assert (event["type"], event["reason"], event["note"]) == ("Normal", "Scaled", "from 0 to 3 workers")
    described = galley_api.kubectl("describe", "taskqueue", "-n", queue.namespace, queue.name)
    assert "from 0 to 3 workers" in described


async def test_the_same_again_is_counted_until_the_series_is_old(
    cluster: Cluster, queue: QueueObject
) -> None:
    now = 0.0
    events = Events(cluster, "operator-1", lambda: now)
    scaled = Occurrence(queue, "Scaled", "from 0 to 3 workers")
    for _ in range(4):
        await events.write(scaled)
    await events.write(Occurrence(queue, "Scaled", "from 3 to 0 workers"))
    first, second = await written(cluster, queue)
    assert first["series"]["count"] == 4
    assert "series" not in second
    now = SERIES_SECONDS + 1
    await events.write(scaled)
    assert len(await written(cluster, queue)) == 3


async def test_another_text_is_another_event(cluster: Cluster, queue: QueueObject) -> None:
    events = Events(cluster, "operator-1")
    for note in ("from 0 to 3 workers. 5 wait", "from 0 to 3 workers. 9 wait"):
        await events.write(Occurrence(queue, "Scaled", note))
    assert [(event["note"][-6:], event.get("series")) for event in await written(cluster, queue)] == [
        ("5 wait", None), ("9 wait", None),
    ]  # fmt: skip


async def test_a_queue_has_a_budget_of_events_which_fills_again(cluster: Cluster, queue: QueueObject) -> None:
    now = 0.0
    events = Events(cluster, "operator-1", lambda: now)
    for number in range(BURST + 5):
        await events.write(Occurrence(queue, "Scaled", f"to {number}"))
    assert len(await written(cluster, queue)) == BURST
    now = REFILL_SECONDS
    for number in range(2):
        await events.write(Occurrence(queue, "Scaled", f"later to {number}"))
    assert len(await written(cluster, queue)) == BURST + 1


async def test_a_warning_is_one(cluster: Cluster, queue: QueueObject, galley_api: ApiServer) -> None:
    await Events(cluster, "operator-1").write(Occurrence(queue, "TasksFailed", "3 tasks", warning=True))
    found = galley_api.kubectl("get", "events", "-n", queue.namespace, "--field-selector", "type=Warning")
    assert "TasksFailed" in found


async def test_an_event_that_was_deleted_is_written_again(cluster: Cluster, queue: QueueObject) -> None:
    events = Events(cluster, "operator-1")
    scaled = Occurrence(queue, "Scaled", "from 0 to 3 workers")
    await events.write(scaled)
    [event] = await written(cluster, queue)
    await cluster.delete(EVENTS, queue.namespace, event["metadata"]["name"])
    await events.write(scaled)
    assert len(await written(cluster, queue)) == 1


async def test_what_cannot_be_written_holds_nothing_up(cluster: Cluster, queue: QueueObject) -> None:
    nowhere = QueueObject("no-such-namespace", "images", queue.uid, 1, None)
    await Events(cluster, "operator-1").write(Occurrence(nowhere, "Scaled", "x"))
    assert await written(cluster, queue) == []

"""One name is one task, with real workers: after its TTL, and after a person deleted it."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

from e2e.api.data_path import data_path
from galley.broker.connection import Broker
from galley.broker.ensure import ensure
from galley.broker.layout import layout_of
from galley_local.nats_server import NatsServer
from galley_operator.cluster.resource import TASKQUEUES, TASKS
from tests.support.eventually import eventually
from tests.support.memory_api import served
from tests.support.memory_cluster import MemoryCluster
from tests.support.workers import a_task_queue, workers


def runs(folder: Path) -> Counter[str]:
    """Return how often each word was noted by the handlers."""
    log = folder / "drills.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return Counter(line.partition(" ")[2] for line in lines)


async def test_a_task_applied_again_after_its_ttl_runs_only_once_it_was_deleted(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    cluster, queue = MemoryCluster(), a_task_queue(namespace)
    async with Broker(nats_server.url, name="test") as broker:
        await ensure(broker, layout_of(queue, "galley"))
    body = queue.model_dump(mode="json", by_alias=True, exclude_none=True)
    cluster.put(TASKQUEUES, {"metadata": body["metadata"] | {"generation": 1}, "spec": body["spec"]})

    def apply(**spec: Any) -> None:
        word = {"input": {"word": "once"}, "handler": "note", "queueName": "drills"}
        cluster.task("one", namespace, **word, **spec)

    def shows(phase: str, reason: str) -> bool:
        found = cluster.condition("one", namespace)
        assert (found[0], found[2]) == (phase, reason), found
        return True

    key = TASKS.plural, namespace, "one"
    async with served(cluster, tmp_path) as (_, kubeconfig):
        settings = {"namespaces": [namespace]}
        with workers(nats_server.url, queue, tmp_path, ("w1",)):
            with data_path(kubeconfig, nats_server.url, tmp_path, expiry_seconds=0.5, **settings):
                apply(ttlSecondsAfterFinished=0)
                await eventually(lambda: runs(tmp_path) == {"once": 1}, within=40)
                await eventually(lambda: key not in cluster.objects, within=40)
            with data_path(kubeconfig, nats_server.url, tmp_path, **settings):
                apply(ttlSecondsAfterFinished=0, created="2030-01-01T00:00:00Z")
                await eventually(lambda: shows("Succeeded", "AlreadyRan"), within=40)
                await asyncio.sleep(1)
                assert runs(tmp_path) == {"once": 1}
                cluster.remove(TASKS, "one", namespace)
                apply(created="2030-01-02T00:00:00Z")
                await eventually(lambda: shows("Succeeded", "Succeeded"), within=40)
                assert runs(tmp_path) == {"once": 2}

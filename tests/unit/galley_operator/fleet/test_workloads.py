"""What is remembered of workers whose pods are gone."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from galley.broker.notes import end_of
from galley_operator.cluster.resource import PODS
from galley_operator.faults import Faults
from galley_operator.fleet import workloads
from galley_operator.fleet.ends import WorkerEnds
from galley_operator.fleet.names import labels_of
from galley_operator.fleet.workloads import Workloads
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_worker.bench import a_bench


def a_pod(name: str, namespace: str = "shop", **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "uid": f"uid of {name}",
            "namespace": namespace,
            "labels": labels_of("images"),
        },
        "status": {"phase": "Failed", **status},
    }


@in_virtual_time
async def test_how_an_evicted_worker_ended_is_known_after_its_pod_is_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workloads, "ENDS_KEPT", 2)
    api = MemoryCluster()
    seen = Workloads(api, (None,), lambda _: None, Faults())
    running = asyncio.create_task(seen.run())
    try:
        for name in ("w1", "w2", "w3"):
            api.put(PODS, a_pod(name, reason="Evicted", message="low on memory"))
        api.put(PODS, a_pod("well"))
        await eventually(lambda: "low on memory" in seen.end_of("shop", "w3"), within=10)
        for name in ("w1", "w2", "w3", "well"):
            api.remove(PODS, name, "shop")
        await eventually(lambda: seen.end_of("shop", "w1") == "", within=10)
        assert "low on memory" in seen.end_of("shop", "w3")
        assert seen.end_of("shop", "well") == ""
    finally:
        running.cancel()
        await asyncio.wait([running])


@in_virtual_time
async def test_how_workers_ended_is_written_where_those_who_take_over_find_it() -> None:
    async with a_bench() as bench:
        ends = WorkerEnds(bench.producer, bench.server.now)
        api = MemoryCluster()
        seen = Workloads(api, (None,), lambda _: None, Faults(), ends=ends.see)
        running = [asyncio.create_task(work) for work in (seen.run(), ends.run())]
        try:
            killed = {"reason": "OOMKilled", "exitCode": 137, "finishedAt": "2026-01-02T03:04:05Z"}
            container = {"name": "worker", "restartCount": 1, "lastState": {"terminated": killed}}
            api.put(PODS, a_pod("w1", "default", phase="Running", containerStatuses=[container]))
            api.put(PODS, a_pod("w2", "default", reason="Evicted", message="low on memory"))
            api.put(PODS, a_pod("well", "default"))
            await eventually(lambda: len(bench.seen("stored", "note")) == 2, within=10)
            api.remove(PODS, "w2", "default")
            await bench.pass_time(1)
            first = await end_of(bench.producer, "default", "images", "w1")
            second = await end_of(bench.producer, "default", "images", "w2")
            assert first is not None
            assert second is not None
            assert first.at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
            assert "OOMKilled" in first.said
            assert "low on memory" in second.said
            assert await end_of(bench.producer, "default", "images", "well") is None
            assert len(bench.seen("stored", "note")) == 2
        finally:
            for one in running:
                one.cancel()
            await asyncio.wait(running)

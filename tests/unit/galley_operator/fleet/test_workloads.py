"""What is remembered of workers whose pods are gone."""

import asyncio
from typing import Any

import pytest

from galley_operator.cluster.resource import PODS
from galley_operator.faults import Faults
from galley_operator.fleet import workloads
from galley_operator.fleet.names import labels_of
from galley_operator.fleet.workloads import Workloads
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.virtual_time import in_virtual_time


def a_pod(name: str, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "namespace": "shop", "labels": labels_of("images")},
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

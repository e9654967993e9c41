"""A TaskSchedule on a real API server: what kubectl shows of it, and what it does."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from e2e.api.scene import Scene, a_schedule
from galley import AsyncClient
from galley.broker.connection import Broker
from galley.resources import TaskQueue
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.faults import Faults
from galley_operator.schedules.keeper import ScheduleKeeper
from galley_operator.tasks.known_queues import KnownQueues
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(120)


@asynccontextmanager
async def keeper(scene: Scene, queue: TaskQueue) -> AsyncIterator[Faults]:
    faults, queues = Faults(), KnownQueues()
    queues.seen(scene.api.kubectl.get("taskqueue", queue.metadata.name, "-n", scene.namespace))
    async with (
        Cluster(load_config(scene.api.kubeconfig)) as cluster,
        Broker(scene.server, name="operator") as broker,
    ):
        keeping = ScheduleKeeper(cluster, broker, queues, (scene.namespace,), faults)
        running = asyncio.create_task(keeping.run())
        try:
            yield faults
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_kubectl_shows_when_a_schedule_fires_and_deleting_it_stops_it(scene: Scene) -> None:
    queue = await scene.queue()
    kubectl = scene.api.kubectl

    def status(name: str) -> dict[str, Any]:
        return dict(kubectl.get("taskschedule", name, "-n", scene.namespace).get("status") or {})

    with scene.workers(queue):
        async with keeper(scene, queue) as faults:
            scene.apply(a_schedule("beat", input={"value": 3}), a_schedule("never", timeZone="Mars/Olympus"))
            await eventually(lambda: status("beat").get("fired", 0) >= 2, within=60)
            columns = str(kubectl("get", "taskschedules", "beat", "-n", scene.namespace))
            for word in ("QUEUE", "CRON", "STATE", "NEXT", "LAST", "@every 1s", "Active"):
                assert word in columns
            described = str(kubectl("describe", "taskschedule", "beat", "-n", scene.namespace))
            for word in ("Next Time", "Last Task", "Fired", "next at"):
                assert word in described
            (condition,) = status("never")["conditions"]
            assert condition["status"] == "False"
            assert "there is no time zone 'Mars/Olympus'" in condition["message"]
            kubectl("delete", "taskschedule", "beat", "-n", scene.namespace)
            async with AsyncClient(scene.server, scene.namespace) as client:

                async def stopped() -> bool:
                    return await client.schedules.list("drills") == []

                await eventually(stopped, within=30)
                fired = [one for one in await client.tasks("drills") if one.address.id.startswith("beat-")]
                assert len(fired) >= 2
            assert faults.seen == 0


async def test_the_api_server_refuses_what_contradicts_itself(scene: Scene) -> None:
    for spec, words in (
        ({"start": "2026-02-01T00:00:00Z", "end": "2026-01-01T00:00:00Z"}, "before start"),
        ({"catchUp": "all"}, "set overlap: allow"),
        ({"overlap": "queue"}, "Unsupported value"),
        ({"historyLimit": 101}, "less than or equal to 100"),
    ):
        with pytest.raises(Exception, match="is invalid") as refused:
            scene.apply(a_schedule("wrong", **spec))
        assert words in str(refused.value)
    with pytest.raises(Exception, match="more than 48 characters"):
        scene.apply(a_schedule("n" * 49))

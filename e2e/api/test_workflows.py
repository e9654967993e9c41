"""A Workflow on a real API server: what kubectl shows of it, what it does, and what is refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from e2e.api.scene import Scene
from galley import AsyncClient
from galley.broker.connection import Broker
from galley.resources import TaskQueue
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.faults import Faults
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.workflows.keeper import WorkflowKeeper
from tests.support.eventually import eventually

pytestmark = pytest.mark.timeout(120)


def a_workflow(name: str, *steps: dict[str, Any], **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "galley.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"steps": [{"queueName": "drills", "handler": "aecho"} | step for step in steps], **spec},
    }  # fmt: skip


@asynccontextmanager
async def keeper(scene: Scene, queue: TaskQueue) -> AsyncIterator[Faults]:
    faults, queues = Faults(), KnownQueues()
    queues.seen(scene.api.kubectl.get("taskqueue", queue.metadata.name, "-n", scene.namespace))
    async with (
        Cluster(load_config(scene.api.kubeconfig)) as cluster,
        Broker(scene.server, name="operator") as broker,
    ):
        keeping = WorkflowKeeper(cluster, broker, queues, (scene.namespace,), faults)
        running = asyncio.create_task(keeping.run())
        try:
            yield faults
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)


async def test_kubectl_runs_a_workflow_and_deleting_one_cancels_it(scene: Scene) -> None:
    queue = await scene.queue()
    kubectl = scene.api.kubectl

    def status(name: str) -> dict[str, Any]:
        return dict(kubectl.get("workflow", name, "-n", scene.namespace).get("status") or {})

    first, last = {"name": "first", "input": {"value": {"size": [4, 5]}}}, {"name": "last"}
    with scene.workers(queue):
        async with keeper(scene, queue) as faults:
            scene.apply(
                a_workflow("order", first, last | {"input": {"value": "${steps.first.result.size[1]}"}}),
                a_workflow("cycle", first | {"dependsOn": ["last"]}, last | {"dependsOn": ["first"]}),
                a_workflow("slow", first | {"input": {"seconds": 300}}),
            )
            await eventually(lambda: status("order").get("phase") == "Succeeded", within=60)
            assert status("order")["result"] == {"last": 5}
            columns = str(kubectl("get", "workflows", "order", "-n", scene.namespace))
            for word in ("PHASE", "PROGRESS", "AGE", "Succeeded", "2 of 2"):
                assert word in columns
            kubectl("wait", "--for=condition=Finished", "workflow/order", "-n", scene.namespace)
            await eventually(lambda: status("cycle").get("phase") == "Failed", within=30)
            assert "has a cycle: first after last after first" in status("cycle")["error"]["message"]
            await eventually(lambda: status("slow").get("phase") == "Running", within=30)
            flow = status("slow")["workflow"]
            kubectl("delete", "workflow", "slow", "-n", scene.namespace)
            async with AsyncClient(scene.server, scene.namespace) as client:
                workflow = client.workflows.get("drills", flow)

                async def cancelled() -> bool:
                    return (await workflow.status()).phase == "Cancelled"

                await eventually(cancelled, within=30)
            assert faults.seen == 0


async def test_the_api_server_refuses_what_cannot_be_a_workflow(scene: Scene) -> None:
    step = {"name": "one"}
    for body, words in (
        (a_workflow("wrong", step, step), "Duplicate value"),
        (a_workflow("wrong"), "should have at least 1 items"),
        (a_workflow("wrong", *({"name": f"s{n}"} for n in range(1001))), "must have at most 1000 items"),
        (a_workflow("n" * 40, step), "more than 39 characters"),
        (a_workflow("wrong", step, onFailure="wait"), "Unsupported value"),
    ):
        with pytest.raises(Exception, match="is invalid") as refused:
            scene.apply(body)
        assert words in str(refused.value)
    scene.apply(a_workflow("fixed", step))
    with pytest.raises(Exception, match="a workflow stays as it was declared"):
        scene.apply(a_workflow("fixed", step, timeoutSeconds=5))

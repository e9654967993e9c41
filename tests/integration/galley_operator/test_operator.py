"""The whole operator: its parts as `Operator.run` makes and nests them, on a real nats-server."""

import asyncio
import urllib.error
import urllib.request
from pathlib import Path

from galley import AsyncClient
from galley.address import Kind, TaskAddress
from galley.broker.connection import Broker
from galley.broker.held import message_of
from galley.declared import submit_declared
from galley.lanes import Lane
from galley.resources import Task
from galley.task_status import Phase
from galley_local.nats_server import NatsServer
from galley_operator.cluster.resource import DEPLOYMENTS, LEASES, TASKQUEUES, TASKS
from galley_operator.operator import Operator
from galley_operator.settings import OperatorSettings
from tests.support.eventually import eventually
from tests.support.memory_api import served
from tests.support.memory_cluster import MemoryCluster
from tests.support.port import free_port
from tests.unit.galley_operator.desk import a_task_queue_object


def manifest(name: str, namespace: str) -> Task:
    """Return the manifest of what `MemoryCluster.task` makes."""
    spec = {"queueName": "images", "handler": "resize"}
    return Task.model_validate({"metadata": {"name": name, "namespace": namespace}, "spec": spec})


def page(port: int, name: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


async def test_an_operator_leads_serves_a_queue_and_a_task_and_ends_in_good_order(
    nats_server: NatsServer, namespace: str, tmp_path: Path
) -> None:
    cluster, port = MemoryCluster(), free_port()
    queue = a_task_queue_object()
    queue["metadata"]["namespace"] = namespace
    cluster.put(TASKQUEUES, queue)
    uid = cluster.task("one", namespace)["metadata"]["uid"]
    async with served(cluster, tmp_path) as (api, kubeconfig):
        settings = OperatorSettings(
            server=nats_server.url, kubeconfig=kubeconfig, pod_name="op-1", lease_namespace=namespace,
            namespaces=namespace, health_port=port, health_host="127.0.0.1", sweep_seconds=1,
        )  # fmt: skip
        operator = Operator(settings)
        running = asyncio.create_task(operator.run())

        async def ready() -> bool:
            found = await asyncio.to_thread(page, port, "readyz")
            assert found == (200, "leads\n"), found
            return True

        await eventually(ready, within=30)
        assert (await asyncio.to_thread(page, port, "livez"))[0] == 200
        await eventually(
            lambda: (DEPLOYMENTS.plural, namespace, "galley-images") in cluster.objects, within=30
        )
        await eventually(lambda: cluster.condition("one", namespace)[2] == "Queued", within=30)
        async with Broker(nats_server.url, name="test") as broker:
            address = TaskAddress(namespace, "images", Lane.NORMAL, Kind.DIRECT, "one")
            message = await message_of(broker, address)
            assert message is not None
            assert message.envelope is not None
            assert message.envelope.uid == uid
            # By the watch alone: what is new, and what is gone.
            cluster.task("two", namespace)
            await eventually(lambda: cluster.condition("two", namespace)[2] == "Queued", within=30)
            cluster.remove(TASKS, "one", namespace)

            async def withdrawn() -> bool:
                return await message_of(broker, address) is None

            await eventually(withdrawn, within=30)
            # One identity: a handle and `galley apply` reach what kubectl applied.
            handle = AsyncClient.over(broker, namespace).handle("images", "two")
            assert (await handle.status()).phase is Phase.QUEUED
            assert not (await submit_declared(broker, manifest("two", namespace))).created
            await handle.cancel()
            await eventually(lambda: cluster.condition("two", namespace)[0] == "Cancelled", within=30)
        metrics = (await asyncio.to_thread(page, port, "metrics"))[1]
        assert "galley_operator_leading 1.0" in metrics
        assert "galley_operator_tasks_admitted_total 2.0" in metrics
        operator.stop()
        await asyncio.wait_for(running, 20)
        assert cluster.objects[LEASES.plural, namespace, "galley-operator"]["spec"]["holderIdentity"] == ""
        assert not [
            path for method, path in api.asked if method == "PATCH" and path.endswith("taskqueues/images")
        ]

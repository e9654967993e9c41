"""A budget in the operator: its queues share it, and pods that find no node hold little of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from galley.broker.publish import Publisher
from galley.lanes import Lane
from galley_operator.autoscaler import ledger
from galley_operator.cluster.resource import CONFIGMAPS, DEPLOYMENTS, PODS, TASKQUEUES
from galley_operator.fleet.names import labels_of
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.queues.test_queues import Stage, stage


def deployment(it: Stage, queue: str) -> dict[str, Any]:
    return it.api.objects[DEPLOYMENTS.plural, "default", f"galley-{queue}"]


async def without_nodes(it: Stage, queue: str) -> None:
    """Make and remove the pods of a queue as its controller does; none finds a node."""
    there = 0
    while True:
        found = deployment(it, queue)
        wanted, generation = found["spec"]["replicas"], found["metadata"]["generation"]
        for number in range(there, wanted):
            condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
            metadata = {"namespace": "default", "name": f"{queue}-{number}", "labels": labels_of(queue)}
            it.api.put(PODS, {"metadata": metadata, "status": {"conditions": [condition]}})
        for number in range(wanted, there):
            it.api.remove(PODS, f"{queue}-{number}")
        there = wanted
        told = {"observedGeneration": generation, "replicas": wanted, "updatedReplicas": wanted}
        if found.get("status") != told:
            found["status"] = told
            it.api.touch(DEPLOYMENTS, "default", f"galley-{queue}")
        await asyncio.sleep(0.1)


@in_virtual_time
async def test_pods_without_a_node_leave_the_budget_to_others() -> None:
    with pytest.MonkeyPatch.context() as patch:
        # By the time of day, which stands still here.
        patch.setattr(ledger, "SETTLE_SECONDS", 0.0)
        async with stage(budget='{"workers": 3}') as it, MemoryBroker(it.server, "producer") as producer:
            for name, scaling in (("bulk", {"priority": 5}), ("small", {})):
                it.apply(name, scaling={"maxWorkers": 4, **scaling})
            await eventually(lambda: it.ready("small") == ("True", "Serving"), within=60)

            async def submit(queue: str, tasks: int) -> None:
                where = a_queue(namespace="default", queue=queue)
                for _ in range(tasks):
                    await Publisher(producer).publish(an_address(of=where, lane=Lane.NORMAL), an_envelope())

            def replicas() -> tuple[int, int]:
                return deployment(it, "bulk")["spec"]["replicas"], deployment(it, "small")["spec"]["replicas"]

            await submit("bulk", 40)
            await eventually(lambda: replicas() == (3, 0), within=10)
            await submit("small", 40)
            await eventually(lambda: it.condition("small", "ScalingActive") == "Budget", within=10)
            assert replicas() == (3, 0), "the other one comes first, and its workers may still come up"
            pods = asyncio.create_task(without_nodes(it, "bulk"))
            try:
                await eventually(lambda: replicas() == (1, 2), within=30)
                await eventually(lambda: it.ready("bulk") == ("False", "Unschedulable"), within=10)
            finally:
                pods.cancel()


async def two_that_do_not_fit(it: Stage) -> None:
    """Apply two queues of two workers each, one after the other, where the budget has three."""
    it.apply("first", scaling={"minWorkers": 2})
    await eventually(lambda: it.condition("first", "ScalingActive") == "Scaling", within=60)
    it.apply("second", scaling={"minWorkers": 2})
    await eventually(lambda: it.condition("second", "ScalingActive") == "BudgetTooSmall", within=60)


@in_virtual_time
async def test_a_new_queue_gets_its_first_workers_out_of_the_budget() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ledger, "SETTLE_SECONDS", 0.0)
        async with stage(budget='{"workers": 3}') as it:
            await two_that_do_not_fit(it)
            assert [deployment(it, name)["spec"]["replicas"] for name in ("first", "second")] == [2, 1]


def kept_by_a_finalizer(it: Stage) -> None:
    body = it.api.objects[TASKQUEUES.plural, "default", "first"]
    body["metadata"] |= {"deletionTimestamp": "2026-03-01T09:30:00Z", "finalizers": ["example.com/kept"]}
    it.known.seen(it.api.put(TASKQUEUES, body))


def deleted_without_what_it_owns(it: Stage) -> None:
    it.known.gone(it.api.objects.pop((TASKQUEUES.plural, "default", "first")))


@pytest.mark.parametrize("happen", [kept_by_a_finalizer, deleted_without_what_it_owns])
def test_workers_of_a_deleted_queue_hold_the_budget_until_they_are_gone(
    happen: Callable[[Stage], None],
) -> None:
    @in_virtual_time
    async def run() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ledger, "SETTLE_SECONDS", 0.0)
            async with stage(budget='{"workers": 3}') as it:
                await two_that_do_not_fit(it)

                def replicas() -> list[int]:
                    return [deployment(it, name)["spec"]["replicas"] for name in ("first", "second")]

                happen(it)
                it.api.remove(CONFIGMAPS, "galley-first")
                await asyncio.sleep(60)
                assert replicas() == [2, 1]
                assert "configmaps" not in it.children("first"), "nothing is made for it again"
                it.api.remove(DEPLOYMENTS, "galley-first")
                await eventually(lambda: deployment(it, "second")["spec"]["replicas"] == 2, within=60)
                assert set(it.queues.served) == {("default", "second")}, "there is nothing to scale any more"

    run()

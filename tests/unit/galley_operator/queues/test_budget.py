"""A budget in the operator: its queues share it, and pods that find no node hold little of it."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from galley.broker.publish import Publisher
from galley.lanes import Lane
from galley_operator.autoscaler import ledger
from galley_operator.autoscaler.left import left_of, requested
from galley_operator.autoscaler.shares import Cost
from galley_operator.cluster.resource import CONFIGMAPS, DEPLOYMENTS, PODS, TASKQUEUES
from galley_operator.fleet.names import labels_of
from galley_operator.fleet.pods import Pod
from tests.support.builders import a_queue, an_address, an_envelope
from tests.support.eventually import eventually
from tests.support.memory_nats import MemoryBroker
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import a_task_queue_object
from tests.unit.galley_operator.queues.test_queues import Stage, stage


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have queues grow at once: it goes by the time of day, which stands still here."""
    monkeypatch.setattr(ledger, "SETTLE_SECONDS", 0.0)


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


def a_pod(queue: str, number: int, node: str = "node-1", **more: Any) -> dict[str, Any]:
    metadata = {"namespace": "default", "name": f"{queue}-{number}", "labels": labels_of(queue)}
    spec = {"nodeName": node, "containers": [{"resources": {"requests": {"cpu": "2"}}}]}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Running"}, **more}


async def two_that_do_not_fit(it: Stage) -> None:
    """Apply two queues of two workers each, one after the other, where the budget has three."""
    it.apply("first", scaling={"minWorkers": 2})
    await eventually(lambda: it.condition("first", "ScalingActive") == "Scaling", within=60)
    it.apply("second", scaling={"minWorkers": 2})
    await eventually(lambda: it.condition("second", "ScalingActive") == "BudgetTooSmall", within=60)


@in_virtual_time
async def test_a_new_queue_gets_its_first_workers_out_of_the_budget() -> None:
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
        async with stage(budget='{"workers": 3}') as it:
            await two_that_do_not_fit(it)

            def replicas() -> list[int]:
                return [deployment(it, name)["spec"]["replicas"] for name in ("first", "second")]

            for number in range(2):
                it.api.put(PODS, a_pod("first", number))
            happen(it)
            it.api.remove(CONFIGMAPS, "galley-first")
            await asyncio.sleep(60)
            assert replicas() == [2, 1]
            assert "configmaps" not in it.children("first"), "nothing is made for it again"
            it.api.remove(DEPLOYMENTS, "galley-first")
            for number in range(2):
                it.api.remove(PODS, f"first-{number}")
            await eventually(lambda: deployment(it, "second")["spec"]["replicas"] == 2, within=60)
            scaled = {key for key, served in it.queues.served.items() if served.runtime is not None}
            assert scaled == {("default", "second")}, "there is nothing to scale any more"

    run()


def orphans(it: Stage) -> None:
    """Have the workers of a queue that was deleted without what it owns."""


def of_a_queue_that_cannot_be_read(it: Stage) -> None:
    it.known.seen(it.api.put(TASKQUEUES, a_task_queue_object("left", worker={"modules": 5})))


@pytest.mark.parametrize("happen", [orphans, of_a_queue_that_cannot_be_read])
def test_workers_that_an_operator_finds_when_it_starts_hold_the_budget_until_they_are_gone(
    happen: Callable[[Stage], None],
) -> None:
    @in_virtual_time
    async def run() -> None:
        async with stage(budget='{"cpu": 5}') as it:
            happen(it)
            it.api.put(PODS, a_pod("left", 0))
            it.api.put(PODS, a_pod("left", 1, status={"phase": "Succeeded"}))
            it.api.put(PODS, a_pod("left", 2, node=""))
            await asyncio.sleep(2)
            resources = {"requests": {"cpu": "1"}}
            it.apply(
                "first", worker={"modules": ["jobs"], "template": {"resources": resources}},
                scaling={"minWorkers": 4},
            )  # fmt: skip
            await eventually(lambda: "budget" in it.message("first", "ScalingActive"), within=60)
            assert deployment(it, "first")["spec"]["replicas"] == 3
            await asyncio.sleep(60)
            assert deployment(it, "first")["spec"]["replicas"] == 3
            it.api.remove(PODS, "left-0")
            await eventually(lambda: deployment(it, "first")["spec"]["replicas"] == 4, within=60)

    run()


@in_virtual_time
async def test_a_queue_counts_as_its_workers_were_made_while_its_changes_are_refused() -> None:
    async with stage(budget='{"cpu": 4}') as it:

        def worker(cpu: str, *, refused: bool = False) -> dict[str, Any]:
            template: dict[str, Any] = {"resources": {"requests": {"cpu": cpu}}}
            if refused:
                template["serviceAccountName"] = "theirs"
            return {"modules": ["jobs"], "template": template}

        it.apply("first", worker=worker("1"), scaling={"minWorkers": 3})
        await eventually(lambda: it.ready("first") == ("True", "Serving"), within=60)
        await eventually(lambda: deployment(it, "first")["spec"]["replicas"] == 3, within=60)
        it.apply("first", worker=worker("1m", refused=True), scaling={"minWorkers": 3})
        await eventually(lambda: it.ready("first")[0] == "False", within=60)
        it.apply("second", worker=worker("1"), scaling={"minWorkers": 4})
        await eventually(lambda: it.ready("second") == ("True", "Serving"), within=60)
        await asyncio.sleep(60)
        assert [deployment(it, name)["spec"]["replicas"] for name in ("first", "second")] == [3, 1]


def test_of_workers_that_are_not_scaled_those_count_that_take_room() -> None:
    def pod(cpu: str, *, node: str = "n", phase: str = "Running", going: bool = False) -> Pod:
        at = {"deletionTimestamp": "2026-03-01T09:00:00Z"} if going else {}
        containers = [{"resources": {"limits": {"cpu": cpu}}}, {"resources": {"requests": {"cpu": "500m"}}}]
        body = {"metadata": {"name": "a", **at}, "spec": {"nodeName": node, "containers": containers}}
        return msgspec.convert(body | {"status": {"phase": phase}}, Pod)

    pods = [pod("1"), pod("2", going=True), pod("4", phase="Failed"), pod("8", node="")]
    assert left_of(pods) == Cost(2, Decimal(4)), "one that runs, and one that ends"
    for odd, number in (("100n", "1e-7"), ("5u", "5e-6"), ("1e3", "1000"), ("3Ki", "3072"), ("?", "0")):
        assert requested([pod(odd).spec]).cpu == Decimal(number) + Decimal("0.5")

"""The namespaces of a leader: what befalls one of them, by its Lease, costs the others nothing."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from galley.broker.follow import React
from galley_operator import data_path
from galley_operator.broker_access import BrokerAccess
from galley_operator.claims import CLAIM, TIMES, Claim
from galley_operator.cluster.errors import RightsMissing
from galley_operator.cluster.resource import DEPLOYMENTS, LEASES, PODS, TASKQUEUES, TASKS, Resource
from galley_operator.data_path import TaskView
from galley_operator.errors import FleetUnknown
from galley_operator.faults import Faults
from galley_operator.fleet.names import selected_by
from galley_operator.fleet.workloads import Queue, Workloads
from galley_operator.metrics import OperatorMetrics
from galley_operator.queues.shared_by_queues import SharedByQueues
from galley_operator.scope import Scope, Surroundings
from galley_operator.serving import LONGEST_PAUSE, Serving, Views
from galley_operator.settings import OperatorSettings
from galley_operator.tasks.active_tasks import QueueKey
from galley_operator.tasks.known_queues import KnownQueues
from galley_operator.tasks.queue_keys import payloads_of
from tests.support.eventually import eventually
from tests.support.memory_cluster import MemoryCluster
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time
from tests.unit.galley_operator.desk import BEGAN, MemoryRecords, a_task_queue_object

ALICE, MALLORY = "alice", "mallory"


class Guarded(MemoryCluster):
    """An API whose administrators of namespaces can take the operator's rights there."""

    def __init__(self) -> None:
        super().__init__()
        self.denied: set[str | None] = set()

    def pages_of(
        self, shape: type[Any], resource: Resource, namespace: str | None = None, **more: Any
    ) -> Any:
        self._check("list", resource, namespace)
        return super().pages_of(shape, resource, namespace, **more)

    def watch_of(
        self, shape: type[Any], resource: Resource, namespace: str | None = None, **more: Any
    ) -> Any:
        self._check("watch", resource, namespace)
        return super().watch_of(shape, resource, namespace, **more)

    def _check(self, verb: str, resource: Resource, namespace: str | None) -> None:
        if namespace in self.denied:
            raise RightsMissing(verb, f"{resource.plural} {namespace}", 403, "no")


@dataclass
class Stage:
    """A leader that is to serve two namespaces, and what it reads and writes."""

    api: Guarded
    server: MemoryServer
    serving: Serving
    views: Views
    workloads: Workloads
    metrics: OperatorMetrics
    unexpected: list[str]

    def queue(self, namespace: str) -> None:
        body = a_task_queue_object("images")
        body["metadata"] |= {"namespace": namespace, "uid": f"uid-{namespace}"}
        self.api.put(TASKQUEUES, body)

    def lease(self, **spec: Any) -> None:
        """Write Mallory's Lease, as Mallory may."""
        spec = {"holderIdentity": "mallory", "leaseDurationSeconds": 60, **spec}
        self.api.put(LEASES, {"metadata": {"namespace": MALLORY, "name": CLAIM}, "spec": spec})

    def replicas(self, namespace: str) -> int:
        return int(self.api.objects[DEPLOYMENTS.plural, namespace, "galley-images"]["spec"]["replicas"])

    def served(self) -> list[str | None]:
        return sorted(self.serving.scopes, key=str)

    def figure(self, name: str) -> list[str]:
        return [line for line in self.metrics.page().decode().splitlines() if line.startswith(name)]

    async def admits(self, name: str, namespace: str, within: float = 2) -> None:
        self.api.task(name, namespace)
        await eventually(lambda: self.api.condition(name, namespace)[2] == "Queued", within=within)

    async def undisturbed(self, rounds: int = 4) -> float:
        """Have Alice apply a Task now and then; returns the longest time one took to be queued."""
        loop, longest = asyncio.get_running_loop(), 0.0
        alice = self.serving.scopes[ALICE]
        for _ in range(rounds):
            began = loop.time()
            await self.admits(f"t{len(self.api.past)}", ALICE)
            longest = max(longest, loop.time() - began)
            await asyncio.sleep(17)
        assert self.serving.scopes[ALICE] is alice
        return longest


async def unwatched(_namespace: str | None, _known: KnownQueues) -> None:
    """Leave all to the listings: kopf's watch has its own tests."""
    await asyncio.Event().wait()


@asynccontextmanager
async def stage(
    monkeypatch: pytest.MonkeyPatch, lead: Callable[[Stage], None] = lambda _: None, namespaces: str = ""
) -> AsyncIterator[Stage]:
    api, server = Guarded(), MemoryServer(BEGAN)
    unexpected: list[str] = []
    faults, metrics = Faults(unexpected.append), OperatorMetrics()
    settings = OperatorSettings(pod_name="op-1", sweep_seconds=10, namespaces=namespaces)
    clock = asyncio.get_running_loop().time

    def records(_broker: object, queue: QueueKey, react: React, _known: object) -> MemoryRecords:
        return MemoryRecords(server, queue, react)

    monkeypatch.setattr(data_path, "Follower", records)
    async with MemoryBroker(server, "operator") as broker:

        def touched(queue: Queue) -> None:
            serving.touched(queue)

        workloads = Workloads(api, settings.scopes, touched, faults, clock)
        views = Views(settings.scopes, lambda scope: TaskView(api, (scope,), faults))
        access = BrokerAccess(api, settings, "galley")
        shared = SharedByQueues(broker, settings)
        around = Surroundings(api, broker, settings, access, workloads, metrics, faults, shared, unwatched)
        claims = [Claim(api, each, "here/galley", clock) for each in settings.served_namespaces]
        serving = Serving(around, views, claims, everywhere=not namespaces)
        broker.payloads = payloads_of(api, serving.found)
        it = Stage(api, server, serving, views, workloads, metrics, unexpected)
        it.queue(ALICE)
        it.queue(MALLORY)
        lead(it)
        running = [asyncio.create_task(each.run()) for each in (workloads, views, serving)]
        try:
            yield it
            assert not any(each.done() for each in running), "the operator goes on whatever happens"
            assert unexpected == []
        finally:
            for each in running:
                each.cancel()
            await asyncio.wait(running)


BOTH = f"{ALICE},{MALLORY}"


@in_virtual_time
async def test_a_lease_taken_before_the_start_leaves_out_its_namespace_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stage(monkeypatch, lambda it: it.lease(), BOTH) as it:
        await eventually(lambda: it.served() == [ALICE], within=10)
        await it.admits("one", ALICE, within=30)
        it.api.task("two", MALLORY)
        await asyncio.sleep(30)
        assert it.api.status("two", MALLORY) == {}
        assert (DEPLOYMENTS.plural, ALICE, "galley-images") in it.api.objects
        assert (DEPLOYMENTS.plural, MALLORY, "galley-images") not in it.api.objects
        assert it.serving.problem == ""
        [problem] = it.serving.problems
        assert problem.startswith("namespace mallory is served by the operator mallory, as its Lease")
        assert it.figure("galley_operator_namespace_served{") == [
            'galley_operator_namespace_served{namespace="alice"} 1.0',
            'galley_operator_namespace_served{namespace="mallory"} 0.0',
        ]
        # It is not renewed, so it is free after its minute.
        await eventually(lambda: it.served() == [ALICE, MALLORY], within=120)
        await eventually(lambda: it.api.condition("two", MALLORY)[2] == "Queued", within=30)
        assert it.serving.problems == []


@in_virtual_time
async def test_a_lease_taken_while_it_serves_ends_the_parts_of_its_namespace_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stage(monkeypatch, namespaces=BOTH) as it:
        await eventually(lambda: it.served() == [ALICE, MALLORY], within=10)
        await it.admits("one", ALICE, within=30)
        await it.admits("one", MALLORY, within=30)
        alice, before = it.serving.scopes[ALICE], asyncio.all_tasks()
        it.lease()
        await eventually(lambda: it.served() == [ALICE], within=TIMES.retry_seconds + 1)
        assert len(before) > len(asyncio.all_tasks()) > len(before) / 3
        it.api.task("two", MALLORY)
        it.api.remove(TASKS, "one", MALLORY)
        await it.admits("two", ALICE)
        await asyncio.sleep(20)
        assert it.api.status("two", MALLORY) == {}
        assert it.serving.admitted == 3
        assert it.figure('galley_operator_queue_ready{namespace="mallory"') == []
        await eventually(lambda: it.served() == [ALICE, MALLORY], within=180)
        await eventually(lambda: it.api.condition("two", MALLORY)[2] == "Queued", within=30)
        assert it.serving.scopes[ALICE] is alice
        assert it.serving.admitted == 4


@in_virtual_time
async def test_a_lease_written_every_second_costs_other_namespaces_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stage(monkeypatch, namespaces=BOTH) as it:
        await eventually(lambda: it.served() == [ALICE, MALLORY], within=10)
        await it.admits("one", ALICE, within=30)
        quiet = await it.undisturbed()

        async def attack() -> None:
            while True:
                # One that seems to be free now and then makes the parts begin and end.
                it.lease(holderIdentity=f"evil{len(it.api.past)}", leaseDurationSeconds=1)
                await asyncio.sleep(1)
                it.api.remove(LEASES, CLAIM, MALLORY)
                await asyncio.sleep(1)

        begun = 0
        make = it.serving._work

        async def work(namespace: str | None) -> None:
            nonlocal begun
            begun += 1
            await make(namespace)

        monkeypatch.setattr(it.serving, "_work", work)
        attacking = asyncio.create_task(attack())
        assert await it.undisturbed(12) <= quiet + 0.2
        attacking.cancel()
        assert begun <= 6, "parts that begin and end all the time"
        await eventually(lambda: it.served() == [ALICE, MALLORY], within=2 * LONGEST_PAUSE)


@in_virtual_time
async def test_rights_taken_in_one_namespace_cost_the_others_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(monkeypatch, lambda it: it.api.denied.add(MALLORY), BOTH) as it:
        await it.admits("one", ALICE, within=30)
        # Its workers are seen, and scaled.
        await eventually(lambda: it.replicas(ALICE) == 1, within=30)
        assert (it.views.synced, it.workloads.synced, it.serving.problem) == (True, True, "")
        [problem] = it.serving.problems
        assert problem.startswith("namespace mallory: cannot list taskqueues mallory: no")
        await it.admits("two", ALICE)
        with pytest.raises(FleetUnknown):
            it.workloads.pods_of((MALLORY, "images"))
        it.api.denied.clear()
        await it.admits("one", MALLORY, within=60)
        await eventually(lambda: it.replicas(MALLORY) == 1, within=60)
        assert it.serving.problems == []
        # Taken while it serves: what was seen of the pods is not believed for long.
        it.api.denied.add(MALLORY)
        it.api.cut()
        await asyncio.sleep(300)
        labels = selected_by("images")
        it.api.put(PODS, {"metadata": {"namespace": ALICE, "name": "w1", "labels": labels}})
        await asyncio.sleep(1)
        assert len(it.workloads.pods_of((ALICE, "images"))) == 1
        with pytest.raises(FleetUnknown):
            it.workloads.pods_of((MALLORY, "images"))
        it.api.denied.add(ALICE)
        await eventually(lambda: it.serving.problem != "", within=60)


@in_virtual_time
async def test_parts_that_fail_are_begun_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run, failing = Scope.run, True

    async def broken(scope: Scope) -> None:
        nonlocal failing
        if failing and scope.queues._namespaces == (MALLORY,):
            failing = False
            raise RuntimeError("raised by a test")
        await run(scope)

    monkeypatch.setattr(Scope, "run", broken)
    async with stage(monkeypatch, namespaces=BOTH) as it:
        await it.admits("one", ALICE, within=30)
        await it.admits("one", MALLORY, within=60)
        assert it.unexpected == ["serving"]
        it.unexpected.clear()


@in_virtual_time
async def test_statuses_that_cannot_be_written_do_not_hold_up_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with stage(monkeypatch, namespaces=BOTH) as it:
        await eventually(lambda: it.served() == [ALICE, MALLORY], within=10)
        monkeypatch.setattr(it.serving.scopes[MALLORY].statuses, "write_all", asyncio.Event().wait)
        it.lease()
        await eventually(lambda: it.served() == [ALICE], within=TIMES.retry_seconds + 7)
    assert "queue status not flushed" in caplog.messages


@in_virtual_time
async def test_if_no_namespace_is_left_it_is_not_ready(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(monkeypatch, lambda it: it.lease(), MALLORY) as it:
        await eventually(lambda: "served by the operator mallory" in it.serving.problem, within=10)
        await eventually(lambda: it.served() == [MALLORY], within=120)
        await eventually(lambda: it.serving.problem == "", within=10)


@in_virtual_time
async def test_with_all_namespaces_no_lease_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    async with stage(monkeypatch, lambda it: it.lease()) as it:
        await eventually(lambda: it.served() == [None], within=10)
        await it.admits("one", ALICE, within=30)
        await it.admits("one", MALLORY, within=30)
        assert it.serving.problems == []
        assert it.serving.queues_in(MALLORY) == {(MALLORY, "images")}


@in_virtual_time
async def test_streams_of_a_namespace_that_is_not_served_are_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with stage(monkeypatch, lambda it: it.lease(), BOTH) as it:
        await eventually(lambda: it.serving.queues_in(ALICE) == {(ALICE, "images")}, within=30)
        assert it.serving.queues_in(MALLORY) is None
        assert it.serving.queues_in("elsewhere") is None
        assert (it.serving.serves(ALICE), it.serving.serves(MALLORY)) == (True, False)
        assert it.serving.found((MALLORY, "images")) is None
        assert it.serving.found((ALICE, "images")) is not None

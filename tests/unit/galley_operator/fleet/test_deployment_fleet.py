"""Workers as pods, without a cluster: an API in memory, heartbeats over a broker in memory, virtual time.

Pods go as a ReplicaSet takes them: by readiness and deletion cost, and it knows nothing of what they run.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

import msgspec
import pytest

from galley.broker.control import Answer, Heartbeat, Request, Verb, answering, send_heartbeat
from galley.failpoint import hook
from galley_operator.cluster.errors import ClusterUnreachable, ObjectInvalid
from galley_operator.cluster.resource import DEPLOYMENTS, PODS
from galley_operator.errors import FleetRefused, FleetUnknown
from galley_operator.fleet.deployment import Deployment
from galley_operator.fleet.deployment_fleet import (
    AUTOSCALER,
    SETTLE_SECONDS,
    SILENT_SECONDS,
    STUCK_SECONDS,
    DeploymentFleet,
)
from galley_operator.fleet.fleet import WorkerPhase, WorkerView
from galley_operator.fleet.pods import DELETION_COST, LEAVING_COST, Pod, removal_order
from tests.failpoints.places import FLEET
from tests.support.memory_cluster import MemoryCluster, Written
from tests.support.memory_nats import MemoryBroker, MemoryServer
from tests.support.virtual_time import in_virtual_time

SLOTS: Final = 4
NAME: Final = "jobs-workers"


@dataclass
class Yard:
    """A Deployment, its pods, the workers in them, and the fleet that sees them."""

    server: MemoryServer
    broker: MemoryBroker
    cluster: MemoryCluster
    fleet: DeploymentFleet
    busy: dict[str, int] = field(default_factory=dict)
    """Attempts that each worker runs."""
    draining: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    killed: list[str] = field(default_factory=list)
    """Workers that were taken away while they ran something."""
    known: bool = True
    stale: bool = False
    """Whether what is seen of the Deployment is as old as when this was set."""
    _seen: Deployment | None = None

    # -- what the fleet sees

    def deployment(self) -> Deployment | None:
        if not self.known:
            raise FleetUnknown("jobs", "the API server was not heard of")
        if not self.stale or self._seen is None:
            found = self.cluster.objects.get(("deployments", "shop", NAME))
            self._seen = msgspec.convert(found, Deployment) if found else None
        return self._seen

    def pods(self) -> Sequence[Pod]:
        if not self.known:
            raise FleetUnknown("jobs", "the API server was not heard of")
        return [msgspec.convert(each, Pod) for key, each in self.cluster.objects.items() if key[0] == "pods"]

    # -- what happens

    def add(self, name: str, **changes: Any) -> None:
        """Have a pod with a worker."""
        since = self.server.now() - timedelta(seconds=changes.pop("age", 100))
        ready = changes.pop("ready", True)
        state = {"running": {"startedAt": since.isoformat()}} if ready else {"waiting": {"reason": "x"}}
        self.cluster.put(PODS, {
            "metadata": {"name": name, "namespace": "shop", "creationTimestamp": since.isoformat()},
            "spec": {"nodeName": "n1"},
            "status": {
                "phase": changes.pop("phase", "Running"),
                "conditions": [{"type": "Ready", "status": str(ready)}],
                "containerStatuses": [{"name": "worker", "restartCount": 0, "state": state} | changes],
            },
        })  # fmt: skip
        self.busy.setdefault(name, 0)

    def have(self, replicas: int, **status: Any) -> None:
        """Have a Deployment of so many replicas, whose controller has seen all of it."""
        self.cluster.put(DEPLOYMENTS, {
            "metadata": {"name": NAME, "namespace": "shop", "generation": 1},
            "spec": {"replicas": replicas},
            "status": {"observedGeneration": 100, "replicas": replicas, "updatedReplicas": replicas} | status,
        })  # fmt: skip

    @property
    def replicas(self) -> int:
        return int(self.cluster.objects["deployments", "shop", NAME]["spec"]["replicas"])

    def controlled(self, request: Written) -> None:
        """Take away as many pods as there are too many, as a ReplicaSet does."""
        if request.plural != "deployments":
            return
        surplus = len(self.pods()) - self.replicas
        for pod in removal_order(self.pods())[: max(0, surplus)]:
            if self.busy.get(pod.name, 0):
                self.killed.append(pod.name)
            del self.cluster.objects["pods", "shop", pod.name]
            self.silent.add(pod.name)

    async def beat(self) -> None:
        """Have each worker say once a second how it is."""
        while True:
            for name in [pod.name for pod in self.pods()] if self.known else []:
                if name not in self.silent:
                    draining = name in self.draining
                    beat = Heartbeat(name, SLOTS, self.busy[name], draining, not draining)
                    send_heartbeat(self.broker, "shop", "jobs", beat)
            await asyncio.sleep(1)

    async def answer(self, verb: Verb, request: Request) -> Answer | None:
        """Drain as asked."""
        assert verb is Verb.DRAIN
        for name in request.workers:
            (self.draining.add if request.seconds else self.draining.discard)(name)
        return Answer(request.workers[0])

    async def view(self, name: str) -> WorkerView:
        workforce = await self.fleet.observe()
        return next(view for view in workforce.workers if view.name == name)

    def drained(self, *names: str) -> None:
        self.draining |= set(names)

    @property
    def writes(self) -> list[tuple[str, str]]:
        return [(each.plural, each.name) for each in self.cluster.log]


@asynccontextmanager
async def a_yard(**workers: int) -> AsyncIterator[Yard]:
    """A yard with a worker for each name, running so many attempts; the later ones are younger."""
    server = MemoryServer()
    async with MemoryBroker(server, "operator") as broker, MemoryBroker(server, "workers") as theirs:
        yard = Yard(server, theirs, MemoryCluster(), None)  # type: ignore[arg-type]
        yard.fleet = DeploymentFleet(
            broker, yard.cluster, yard, ("shop", "jobs"),
            deployment=NAME, slots=SLOTS, clock=server.now,
        )  # fmt: skip
        yard.cluster.after = yard.controlled
        yard.have(len(workers))
        for age, (name, busy) in enumerate(reversed(workers.items())):
            yard.add(name, age=100 + age)
            yard.busy[name] = busy
        beating = asyncio.create_task(yard.beat())
        async with answering(theirs, "shop", "jobs", yard.answer), yard.fleet:
            await asyncio.sleep(2)
            yield yard
        beating.cancel()
        await asyncio.wait([beating])


# -- what is seen


@in_virtual_time
async def test_workers_are_seen_with_what_they_said_last() -> None:
    async with a_yard(w1=2, w2=0) as yard:
        view = await yard.view("w1")
        assert (view.phase, view.busy, view.slots) == (WorkerPhase.READY, 2, SLOTS)
        yard.drained("w1")
        await asyncio.sleep(1.5)
        assert (await yard.view("w1")).phase is WorkerPhase.DRAINING


@in_virtual_time
async def test_a_worker_that_is_silent_is_not_known_to_be_idle() -> None:
    async with a_yard(w1=0) as yard:
        yard.silent.add("w1")
        await asyncio.sleep(SILENT_SECONDS - 1.1)
        assert (await yard.view("w1")).busy == 0
        await asyncio.sleep(2)
        assert (await yard.view("w1")).busy is None
        yard.silent.clear()
        await asyncio.sleep(1.1)
        assert (await yard.view("w1")).busy == 0


@in_virtual_time
async def test_what_a_worker_said_in_an_earlier_life_of_its_container_is_forgotten() -> None:
    async with a_yard(w1=0) as yard:
        yard.silent.add("w1")
        yard.add("w1", restartCount=1)
        assert (await yard.view("w1")).busy is None


@in_virtual_time
async def test_pods_that_are_not_made_yet_are_workers_that_start_and_fail_after_two_minutes() -> None:
    async with a_yard(w1=0) as yard:
        await yard.fleet.scale(3)
        assert yard.replicas == 3
        phases = [view.phase for view in (await yard.fleet.observe()).present]
        assert sorted(phases) == [WorkerPhase.READY, WorkerPhase.STARTING, WorkerPhase.STARTING]
        await asyncio.sleep(STUCK_SECONDS + 1)
        phases = [view.phase for view in (await yard.fleet.observe()).present]
        assert sorted(phases) == [WorkerPhase.FAILED, WorkerPhase.FAILED, WorkerPhase.READY]


@in_virtual_time
async def test_a_worker_that_does_not_come_up_in_two_minutes_has_failed() -> None:
    async with a_yard() as yard:
        yard.have(1)
        yard.add("w1", ready=False)
        assert (await yard.view("w1")).phase is WorkerPhase.STARTING
        await asyncio.sleep(STUCK_SECONDS + 1)
        assert (await yard.view("w1")).phase is WorkerPhase.FAILED
        assert yard.fleet.trouble is not None


@in_virtual_time
async def test_pods_above_the_number_of_replicas_are_on_their_way_out() -> None:
    async with a_yard(w1=0, w2=0) as yard:
        yard.have(1)
        assert len((await yard.fleet.observe()).present) == 1
        assert len((await yard.fleet.observe()).workers) == 2


@pytest.mark.parametrize("what", ["API server", "Deployment"])
@in_virtual_time
async def test_what_is_not_known_is_not_taken_for_an_empty_fleet(what: str) -> None:
    async with a_yard(w1=0) as yard:
        if what == "API server":
            yard.known = False
        else:
            del yard.cluster.objects["deployments", "shop", NAME]
        with pytest.raises(FleetUnknown):
            await yard.fleet.observe()
        with pytest.raises(FleetUnknown):
            await yard.fleet.scale(0)
        await asyncio.sleep(5)
        yard.known = True
        yard.have(1)
        assert (await yard.fleet.observe()).workers, "what workers said meanwhile does no harm"


# -- more


@in_virtual_time
async def test_more_workers_are_asked_for_at_once_and_by_their_own_manager() -> None:
    async with a_yard(w1=4) as yard:
        seen: list[Any] = []
        yard.cluster.before = seen.append
        await yard.fleet.scale(2)
        assert yard.replicas == 2
        (request,) = seen
        assert request.body["spec"] == {"replicas": 2}, "and nothing else of it"
        assert AUTOSCALER == "galley-autoscaler"


@in_virtual_time
async def test_the_number_there_is_changes_nothing() -> None:
    async with a_yard(w1=1, w2=1) as yard:
        await yard.fleet.scale(2)
        assert yard.writes == []


@in_virtual_time
async def test_what_was_just_written_counts_before_it_is_seen() -> None:
    async with a_yard(w1=1) as yard:
        yard.stale = True
        await yard.fleet.scale(3)
        assert len((await yard.fleet.observe()).present) == 3
        yard.cluster.log.clear()
        await yard.fleet.scale(3)
        assert yard.writes == [], "it is not asked for twice"


# -- fewer


@in_virtual_time
async def test_drained_workers_go_in_three_steps_and_exactly_those() -> None:
    async with a_yard(w1=0, w2=3, w3=0) as yard:
        await yard.fleet.drain(["w1"], 60)
        await asyncio.sleep(1.5)
        began = asyncio.get_running_loop().time()
        await yard.fleet.scale(2)
        assert asyncio.get_running_loop().time() - began >= SETTLE_SECONDS, (
            "the cost arrives before the number"
        )
        assert {pod.name for pod in yard.pods()} == {"w2", "w3"}
        assert yard.killed == []
        assert yard.writes == [("pods", "w1"), ("deployments", NAME)]
        cost, number = yard.cluster.log
        assert cost.body["metadata"]["annotations"] == {DELETION_COST: str(LEAVING_COST)}
        assert number.body["metadata"]["resourceVersion"], "so that it is by exactly that many"


@in_virtual_time
async def test_where_all_go_none_is_chosen_and_they_go_at_once() -> None:
    async with a_yard(w1=0, w2=0) as yard:
        await yard.fleet.drain(["w1", "w2"], 60)
        await asyncio.sleep(1.5)
        began = asyncio.get_running_loop().time()
        await yard.fleet.scale(0)
        assert asyncio.get_running_loop().time() - began < SETTLE_SECONDS / 2
        assert (yard.pods(), yard.killed, yard.writes) == ([], [], [("deployments", NAME)])


@pytest.mark.parametrize(
    ("name", "busy", "draining", "silent"),
    [
        ("busy", 1, False, False),
        ("draining and still busy", 1, True, False),
        ("idle but not draining", 0, False, False),
        ("draining and idle when it was last heard of", 0, True, True),
    ],
)
@in_virtual_time
async def test_a_worker_that_may_hold_a_task_is_never_taken_away(
    name: str, busy: int, draining: bool, silent: bool
) -> None:
    async with a_yard(w1=busy, w2=2) as yard:
        if draining:
            yard.drained("w1")
        await asyncio.sleep(1.5)
        if silent:
            yard.silent.add("w1")
            yard.busy["w1"] = 1
            await asyncio.sleep(SILENT_SECONDS + 1)
        with pytest.raises(FleetRefused):
            await yard.fleet.scale(1)
        assert (yard.writes, yard.replicas, len(yard.pods())) == ([], 2, 2), name


@pytest.mark.parametrize("change", ["busy", "silent", "undrained", "gone"])
@in_virtual_time
async def test_a_worker_that_changes_between_cost_and_number_keeps_all_there(change: str) -> None:
    async with a_yard(w1=0, w2=2) as yard:
        yard.drained("w1")
        await asyncio.sleep(1.5)
        scaling = asyncio.create_task(yard.fleet.scale(1))
        await asyncio.sleep(0.01)
        assert yard.writes == [("pods", "w1")]
        match change:
            case "busy":
                send_heartbeat(yard.broker, "shop", "jobs", Heartbeat("w1", SLOTS, 1, True, False))
                yard.silent.add("w1")
            case "silent":
                yard.silent.add("w1")
                yard.fleet._beats["w1"].at -= SILENT_SECONDS
            case "undrained":
                yard.draining.clear()
                send_heartbeat(yard.broker, "shop", "jobs", Heartbeat("w1", SLOTS, 0, False, True))
            case _:
                del yard.cluster.objects["pods", "shop", "w1"]
        with pytest.raises(FleetRefused):
            await scaling
        assert yard.replicas == 2


@in_virtual_time
async def test_a_deployment_that_another_client_changes_meanwhile_is_not_scaled() -> None:
    async with a_yard(w1=0, w2=2) as yard:
        yard.drained("w1")
        await asyncio.sleep(1.5)

        def changed(request: Written) -> None:
            if request.plural == "deployments":
                yard.cluster.touch(DEPLOYMENTS, "shop", NAME)

        yard.cluster.before = changed
        with pytest.raises(FleetUnknown, match="changed at the same moment"):
            await yard.fleet.scale(1)
        assert (yard.replicas, len(yard.pods()), yard.killed) == (2, 2, [])


@pytest.mark.parametrize("status", [{"updatedReplicas": 1}, {"observedGeneration": 0}])
@in_virtual_time
async def test_no_worker_goes_while_pods_are_being_replaced(status: dict[str, int]) -> None:
    async with a_yard(w1=0, w2=2) as yard:
        yard.have(2, **status)
        yard.drained("w1")
        await asyncio.sleep(1.5)
        with pytest.raises(FleetRefused):
            await yard.fleet.scale(1)
        assert yard.writes == []


@in_virtual_time
async def test_no_worker_goes_while_the_replica_set_would_take_another() -> None:
    """One that is not ready goes before any that is, whatever the costs say."""
    async with a_yard(w1=0, w2=2) as yard:
        yard.add("w3", ready=False, age=1)
        yard.have(3)
        yard.drained("w1")
        await asyncio.sleep(1.5)
        with pytest.raises(FleetRefused):
            await yard.fleet.scale(2)
        assert yard.replicas == 3


@in_virtual_time
async def test_failed_workers_go_before_drained_ones_and_the_young_before_the_old() -> None:
    async with a_yard(old=0, young=0) as yard:
        yard.add("broken", ready=False, restartCount=3)
        yard.have(3)
        yard.drained("old", "young")
        await asyncio.sleep(1.5)
        await yard.fleet.scale(2)
        assert {pod.name for pod in yard.pods()} == {"old", "young"}
        await asyncio.sleep(1.5)
        await yard.fleet.scale(1)
        assert [pod.name for pod in yard.pods()] == ["old"]


@in_virtual_time
async def test_a_cost_that_was_lowered_is_taken_back_of_one_that_stays() -> None:
    async with a_yard(w1=0, w2=0, w3=1) as yard:
        yard.drained("w2")
        await asyncio.sleep(1.5)
        yard.cluster.before = lambda request: (
            yard.cluster.touch(DEPLOYMENTS, "shop", NAME) if request.plural == "deployments" else None
        )
        with pytest.raises(FleetUnknown):
            await yard.fleet.scale(2)
        yard.cluster.before = lambda _request: None
        yard.draining.clear()
        yard.drained("w1")
        await asyncio.sleep(1.5)
        await yard.fleet.scale(2)
        assert {pod.name for pod in yard.pods()} == {"w2", "w3"}
        assert all(pod.cost == 0 for pod in yard.pods())


@in_virtual_time
async def test_a_pod_that_is_gone_before_its_cost_is_lowered_is_no_error_of_the_fleet() -> None:
    async with a_yard(w1=0, w2=2) as yard:
        yard.drained("w1")
        await asyncio.sleep(1.5)

        def gone(request: Written) -> None:
            if request.plural == "pods":
                del yard.cluster.objects["pods", "shop", request.name]

        yard.cluster.before = gone
        with pytest.raises(FleetRefused):
            await yard.fleet.scale(1)
        assert yard.replicas == 2


@pytest.mark.parametrize(
    ("problem", "error"),
    [
        (ObjectInvalid("patch", NAME, 422, "no"), FleetUnknown),
        (ClusterUnreachable("https://api", "patch", "no answer"), ClusterUnreachable),
    ],
)
@in_virtual_time
async def test_a_number_the_api_server_does_not_take_is_no_number(
    problem: Exception, error: type[Exception]
) -> None:
    async with a_yard(w1=1) as yard:

        def refuse(_request: Written) -> None:
            raise problem

        yard.cluster.before = refuse
        with pytest.raises(error):
            await yard.fleet.scale(2)
        yard.cluster.before = lambda _request: None
        assert len((await yard.fleet.observe()).present) == 1


@in_virtual_time
async def test_two_that_scale_at_once_do_so_one_after_the_other() -> None:
    async with a_yard(w1=0, w2=0, w3=2) as yard:
        yard.drained("w1", "w2")
        await asyncio.sleep(1.5)
        async with asyncio.TaskGroup() as both:
            both.create_task(yard.fleet.scale(2))
            both.create_task(yard.fleet.scale(1))
        assert (yard.replicas, yard.killed) == (1, [])
        assert [pod.name for pod in yard.pods()] == ["w3"]


# -- draining


@in_virtual_time
async def test_drains_are_asked_for_by_name_and_end_when_told() -> None:
    async with a_yard(w1=0, w2=0) as yard:
        await yard.fleet.drain(["w1"], 60)
        assert yard.draining == {"w1"}
        await yard.fleet.drain([], 60)
        await yard.fleet.drain(["w1"], 0)
        assert yard.draining == set()


# -- an operator that dies


@pytest.mark.parametrize("place", FLEET)
@in_virtual_time
async def test_an_operator_that_dies_in_a_scale_in_leaves_it_to_the_next_one(place: str) -> None:
    class Died(BaseException):
        pass

    def die(name: str) -> None:
        if name == place:
            raise Died

    async with a_yard(w1=0, w2=2) as yard:
        yard.drained("w1")
        await asyncio.sleep(1.5)
        hook(die)
        try:
            with pytest.raises(Died):
                await yard.fleet.scale(1)
        finally:
            hook(None)
        assert (yard.replicas, len(yard.pods())) == (2, 2)
        await yard.fleet.scale(1)
        assert ([pod.name for pod in yard.pods()], yard.killed) == (["w2"], [])

"""Pods of a Deployment are a fleet like any other: the conformance suite, on real pods."""

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg

from e2e.nats_pod import NatsPod, nats_pod
from galley.broker.connection import Broker
from galley.calls import call
from galley.client import AsyncClient
from galley.handle import AsyncHandle
from galley.task_status import Phase as TaskPhase
from galley_operator.cluster.client import Cluster
from galley_operator.cluster.config import load_config
from galley_operator.cluster.resource import TASKQUEUES
from galley_operator.errors import FleetRefused, FleetUnknown
from galley_operator.faults import Faults
from galley_operator.fleet.deployment_fleet import DeploymentFleet
from galley_operator.fleet.fleet import removable
from galley_operator.fleet.names import child_name
from galley_operator.fleet.workloads import Workloads
from galley_operator.queues.reconcile import Reconciler
from galley_operator.settings import OperatorSettings
from galley_operator.tasks.known_queues import read_queue
from testcluster.cluster import Cluster as RealCluster
from testcluster.images.build import archives
from testcluster.images.image import WORKER
from tests.conformance import fleet
from tests.conformance.trial import MakeTrial, named, names_of, ready
from tests.support.eventually import eventually
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(300)

CRDS = Path(__file__).parent.parent / "crds"

HANDLERS = """
import asyncio
import nats
from galley import task

@task(queue="held")
async def hold(server: str, gate: str) -> None:
    broker = await nats.connect(server)
    while (await broker.request(gate, b"", timeout=5)).data != b"open":
        await asyncio.sleep(0.05)
    await broker.close()
"""

SLOTS = 2


@pytest.fixture(scope="module", autouse=True)
def _worker_image(cluster: RealCluster) -> None:
    cluster.load_image(archives([WORKER.name])[WORKER.name])
    kubectl = Kubectl(cluster)
    kubectl("apply", "--server-side", "-f", str(CRDS))
    kubectl("wait", "--for=condition=Established", "--timeout=20s", "-f", str(CRDS))


@pytest.fixture(scope="module")
def nats(cluster: RealCluster) -> Iterator[NatsPod]:
    kubectl = Kubectl(cluster)
    kubectl("create", "namespace", "fleet-nats")
    with nats_pod(cluster, kubectl, "fleet-nats") as running:
        yield running
    kubectl("delete", "namespace", "fleet-nats", "--wait=false")


class PatientFleet(DeploymentFleet):
    """Tries again what is not known yet, as the scaler does a second later."""

    async def scale(self, workers: int) -> None:
        """Have so many workers."""

        async def scaled() -> bool:
            try:
                await super(PatientFleet, self).scale(workers)
            except FleetUnknown as error:
                raise AssertionError(str(error)) from error
            return True

        await eventually(scaled, within=30)


@dataclass
class DeploymentTrial:
    fleet: DeploymentFleet
    client: AsyncClient
    kubectl: Kubectl
    namespace: str
    server: str
    released: asyncio.Event
    slots: int = SLOTS
    patience: float = 60.0
    tasks: list[AsyncHandle[Any]] = field(default_factory=list)

    async def hold(self) -> None:
        handed = call("held", "hold", server=self.server, gate=f"gate.{self.namespace}")
        self.tasks.append(await self.client.submit(handed))

    async def release(self) -> None:
        self.released.set()

    async def ended(self) -> int:
        return sum([(await task.status()).phase is TaskPhase.SUCCEEDED for task in self.tasks])

    async def kill(self, name: str) -> None:
        await asyncio.to_thread(
            self.kubectl, "delete", "pod", "-n", self.namespace, name, "--force", "--grace-period=0"
        )


@pytest.fixture
def make_trial(cluster: RealCluster, kubectl: Kubectl, namespace_of_pods: str, nats: NatsPod) -> MakeTrial:
    @asynccontextmanager
    async def make_trial(*, broken: bool = False) -> AsyncIterator[DeploymentTrial]:
        code = "import nothing_of_that_name" if broken else HANDLERS
        kubectl.apply(_code(code), _queue(), namespace=namespace_of_pods)
        settings = OperatorSettings(
            server=nats.outside, worker_server=nats.inside, worker_image=WORKER.reference, install="tests"
        )
        released = asyncio.Event()
        name = (namespace_of_pods, "held")
        async with (
            Broker(nats.outside, name="test") as broker,
            Cluster(load_config(cluster.kubeconfig)) as api,
            _gate(broker, f"gate.{namespace_of_pods}", released),
        ):
            found = read_queue(await api.get(TASKQUEUES, *name))
            outcome = await Reconciler(api, broker, settings).reconcile(found)
            assert outcome.complete, outcome
            workloads = Workloads(api, [namespace_of_pods], lambda _: None, Faults())
            async with (
                _running(workloads.run()),
                PatientFleet(
                    broker, api, workloads.sight_of(name), name, deployment=child_name("held"), slots=SLOTS
                ) as workers,
            ):
                await eventually(lambda: workloads.synced and workers.observe(), within=30)
                yield DeploymentTrial(
                    workers,
                    AsyncClient.over(broker, namespace_of_pods),
                    kubectl,
                    namespace_of_pods,
                    nats.inside,
                    released,
                )
                released.set()

    return make_trial


@pytest.mark.parametrize("rule", fleet.RULES, ids=fleet.name_of)
async def test_deployment_fleet(rule: fleet.Rule, make_trial: MakeTrial) -> None:
    await fleet.exercise(rule, make_trial)


async def test_no_worker_is_removed_while_workers_are_replaced(
    make_trial: MakeTrial, kubectl: Kubectl, namespace_of_pods: str
) -> None:
    async with make_trial() as trial:
        await trial.fleet.scale(2)
        drained, _ = await ready(trial, 2)
        await trial.fleet.drain([drained.name], 60)
        await named(trial, drained.name, removable)
        # An image that cannot be pulled, so that the rollout stays where it is.
        container = {"name": "worker", "image": "localhost:1/no/such-image:1"}
        patch = {"spec": {"template": {"spec": {"containers": [container]}}}}
        words = ["-n", namespace_of_pods, child_name("held"), "-p", json.dumps(patch)]
        kubectl("patch", "deployment", *words)

        async def under_way() -> bool:
            return len((await trial.fleet.observe()).present) == 3

        await eventually(under_way, within=trial.patience)
        with pytest.raises(FleetRefused):
            await trial.fleet.scale(2)
        assert drained.name in names_of((await trial.fleet.observe()).present)
        kubectl("rollout", "undo", "-n", namespace_of_pods, f"deployment/{child_name('held')}")


async def test_of_one_that_starts_and_one_that_is_drained_the_drained_goes(
    make_trial: MakeTrial, kubectl: Kubectl, namespace_of_pods: str
) -> None:
    async with make_trial() as trial:
        await trial.fleet.scale(2)
        drained, other = await ready(trial, 2)
        await trial.fleet.drain([drained.name], 60)
        await named(trial, drained.name, removable)
        # Its successor takes a while to come up, and as long as it is pending, it would be the one to go.
        kubectl.apply(_code("import time\ntime.sleep(5)\n" + HANDLERS), namespace=namespace_of_pods)
        await trial.kill(other.name)

        async def drained_is_gone() -> bool:
            with suppress(FleetRefused):
                await trial.fleet.scale(1)
            workers = (await trial.fleet.observe()).workers
            return len(workers) == 1 and workers[0].name not in {drained.name, other.name}

        await eventually(drained_is_gone, within=trial.patience)
        [left] = (await trial.fleet.observe()).workers
        assert (await ready(trial, 1))[0].name == left.name


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()


@asynccontextmanager
async def _gate(broker: Broker, subject: str, released: asyncio.Event) -> AsyncIterator[None]:
    """Tell handlers that ask whether they may end."""

    async def answer(message: Msg) -> None:
        broker.publish(message.reply, b"open" if released.is_set() else b"closed")

    subscription = await broker.subscribe(subject, answer)
    yield
    await subscription.unsubscribe()


def _code(text: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "code"},
        "data": {"held.py": text},
    }


def _queue() -> dict[str, Any]:
    return {
        "apiVersion": "galley.dev/v1alpha1",
        "kind": "TaskQueue",
        "metadata": {"name": "held"},
        "spec": {
            "worker": {
                "modules": ["held"],
                "code": {"configMapName": "code"},
                "concurrency": SLOTS,
                "gracePeriodSeconds": 1,
            }
        },
    }

"""What keeps workers from coming up is said in the queue's conditions, on real pods; and it scales."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from e2e.api.operator_process import OperatorProcess, operator
from e2e.nats_pod import NatsPod, nats_pod
from e2e.operators import Operators
from e2e.release import Release
from galley.broker.connection import Broker
from galley.calls import call
from galley.client import AsyncClient
from testcluster.cluster import Cluster
from testcluster.images.build import archives
from testcluster.images.image import WORKER
from tests.support.eventually import eventually
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(300)

CRDS = Path(__file__).parent.parent / "crds"
PATIENCE = 90.0

HANDLERS = """
import time
from galley import task

@task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds
"""


@pytest.fixture(scope="module", autouse=True)
def _the_only_operator(cluster: Cluster) -> Iterator[None]:
    """Have no operator of the chart, which serves all namespaces, write conditions beside ours."""
    operators = Operators(Kubectl(cluster), Release(cluster))
    with operators.absent() if operators.pods() else nullcontext():
        yield


@pytest.fixture(scope="module", autouse=True)
def _worker_image(cluster: Cluster) -> None:
    cluster.load_image(archives([WORKER.name])[WORKER.name])
    kubectl = Kubectl(cluster)
    kubectl("apply", "--server-side", "-f", str(CRDS))
    kubectl("wait", "--for=condition=Established", "--timeout=20s", "-f", str(CRDS))


@pytest.fixture
def nats(cluster: Cluster, kubectl: Kubectl, namespace_of_pods: str) -> Iterator[NatsPod]:
    with nats_pod(cluster, kubectl, namespace_of_pods) as running:
        yield running


@pytest.fixture
def running(
    cluster: Cluster, namespace_of_pods: str, nats: NatsPod, tmp_path: Path
) -> Iterator[OperatorProcess]:
    with operator(
        cluster.kubeconfig,
        nats.outside,
        tmp_path,
        worker_server=nats.inside,
        namespaces=namespace_of_pods,
        lease_namespace=namespace_of_pods,
        worker_image=WORKER.reference,
        sweep_seconds=5,
    ) as process:
        yield process


def apply(kubectl: Kubectl, namespace: str, *, code: str = HANDLERS, **spec: Any) -> None:
    worker = {"modules": ["naps"], "code": {"configMapName": "code"}, **spec.pop("worker", {})}
    kubectl.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "code"}, "data": {"naps.py": code}},
        {
            "apiVersion": "galley.dev/v1alpha1",
            "kind": "TaskQueue",
            "metadata": {"name": "work"},
            "spec": {"worker": worker, **spec},
        },
        namespace=namespace,
    )


async def condition(kubectl: Kubectl, namespace: str, kind: str, **wanted: str) -> dict[str, Any]:
    """Return a condition of the queue once these of its fields are so."""

    def has() -> dict[str, Any]:
        status = kubectl.get("taskqueue", "work", "-n", namespace).get("status", {})
        conditions = {each["type"]: each for each in status.get("conditions", [])}
        found: dict[str, Any] = conditions.get(kind, {})
        assert {key: found.get(key) for key in wanted} == wanted, status
        return found

    return await eventually(has, within=PATIENCE, why=f"condition {kind}")


@asynccontextmanager
async def client(nats: NatsPod, namespace: str) -> AsyncIterator[AsyncClient]:
    async with Broker(nats.outside, name="test") as broker:
        yield AsyncClient.over(broker, namespace)


async def test_an_image_that_cannot_be_pulled_is_said_and_a_right_one_helps(
    kubectl: Kubectl, namespace_of_pods: str, running: OperatorProcess
) -> None:
    nowhere = "localhost:1/no/such-image:1"
    apply(kubectl, namespace_of_pods, worker={"image": nowhere}, scaling={"minWorkers": 1})
    found = await condition(
        kubectl, namespace_of_pods, "WorkersAvailable", status="False", reason="ImagePullFailed"
    )
    assert nowhere in found["message"]
    assert "check spec.worker.image" in found["message"]
    await condition(kubectl, namespace_of_pods, "Ready", status="False", reason="ImagePullFailed")
    apply(kubectl, namespace_of_pods, scaling={"minWorkers": 1})
    await condition(kubectl, namespace_of_pods, "WorkersAvailable", status="True", reason="WorkersReady")


async def test_a_module_that_does_not_import_is_quoted(
    kubectl: Kubectl, namespace_of_pods: str, running: OperatorProcess
) -> None:
    apply(kubectl, namespace_of_pods, code="import nothing_of_that_name", scaling={"minWorkers": 1})
    found = await condition(kubectl, namespace_of_pods, "Ready", status="False", reason="WorkerCannotStart")
    assert "module 'naps' does not import" in found["message"]
    assert "No module named 'nothing_of_that_name'" in found["message"]
    assert 'naps.py", line 1, in <module>' in found["message"]
    # Its owner corrects the code, and nothing else: the pods are replaced.
    apply(kubectl, namespace_of_pods, scaling={"minWorkers": 1})
    await condition(kubectl, namespace_of_pods, "Ready", status="True", reason="Serving")


async def test_modules_without_a_handler_of_the_queue_are_told_before_a_task_runs(
    kubectl: Kubectl, namespace_of_pods: str, running: OperatorProcess
) -> None:
    apply(kubectl, namespace_of_pods, code=HANDLERS.replace("@task", '@task(queue="other")'),
          scaling={"minWorkers": 1})  # fmt: skip
    found = await condition(kubectl, namespace_of_pods, "Ready", status="False", reason="WorkerCannotStart")
    assert "queue 'work' has no handlers: naps imported, without a @task for this queue" in found["message"]


async def test_a_quota_that_is_used_up_is_said_and_what_fits_works(
    kubectl: Kubectl, namespace_of_pods: str, nats: NatsPod, running: OperatorProcess
) -> None:
    quota = {"hard": {"count/pods": "2"}}  # one is NATS
    kubectl.apply(
        {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "small"}, "spec": quota},
        namespace=namespace_of_pods,
    )
    apply(kubectl, namespace_of_pods, scaling={"minWorkers": 3})
    found = await condition(kubectl, namespace_of_pods, "Ready", status="False", reason="QuotaExceeded")
    assert "exceeded quota" in found["message"]
    async with client(nats, namespace_of_pods) as producer:
        handle = await producer.submit(call("work", "nap", seconds=0.1))
        assert await handle.result(PATIENCE) == 0.1


async def test_workers_come_from_zero_and_go_back_and_cut_no_task_off(
    kubectl: Kubectl, namespace_of_pods: str, nats: NatsPod, running: OperatorProcess
) -> None:
    apply(
        kubectl,
        namespace_of_pods,
        worker={"concurrency": 1, "gracePeriodSeconds": 5},
        scaling={"maxWorkers": 3, "idleSeconds": 1},
    )
    await condition(kubectl, namespace_of_pods, "WorkersAvailable", status="True", reason="ScaledToZero")
    async with client(nats, namespace_of_pods) as producer:
        # One of them takes so long that workers go around it.
        naps = [await producer.submit(call("work", "nap", seconds=each)) for each in (1, 1, 20)]
        results = await asyncio.gather(*(handle.result(2 * PATIENCE) for handle in naps))
        assert results == [1, 1, 20]
        assert [(await handle.status()).attempt for handle in naps] == [1, 1, 1]
    await condition(kubectl, namespace_of_pods, "WorkersAvailable", status="True", reason="ScaledToZero")
    described = kubectl("describe", "taskqueue", "-n", namespace_of_pods, "work")
    # The first of them may have been seen before the others were there.
    assert re.search(r"from 0 to \d workers?\. \d workers?: \d waiting", described)
    assert re.search(r"from \d to 3 workers\. 3 workers", described)
    assert "to 0 workers. 0 workers: nothing waits or runs" in described

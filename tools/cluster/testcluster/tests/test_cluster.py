"""A cluster of any provider does what tests expect of it, and survives what they do to it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testcluster.cluster import Cluster, Part
from testcluster.errors import NotPossible
from tests.support import probe
from tests.support.cannot_run import cannot_run
from tests.support.eventually import eventually
from tests.support.kubectl import Kubectl, KubectlFailed

pytestmark = pytest.mark.timeout(300)
_POD_SECONDS = 90


@pytest.fixture(scope="module", autouse=True)
def _image(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    try:
        probe.load(cluster, tmp_path_factory.mktemp("image"))
    except NotPossible as error:
        cannot_run("tests with an image of our own", str(error))


@pytest.fixture
async def web(kubectl: Kubectl, namespace_of_pods: str) -> str:
    """A Service with two Ready pods behind it; returns the namespace."""
    kubectl.apply(probe.deployment("web", 2), probe.service("web"), namespace=namespace_of_pods)
    await _ready(kubectl, namespace_of_pods, 2)
    return namespace_of_pods


async def _ready(kubectl: Kubectl, namespace: str, count: int) -> None:
    await eventually(
        lambda: len(probe.ready_pods(kubectl, namespace, "web")) == count,
        within=_POD_SECONDS,
        why=f"{count} Ready pods",
    )


async def test_pods_get_ready_and_serve(kubectl: Kubectl, web: str) -> None:
    names = set(probe.ready_pods(kubectl, web, "web"))
    answers = await eventually(lambda: _answer(kubectl, web), within=30, why="an answer through the Service")
    assert answers in names


async def test_a_pod_reaches_others_by_the_names_of_their_services(kubectl: Kubectl, web: str) -> None:
    address = kubectl.get("service", "web", "-n", web)["spec"]["clusterIP"]
    await eventually(lambda: _answer(kubectl, web), within=30)
    assert probe.ask(kubectl, web, "web", "resolve", name="web") == address
    assert probe.ask(kubectl, web, "web", "resolve", name=f"web.{web}.svc.cluster.local") == address
    # On a busy node it is not always within the probe's own patience.
    fetched = await eventually(lambda: _answer(kubectl, web, "fetch", url=f"http://web.{web}/"), within=30)
    assert fetched in probe.ready_pods(kubectl, web, "web")


async def test_a_name_no_one_has_does_not_resolve(kubectl: Kubectl, web: str) -> None:
    await eventually(lambda: _answer(kubectl, web), within=30)
    with pytest.raises(KubectlFailed, match="no such host"):
        probe.ask(kubectl, web, "web", "resolve", name=f"missing.{web}.svc.cluster.local")


async def test_a_deployment_grows_from_zero_and_goes_back_without_a_trace(
    kubectl: Kubectl, namespace_of_pods: str
) -> None:
    kubectl.apply(probe.deployment("web", 0), namespace=namespace_of_pods)
    assert probe.pods(kubectl, namespace_of_pods, "web") == []
    kubectl("scale", "-n", namespace_of_pods, "deployment/web", "--replicas=2")
    await _ready(kubectl, namespace_of_pods, 2)
    kubectl("scale", "-n", namespace_of_pods, "deployment/web", "--replicas=0")
    await eventually(lambda: not probe.pods(kubectl, namespace_of_pods, "web"), within=_POD_SECONDS)


async def test_a_pod_waits_for_its_image_and_runs_once_it_is_loaded(
    cluster: Cluster, kubectl: Kubectl, namespace_of_pods: str, tmp_path: Path
) -> None:
    image = f"localhost/probe:{namespace_of_pods}"
    kubectl.apply(probe.deployment("web", 1, image), namespace=namespace_of_pods)
    await eventually(
        lambda: _waiting_for(kubectl, namespace_of_pods) == "ErrImageNeverPull", within=_POD_SECONDS
    )
    probe.load(cluster, tmp_path, image)
    await _ready(kubectl, namespace_of_pods, 1)


async def test_output_of_pods_can_be_read(kubectl: Kubectl, web: str) -> None:
    name = probe.ready_pods(kubectl, web, "web")[0]
    assert kubectl("logs", "-n", web, name) == f"probe serves on :8080 as {name}\n"


@pytest.mark.parametrize("part", [Part.ETCD, Part.API_SERVER])
async def test_the_api_takes_writes_again_after_a_part_was_killed(
    cluster: Cluster, kubectl: Kubectl, namespace_of_pods: str, part: Part
) -> None:
    with _possible():
        cluster.kill(part)
    cluster.start(part)
    await eventually(lambda: _writes(kubectl, namespace_of_pods), within=60, why="a write")


async def test_the_api_does_not_answer_while_it_is_frozen(
    cluster: Cluster, kubectl: Kubectl, namespace_of_pods: str
) -> None:
    with _possible():
        cluster.freeze(Part.API_SERVER)
    try:
        with pytest.raises(KubectlFailed, match="not done within 3 s"):
            kubectl("get", "configmaps", "-n", namespace_of_pods, within=3)
    finally:
        cluster.thaw(Part.API_SERVER)
    await eventually(lambda: _writes(kubectl, namespace_of_pods), within=60, why="a write")


async def test_pods_outlive_kubelet_and_new_ones_start_after_it_is_back(
    cluster: Cluster, kubectl: Kubectl, web: str
) -> None:
    before = set(probe.ready_pods(kubectl, web, "web"))
    with _possible():
        cluster.kill(Part.KUBELET)
    cluster.start(Part.KUBELET)
    kubectl("scale", "-n", web, "deployment/web", "--replicas=3")
    await _ready(kubectl, web, 3)
    assert before < set(probe.ready_pods(kubectl, web, "web"))


def _answer(kubectl: Kubectl, namespace: str, path: str = "", **query: str) -> str:
    try:
        return probe.ask(kubectl, namespace, "web", path, **query)
    except KubectlFailed:  # kube-proxy has not heard of the Service yet
        return ""


def _waiting_for(kubectl: Kubectl, namespace: str) -> str:
    for pod in probe.pods(kubectl, namespace, "web"):
        for container in pod["status"].get("containerStatuses", []):
            return str(container["state"].get("waiting", {}).get("reason", ""))
    return ""


def _writes(kubectl: Kubectl, namespace: str) -> bool:
    try:
        kubectl("create", "-n", namespace, "-f", "-", given=_CONFIG_MAP, within=10)
    except KubectlFailed:
        return False
    return True


_CONFIG_MAP = '{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "c-"}}'


@contextmanager
def _possible() -> Iterator[None]:
    try:
        yield
    except NotPossible as error:
        cannot_run("a test that disturbs the cluster", str(error))

"""Fixtures of the tests on a real cluster."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import volume
from e2e.cluster import build, choice
from e2e.cluster.bare import BareCluster
from e2e.cluster.choice import Provider
from e2e.cluster.cluster import Cluster
from e2e.cluster.errors import CannotRunHere, NotPossible
from e2e.cluster.kubectl import Kubectl
from e2e.images.build import archives
from e2e.marks import Marks
from e2e.place import Place
from e2e.release import NAMESPACE, WITHOUT_A_REGISTRY, Release
from tests.support.cannot_run import cannot_run

pytest_plugins = ("tests.support.servers", "tests.support.api_server")

_CLOSED_LATE = (
    r"ignore:Exception ignored in. <(function _SelectorTransport|socket\.socket):"
    "pytest.PytestUnraisableExceptionWarning"
)
"""A TLS connection whose far end is killed is closed after the event loop that had it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Forgive what connections to servers that tests kill leave behind; other warnings are errors."""
    for item in items:
        item.add_marker(pytest.mark.filterwarnings(_CLOSED_LATE))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One cluster for all tests that put right again what they disturb; keep to your `namespace_of_pods`.

    `$GALLEY_E2E_CLUSTER` says who provides it.
    """
    try:
        chosen = choice.cluster(choice.wanted(), tmp_path_factory.mktemp("cluster") / "state")
        if isinstance(chosen, BareCluster):
            _must_be_built()
        chosen.up()
    except CannotRunHere as error:
        cannot_run("tests on a cluster", str(error))
    yield chosen
    chosen.down()


@pytest.fixture
def bare_state(tmp_path: Path) -> Iterator[Path]:
    """A folder for a bare cluster of this test alone, which is taken down after it."""
    if choice.wanted() not in {Provider.AUTO, Provider.BARE}:
        cannot_run("tests of the bare cluster", f"{choice.VARIABLE} asks for another")
    _must_be_built()
    state = tmp_path / "state"
    yield state
    BareCluster(state).down()


@pytest.fixture
def kubectl(cluster: Cluster) -> Kubectl:
    """Speaks to `cluster` as its administrator."""
    return Kubectl(cluster)


@pytest.fixture(scope="session")
def galley(cluster: Cluster) -> Release:
    """Galley, installed on `cluster` from its chart with images of this working tree.

    Images that are not there yet are built first, which takes minutes where nothing is cached;
    `python -m e2e.images` does so beforehand.
    """
    try:
        for archive in archives().values():
            cluster.load_image(archive)
    except (CannotRunHere, NotPossible) as error:
        cannot_run("tests of Galley on a cluster", str(error))
    volume.make(Kubectl(cluster), NAMESPACE)
    release = Release(cluster, settings={**WITHOUT_A_REGISTRY, **volume.SETTINGS})
    release.install()
    return release


@pytest.fixture
def namespace_of_pods(kubectl: Kubectl) -> Iterator[str]:
    """A namespace on `cluster` which no other test uses; its pods end with it."""
    name = f"t{secrets.token_hex(5)}"
    kubectl("create", "namespace", name)
    # Pods are refused before it is there, which takes a moment after the API server was away.
    kubectl("wait", "-n", name, "--for=create", "--timeout=60s", "serviceaccount/default", within=70)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def place(galley: Release, kubectl: Kubectl, namespace_of_pods: str) -> Iterator[Place]:
    """A namespace for queues and tasks, which lets in restricted pods alone."""
    kubectl("label", "namespace", namespace_of_pods, "pod-security.kubernetes.io/enforce=restricted")
    yield Place(kubectl, namespace_of_pods, galley.namespace)
    kubectl("delete", "taskqueues,tasks", "--all", "-n", namespace_of_pods, "--wait=false")


@pytest.fixture
def marks(place: Place) -> Marks:
    """Notes what handlers in `place` really do."""
    return Marks(place)


def _must_be_built() -> None:
    if build.built() is None:
        cannot_run("tests on a bare cluster", "its programs are not built; python -m e2e.cluster.build")

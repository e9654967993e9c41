"""Fixtures: a whole cluster, and a namespace of its own for each test."""

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from testcluster import build, choice
from testcluster.bare import BareCluster
from testcluster.choice import Provider
from testcluster.cluster import Cluster
from testcluster.errors import CannotRunHere
from tests.support.cannot_run import cannot_run
from tests.support.kubectl import Kubectl

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
    """One cluster for all tests that undo what they disturb; use your own `namespace_of_pods`.

    `$GALLEY_E2E_CLUSTER` chooses the provider.
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
    """A folder for a bare cluster of this test alone, which is removed after it."""
    if choice.wanted() not in {Provider.AUTO, Provider.BARE}:
        cannot_run("tests of the bare cluster", f"{choice.VARIABLE} asks for another")
    _must_be_built()
    state = tmp_path / "state"
    yield state
    BareCluster(state).down()


@pytest.fixture
def kubectl(cluster: Cluster) -> Kubectl:
    """Calls kubectl on `cluster` as its administrator."""
    return Kubectl(cluster)


@pytest.fixture
def namespace_of_pods(kubectl: Kubectl) -> Iterator[str]:
    """A namespace on `cluster` that no other test uses; its pods end with it."""
    name = f"t{secrets.token_hex(5)}"
    kubectl("create", "namespace", name)
    # Pods are refused before it is there, which takes a moment after the API server was away.
    kubectl("wait", "-n", name, "--for=create", "--timeout=60s", "serviceaccount/default", within=70)
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


def _must_be_built() -> None:
    if build.built() is None:
        cannot_run("tests on a bare cluster", "its programs are not built; make e2e/build")

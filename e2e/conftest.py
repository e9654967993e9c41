"""Fixtures of the tests on a real cluster."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from e2e import volume
from e2e.marks import Marks
from e2e.place import Place
from e2e.release import NAMESPACE, WITHOUT_A_REGISTRY, Release
from e2e.rendered_cluster import RenderedCluster
from testcluster.cluster import Cluster
from testcluster.errors import CannotRunHere, NotPossible
from testcluster.images.build import archives
from tests.support.cannot_run import cannot_run
from tests.support.kubectl import Kubectl

pytest_plugins = (
    "tests.support.bytecode",
    "tests.support.ended",
    "tests.support.servers",
    "tests.support.api_server",
    "tests.support.cluster",
)


@pytest.fixture(scope="session")
def galley(cluster: Cluster) -> Release:
    """Galley, installed on `cluster` from its chart with images of this working tree.

    Images that are not there yet are built first, which takes minutes where nothing is cached;
    `make e2e/build` does so beforehand.
    """
    try:
        for archive in archives().values():
            cluster.load_image(archive)
    except (CannotRunHere, NotPossible) as error:
        cannot_run("tests of Galley on a cluster", str(error))
    volume.make(Kubectl(cluster), NAMESPACE)
    release = Release(cluster, settings={**WITHOUT_A_REGISTRY, **volume.SETTINGS, "gateway.enabled": "true"})
    release.install()
    return release


@pytest.fixture
def place(galley: Release, kubectl: Kubectl, namespace_of_pods: str) -> Iterator[Place]:
    """A namespace for queues and tasks, which admits only restricted pods."""
    kubectl("label", "namespace", namespace_of_pods, "pod-security.kubernetes.io/enforce=restricted")
    yield Place(kubectl, namespace_of_pods, galley.namespace)
    kubectl("delete", "taskqueues,tasks", "--all", "-n", namespace_of_pods, "--wait=false")


@pytest.fixture
def marks(place: Place) -> Marks:
    """Notes what handlers in `place` really do."""
    return Marks(place)


@pytest.fixture
async def three(tmp_path: Path) -> AsyncIterator[RenderedCluster]:
    """Three servers of the rendered chart, with encrypted streams."""
    cluster = RenderedCluster(tmp_path, "nats.replicas=3", "nats.encryption.enabled=true")
    await cluster.prepare(store_key=1)
    try:
        await cluster.start()
        yield cluster
    finally:
        cluster.kill()

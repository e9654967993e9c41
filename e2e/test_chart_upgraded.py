"""The release before is upgraded to this one while tasks run, and rolled back: no task notices."""

from collections.abc import Iterator

import pytest

from e2e import waits
from e2e.marks import FORGOTTEN, Marks, drills, notes
from e2e.place import Object, Place, is_ready
from e2e.release import Release
from testcluster.cluster import Cluster
from testcluster.errors import CannotRunHere
from testcluster.images import image, previous
from tests.support.cannot_run import cannot_run
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(600)

COUNT = 12
"""Tasks under way at each change."""


@pytest.fixture
def _before(galley: Release, cluster: Cluster) -> Iterator[None]:
    """Have the release before installed; after the test there is this one again."""
    try:
        archives = previous.archives()
    except CannotRunHere as error:
        cannot_run("an upgrade", str(error))
    for archive in archives:
        cluster.load_image(archive)
    try:
        galley.install(
            previous.tree() / "charts" / "galley", operator__namespaces=None, gateway__enabled=None
        )
        yield
    finally:
        galley.install()


@pytest.mark.usefixtures("_before")
def test_an_upgrade_and_a_step_back_with_work_in_flight_lose_nothing(
    galley: Release, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    place.apply(*drills(), *notes(COUNT, seconds=1.5))
    marks.until_began(4)
    assert operators(galley, kubectl) == {previous.VERSION}
    galley.install()
    assert operators(galley, kubectl) == {image.OPERATOR.tag}
    place.apply(*notes(COUNT, seconds=1.5, prefix="upgraded"))
    place.until("workers of this release", lambda: only(place, image.WORKER.tag), within=waits.ROLLED_OUT)
    galley.helm("rollback", galley.name, "--wait", "--timeout=120s")
    assert operators(galley, kubectl) == {previous.VERSION}
    place.apply(*notes(COUNT, seconds=1.5, prefix="back"))
    # NATS was told to end by both: 0.1.0 named its version in the labels of all pods. And it has no TLS,
    # without which workers of this release settle nothing: what they ran when NATS stepped back runs again.
    marks.once_each(3 * COUNT, again=3 * FORGOTTEN, attempts=2)


def operators(galley: Release, kubectl: Kubectl) -> set[str]:
    """Return the versions of the operators that are ready."""
    ours = ("-n", galley.namespace, "-l", "app.kubernetes.io/name=galley-operator")
    pods = kubectl.get("pods", *ours)["items"]
    return {version(pod) for pod in pods if is_ready(pod)}


def only(place: Place, wanted: str) -> bool:
    """Return whether there are ready workers, all of them of one version."""
    return {version(pod) for pod in place.workers(ready=True)} == {wanted}


def version(pod: Object) -> str:
    return str(pod["spec"]["containers"][0]["image"]).rpartition(":")[2]

"""NATS is killed, and its pod deleted, while tasks run: each of them still ends once."""

import pytest

from e2e import container, waits
from e2e.marks import FORGOTTEN, Marks, drills, notes
from e2e.place import Place, is_ready
from e2e.release import Release
from testcluster.cluster import Cluster
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(600)

COUNT = 24


def test_tasks_go_on_after_nats_was_killed(
    galley: Release, cluster: Cluster, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    place.apply(*drills(), *notes(COUNT, seconds=1))
    marks.until_began(4)
    container.kill(cluster, kubectl, galley.namespace, "galley-nats-0")
    marks.once_each(COUNT, again=FORGOTTEN)


def test_tasks_go_on_after_the_pod_of_nats_was_deleted_with_its_data_on_a_volume(
    galley: Release, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    place.apply(*drills(), *notes(COUNT, seconds=1))
    marks.until_began(4)
    before = kubectl.get("pod", "galley-nats-0", "-n", galley.namespace)
    kubectl("delete", "pod", "galley-nats-0", "-n", galley.namespace, "--wait=false")

    def another_is_ready() -> bool:
        now = kubectl.get("pod", "galley-nats-0", "-n", galley.namespace)
        return now["metadata"]["uid"] != before["metadata"]["uid"] and is_ready(now)

    place.until("a new pod of NATS", another_is_ready, within=waits.POD_READY)
    marks.once_each(COUNT, again=FORGOTTEN)

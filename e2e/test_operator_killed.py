"""The operator is killed while it lets tasks in: it comes back, and each task runs once."""

import pytest

from e2e import container
from e2e.cluster.cluster import Cluster
from e2e.cluster.kubectl import Kubectl
from e2e.marks import Marks, drills, notes
from e2e.operators import Operators
from e2e.place import Object, Place
from e2e.release import Release

pytestmark = pytest.mark.timeout(600)

COUNT = 60


def test_each_task_runs_once_though_the_operator_was_killed(
    galley: Release, cluster: Cluster, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    operators = Operators(kubectl, galley)
    [pod] = operators.ready()
    place.apply(*drills(worker={"concurrency": 4}), *notes(COUNT, seconds=0.5))
    marks.until_began(2)
    container.kill(cluster, kubectl, galley.namespace, pod["metadata"]["name"])
    place.apply(*notes(6, prefix="after"))  # while nobody watches
    marks.once_each(COUNT + 6)
    [after] = operators.ready()
    assert restarts_of(after) == restarts_of(pod) + 1


def restarts_of(pod: Object) -> int:
    return int(pod["status"]["containerStatuses"][0]["restartCount"])

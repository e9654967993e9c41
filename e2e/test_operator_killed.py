"""The operator is killed while it lets tasks in: it comes back, and each task runs once."""

import pytest

from e2e import container, waits
from e2e.marks import Marks, drills, notes
from e2e.operators import Operators
from e2e.place import Place
from e2e.release import Release
from testcluster.cluster import Cluster
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(600)

COUNT = 60


def test_each_task_runs_once_though_the_operator_was_killed(
    galley: Release, cluster: Cluster, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    operators = Operators(kubectl, galley)
    operators.ready()
    [(name, before)] = operators.restarts().items()
    place.apply(*drills(worker={"concurrency": 4}), *notes(COUNT, seconds=0.5))
    marks.until_began(2)
    container.kill(cluster, kubectl, galley.namespace, name)
    place.apply(*notes(6, prefix="after"))  # while nothing watches
    marks.once_each(COUNT + 6)
    # The kubelet may tell of the new life later than its work can be seen.
    place.until(
        "the operator's new life",
        lambda: operators.restarts()[name] > before,
        within=waits.POD_READY,
    )
    operators.ready()

"""A worker is killed: what it ran is run again by a worker with room, and nothing else is."""

import pytest

from e2e import container
from e2e.marks import Marks, drills, notes
from e2e.place import Place
from testcluster.cluster import Cluster
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(600)

WORKERS = 2
SLOTS = 2
HELD = WORKERS * SLOTS


def test_what_a_killed_worker_ran_is_run_again_and_nothing_else(
    cluster: Cluster, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    scaling = {"minWorkers": WORKERS, "maxWorkers": WORKERS}
    place.apply(*drills(worker={"concurrency": SLOTS}, scaling=scaling))
    victim = place.ready_workers(WORKERS)[0]["metadata"]["name"]
    place.apply(*notes(HELD, seconds=8))
    marks.until_began(HELD)
    container.kill(cluster, kubectl, place.namespace, victim)
    place.apply(*notes(4, prefix="after"))
    place.all_in("Succeeded", HELD + 4)
    again = sorted(word for word, count in marks.began().items() if count > 1)
    assert len(again) == SLOTS, marks.began()
    # Of those that were cut off only the second run came to its end.
    assert {len(runs) for runs in marks.ended().values()} == {1}
    place.ready_workers(WORKERS)

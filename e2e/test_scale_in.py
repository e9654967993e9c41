"""Workers are taken away under load, whatever else happens to them, and no task is cut off by that.

Round by round the number of workers goes up and down while they are busy. In the middle of a scale-in their
Deployment is rolled out, one of them is evicted, as a drain of its node does, or deleted by hand, or the
operator is killed. Workers have a second to end, and tasks take longer: one that is taken away
while it runs something is noticed.
`GALLEY_SCALE_INS` is how many workers are to be taken away (4 unless set; `make scale-ins/pods` has 200).
"""

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle

import pytest

from e2e import container, waits
from e2e.marks import Marks, drills, notes
from e2e.operators import Operators
from e2e.place import Place, is_ready
from e2e.release import Release
from testcluster.cluster import Cluster
from tests.support.kubectl import Kubectl, KubectlFailed

SCALE_INS = int(os.environ.get("GALLEY_SCALE_INS", "4"))
FEWEST, MOST = 1, 3
SLOTS = 2
ROUNDS = -(-SCALE_INS // (MOST - FEWEST))
TASKS = 10

pytestmark = pytest.mark.timeout(600 + 60 * ROUNDS)


@dataclass
class Yard:
    """A queue whose workers come and go, and what was done to them beside that."""

    place: Place
    marks: Marks
    cluster: Cluster
    operators: Operators
    meddled: set[str] = field(default_factory=set)
    """Workers that others than the autoscaler ended."""
    done: Counter[str] = field(default_factory=Counter)

    def declare(self, generation: int = 0) -> None:
        """Apply the queue; another generation rolls its workers out."""
        template = {"env": [{"name": "GENERATION", "value": str(generation)}]}
        worker = {"gracePeriodSeconds": 1, "template": template}
        self.place.apply(*drills(worker=worker, scaling={"maxWorkers": MOST}))

    def scale(self, workers: int) -> None:
        self.place.kubectl("scale", "-n", self.place.namespace, "taskqueue/drills", f"--replicas={workers}")

    def until(self, workers: int) -> None:
        """Wait until exactly so many workers are there, all of them ready."""

        def look() -> bool:
            pods = self.place.workers()
            assert [is_ready(pod) for pod in pods] == [True] * workers
            return True

        self.place.until(f"{workers} workers and no others", look, within=waits.ROLLED_OUT)

    def busy(self) -> list[str]:
        """Return the workers that are there, those first that run most."""
        runs = self.marks.unfinished()
        names = [pod["metadata"]["name"] for pod in self.place.workers(ready=True)]
        return sorted(names, key=lambda name: -runs[name])


def roll_out(yard: Yard) -> None:
    yard.meddled.update(yard.busy())
    yard.declare(generation=int(time.time()))


def evict(yard: Yard) -> None:
    name, at = yard.busy()[0], f"/api/v1/namespaces/{yard.place.namespace}/pods"
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": yard.place.namespace},
    }
    yard.meddled.add(name)
    try:
        yard.place.kubectl("create", "--raw", f"{at}/{name}/eviction", "-f", "-", given=json.dumps(eviction))
    except KubectlFailed as refusal:
        # The workers' budget allows one at a time, and the scale-in took one just then.
        if "disruption budget" not in str(refusal) and "not found" not in str(refusal):
            raise
        yard.done["evictions refused"] += 1


def delete(yard: Yard) -> None:
    name = yard.busy()[0]
    yard.meddled.add(name)
    yard.place.kubectl(
        "delete", "pod", "-n", yard.place.namespace, name, "--wait=false", "--ignore-not-found"
    )


def kill_operator(yard: Yard) -> None:
    [pod] = yard.operators.pods()
    name, namespace = pod["metadata"]["name"], yard.operators.namespace
    container.kill(yard.cluster, yard.place.kubectl, namespace, name)
    # The kubelet would start the sixth one only five minutes later; a new pod starts at once.
    yard.place.kubectl("delete", "pod", "-n", namespace, name, "--wait=false", "--ignore-not-found")


DISTURBANCES: tuple[Callable[[Yard], None], ...] = (evict, kill_operator, roll_out, delete)


def test_no_worker_goes_while_it_runs_something_whatever_else_happens(
    galley: Release, cluster: Cluster, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    yard = Yard(place, marks, cluster, Operators(kubectl, galley))
    yard.operators.ready()
    yard.declare()
    began, submitted = time.monotonic(), 0
    for number, disturb in zip(range(ROUNDS), cycle(DISTURBANCES), strict=False):
        yard.scale(MOST)
        yard.until(MOST)
        place.apply(*notes(TASKS, seconds=2.5, prefix=f"r{number}-"))
        submitted += TASKS
        marks.until_began(submitted - TASKS + MOST * SLOTS)
        yard.scale(FEWEST)
        disturb(yard)
        yard.done[disturb.__name__] += 1
        yard.until(FEWEST)
        place.all_in("Succeeded", submitted)
    taken = ROUNDS * (MOST - FEWEST)
    cut = marks.unfinished()
    sys.stdout.write(
        f"\n{taken} workers taken away in {time.monotonic() - began:.0f} s; {submitted} tasks; "
        f"{dict(yard.done)}; runs handed back by workers that others ended: {cut.total()}\n"
    )
    assert set(cut) <= yard.meddled, f"cut off by a scale-in: {cut}\n{place.told()}"
    tasks = place.all_in("Succeeded", submitted)
    assert {task["status"]["attempts"] for task in tasks} == {1}, "an attempt was counted"

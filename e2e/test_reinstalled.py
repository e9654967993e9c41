"""The release is uninstalled with work in flight and installed again: everything is there and goes on."""

import pytest

from e2e import waits
from e2e.marks import FORGOTTEN, Marks, drills, notes
from e2e.place import Place
from e2e.release import Release
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(600)

BEFORE, MEANWHILE = 16, 4


def test_queues_and_tasks_outlive_the_release(
    galley: Release, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    place.apply(*drills(), *notes(BEFORE, seconds=2))
    marks.until_began(4)
    place.until("all tasks admitted", lambda: not place.phases()["New"], within=waits.TASKS_ENDED)
    try:
        galley.uninstall()
        crds = kubectl("get", "crds", "-o", "name").split()
        assert {name.partition("/")[2] for name in crds} >= {"taskqueues.galley.dev", "tasks.galley.dev"}
        # The pod of an earlier `helm test` has ended and is kept for its log.
        alive = ("pods", "-n", galley.namespace, "--field-selector", "status.phase!=Succeeded")
        place.until("no pod of the release", lambda: not kubectl.get(*alive)["items"], within=waits.POD_READY)
        assert [queue["metadata"]["name"] for queue in place.get("taskqueues")["items"]] == ["drills"]
        place.apply(*notes(MEANWHILE, prefix="meanwhile"))
        assert len(place.tasks()) == BEFORE + MEANWHILE
    finally:
        galley.install()
    marks.once_each(BEFORE + MEANWHILE, again=FORGOTTEN)

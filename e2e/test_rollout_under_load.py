"""A queue changes while its tasks run: all workers are replaced, and no task notices."""

from typing import Any

import pytest

from e2e import waits
from e2e.marks import Marks, drills, notes
from e2e.place import Object, Place, is_ready
from testcluster.images.image import THUMBNAILS

pytestmark = pytest.mark.timeout(600)

COUNT = 40
WORKERS = 2


@pytest.mark.parametrize(
    "changed",
    [{"image": THUMBNAILS.reference}, {"concurrency": 3}],
    ids=["another image", "another manifest"],
)
def test_workers_are_replaced_under_load(changed: dict[str, Any], place: Place, marks: Marks) -> None:
    scaling = {"minWorkers": WORKERS}
    place.apply(*drills(scaling=scaling))
    before = {pod["metadata"]["uid"] for pod in place.ready_workers(WORKERS)}
    place.apply(*notes(COUNT, seconds=1))
    marks.until_began(4)
    place.apply(*drills(worker=changed, scaling=scaling))
    kept: list[int] = []
    began: set[str] = set()

    def replaced() -> list[Object]:
        pods = place.workers()
        began.update(pod["metadata"]["uid"] for pod in pods if is_ready(pod))
        # Not those that are ready at this moment: a probe that a busy node answers late replaces no worker.
        staying = [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]
        kept.append(sum(pod["metadata"]["uid"] in began for pod in staying))
        assert before.isdisjoint(pod["metadata"]["uid"] for pod in pods)
        return pods if len(place.workers(ready=True)) == WORKERS else []

    pods = place.until("other workers", replaced, within=waits.ROLLED_OUT)
    marks.once_each(COUNT)
    assert min(kept) >= WORKERS, f"workers that had begun and were not asked to go, look by look: {kept}"
    if image := changed.get("image"):
        assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {image}

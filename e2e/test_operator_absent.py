"""The operator is away: what was admitted runs on, programs submit, and new Tasks wait their turn."""

import pytest

from e2e.marks import Marks, drills, notes
from e2e.operators import Operators
from e2e.place import Place
from e2e.producer import submit_directly
from e2e.release import Release
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(600)

COUNT = 6


def test_work_goes_on_without_an_operator_and_is_told_of_when_it_is_back(
    galley: Release, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    scaling = {"minWorkers": 1, "maxWorkers": 1}
    # They last longer than it takes a busy node to be rid of the operator.
    place.apply(*drills(scaling=scaling, worker={"concurrency": COUNT + 1}), *notes(COUNT, seconds=25))
    place.until("all admitted", lambda: not place.phases()["New"] + place.phases()["Pending"], within=60)
    marks.until_began(1)
    with Operators(kubectl, galley).absent():
        assert len(marks.ended()) < COUNT, "the tasks were over before the operator was gone"
        place.apply(*notes(2, prefix="new"))
        result = submit_directly(place, "producer", "drills", "note", word="direct")
        assert result["word"] == "direct"
        place.until("what was admitted to end", lambda: len(marks.ended()) == COUNT + 1, within=120)
        assert place.status("new000") == place.status("new001") == {}
    tasks = place.all_in("Succeeded", COUNT + 2)
    assert {task["status"]["attempts"] for task in tasks} == {1}
    assert set(marks.began().values()) == {1}

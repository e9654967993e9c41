"""A namespace is deleted while its tasks run: it ends, and the operator has nothing more to do with it."""

import json
import secrets
from collections.abc import Iterator

import pytest

from e2e import waits
from e2e.marks import Marks, drills, notes
from e2e.operators import Operators
from e2e.place import Place
from e2e.release import Release
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(600)

FAREWELLS = 5
"""Warnings there may be of what is refused, or not found any more, in a namespace on its way."""


@pytest.fixture
def doomed(galley: Release, kubectl: Kubectl) -> Iterator[Place]:
    """A namespace that the test deletes."""
    name = f"t{secrets.token_hex(5)}"
    kubectl("create", "namespace", name)
    yield Place(kubectl, name, galley.namespace)
    kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def test_a_namespace_with_running_tasks_goes_and_no_other_suffers(
    galley: Release, kubectl: Kubectl, doomed: Place, place: Place
) -> None:
    operators = Operators(kubectl, galley)
    operators.ready()
    restarts = operators.restarts()
    marks = Marks(doomed)
    doomed.apply(*drills(worker={"gracePeriodSeconds": 2}), *notes(8, seconds=60))
    marks.until_began(4)
    kubectl("delete", "namespace", doomed.namespace, "--wait=false")

    def gone() -> bool:
        found = kubectl("get", "namespace", doomed.namespace, "--ignore-not-found", "-o", "json")
        assert not found, json.loads(found)["status"]
        return True

    doomed.until("the end of the namespace", gone, within=waits.WORKERS_GONE)
    waits.until(
        "the operator to let go of the queue",
        lambda: any("queue is gone" in line for line in operators.log(doomed.namespace)),
        within=waits.CONDITION_SAID,
        told=operators.told,
    )
    troubles = operators.troubles(doomed.namespace)
    assert len(troubles) <= FAREWELLS, "\n".join(troubles)
    others = Marks(place)
    place.apply(*drills(), *notes(4))
    others.once_each(4)
    assert operators.troubles(doomed.namespace) == troubles, "it goes on about a namespace that is gone"
    assert operators.restarts() == restarts

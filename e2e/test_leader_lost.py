"""Of two operators the one that leads is lost: the other leads within the Lease, and each task runs once."""

import time
from collections.abc import Callable, Iterator

import pytest

from e2e import container, waits
from e2e.marks import Marks, drills, notes
from e2e.operators import Operators
from e2e.place import Place
from e2e.release import Release
from testcluster.cluster import Cluster
from tests.support.kubectl import Kubectl

pytestmark = pytest.mark.timeout(600)

BEFORE, AFTER = 12, 6
LEASE_SECONDS = 15
SLACK_SECONDS = 45
"""For the candidate's next try, and for a machine under load."""


@pytest.fixture(scope="module")
def two(galley: Release, cluster: Cluster) -> Iterator[Operators]:
    """Two operators; after these tests there is one again."""
    operators = Operators(Kubectl(cluster), galley)
    galley.install(operator__replicas="2")
    operators.ready(2)
    yield operators
    galley.install()
    operators.ready(1)


def test_the_other_one_leads_when_the_leader_is_killed(
    two: Operators, cluster: Cluster, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    leader, _ = leading_and_other(two)
    place.apply(*drills(), *notes(BEFORE, seconds=1))
    marks.until_began(2)
    container.kill(cluster, kubectl, two.namespace, leader)
    # Its pod goes with it: started again under its name it would find the Lease its own.
    kubectl("delete", "pod", leader, "-n", two.namespace, "--force", "--grace-period=0")
    # The pod that replaces it may be there before the Lease ends, and win.
    leads(two, lambda holder: holder not in ("", leader))
    place.apply(*notes(AFTER, prefix="after"))
    marks.once_each(BEFORE + AFTER)


def test_a_leader_that_was_frozen_finds_another_in_its_place_and_ends(
    two: Operators, cluster: Cluster, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    leader, other = leading_and_other(two)
    place.apply(*drills(), *notes(BEFORE, seconds=1))
    marks.until_began(2)
    with container.frozen(cluster, kubectl, two.namespace, leader):
        leads(two, lambda holder: holder == other)
        place.apply(*notes(AFTER, prefix="after"))
    marks.once_each(BEFORE + AFTER)
    waits.until(
        "the former leader to start again",
        lambda: two.restarts()[leader] > 0,
        within=waits.POD_READY,
        told=two.told,
    )
    two.ready(2)
    assert two.holder() == other


def leading_and_other(two: Operators) -> tuple[str, str]:
    """Return the names of the pod that leads and of the one that does not."""
    leader = two.leader()
    [other] = [pod["metadata"]["name"] for pod in two.ready(2) if pod["metadata"]["name"] != leader]
    return leader, other


def leads(operators: Operators, right: Callable[[str], bool]) -> None:
    """Wait until another leads; it may take as long as the Lease of the lost one, and little more."""
    began = time.monotonic()
    waits.until(
        "another to lead", lambda: right(operators.holder()), within=waits.OPERATOR_LEADS, told=operators.told
    )
    took = time.monotonic() - began
    assert took < LEASE_SECONDS + SLACK_SECONDS, f"it took {took:.1f} s"

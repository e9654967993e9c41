"""The release is upgraded while tasks run: operator and NATS are replaced, and no task notices."""

import pytest

from e2e.cluster.kubectl import Kubectl
from e2e.marks import FORGOTTEN, Marks, drills, notes
from e2e.place import Place, is_ready
from e2e.release import Release

pytestmark = pytest.mark.timeout(600)

COUNT = 30


def pods(galley: Release, kubectl: Kubectl) -> dict[str, str]:
    """Return what is to be in the release's namespace, by the ids of the pods that are it."""
    pods = kubectl.get("pods", "-n", galley.namespace)["items"]
    return {
        pod["metadata"]["uid"]: pod["metadata"]["labels"]["app.kubernetes.io/name"]
        for pod in pods
        if is_ready(pod)
    }


def test_an_upgrade_and_a_step_back_with_work_in_flight_lose_nothing(
    galley: Release, kubectl: Kubectl, place: Place, marks: Marks
) -> None:
    place.apply(*drills(), *notes(COUNT, seconds=1.5))
    marks.until_began(4)
    first = pods(galley, kubectl)
    try:
        galley.install(operator__logLevel="DEBUG", nats__maxPayload="2MB")
        second = pods(galley, kubectl)
        assert first.keys().isdisjoint(second), (first, second)
    finally:
        galley.install()
    assert second.keys().isdisjoint(pods(galley, kubectl))
    marks.once_each(COUNT, again=FORGOTTEN)

"""API server and etcd are killed while tasks run: work goes on without them, and is reported afterwards."""

import json
import sys
from typing import Any

import pytest

from e2e import waits
from e2e.marks import Marks, drills, notes
from e2e.place import Place, is_ready
from e2e.release import Release
from testcluster.bare import BareCluster
from testcluster.cluster import Cluster, Part
from tests.support.cannot_run import cannot_run

pytestmark = pytest.mark.timeout(600)

COUNT = 24


@pytest.mark.parametrize("part", [Part.API_SERVER, Part.ETCD])
def test_tasks_run_while_it_is_away_and_their_results_are_told_afterwards(
    part: Part, galley: Release, cluster: Cluster, place: Place, marks: Marks
) -> None:
    if not isinstance(cluster, BareCluster):
        cannot_run("tests without an API server", "only the bare cluster leaves it dead until we start it")
    place.apply(*drills(), *notes(COUNT, seconds=1))
    marks.until_began(4)
    address = place.get("pod", "marks")["status"]["podIP"]
    # All of them are in NATS before the way from the Tasks to it is cut.
    place.until("all tasks admitted", lambda: not place.phases()["New"], within=waits.TASKS_ENDED)
    cluster.kill(part)
    try:
        waits.until(
            "12 tasks ended without it",
            lambda: len({word for what, word, *_ in noted(cluster, address) if what == "ended"}) >= 12,
            within=waits.TASKS_ENDED,
            told=lambda: str(noted(cluster, address)),
        )
    finally:
        cluster.start(part)
        waits.until(
            "an answer", lambda: place.kubectl("get", "--raw", "/readyz") == "ok", within=waits.API_BACK
        )
    marks.once_each(COUNT)
    words = ("-n", galley.namespace, "-l", "app.kubernetes.io/name=galley-operator")

    def operator_ready() -> bool:
        return any(map(is_ready, place.kubectl.get("pods", *words)["items"]))

    place.until("a ready operator", operator_ready, within=waits.OPERATOR_LEADS)


def noted(cluster: BareCluster, address: str) -> list[Any]:
    """Ask for the marks from the node itself: the usual way leads through the API server."""
    ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"
    return list(json.loads(cluster.run(sys.executable, "-c", ask, f"http://{address}:8080/")))
